// SPDX-License-Identifier: Apache-2.0
// sample_penalty.cu -- counts by one thread a row of the step (a row's tokens may repeat),
// penalties by blocks over parts of the sampled rows.
#include "kernels/device/launch.cuh"

extern "C" {
#include "kernels/sample_penalty.h"
}

enum {
    PENALTY_THREADS = 256,
    PENALTY_BLOCKS = 528, // over few rows: 4 on each of 132 multiprocessors
    PENALTY_PARTS_MAX = 64,
};

static ON_BOTH_SIDES bool keeps_counts(const struct slot_sampling &sampling)
{
    bool repetition = sampling.repetition > 0 && sampling.repetition != 1;
    return repetition || sampling.frequency != 0 || sampling.presence != 0;
}

extern "C" bool sample_penalty_counts(const struct slot_sampling *sampling)
{
    return keeps_counts(*sampling);
}

extern "C" bool sample_penalty_needed(const struct slot_sampling *sampling)
{
    return keeps_counts(*sampling) || (sampling->stop_count > 0 && sampling->stops_from > 0);
}

static __global__ void penalty_open_kernel(uint16_t *counts, int vocab_count,
                                           const struct slot_opening *openings)
{
    uint16_t *row = counts + static_cast<int64_t>(openings[blockIdx.x].slot) * vocab_count;
    for (int i = static_cast<int>(threadIdx.x); i < vocab_count; i += PENALTY_THREADS)
        row[i] = 0;
}

extern "C" void sample_penalty_open(struct stream *stream, uint16_t *counts, int vocab_count,
                                    const struct slot_opening *openings, int openings_count)
{
    if (openings_count == 0)
        return;
    penalty_open_kernel<<<static_cast<unsigned>(openings_count), PENALTY_THREADS, 0,
                          stream->handle>>>(counts, vocab_count, openings);
    LAUNCH_CHECK();
}

static __device__ uint16_t *count_of(const struct sample_penalty &op, int32_t slot, int32_t id)
{
    int32_t own = id - op.vocab_first;
    if (own < 0 || own >= op.vocab_count)
        return NULL;
    return op.counts + static_cast<int64_t>(slot) * op.vocab_count + own;
}

static __device__ void count_drawn(const struct sample_penalty &op, int32_t slot, int32_t id)
{
    uint16_t *count = count_of(op, slot, id);
    if (count != NULL && (*count & SAMPLE_COUNT_MAX) < SAMPLE_COUNT_MAX)
        *count = static_cast<uint16_t>(*count + 1);
}

static __global__ void prompt_kernel(struct sample_penalty op)
{
    int r = static_cast<int>(blockIdx.x);
    const struct step_row row = op.tables.rows[r];
    const struct slot_sampling &sampling = op.slots.slots[row.slot].sampling;
    if (row.kind != ROW_PREFILL || !keeps_counts(sampling))
        return;
    for (int i = 0; i < op.tables.active_count[r]; i++) {
        int token = row.token_first + i;
        int32_t id = op.tables.token_ids[token];
        uint16_t *count = count_of(op, row.slot, id);
        if (op.tables.token_positions[token] >= sampling.prompt_tokens)
            count_drawn(op, row.slot, id);
        else if (count != NULL)
            *count = static_cast<uint16_t>(*count | SAMPLE_COUNT_PROMPT);
    }
}

extern "C" void sample_penalty_prompt(struct stream *stream, const struct sample_penalty *op)
{
    if (op->tables.rows_count == 0)
        return;
    prompt_kernel<<<static_cast<unsigned>(op->tables.rows_count), 1, 0, stream->handle>>>(*op);
    LAUNCH_CHECK();
}

static __device__ int64_t page_place(const struct sample_penalty &op, int32_t slot,
                                     int32_t position)
{
    int64_t entry = static_cast<int64_t>(slot) * op.slots.pages_per_sequence;
    int64_t page = op.slots.block_table[entry + position / SAMPLE_PAGE_TOKENS];
    return page * SAMPLE_PAGE_TOKENS + position % SAMPLE_PAGE_TOKENS;
}

// A block a row of the step.
static __global__ void note_kernel(struct sample_penalty op, int32_t *page_tokens)
{
    int r = static_cast<int>(blockIdx.x);
    pdl_wait();
    pdl_trigger();
    const struct step_row row = op.tables.rows[r];
    int count = op.tables.active_count[r];
    for (int i = static_cast<int>(threadIdx.x); i < count; i += PENALTY_THREADS) {
        int token = row.token_first + i;
        page_tokens[page_place(op, row.slot, op.tables.token_positions[token])] =
            op.tables.token_ids[token];
    }
}

extern "C" void sample_penalty_note(struct stream *stream, const struct sample_penalty *op,
                                    int32_t *page_tokens)
{
    if (op->tables.rows_count == 0)
        return;
    launch_chained(note_kernel, dim3(static_cast<unsigned>(op->tables.rows_count)),
                   dim3(PENALTY_THREADS), 0, stream->handle, *op, page_tokens);
}

