// SPDX-License-Identifier: Apache-2.0
// sample_check.cu -- candidates of a shard, the pick and its hash, and the cuts of top-k, top-p and
// min-p against the twins, for rows of every kind of sampling side by side.
#include <math.h>
#include <string.h>

#include "tests/gpu/check.cuh"

extern "C" {
#include "kernels/sample.h"
#include "kernels/sample_cut.h"
}

CPU_FUNCTION(sample_shard);
CPU_FUNCTION(sample_pick);
CPU_FUNCTION(sample_cut_clear);
CPU_FUNCTION(sample_cut_begin);
CPU_FUNCTION(sample_cut_histogram);
CPU_FUNCTION(sample_cut_narrow);
CPU_FUNCTION(sample_cut_end);

// The whole chain of a shard that is the whole vocabulary.
struct chain {
    struct sample_shard shard;
    struct sample_cut cut; // rows_count 0: none
    int32_t *tokens;
    uint64_t *hash, *step;
};

static void launch(struct stream *stream, const void *argument)
{
    struct chain op = *static_cast<const struct chain *>(argument);
    op.shard.cuts = NULL;
    sample_shard(stream, &op.shard);
    if (op.cut.rows_count > 0) {
        sample_cut_clear(stream, op.cut.cuts, op.shard.tables.samples_count);
        sample_cut_begin(stream, &op.cut);
        for (int kind = SAMPLE_CUT_COUNT; kind <= SAMPLE_CUT_MASS; kind++) {
            for (int level = 0; level < SAMPLE_CUT_LEVELS; level++) {
                sample_cut_histogram(stream, &op.cut, static_cast<enum sample_cut_kind>(kind),
                                     level);
                sample_cut_narrow(stream, &op.cut, static_cast<enum sample_cut_kind>(kind), level);
            }
        }
        sample_cut_end(stream, &op.cut);
        op.shard.cuts = op.cut.cuts;
        sample_shard(stream, &op.shard);
    }
    sample_pick(stream, op.tokens, op.hash, op.shard.candidates, 1, &op.shard.tables, op.step);
}

static void launch_twins(struct chain op)
{
    struct stream *stream = check_cpu_stream();
    op.shard.cuts = NULL;
    cpu_sample_shard(stream, &op.shard);
    if (op.cut.rows_count > 0) {
        cpu_sample_cut_clear(stream, op.cut.cuts, op.shard.tables.samples_count);
        cpu_sample_cut_begin(stream, &op.cut);
        for (int kind = SAMPLE_CUT_COUNT; kind <= SAMPLE_CUT_MASS; kind++) {
            for (int level = 0; level < SAMPLE_CUT_LEVELS; level++) {
                cpu_sample_cut_histogram(stream, &op.cut, static_cast<enum sample_cut_kind>(kind),
                                         level);
                cpu_sample_cut_narrow(stream, &op.cut, static_cast<enum sample_cut_kind>(kind),
                                      level);
            }
        }
        cpu_sample_cut_end(stream, &op.cut);
        op.shard.cuts = op.cut.cuts;
        cpu_sample_shard(stream, &op.shard);
    }
    cpu_sample_pick(stream, op.tokens, op.hash, op.shard.candidates, 1, &op.shard.tables, op.step);
    check_cpu_wait();
}

template <typename T> static T *array(enum array_kind kind, int count)
{
    return static_cast<T *>(check_array(kind, static_cast<size_t>(count) * sizeof(T)));
}

// Every kind of sampling in turn; sample 2 of each eight is inert, 5 has bad logits.
static void fill_slots(struct slot *slots, int count, bool cuts)
{
    for (int i = 0; i < count; i++) {
        struct slot_sampling *sampling = &slots[i].sampling;
        sampling->seed = check_random();
        sampling->temperature = i % 3 == 0 ? 0 : i % 3 == 1 ? 0.7f : 1.9f;
        if (!cuts)
            continue;
        sampling->top_k = i % 4 == 1 ? 1 + i : i % 4 == 2 ? 20 : i % 16 == 3 ? 1000 : 0;
        sampling->top_p = i % 5 == 1 ? 0.9f : i % 5 == 2 ? 0.5f : 0;
        sampling->min_p = i % 7 == 1 ? 0.05f : 0;
    }
}

