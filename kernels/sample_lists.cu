// SPDX-License-Identifier: Apache-2.0
// sample_lists.cu -- a block a sampled row: biases by a thread each; allowed logits are kept aside
// while the row is filled; words by a thread each. What was drawn last, by a thread a row.
#include "kernels/device/launch.cuh"

extern "C" {
#include "kernels/sample_lists.h"
}

enum { LISTS_THREADS = 256 };

static ON_BOTH_SIDES bool has_words(const struct slot_sampling &sampling)
{
    return sampling.words_count > 0;
}

extern "C" bool sample_lists_needed(const struct slot_sampling *sampling)
{
    return sampling->bias_count > 0 || sampling->allowed_count > 0 || has_words(*sampling);
}

extern "C" bool sample_lists_recent(const struct slot_sampling *sampling)
{
    return has_words(*sampling);
}

static __device__ void note(const struct sample_lists &op, int32_t slot, int32_t id)
{
    int32_t *recent = op.recent + static_cast<int64_t>(slot) * SAMPLE_RECENT_MAX;
    for (int i = SAMPLE_RECENT_MAX - 1; i > 0; i--)
        recent[i] = recent[i - 1];
    recent[0] = id;
}

// grid openings_count.
static __global__ void lists_open_kernel(struct sample_lists op, const int32_t *pool,
                                         const struct slot_opening *openings)
{
    const struct slot_opening &opening = openings[blockIdx.x];
    const struct slot_sampling &sampling = opening.sampling;
    int count = 2 * sampling.bias_count + sampling.allowed_count + sampling.words_count;
    int32_t *list = op.lists + static_cast<int64_t>(opening.slot) * SAMPLE_LISTS_MAX;
    int32_t *recent = op.recent + static_cast<int64_t>(opening.slot) * SAMPLE_RECENT_MAX;
    for (int i = static_cast<int>(threadIdx.x); i < count; i += LISTS_THREADS)
        list[i] = pool[opening.lists_first + i];
    if (threadIdx.x < SAMPLE_RECENT_MAX)
        recent[threadIdx.x] = opening.recent[threadIdx.x];
}

extern "C" void sample_lists_open(struct stream *stream, const struct sample_lists *op,
                                  const int32_t *pool, const struct slot_opening *openings,
                                  int openings_count)
{
    if (openings_count == 0)
        return;
    lists_open_kernel<<<static_cast<unsigned>(openings_count), LISTS_THREADS, 0, stream->handle>>>(
        *op, pool, openings);
    LAUNCH_CHECK();
}

static __global__ void lists_prompt_kernel(struct sample_lists op)
{
    int r = static_cast<int>(blockIdx.x);
    const struct step_row row = op.tables.rows[r];
    if (row.kind != ROW_PREFILL)
        return;
    const struct slot_sampling &sampling = op.slots.slots[row.slot].sampling;
    for (int i = 0; i < op.tables.active_count[r] && has_words(sampling); i++) {
        int token = row.token_first + i;
        if (op.tables.token_positions[token] >= sampling.prompt_tokens)
            note(op, row.slot, op.tables.token_ids[token]);
    }
}

extern "C" void sample_lists_prompt(struct stream *stream, const struct sample_lists *op)
{
    if (op->tables.rows_count == 0)
        return;
    lists_prompt_kernel<<<static_cast<unsigned>(op->tables.rows_count), 1, 0, stream->handle>>>(
        *op);
    LAUNCH_CHECK();
}

static __global__ void lists_drawn_kernel(struct sample_lists op, const struct row_result *results)
{
    const struct row_result result = results[blockIdx.x];
    for (int i = 0; i < result.count; i++) {
        if (has_words(op.slots.slots[result.slot].sampling))
            note(op, result.slot, result.tokens[i]);
    }
}

extern "C" void sample_lists_drawn(struct stream *stream, const struct sample_lists *op,
                                   const struct row_result *results)
{
    if (op->tables.rows_count == 0)
        return;
    lists_drawn_kernel<<<static_cast<unsigned>(op->tables.rows_count), 1, 0, stream->handle>>>(
        *op, results);
    LAUNCH_CHECK();
}

