// SPDX-License-Identifier: Apache-2.0
// sample.cu -- blocks over parts of a row find its best, the last of them adds the parts up in
// order; one block picks over the ranks.
#include <limits.h>

#include "kernels/device/launch.cuh"
#include "kernels/device/reduce.cuh"

extern "C" {
#include "kernels/sample.h"
}

// As many as a row has parts: the block that adds them up has one per thread.
enum { SAMPLE_THREADS = SAMPLE_ROW_PARTS_MAX };

// The upper 52 bits. Philox4x32-10: key = seed, counter = {position, token, 0, 0}.
static ON_BOTH_SIDES uint64_t uniform_bits(uint64_t seed, int32_t position, int32_t token)
{
    uint32_t c[4] = {static_cast<uint32_t>(position), static_cast<uint32_t>(token), 0, 0};
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t a = static_cast<uint64_t>(0xD2511F53u) * c[0];
        uint64_t b = static_cast<uint64_t>(0xCD9E8D57u) * c[2];
        uint32_t c1 = c[1], c3 = c[3];
        c[0] = static_cast<uint32_t>(b >> 32) ^ c1 ^ k0;
        c[1] = static_cast<uint32_t>(b);
        c[2] = static_cast<uint32_t>(a >> 32) ^ c3 ^ k1;
        c[3] = static_cast<uint32_t>(a);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (static_cast<uint64_t>(c[1]) << 32 | c[0]) >> 12;
}

static ON_BOTH_SIDES double uniform_of(uint64_t seed, int32_t position, int32_t token)
{
    return (static_cast<double>(uniform_bits(seed, position, token)) + 0.5) * 0x1p-52;
}

extern "C" double sample_uniform(uint64_t seed, int32_t position, int32_t token)
{
    return uniform_of(seed, position, token);
}

static __device__ float value_of(const struct slot_sampling &sampling, int32_t position, int32_t id,
                                 float logit)
{
    if (isnan(logit))
        return -INFINITY;
    if (!(sampling.temperature > 0))
        return logit;
    double gumbel = -log(-log(uniform_of(sampling.seed, position, id)));
    return static_cast<float>(
        static_cast<double>(logit) / static_cast<double>(sampling.temperature) + gumbel);
}

static __device__ bool better(const struct sample_candidate &a, const struct sample_candidate &b)
{
    if (a.id < 0 || b.id < 0)
        return b.id < 0 && a.id >= 0;
    return a.value > b.value || (a.value == b.value && a.id < b.id);
}

static __device__ struct sample_candidate nobody()
{
    struct sample_candidate none;
    none.value = none.logit = none.maximum = -INFINITY;
    none.id = -1;
    none.sum = 0;
    none.reserved = 0;
    return none;
}

// ---- the shard's best ----

// Blocks of one row that have written their part; the last one adds them up and zeroes this.
static __device__ unsigned parts_done[SAMPLE_ROWS_MAX];

// A perturbed logit in f32. It differs from value_of by less than half of sloppiness(): what lies
// further below the best so far than that need not be looked at in f64.
static __device__ float value_about(const struct slot_sampling &sampling, int32_t position,
                                    int32_t id, float logit)
{
    uint64_t odd = 2 * uniform_bits(sampling.seed, position, id) + 1; // of 2^53
    bool upper = odd > (1ull << 52);
    float rest = __ull2float_rn(upper ? (1ull << 53) - odd : odd) * 0x1p-53f;
    float exponential = upper ? -log1pf(-rest) : -logf(rest);
    return logit / sampling.temperature - logf(exponential);
}

static __device__ float sloppiness(float value)
{
    return 2e-5f + 2e-6f * fabsf(value);
}

// Floats in the order of signed integers, for an atomic maximum.
static __device__ int ordered(float value)
{
    int bits = __float_as_int(value);
    return bits >= 0 ? bits : bits ^ 0x7fffffff;
}

