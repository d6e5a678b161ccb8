// SPDX-License-Identifier: Apache-2.0
// sample.c -- Gumbel arg-max sampling, shard by shard, on the CPU. Values are computed in double
// and compared as f32, so that the shards of any split agree with the whole. Owns nothing.
#include "kernels/sample.h"

#include <math.h>

#include "kernels/runtime_cpu.h"
#include "kernels/twins/twins.h"

// The published constants of Philox4x32.
static const uint32_t PHILOX_MULTIPLIER_0 = 0xD2511F53u, PHILOX_MULTIPLIER_1 = 0xCD9E8D57u;
static const uint32_t PHILOX_WEYL_0 = 0x9E3779B9u, PHILOX_WEYL_1 = 0xBB67AE85u;

void sample_philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2])
{
    uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]};
    uint32_t k[2] = {key[0], key[1]};
    for (int round = 0; round < 10; round++) {
        uint64_t product_0 = (uint64_t)PHILOX_MULTIPLIER_0 * c[0];
        uint64_t product_1 = (uint64_t)PHILOX_MULTIPLIER_1 * c[2];
        uint32_t next[4] = {
            (uint32_t)(product_1 >> 32) ^ c[1] ^ k[0],
            (uint32_t)product_1,
            (uint32_t)(product_0 >> 32) ^ c[3] ^ k[1],
            (uint32_t)product_0,
        };
        for (int i = 0; i < 4; i++)
            c[i] = next[i];
        k[0] += PHILOX_WEYL_0;
        k[1] += PHILOX_WEYL_1;
    }
    for (int i = 0; i < 4; i++)
        out[i] = c[i];
}

double sample_uniform(uint64_t seed, int32_t position, int32_t token)
{
    uint32_t out[4];
    const uint32_t counter[4] = {(uint32_t)position, (uint32_t)token, 0, 0};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    sample_philox(out, counter, key);
    uint64_t bits = ((uint64_t)out[1] << 32 | out[0]) >> 12;
    // 52 bits and a half: exact in double, never 0 and never 1.
    return ((double)bits + 0.5) * 0x1p-52;
}

double sample_value_twin(const struct slot_sampling *sampling, int32_t position, int32_t id,
                         float logit)
{
    if (!(sampling->temperature > 0))
        return (double)logit;
    double gumbel = -log(-log(sample_uniform(sampling->seed, position, id)));
    return (double)logit / (double)sampling->temperature + gumbel;
}

// `value` beats the best so far; a NaN never does. Equal values: the lower id was there first.
static bool better(float value, const struct sample_candidate *best)
{
    return best->id < 0 || value > best->value;
}

static void choose(struct sample_candidate *best, const struct sample_shard *op, int sample,
                   const struct slot_sampling *sampling)
{
    const float *logits = op->logits + (size_t)sample * (size_t)op->vocab_count;
    int32_t position = op->tables.sample_positions[sample];
    int real = op->vocab_real - op->vocab_first;
    int count = real < op->vocab_count ? real : op->vocab_count;
#ifdef PLANT_sample_padding
    count = op->vocab_count; // padding rows may be drawn
#endif
    double sum = 0;
    for (int i = 0; i < count; i++) {
        float value = (float)sample_value_twin(sampling, position, op->vocab_first + i, logits[i]);
        if (isnan(value))
            value = -INFINITY;
        bool out = op->cuts != NULL && !(logits[i] >= op->cuts[sample]);
        if (!out && better(value, best)) {
            best->value = value;
            best->id = op->vocab_first + i;
            best->logit = logits[i];
        }
        best->maximum = logits[i] > best->maximum ? logits[i] : best->maximum;
    }
    for (int i = 0; i < count && isfinite(best->maximum); i++)
        sum += isnan(logits[i]) ? 0 : exp((double)logits[i] - (double)best->maximum);
    best->sum = (float)sum;
}

static void run_shard(const void *arguments)
{
    const struct sample_shard *op = arguments;
    for (int sample = 0; sample < op->tables.samples_count; sample++) {
        struct sample_candidate best = {
            .value = -INFINITY, .id = -1, .logit = -INFINITY, .maximum = -INFINITY};
        if (op->tables.sample_positions[sample] >= 0) {
            int32_t slot = op->tables.sample_slots[sample];
            ASSERT(slot >= 0 && slot < op->slots.slots_count);
            choose(&best, op, sample, &op->slots.slots[slot].sampling);
        }
        op->candidates[sample] = best;
    }
}

void sample_shard(struct stream *stream, const struct sample_shard *op)
{
    ASSERT(op->logits != NULL && op->candidates != NULL);
    ASSERT(op->vocab_first >= 0 && op->vocab_count > 0 && op->vocab_real > 0);
    stream_run(stream, run_shard, op, sizeof *op);
}

struct pick_arguments {
    int32_t *tokens;
    uint64_t *hash;
    const struct sample_candidate *gathered;
    struct step_tables tables;
    const uint64_t *step;
    int ranks;
};

// The finaliser of splitmix64.
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void run_pick(const void *arguments)
{
    const struct pick_arguments *op = arguments;
    uint64_t seed = mix(*op->step), hash = seed;
    int samples = op->tables.samples_count;
    for (int sample = 0; sample < samples; sample++) {
        struct sample_candidate best = {.value = -INFINITY, .id = -1, .logit = -INFINITY};
        for (int rank = 0; rank < op->ranks; rank++) {
            const struct sample_candidate *other =
                &op->gathered[(size_t)rank * (size_t)samples + (size_t)sample];
            if (other->id < 0)
                continue;
            if (best.id < 0 || other->value > best.value ||
                (other->value == best.value && other->id < best.id))
                best = *other;
        }
        if (!isfinite(best.logit))
            best.id = -1;
        op->tokens[sample] = best.id;
        if (op->tables.sample_slots[sample] < 0)
            continue;
        uint64_t place = (uint64_t)op->tables.sample_slots[sample] << 32 |
                         (uint32_t)op->tables.sample_positions[sample];
        hash += mix(mix(seed + place) + (uint32_t)best.id);
    }
    *op->hash = hash;
}

void sample_pick(struct stream *stream, int32_t *tokens, uint64_t *hash,
                 const struct sample_candidate *gathered, int ranks,
                 const struct step_tables *tables, const uint64_t *step)
{
    ASSERT(hash != NULL && ranks >= 1);
    ASSERT((tokens != NULL && gathered != NULL) || tables->samples_count == 0);
    struct pick_arguments arguments = {tokens, hash, gathered, *tables, step, ranks};
    stream_run(stream, run_pick, &arguments, sizeof arguments);
}