// The token drawn `back` before the one to be drawn, -1 when there is none.
static __device__ int32_t drawn_before(const struct sample_lists &op, int32_t slot, int token,
                                       int back)
{
    const struct step_row &row = op.tables.rows[op.tables.token_rows[token]];
    int drafts = row.kind == ROW_DECODE ? token - row.token_first : 0;
    if (back <= drafts)
        return op.tables.token_ids[token + 1 - back];
    return op.recent[static_cast<int64_t>(slot) * SAMPLE_RECENT_MAX + back - drafts - 1];
}

static __device__ void ban_word(const struct sample_lists &op, float *logits, int32_t slot,
                                int token, const int32_t *word)
{
    int length = word[0];
    const int32_t *ids = word + 1;
    bool matches = true;
    for (int back = 1; back < length && matches; back++)
        matches = drawn_before(op, slot, token, back) == ids[length - 1 - back];
    int32_t own = ids[length - 1] - op.vocab_first;
    if (matches && own >= 0 && own < op.vocab_count)
        logits[own] = -INFINITY;
}

// All of the row but the allowed ids becomes -infinity.
static __device__ void keep_allowed(const struct sample_lists &op, float *logits,
                                    const int32_t *ids, int count)
{
    __shared__ float kept[SAMPLE_ALLOWED_MAX];
    int thread = static_cast<int>(threadIdx.x);
    for (int i = thread; i < count; i += LISTS_THREADS) {
        int32_t own = ids[i] - op.vocab_first;
        kept[i] = own >= 0 && own < op.vocab_count ? logits[own] : 0;
    }
    __syncthreads();
    for (int i = thread; i < op.vocab_count; i += LISTS_THREADS)
        logits[i] = -INFINITY;
    __syncthreads();
    for (int i = thread; i < count; i += LISTS_THREADS) {
        int32_t own = ids[i] - op.vocab_first;
        if (own >= 0 && own < op.vocab_count)
            logits[own] = kept[i];
    }
}

// grid rows_count. Steps of one row are ordered by barriers: several may touch one id.
static __global__ void lists_kernel(struct sample_lists op)
{
    int32_t sample = op.rows[blockIdx.x];
    if (sample < 0 || op.tables.sample_positions[sample] < 0)
        return;
    int32_t slot = op.tables.sample_slots[sample];
    const struct slot_sampling &sampling = op.slots.slots[slot].sampling;
    const int32_t *list = op.lists + static_cast<int64_t>(slot) * SAMPLE_LISTS_MAX;
    const int32_t *allowed = list + 2 * sampling.bias_count;
    const int32_t *words = allowed + sampling.allowed_count;
    float *logits = op.logits + static_cast<int64_t>(sample) * op.vocab_count;
    for (int i = static_cast<int>(threadIdx.x); i < sampling.bias_count; i += LISTS_THREADS) {
        int32_t own = list[i] - op.vocab_first;
        if (own >= 0 && own < op.vocab_count)
            logits[own] += __int_as_float(list[sampling.bias_count + i]);
    }
    __syncthreads();
    if (sampling.allowed_count > 0)
        keep_allowed(op, logits, allowed, sampling.allowed_count);
    __syncthreads();
    int word = 0;
    for (int at = 0; at < sampling.words_count; at += 1 + words[at], word++) {
        if (word % LISTS_THREADS == static_cast<int>(threadIdx.x))
            ban_word(op, logits, slot, op.tables.sample_tokens[sample], words + at);
    }
}

extern "C" void sample_lists(struct stream *stream, const struct sample_lists *op)
{
    if (op->rows_count == 0)
        return;
    lists_kernel<<<static_cast<unsigned>(op->rows_count), LISTS_THREADS, 0, stream->handle>>>(*op);
    LAUNCH_CHECK();
}
