// SPDX-License-Identifier: Apache-2.0
// sample_cut.cu -- a block per row; each thread owns eight bins and scans the shard for them, so
// that a bin's sum has one order. Exact and slow: k up to 64 will gather candidates instead.
#include "kernels/device/launch.cuh"

extern "C" {
#include "kernels/sample_cut.h"
}

enum {
    CUT_THREADS = 256,
    OWN_BINS = SAMPLE_CUT_BINS / CUT_THREADS,
    CUT_CHUNK = 1024, // logits in shared memory at a time
};

static ON_BOTH_SIDES int level_shift(int level)
{
    return level == 0 ? 21 : level == 1 ? 10 : 0;
}

static ON_BOTH_SIDES int level_bits(int level)
{
    return level == 2 ? 10 : 11;
}

static __device__ uint32_t key_of(float value)
{
    uint32_t bits = __float_as_uint(value);
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

static __device__ float value_of(uint32_t key)
{
    return __uint_as_float((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}

static ON_BOTH_SIDES bool has(const struct slot_sampling &sampling, enum sample_cut_kind kind)
{
    if (!(sampling.temperature > 0))
        return false;
    return kind == SAMPLE_CUT_COUNT ? sampling.top_k > 0 : sampling.top_p > 0 && sampling.top_p < 1;
}

extern "C" bool sample_cut_has(const struct slot_sampling *sampling, enum sample_cut_kind kind)
{
    return has(*sampling, kind);
}

extern "C" bool sample_cut_needed(const struct slot_sampling *sampling)
{
    return has(*sampling, SAMPLE_CUT_COUNT) || has(*sampling, SAMPLE_CUT_MASS) ||
           (sampling->temperature > 0 && sampling->min_p > 0);
}

static __global__ void clear_kernel(float *cuts, int samples)
{
    int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < samples)
        cuts[i] = -INFINITY;
}

extern "C" void sample_cut_clear(struct stream *stream, float *cuts, int samples)
{
    if (samples == 0)
        return;
    clear_kernel<<<static_cast<unsigned>((samples + CUT_THREADS - 1) / CUT_THREADS), CUT_THREADS, 0,
                   stream->handle>>>(cuts, samples);
    LAUNCH_CHECK();
}

// NULL when the row is inert.
static __device__ const struct slot_sampling *sampling_of(const struct sample_cut &op, int row)
{
    int32_t sample = op.rows[row];
    if (op.tables.sample_positions[sample] < 0)
        return NULL;
    return &op.slots.slots[op.tables.sample_slots[sample]].sampling;
}

static __global__ void cut_begin_kernel(struct sample_cut op)
{
    int row = static_cast<int>(threadIdx.x);
    if (row >= op.rows_count)
        return;
    struct sample_cut_state *state = &op.states[row];
    state->maximum = state->cut = -INFINITY;
    state->key = 0;
    state->active = 0;
    state->target = state->above = 0;
    for (int rank = 0; rank < op.ranks; rank++) {
        float maximum =
            op.candidates[static_cast<int64_t>(rank) * op.tables.samples_count + op.rows[row]]
                .maximum;
        state->maximum = maximum > state->maximum ? maximum : state->maximum;
    }
}

extern "C" void sample_cut_begin(struct stream *stream, const struct sample_cut *op)
{
    ASSERT(op->rows_count <= SAMPLE_CUT_ROWS_MAX);
    cut_begin_kernel<<<1, SAMPLE_CUT_ROWS_MAX, 0, stream->handle>>>(*op);
    LAUNCH_CHECK();
}

static __device__ double weight_of(float logit, const struct sample_cut_state &state,
                                   const struct slot_sampling &sampling, enum sample_cut_kind kind)
{
    if (kind == SAMPLE_CUT_COUNT)
        return 1;
    return exp((static_cast<double>(logit) - static_cast<double>(state.maximum)) /
               static_cast<double>(sampling.temperature));
}

// What a pass over a row's logits counts.
struct cut_pass {
    const struct sample_cut_state *state;
    const struct slot_sampling *sampling;
    enum sample_cut_kind kind;
    int level;
};

// Adds a chunk of logits to this thread's bins, in id order.
static __device__ void add_chunk(double sums[OWN_BINS], const float *chunk, int count,
                                 const cut_pass &pass)
{
    int shift = level_shift(pass.level), bits = level_bits(pass.level);
    uint32_t first = threadIdx.x * OWN_BINS;
    for (int i = 0; i < count; i++) {
        uint32_t key = key_of(chunk[i]);
        bool other = pass.level > 0 && (key >> (shift + bits)) != pass.state->key >> (shift + bits);
        uint32_t own = ((key >> shift) & ((1u << bits) - 1)) - first;
        if (own < OWN_BINS && !other && chunk[i] >= pass.state->cut) {
#pragma unroll
            for (uint32_t b = 0; b < OWN_BINS; b++)
                sums[b] +=
                    b == own ? weight_of(chunk[i], *pass.state, *pass.sampling, pass.kind) : 0.0;
        }
    }
}

// grid rows.
static __global__ void histogram_kernel(struct sample_cut op, enum sample_cut_kind kind, int level)
{
    __shared__ float chunk[CUT_CHUNK];
    int row = static_cast<int>(blockIdx.x);
    const struct slot_sampling *sampling = sampling_of(op, row);
    struct sample_cut_state *state = &op.states[row];
    int active = level == 0 ? sampling != NULL && has(*sampling, kind) : state->active;
    int count = max(min(op.vocab_real - op.vocab_first, op.vocab_count), 0);
    const float *logits = op.logits + static_cast<int64_t>(op.rows[row]) * op.vocab_count;
    double sums[OWN_BINS] = {0};
    for (int first = 0; first < count && active; first += CUT_CHUNK) {
        int n = min(CUT_CHUNK, count - first);
        __syncthreads();
        for (int i = static_cast<int>(threadIdx.x); i < n; i += CUT_THREADS)
            chunk[i] = logits[first + i];
        __syncthreads();
        add_chunk(sums, chunk, n, {state, sampling, kind, level});
    }
    double *bins = op.bins + static_cast<int64_t>(row) * SAMPLE_CUT_BINS + threadIdx.x * OWN_BINS;
    for (int b = 0; b < OWN_BINS; b++)
        bins[b] = sums[b];
    __syncthreads();
    if (threadIdx.x == 0 && level == 0)
        state->active = active;
}

extern "C" void sample_cut_histogram(struct stream *stream, const struct sample_cut *op,
                                     enum sample_cut_kind kind, int level)
{
    if (op->rows_count == 0)
        return;
    histogram_kernel<<<static_cast<unsigned>(op->rows_count), CUT_THREADS, 0, stream->handle>>>(
        *op, kind, level);
    LAUNCH_CHECK();
}

static __device__ double bin_of(const struct sample_cut &op, int row, int bin)
{
    double sum = 0;
    for (int rank = 0; rank < op.ranks; rank++) {
        int64_t at = static_cast<int64_t>(rank) * op.rows_count + row;
        sum += op.gathered[at * SAMPLE_CUT_BINS + bin];
    }
    return sum;
}

static __device__ void set_target(const struct sample_cut &op, int row, enum sample_cut_kind kind)
{
    struct sample_cut_state *state = &op.states[row];
    const struct slot_sampling *sampling = sampling_of(op, row);
    double total = 0;
    for (int bin = SAMPLE_CUT_BINS - 1; bin >= 0; bin--)
        total += bin_of(op, row, bin);
    state->key = 0;
    state->above = 0;
    state->target = kind == SAMPLE_CUT_COUNT ? static_cast<double>(sampling->top_k)
                                             : static_cast<double>(sampling->top_p) * total;
    if (state->target >= total)
        state->active = 0;
}

// A thread per row.
static __global__ void narrow_kernel(struct sample_cut op, enum sample_cut_kind kind, int level)
{
    int row = static_cast<int>(threadIdx.x), lowest = -1;
    if (row >= op.rows_count || !op.states[row].active)
        return;
    struct sample_cut_state *state = &op.states[row];
    if (level == 0)
        set_target(op, row, kind);
    double above_lowest = 0;
    for (int bin = SAMPLE_CUT_BINS - 1; bin >= 0 && state->active; bin--) {
        double weight = bin_of(op, row, bin);
        if (!(weight > 0))
            continue;
        lowest = bin;
        above_lowest = state->above;
        if (state->above + weight >= state->target)
            break;
        state->above += weight;
    }
    if (lowest < 0)
        return;
    state->above = above_lowest;
    state->key |= static_cast<uint32_t>(lowest) << level_shift(level);
    if (level == SAMPLE_CUT_LEVELS - 1)
        state->cut = value_of(state->key);
}

extern "C" void sample_cut_narrow(struct stream *stream, const struct sample_cut *op,
                                  enum sample_cut_kind kind, int level)
{
    narrow_kernel<<<1, SAMPLE_CUT_ROWS_MAX, 0, stream->handle>>>(*op, kind, level);
    LAUNCH_CHECK();
}

static __global__ void cut_end_kernel(struct sample_cut op)
{
    int row = static_cast<int>(threadIdx.x);
    if (row >= op.rows_count)
        return;
    const struct slot_sampling *sampling = sampling_of(op, row);
    const struct sample_cut_state &state = op.states[row];
    float cut = state.cut;
    if (sampling != NULL && sampling->temperature > 0 && sampling->min_p > 0) {
        double least =
            static_cast<double>(state.maximum) +
            static_cast<double>(sampling->temperature) * log(static_cast<double>(sampling->min_p));
        cut = fmaxf(static_cast<float>(least), cut);
    }
    op.cuts[op.rows[row]] = fminf(cut, state.maximum);
}

extern "C" void sample_cut_end(struct stream *stream, const struct sample_cut *op)
{
    cut_end_kernel<<<1, SAMPLE_CUT_ROWS_MAX, 0, stream->handle>>>(*op);
    LAUNCH_CHECK();
}
