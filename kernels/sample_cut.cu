// SPDX-License-Identifier: Apache-2.0
// sample_cut.cu -- blocks over parts of a row add to its bins, which are integers: a count, or a
// mass in units of 2^-44, so that the order of the additions does not show. The memory of a bin
// (8 bytes) holds an unsigned number here.
#include <limits.h>

#include "kernels/device/launch.cuh"

extern "C" {
#include "kernels/sample_cut.h"
}

enum {
    CUT_THREADS = SAMPLE_ROW_PARTS_MAX, // one per part where their maxima are compared
    OWN_BINS = SAMPLE_CUT_BINS / CUT_THREADS,
    CUT_BLOCKS = 528, // of a pass over few rows: 4 on each of 132 multiprocessors
};

// A mass is at most 1 a logit: 2^18 logits and 8 ranks stay below 2^63.
static const double MASS_UNITS = 0x1p44;

static __device__ unsigned long long *bins_of(const double *bins, int row)
{
    return reinterpret_cast<unsigned long long *>(const_cast<double *>(bins)) +
           static_cast<int64_t>(row) * SAMPLE_CUT_BINS;
}

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
    pdl_wait();
    pdl_trigger();
    if (i < samples)
        cuts[i] = -INFINITY;
}

extern "C" void sample_cut_clear(struct stream *stream, float *cuts, int samples)
{
    if (samples == 0)
        return;
    launch_chained(clear_kernel,
                   dim3(static_cast<unsigned>((samples + CUT_THREADS - 1) / CUT_THREADS)),
                   dim3(CUT_THREADS), 0, stream->handle, cuts, samples);
}

// NULL when the row is inert.
static __device__ const struct slot_sampling *sampling_of(const struct sample_cut &op, int row)
{
    int32_t sample = op.rows[row];
    if (op.tables.sample_positions[sample] < 0)
        return NULL;
    return &op.slots.slots[op.tables.sample_slots[sample]].sampling;
}

// The rank-th largest (from 0) of the parts' maxima, -infinity when there are not so many: at
// least rank + 1 logits of this shard are as large. maxima [SAMPLE_ROW_PARTS_MAX], shared.
static __device__ float maximum_of_rank(const struct sample_cut &op, int row, int rank,
                                        float *maxima)
{
    __shared__ float chosen;
    int thread = static_cast<int>(threadIdx.x), count = sample_parts(op.tables.samples_count);
    const struct sample_candidate *parts = op.parts + static_cast<int64_t>(op.rows[row]) * count;
    float own = thread < count ? parts[thread].maximum : -INFINITY;
    maxima[thread] = own;
    if (thread == 0)
        chosen = -INFINITY;
    __syncthreads();
    int before = 0;
    for (int i = 0; i < count; i++)
        before += maxima[i] > own || (maxima[i] == own && i < thread);
    if (thread < count && before == rank)
        chosen = own;
    __syncthreads();
    return chosen;
}

// grid rows.
static __global__ void cut_begin_kernel(const struct sample_cut op)
{
    __shared__ float maxima[CUT_THREADS];
    int row = static_cast<int>(blockIdx.x);
    pdl_wait();
    pdl_trigger();
    for (int bin = static_cast<int>(threadIdx.x); bin < SAMPLE_CUT_BINS; bin += CUT_THREADS)
        bins_of(op.bins, row)[bin] = 0;
    const struct slot_sampling *sampling = sampling_of(op, row);
    float floor = -INFINITY;
    if (sampling != NULL && has(*sampling, SAMPLE_CUT_COUNT))
        floor = maximum_of_rank(op, row, sampling->top_k, maxima);
    if (threadIdx.x > 0)
        return;
    struct sample_cut_state *state = &op.states[row];
    state->floor = floor;
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
    if (op->rows_count == 0)
        return;
    launch_chained(cut_begin_kernel, dim3(static_cast<unsigned>(op->rows_count)), dim3(CUT_THREADS),
                   0, stream->handle, *op);
}

// What a logit counts, in units of a bin.
static __device__ uint64_t weight_of(float logit, const struct sample_cut_state &state,
                                     const struct slot_sampling &sampling,
                                     enum sample_cut_kind kind)
{
    if (kind == SAMPLE_CUT_COUNT)
        return 1;
    double mass = exp((static_cast<double>(logit) - static_cast<double>(state.maximum)) /
                      static_cast<double>(sampling.temperature));
    return __double2ull_rn(mass * MASS_UNITS);
}

// What a block looks for in its parts of a row.
struct cut_pass {
    struct sample_cut_state state;
    const struct slot_sampling *sampling;
    enum sample_cut_kind kind;
    int level;
    unsigned *low, *high; // the block's bins
    float least;          // logits below do not count
};