// Sets the prompt's bit: threads may meet in a token, or in the two tokens of a word.
static __device__ void mark_prompt(uint16_t *count)
{
    uint64_t address = reinterpret_cast<uint64_t>(count);
    uint32_t *word = reinterpret_cast<uint32_t *>(address & ~static_cast<uint64_t>(3));
    uint32_t bit = SAMPLE_COUNT_PROMPT;
    atomicOr(word, (address & 2) != 0 ? bit << 16 : bit);
}

// A block an opening: prompt tokens by all threads (marks only), what was drawn by one, since it
// counts.
static __global__ void recall_kernel(struct sample_penalty op, const int32_t *page_tokens,
                                     const struct slot_opening *openings)
{
    const struct slot_opening &opening = openings[blockIdx.x];
    if (!keeps_counts(opening.sampling))
        return;
    int32_t prompt = min(opening.position, opening.sampling.prompt_tokens);
    for (int i = static_cast<int>(threadIdx.x); i < prompt; i += PENALTY_THREADS) {
        uint16_t *count = count_of(op, opening.slot, page_tokens[page_place(op, opening.slot, i)]);
        if (count != NULL)
            mark_prompt(count);
    }
    __syncthreads();
    for (int i = prompt; threadIdx.x == 0 && i < opening.position; i++)
        count_drawn(op, opening.slot, page_tokens[page_place(op, opening.slot, i)]);
}

extern "C" void sample_penalty_recall(struct stream *stream, const struct sample_penalty *op,
                                      const int32_t *page_tokens,
                                      const struct slot_opening *openings, int openings_count)
{
    if (openings_count == 0)
        return;
    recall_kernel<<<static_cast<unsigned>(openings_count), PENALTY_THREADS, 0, stream->handle>>>(
        *op, page_tokens, openings);
    LAUNCH_CHECK();
}

static __global__ void drawn_kernel(struct sample_penalty op, const struct row_result *results)
{
    const struct row_result result = results[blockIdx.x];
    if (!keeps_counts(op.slots.slots[result.slot].sampling))
        return;
    for (int i = 0; i < result.count; i++)
        count_drawn(op, result.slot, result.tokens[i]);
}

extern "C" void sample_penalty_drawn(struct stream *stream, const struct sample_penalty *op,
                                     const struct row_result *results)
{
    if (op->tables.rows_count == 0)
        return;
    drawn_kernel<<<static_cast<unsigned>(op->tables.rows_count), 1, 0, stream->handle>>>(*op,
                                                                                         results);
    LAUNCH_CHECK();
}

static __device__ uint32_t drafts_before(const struct step_tables &tables, int token, int32_t id)
{
    const struct step_row row = tables.rows[tables.token_rows[token]];
    uint32_t count = 0;
    for (int t = row.token_first + 1; row.kind == ROW_DECODE && t <= token; t++)
        count += tables.token_ids[t] == id;
    return count;
}

static __device__ float penalised(float logit, uint32_t count, const struct slot_sampling &sampling)
{
    uint32_t drawn = count & SAMPLE_COUNT_MAX;
    if (sampling.repetition > 0)
        logit = logit > 0 ? logit / sampling.repetition : logit * sampling.repetition;
    if (drawn > 0) {
        logit = __fsub_rn(logit, __fmul_rn(sampling.frequency, static_cast<float>(drawn)));
        logit -= sampling.presence;
    }
    return logit;
}

// grid (parts of a row, rows_count): a row's counted tokens and the drafts before it.
static __global__ void penalty_kernel(const struct sample_penalty op)
{
    pdl_wait();
    pdl_trigger();
    int32_t sample = op.rows[blockIdx.y];
    int32_t position = op.tables.sample_positions[sample];
    if (position < 0)
        return;
    int32_t slot = op.tables.sample_slots[sample], token = op.tables.sample_tokens[sample];
    const struct slot_sampling &sampling = op.slots.slots[slot].sampling;
    float *logits = op.logits + static_cast<int64_t>(sample) * op.vocab_count;
    const uint16_t *counts = op.counts + static_cast<int64_t>(slot) * op.vocab_count;
    int width = (op.vocab_count + static_cast<int>(gridDim.x) - 1) / static_cast<int>(gridDim.x);
    int first = static_cast<int>(blockIdx.x) * width, end = min(first + width, op.vocab_count);
    for (int i = first + static_cast<int>(threadIdx.x); i < end && keeps_counts(sampling);
         i += PENALTY_THREADS) {
        uint32_t count = counts[i] + drafts_before(op.tables, token, op.vocab_first + i);
        if (count != 0)
            logits[i] = penalised(logits[i], count, sampling);
    }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x);
         i < sampling.stop_count && position < sampling.stops_from; i += PENALTY_THREADS) {
        int32_t own = sampling.stop_ids[i] - op.vocab_first;
        if (own >= first && own < end)
            logits[own] = -INFINITY;
    }
}

extern "C" void sample_penalty(struct stream *stream, const struct sample_penalty *op)
{
    if (op->rows_count == 0)
        return;
    int parts = PENALTY_BLOCKS / op->rows_count;
    parts = parts > PENALTY_PARTS_MAX ? PENALTY_PARTS_MAX : parts < 1 ? 1 : parts;
    launch_chained(penalty_kernel,
                   dim3(static_cast<unsigned>(parts), static_cast<unsigned>(op->rows_count)),
                   dim3(PENALTY_THREADS), 0, stream->handle, *op);
}