static void fill_logits(float *logits, int samples, int vocab)
{
    check_fill(logits, static_cast<size_t>(samples) * static_cast<size_t>(vocab), 3);
    for (int i = 5; i < samples; i += 8) {
        float *row = logits + static_cast<int64_t>(i) * vocab;
        row[1] = NAN;
        row[vocab / 2] = -INFINITY;
        row[vocab / 3] = row[vocab / 5] = 12.5f; // a tie at the top
    }
}

static struct chain make_chain(int samples, int vocab, int real, bool cuts)
{
    struct chain op = {};
    struct slot *slots = array<struct slot>(ARRAY_INPUT, samples);
    fill_slots(slots, samples, cuts);
    float *logits = array<float>(ARRAY_INPUT, samples * vocab);
    fill_logits(logits, samples, vocab);
    struct step_tables *tables = &op.shard.tables;
    tables->samples_count = samples;
    tables->sample_positions = array<int32_t>(ARRAY_INPUT, samples);
    tables->sample_slots = array<int32_t>(ARRAY_INPUT, samples);
    int32_t *rows = array<int32_t>(ARRAY_INPUT, samples);
    for (int i = 0; i < samples; i++) {
        tables->sample_positions[i] = i % 8 == 2 ? -1 : 10 + 3 * i;
        tables->sample_slots[i] = i % 16 == 2 ? -1 : i;
        rows[i] = i;
    }
    op.shard.slots.slots = slots;
    op.shard.slots.slots_count = samples;
    op.shard.logits = logits;
    op.shard.vocab_count = vocab;
    op.shard.vocab_real = real;
    op.shard.candidates = array<struct sample_candidate>(ARRAY_OUTPUT, samples);
    op.shard.parts = array<struct sample_candidate>(ARRAY_SCRATCH, SAMPLE_PARTS + samples);
    op.tokens = array<int32_t>(ARRAY_OUTPUT, samples);
    op.hash = array<uint64_t>(ARRAY_OUTPUT, 1);
    op.step = array<uint64_t>(ARRAY_INPUT, 1);
    *op.step = 1234567;
    op.cut.tables = *tables;
    op.cut.slots = op.shard.slots;
    op.cut.logits = logits;
    op.cut.vocab_count = vocab;
    op.cut.vocab_real = real;
    op.cut.rows = rows;
    op.cut.rows_count = cuts ? samples : 0;
    op.cut.states = array<struct sample_cut_state>(ARRAY_SCRATCH, samples);
    op.cut.candidates = op.shard.candidates;
    op.cut.parts = op.shard.parts;
    op.cut.ranks = 1;
    op.cut.bins = array<double>(ARRAY_SCRATCH, cuts ? samples * SAMPLE_CUT_BINS : 1);
    op.cut.gathered = op.cut.bins;
    op.cut.cuts = array<float>(ARRAY_OUTPUT, samples);
    return op;
}

static void to_device(struct step_tables *tables, struct slots *slots)
{
    check_to_dev(tables->sample_positions, tables->sample_slots, slots->slots);
}

static struct chain device_chain(struct chain op)
{
    to_device(&op.shard.tables, &op.shard.slots);
    to_device(&op.cut.tables, &op.cut.slots);
    check_to_dev(op.shard.logits, op.shard.candidates, op.shard.parts, op.tokens, op.hash, op.step,
                 op.cut.rows, op.cut.states, op.cut.bins, op.cut.cuts);
    op.cut.logits = op.shard.logits;
    op.cut.candidates = op.shard.candidates;
    op.cut.parts = op.shard.parts;
    op.cut.gathered = op.cut.bins;
    return op;
}