// One bin's halves in shared memory; 64-bit atomics there are loops.
static __device__ void add_to_bin(unsigned *low, unsigned *high, uint64_t weight)
{
    unsigned part = static_cast<unsigned>(weight), upper = static_cast<unsigned>(weight >> 32);
    unsigned before = atomicAdd(low, part);
    upper += before + part < before;
    if (upper > 0)
        atomicAdd(high, upper);
}

// Adds the logits [first, end) of a row to the block's bins.
static __device__ void count_part(const struct sample_cut &op, int row, const cut_pass &pass,
                                  int first, int end)
{
    int shift = level_shift(pass.level), bits = level_bits(pass.level);
    const float *logits = op.logits + static_cast<int64_t>(op.rows[row]) * op.vocab_count;
    for (int i = first + static_cast<int>(threadIdx.x); i < end; i += CUT_THREADS) {
        uint32_t key = key_of(logits[i]);
        // Of another branch than the one decided, already out, or no number.
        bool other = pass.level > 0 && (key >> (shift + bits)) != pass.state.key >> (shift + bits);
        if (other || !(logits[i] >= pass.least))
            continue;
        uint32_t bin = (key >> shift) & ((1u << bits) - 1);
        add_to_bin(&pass.low[bin], &pass.high[bin],
                   weight_of(logits[i], pass.state, *pass.sampling, pass.kind));
    }
}

// grid (blocks of a row, rows). A part whose largest logit is out is not looked at.
static __global__ void histogram_kernel(const struct sample_cut op, enum sample_cut_kind kind,
                                        int level)
{
    __shared__ unsigned low[SAMPLE_CUT_BINS], high[SAMPLE_CUT_BINS];
    int row = static_cast<int>(blockIdx.y);
    pdl_wait();
    pdl_trigger();
    cut_pass pass = {op.states[row], sampling_of(op, row), kind, level, low, high, 0};
    bool active =
        level == 0 ? pass.sampling != NULL && has(*pass.sampling, kind) : pass.state.active != 0;
    if (!active)
        return;
    pass.least =
        kind == SAMPLE_CUT_COUNT ? fmaxf(pass.state.cut, pass.state.floor) : pass.state.cut;
    if (level > 0) // of the branch decided
        pass.least = fmaxf(pass.least, value_of(pass.state.key));
    int count = max(min(op.vocab_real - op.vocab_first, op.vocab_count), 0);
    int parts_count = sample_parts(op.tables.samples_count);
    int width = sample_part_width(count, parts_count);
    const struct sample_candidate *parts =
        op.parts + static_cast<int64_t>(op.rows[row]) * parts_count;
    bool cleared = false;
    for (int i = static_cast<int>(blockIdx.x); i < parts_count; i += static_cast<int>(gridDim.x)) {
        if (!(parts[i].maximum >= pass.least))
            continue;
        for (int bin = static_cast<int>(threadIdx.x); bin < SAMPLE_CUT_BINS && !cleared;
             bin += CUT_THREADS)
            low[bin] = high[bin] = 0;
        __syncthreads();
        cleared = true;
        count_part(op, row, pass, min(i * width, count), min((i + 1) * width, count));
    }
    if (!cleared)
        return;
    __syncthreads();
    for (int bin = static_cast<int>(threadIdx.x); bin < SAMPLE_CUT_BINS; bin += CUT_THREADS) {
        uint64_t weight = static_cast<uint64_t>(high[bin]) << 32 | low[bin];
        if (weight > 0)
            atomicAdd(&bins_of(op.bins, row)[bin], static_cast<unsigned long long>(weight));
    }
}

extern "C" void sample_cut_histogram(struct stream *stream, const struct sample_cut *op,
                                     enum sample_cut_kind kind, int level)
{
    ASSERT(op->parts != NULL);
    if (op->rows_count == 0)
        return;
    int blocks = CUT_BLOCKS / op->rows_count, parts = sample_parts(op->tables.samples_count);
    blocks = blocks > parts ? parts : blocks < 1 ? 1 : blocks;
    launch_chained(histogram_kernel,
                   dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(op->rows_count)),
                   dim3(CUT_THREADS), 0, stream->handle, *op, kind, level);
}

// The bin of all ranks. Integers: their sum has no order.
static __device__ uint64_t bin_of(const struct sample_cut &op, int row, int bin)
{
    uint64_t sum = 0;
    for (int rank = 0; rank < op.ranks; rank++)
        sum += bins_of(op.gathered, rank * op.rows_count + row)[bin];
    return sum;
}