// What a block looks for in its part of a row.
struct part {
    const float *logits; // of the whole row
    int first, end;
    int32_t position, vocab_first;
    float cut;
    bool aligned; // first and the row, for loads of four
};

// Four logits of a part, -infinity past its end. Rows are aligned where a shard's width is.
static __device__ __forceinline__ float4 load_four(const part &part, int i)
{
    if (part.aligned && i + 4 <= part.end)
        return *reinterpret_cast<const float4 *>(part.logits + i);
    float4 four;
    four.x = i < part.end ? part.logits[i] : -INFINITY;
    four.y = i + 1 < part.end ? part.logits[i + 1] : -INFINITY;
    four.z = i + 2 < part.end ? part.logits[i + 2] : -INFINITY;
    four.w = i + 3 < part.end ? part.logits[i + 3] : -INFINITY;
    return four;
}

// Values in the order of unsigned numbers, then the lower id: the larger the better, 0 is nobody.
static __device__ __forceinline__ uint64_t key_of(float value, int32_t id)
{
    uint32_t bits = __float_as_uint(value + 0.0f); // -0 is 0
    bits = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
    return static_cast<uint64_t>(bits) << 32 | (0xffffffffu - static_cast<uint32_t>(id));
}

static __device__ __forceinline__ float value_of_key(uint64_t key)
{
    uint32_t bits = static_cast<uint32_t>(key >> 32);
    return __uint_as_float((bits & 0x80000000u) != 0 ? bits & 0x7fffffffu : ~bits);
}

static __device__ __forceinline__ int32_t id_of_key(uint64_t key)
{
    return static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(key));
}

// The key of a logit that is not cut, of a row that is drawn from; 0 when another is better
// anyway. `best_about` is shared and holds ordered(): it only saves work, so that the order of its
// changes does not show.
static __device__ uint64_t draw_one(const part &part, const struct slot_sampling &sampling, int i,
                                    float logit, int *best_about)
{
    int32_t id = part.vocab_first + i;
    if (isfinite(logit)) {
        float about = value_about(sampling, part.position, id, logit);
        int known = *static_cast<volatile int *>(best_about);
        if (ordered(about + sloppiness(about)) < known)
            return 0;
        atomicMax(best_about, ordered(about - sloppiness(about)));
    }
    return key_of(value_of(sampling, part.position, id, logit), id);
}

// What a thread, a block or a row has found.
struct found {
    uint64_t key; // of the best
    float maximum;
};

// This thread's best and largest.
static __device__ found scan(const part &part, const struct slot_sampling &sampling,
                             int *best_about)
{
    found best = {0, -INFINITY};
    bool draws = sampling.temperature > 0;
    float value = -INFINITY;
    int id = -1;
    for (int i = part.first + 4 * static_cast<int>(threadIdx.x); i < part.end;
         i += 4 * SAMPLE_THREADS) {
        float4 four = load_four(part, i);
        const float logits[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int k = 0; k < 4; k++) {
            bool in = i + k < part.end && !(part.cut > -INFINITY && !(logits[k] >= part.cut));
            best.maximum = fmaxf(best.maximum, logits[k]); // a NaN loses
            if (draws && in) {
                uint64_t key = draw_one(part, sampling, i + k, logits[k], best_about);
                best.key = key > best.key ? key : best.key;
            } else if (in && (logits[k] > value || id < 0)) {
                value = isnan(logits[k]) ? -INFINITY : logits[k];
                id = i + k;
            }
        }
    }
    if (!draws && id >= 0)
        best.key = key_of(value, part.vocab_first + id);
    return best;
}