// Ids and logits are equal; values differ by what two f64 logarithms may, sums by f32's rounding of
// as many terms.
static void compare_candidates(const struct chain &op)
{
    const struct sample_candidate *got = check_result(op.shard.candidates);
    for (int i = 0; i < op.shard.tables.samples_count; i++) {
        const struct sample_candidate &want = op.shard.candidates[i];
        double value_error = fabs(static_cast<double>(got[i].value) - want.value);
        double sum_error = fabs(static_cast<double>(got[i].sum) - want.sum);
        if (got[i].id != want.id || memcmp(&got[i].logit, &want.logit, 4) != 0 ||
            memcmp(&got[i].maximum, &want.maximum, 4) != 0)
            check_fail("candidate %d: id %d logit %g maximum %g, want %d %g %g", i, got[i].id,
                       got[i].logit, got[i].maximum, want.id, want.logit, want.maximum);
        if (want.id >= 0 && !(value_error <= 1e-6 * (1 + fabs(want.value))))
            check_fail("candidate %d: value %.9g, want %.9g", i, got[i].value, want.value);
        if (!(sum_error <= 1e-5 * want.sum))
            check_fail("candidate %d: sum %.9g, want %.9g", i, got[i].sum, want.sum);
    }
}

static void check_chain(int samples, int vocab, int real, bool cuts)
{
    check_begin("sample%s T=%d vocab=%d", cuts ? "_cut" : "", samples, vocab);
    struct chain op = make_chain(samples, vocab, real, cuts);
    struct chain dev = device_chain(op);
    check_run(launch, &dev);
    launch_twins(op);
    compare_candidates(op);
    size_t count = static_cast<size_t>(samples);
    if (cuts)
        check_equal("cuts", op.cut.cuts, op.cut.cuts, count, sizeof(float));
    check_equal("tokens", op.tokens, op.tokens, count, sizeof(int32_t));
    check_equal("hash", op.hash, op.hash, 1, sizeof(uint64_t));
    check_end();
}

CHECK(sample)
{
    for (int i = 0; i < CHECK_TOKENS_COUNT; i++)
        check_chain(CHECK_TOKENS[i], 1 + 999 * (i % 3 + 1), 990, false);
    check_chain(3, 248320, 248077, false);
}

CHECK(sample_cut)
{
    for (int samples : {1, 2, 5, 8, 17, 33, 64})
        check_chain(samples, 3000, 2990, true);
    check_chain(9, 248320, 248077, true);
}

// Every kind of sampling has a row; many parts of a row, and few.
SMALL(sample)
{
    check_chain(1, 1000, 990, false);
    check_chain(9, 300, 290, false);
}
SMALL(sample_cut)
{
    check_chain(8, 300, 290, true);
}

static void launch_bench(struct stream *stream, const void *op, int turn)
{
    (void)turn;
    launch(stream, op);
}

// Logits are fresh in L2 when they are sampled, as here: the limit is latency.
static void bench_chain(const char *what, int samples, float temperature, bool cuts)
{
    check_begin("bench");
    struct chain op = make_chain(samples, 248320, 248077, cuts);
    for (int i = 0; i < samples; i++) {
        struct slot_sampling *sampling = &op.shard.slots.slots[i].sampling;
        op.shard.tables.sample_positions[i] = 10 + i;
        op.shard.tables.sample_slots[i] = i;
        *sampling = {};
        sampling->temperature = temperature;
        sampling->top_k = cuts ? 20 : 0;
        sampling->top_p = cuts ? 0.95f : 0;
    }
    struct chain dev = device_chain(op);
    check_run(launch, &dev);
    char shape[64];
    snprintf(shape, sizeof shape, "%s T=%d vocab=248320", what, samples);
    struct bench_case bench = {cuts ? "sample_cut" : "sample", shape,
                               static_cast<double>(samples) * 248320 * 4, 0};
    bench_run(&bench, launch_bench, &dev, 8);
    check_drop();
}

BENCH(sample)
{
    for (int samples : {1, 8, 64}) {
        bench_chain("greedy", samples, 0, false);
        bench_chain("temperature", samples, 0.8f, false);
        bench_chain("top-k 20, top-p 0.95", samples, 0.8f, true);
    }
}
