// SPDX-License-Identifier: Apache-2.0
// sample.cu -- a block per sampled row finds the shard's best; one thread picks over the ranks.
#include "kernels/device/launch.cuh"

extern "C" {
#include "kernels/sample.h"
}

enum { SAMPLE_THREADS = 256 };

// Philox4x32-10: key = seed, counter = {position, token, 0, 0}.
static ON_BOTH_SIDES double uniform_of(uint64_t seed, int32_t position, int32_t token)
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
    uint64_t bits = (static_cast<uint64_t>(c[1]) << 32 | c[0]) >> 12;
    return (static_cast<double>(bits) + 0.5) * 0x1p-52;
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

// The best of this thread's stride of a row.
static __device__ struct sample_candidate scan(const struct sample_shard &op, int sample, int count)
{
    const float *logits = op.logits + static_cast<int64_t>(sample) * op.vocab_count;
    const struct slot_sampling &sampling = op.slots.slots[op.tables.sample_slots[sample]].sampling;
    int32_t position = op.tables.sample_positions[sample];
    struct sample_candidate best = nobody();
    for (int i = static_cast<int>(threadIdx.x); i < count; i += SAMPLE_THREADS) {
        struct sample_candidate one = nobody();
        one.logit = logits[i];
        one.id = op.vocab_first + i;
        one.value = value_of(sampling, position, one.id, one.logit);
        bool out = op.cuts != NULL && !(logits[i] >= op.cuts[sample]);
        float maximum = logits[i] > best.maximum ? logits[i] : best.maximum;
        if (!out && better(one, best))
            best = one;
        best.maximum = maximum;
    }
    return best;
}

// grid samples.
static __global__ void shard_kernel(struct sample_shard op)
{
    __shared__ struct sample_candidate all[SAMPLE_THREADS];
    __shared__ float sums[SAMPLE_THREADS];
    int sample = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
    int count = max(min(op.vocab_real - op.vocab_first, op.vocab_count), 0);
    bool inert = op.tables.sample_positions[sample] < 0;
    all[thread] = inert ? nobody() : scan(op, sample, count);
    __syncthreads();
    for (int half = SAMPLE_THREADS / 2; half > 0; half /= 2) {
        if (thread < half) {
            float maximum = fmaxf(all[thread].maximum, all[thread + half].maximum);
            if (better(all[thread + half], all[thread]))
                all[thread] = all[thread + half];
            all[thread].maximum = maximum;
        }
        __syncthreads();
    }
    float sum = 0, maximum = all[0].maximum;
    const float *logits = op.logits + static_cast<int64_t>(sample) * op.vocab_count;
    for (int i = thread; i < count && !inert && isfinite(maximum); i += SAMPLE_THREADS)
        sum += isnan(logits[i]) ? 0.0f : expf(logits[i] - maximum);
    sums[thread] = sum;
    __syncthreads();
    for (int half = SAMPLE_THREADS / 2; half > 0; half /= 2) {
        if (thread < half)
            sums[thread] += sums[thread + half];
        __syncthreads();
    }
    if (thread == 0) {
        op.candidates[sample] = all[0];
        op.candidates[sample].sum = sums[0];
    }
}

extern "C" void sample_shard(struct stream *stream, const struct sample_shard *op)
{
    if (op->tables.samples_count == 0)
        return;
    shard_kernel<<<static_cast<unsigned>(op->tables.samples_count), SAMPLE_THREADS, 0,
                   stream->handle>>>(*op);
    LAUNCH_CHECK();
}

static __device__ uint64_t hash_bytes(uint64_t hash, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) {
        hash ^= (value >> (8 * i)) & 0xff;
        hash *= 0x100000001b3u;
    }
    return hash;
}

// One block: threads pick, then thread 0 hashes in order.
static __global__ void pick_kernel(int32_t *tokens, uint64_t *hash,
                                   const struct sample_candidate *gathered, int ranks,
                                   struct step_tables tables, const uint64_t *step)
{
    int samples = tables.samples_count;
    for (int i = static_cast<int>(threadIdx.x); i < samples; i += SAMPLE_THREADS) {
        struct sample_candidate best = nobody();
        for (int rank = 0; rank < ranks; rank++) {
            struct sample_candidate other = gathered[static_cast<int64_t>(rank) * samples + i];
            if (better(other, best))
                best = other;
        }
        tokens[i] = best.id;
    }
    __syncthreads();
    if (threadIdx.x > 0)
        return;
    uint64_t sum = hash_bytes(0xcbf29ce484222325u, *step, 8);
    for (int i = 0; i < samples; i++) {
        if (tables.sample_slots[i] < 0)
            continue;
        sum = hash_bytes(sum, static_cast<uint32_t>(tables.sample_slots[i]), 4);
        sum = hash_bytes(sum, static_cast<uint32_t>(tokens[i]), 4);
    }
    *hash = sum;
}

extern "C" void sample_pick(struct stream *stream, int32_t *tokens, uint64_t *hash,
                            const struct sample_candidate *gathered, int ranks,
                            const struct step_tables *tables, const uint64_t *step)
{
    pick_kernel<<<1, SAMPLE_THREADS, 0, stream->handle>>>(tokens, hash, gathered, ranks, *tables,
                                                          step);
    LAUNCH_CHECK();
}