// This thread's share of the sum of exp(logit - maximum).
static __device__ float sum_masses(const part &part, float maximum)
{
    const float log2_e = 1.4426950408889634f;
    float sums[4] = {0, 0, 0, 0};
    for (int i = part.first + 4 * static_cast<int>(threadIdx.x); i < part.end;
         i += 4 * SAMPLE_THREADS) {
        float4 four = load_four(part, i);
        const float logits[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int k = 0; k < 4; k++)
            sums[k] += isnan(logits[k]) ? 0.0f : exp2f((logits[k] - maximum) * log2_e);
    }
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

static __device__ __forceinline__ found larger(const found &a, const found &b)
{
    return {a.key > b.key ? a.key : b.key, fmaxf(a.maximum, b.maximum)};
}

// The best of all threads, in every thread. shared [SAMPLE_THREADS / WARP_THREADS].
static __device__ found block_best(found own, found *shared)
{
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
#pragma unroll
    for (int offset = WARP_THREADS / 2; offset > 0; offset /= 2) {
        found other = {__shfl_xor_sync(0xffffffffu, own.key, offset),
                       __shfl_xor_sync(0xffffffffu, own.maximum, offset)};
        own = larger(own, other);
    }
    __syncthreads(); // of an earlier use of shared
    if (threadIdx.x % WARP_THREADS == 0)
        shared[warp] = own;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < SAMPLE_THREADS / WARP_THREADS; i++)
        own = larger(own, shared[i]);
    return own;
}

// As a candidate; `logits` of the row.
static __device__ struct sample_candidate candidate_of(const found &best, float sum,
                                                       const float *logits, int vocab_first)
{
    struct sample_candidate candidate = nobody();
    candidate.maximum = best.maximum;
    candidate.sum = sum;
    if (best.key == 0)
        return candidate;
    candidate.id = id_of_key(best.key);
    candidate.value = value_of_key(best.key);
    candidate.logit = logits[candidate.id - vocab_first];
    return candidate;
}

// Past the first cache, which other blocks' writes do not reach.
static __device__ struct sample_candidate load_part(const struct sample_candidate *part)
{
    union {
        struct sample_candidate candidate;
        uint2 words[sizeof(struct sample_candidate) / sizeof(uint2)];
    } loaded;
    const uint2 *from = reinterpret_cast<const uint2 *>(part);
#pragma unroll
    for (size_t i = 0; i < sizeof loaded.words / sizeof *loaded.words; i++)
        loaded.words[i] = __ldcg(from + i);
    return loaded.candidate;
}

// In the last block of a row: the parts' best, their sums moved to the largest maximum.
static __device__ void finish_row(const struct sample_shard &op, int sample, int parts_count,
                                  found *shared, float *sums)
{
    int thread = static_cast<int>(threadIdx.x);
    const struct sample_candidate *parts = op.parts + static_cast<int64_t>(sample) * parts_count;
    struct sample_candidate own = nobody();
    if (thread < parts_count)
        own = load_part(parts + thread);
    found best = {own.id >= 0 ? key_of(own.value, own.id) : 0, own.maximum};
    best = block_best(best, shared);
    float share = own.sum > 0 ? own.sum * expf(own.maximum - best.maximum) : 0.0f;
    float sum = block_sum<SAMPLE_THREADS>(share, sums);
    if (thread == 0) {
        const float *logits = op.logits + static_cast<int64_t>(sample) * op.vocab_count;
        op.candidates[sample] = candidate_of(best, sum, logits, op.vocab_first);
        parts_done[sample] = 0;
    }
}

static __device__ part part_of(const struct sample_shard &op, int sample)
{
    int count = max(min(op.vocab_real - op.vocab_first, op.vocab_count), 0);
    int parts_count = static_cast<int>(gridDim.x);
    int width = sample_part_width(count, parts_count);
    part part;
    part.logits = op.logits + static_cast<int64_t>(sample) * op.vocab_count;
    part.first = min(static_cast<int>(blockIdx.x) * width, count);
    part.end = min(part.first + width, count);
    part.position = op.tables.sample_positions[sample];
    part.vocab_first = op.vocab_first;
    part.cut = op.cuts != NULL ? op.cuts[sample] : -INFINITY;
    part.aligned = op.vocab_count % 4 == 0;
    return part;
}