// The sum over the threads above this one, and over all.
static __device__ uint64_t sum_above(uint64_t own, uint64_t *all, uint64_t *shared)
{
    int thread = static_cast<int>(threadIdx.x);
    shared[thread] = own;
    __syncthreads();
    for (int step = 1; step < CUT_THREADS; step *= 2) {
        uint64_t other = thread + step < CUT_THREADS ? shared[thread + step] : 0;
        __syncthreads();
        shared[thread] += other;
        __syncthreads();
    }
    *all = shared[0];
    return shared[thread] - own;
}

// Decided by one thread: the bits of a level, and what the bins above them hold.
static __device__ void decide(struct sample_cut_state *state, int bin, uint64_t above, int level)
{
    state->above = static_cast<double>(above);
    state->key |= static_cast<uint32_t>(bin) << level_shift(level);
    if (level == SAMPLE_CUT_LEVELS - 1)
        state->cut = value_of(state->key);
}

// What this thread's bins hold of a row.
struct own_bins {
    uint64_t weights[OWN_BINS];
    uint64_t above; // what all higher bins and the levels before hold
};

// The thread in whose bins the target is reached decides; when rounding keeps the sum below it,
// the lowest bin that holds anything completes it.
static __device__ void narrow_row(struct sample_cut_state *state, const own_bins &own,
                                  uint64_t target, int level)
{
    __shared__ int lowest;
    __shared__ bool reached;
    int first = static_cast<int>(threadIdx.x) * OWN_BINS;
    uint64_t above = own.above, above_lowest = above;
    int own_lowest = INT_MAX;
    if (threadIdx.x == 0) {
        lowest = INT_MAX;
        reached = false;
    }
    __syncthreads();
    for (int b = OWN_BINS - 1; b >= 0; b--) {
        uint64_t weight = own.weights[b];
        if (weight == 0)
            continue;
        own_lowest = first + b;
        above_lowest = above;
        if (above < target && above + weight >= target) {
            reached = true;
            decide(state, first + b, above, level);
            break;
        }
        above += weight;
    }
    if (own_lowest < INT_MAX)
        atomicMin(&lowest, own_lowest);
    __syncthreads();
    if (!reached && own_lowest == lowest && lowest < INT_MAX)
        decide(state, own_lowest, above_lowest, level);
}

// grid rows. Leaves the shard's bins empty for the next level.
static __global__ void narrow_kernel(const struct sample_cut op, enum sample_cut_kind kind,
                                     int level)
{
    __shared__ uint64_t shared[CUT_THREADS];
    int row = static_cast<int>(blockIdx.x), first = static_cast<int>(threadIdx.x) * OWN_BINS;
    pdl_wait();
    pdl_trigger();
    struct sample_cut_state *state = &op.states[row];
    const struct slot_sampling *sampling = sampling_of(op, row);
    bool active = level == 0 ? sampling != NULL && has(*sampling, kind) : state->active != 0;
    own_bins own;
    uint64_t sum = 0, total;
    for (int b = 0; b < OWN_BINS && active; b++) {
        own.weights[b] = bin_of(op, row, first + b);
        sum += own.weights[b];
    }
    // Rounded where they are stored, but alike for all threads.
    double target = state->target;
    uint64_t before = level == 0 ? 0 : __double2ull_rn(state->above);
    own.above = before + sum_above(active ? sum : 0, &total, shared);
    for (int b = 0; b < OWN_BINS; b++)
        bins_of(op.bins, row)[first + b] = 0;
    if (active && level == 0) {
        double mass = static_cast<double>(total);
        target = kind == SAMPLE_CUT_COUNT ? static_cast<double>(sampling->top_k)
                                          : static_cast<double>(sampling->top_p) * mass;
        active = target < mass; // else everything is kept
    }
    __syncthreads(); // all have read the state
    if (threadIdx.x == 0 && level == 0) {
        state->key = 0;
        state->target = target;
        state->active = active;
    }
    __syncthreads();
    if (active)
        narrow_row(state, own, __double2ull_ru(target), level);
}

extern "C" void sample_cut_narrow(struct stream *stream, const struct sample_cut *op,
                                  enum sample_cut_kind kind, int level)
{
    if (op->rows_count == 0)
        return;
    launch_chained(narrow_kernel, dim3(static_cast<unsigned>(op->rows_count)), dim3(CUT_THREADS), 0,
                   stream->handle, *op, kind, level);
}

static __global__ void cut_end_kernel(struct sample_cut op)
{
    int row = static_cast<int>(threadIdx.x);
    pdl_wait();
    pdl_trigger();
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
    launch_chained(cut_end_kernel, dim3(1), dim3(SAMPLE_CUT_ROWS_MAX), 0, stream->handle, *op);
}