// grid (parts of a row, samples).
static __global__ void shard_kernel(const struct sample_shard op)
{
    __shared__ found shared[SAMPLE_THREADS / WARP_THREADS];
    __shared__ float sums[SAMPLE_THREADS / WARP_THREADS];
    __shared__ int best_about;
    __shared__ bool last;
    int sample = static_cast<int>(blockIdx.y), thread = static_cast<int>(threadIdx.x);
    int parts_count = static_cast<int>(gridDim.x);
    if (thread == 0)
        best_about = INT_MIN;
    pdl_wait();
    pdl_trigger();
    const part part = part_of(op, sample);
    if (part.position < 0) {
        if (blockIdx.x == 0 && thread == 0)
            op.candidates[sample] = nobody();
        return;
    }
    __syncthreads();
    const struct slot_sampling &sampling = op.slots.slots[op.tables.sample_slots[sample]].sampling;
    found best = block_best(scan(part, sampling, &best_about), shared);
    float sum = isfinite(best.maximum) ? sum_masses(part, best.maximum) : 0.0f;
    sum = block_sum<SAMPLE_THREADS>(sum, sums);
    if (thread == 0) {
        op.parts[static_cast<int64_t>(sample) * parts_count + blockIdx.x] =
            candidate_of(best, sum, part.logits, op.vocab_first);
        __threadfence();
        last = atomicAdd(&parts_done[sample], 1) == gridDim.x - 1;
        __threadfence();
    }
    __syncthreads();
    if (last)
        finish_row(op, sample, parts_count, shared, sums);
}

extern "C" void sample_shard(struct stream *stream, const struct sample_shard *op)
{
    int samples = op->tables.samples_count;
    ASSERT(samples <= SAMPLE_ROWS_MAX && op->parts != NULL);
    if (samples == 0)
        return;
    unsigned parts = static_cast<unsigned>(sample_parts(samples));
    launch_chained(shard_kernel, dim3(parts, static_cast<unsigned>(samples)), dim3(SAMPLE_THREADS),
                   0, stream->handle, *op);
}

// ---- the pick ----

// The finaliser of splitmix64.
static __device__ uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

// One block: a thread per sample, then the sum of what each adds to the hash.
static __global__ void pick_kernel(int32_t *tokens, uint64_t *hash,
                                   const struct sample_candidate *gathered, int ranks,
                                   struct step_tables tables, const uint64_t *step)
{
    __shared__ unsigned long long sum;
    int samples = tables.samples_count;
    pdl_wait();
    pdl_trigger();
    uint64_t seed = mix(*step), own = 0;
    if (threadIdx.x == 0)
        sum = seed;
    for (int i = static_cast<int>(threadIdx.x); i < samples; i += SAMPLE_THREADS) {
        struct sample_candidate best = nobody();
        for (int rank = 0; rank < ranks; rank++) {
            struct sample_candidate other = gathered[static_cast<int64_t>(rank) * samples + i];
            if (better(other, best))
                best = other;
        }
        if (!isfinite(best.logit))
            best.id = -1;
        tokens[i] = best.id;
        uint32_t slot = static_cast<uint32_t>(tables.sample_slots[i]);
        uint32_t position = static_cast<uint32_t>(tables.sample_positions[i]);
        uint64_t place = static_cast<uint64_t>(slot) << 32 | position;
        if (tables.sample_slots[i] >= 0)
            own += mix(mix(seed + place) + static_cast<uint32_t>(best.id));
    }
    __syncthreads();
    atomicAdd(&sum, static_cast<unsigned long long>(own)); // integers: any order
    __syncthreads();
    if (threadIdx.x == 0)
        *hash = sum;
}

extern "C" void sample_pick(struct stream *stream, int32_t *tokens, uint64_t *hash,
                            const struct sample_candidate *gathered, int ranks,
                            const struct step_tables *tables, const uint64_t *step)
{
    launch_chained(pick_kernel, dim3(1), dim3(SAMPLE_THREADS), 0, stream->handle, tokens, hash,
                   gathered, ranks, *tables, step);
}
