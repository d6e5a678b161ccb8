// SPDX-License-Identifier: Apache-2.0
// sample_cut_test.c -- cuts found by histograms against sorting the whole row, for any sharding,
// with ties, padding, NaN and infinite logits; what is drawn under a cut has the distribution of
// the filtered softmax.
#include "kernels/sample_cut.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixtures/steps.h"

enum { VOCAB = 320, REAL = 301, SAMPLES = 12, LEVELS = SAMPLE_CUT_LEVELS };

struct fixture {
    struct ops ops;
    struct steps steps;
    float *logits; // [SAMPLES, VOCAB]
    int32_t *rows; // [SAMPLES] all of them
    float *cuts;   // [SAMPLES]
    int32_t tokens[SAMPLES];
};

// Sample i sits in slot i, which has parameters[i].
static void open_fixture(struct fixture *f, uint64_t seed, const struct slot_sampling *parameters)
{
    ops_open(&f->ops, 1, 256, seed);
    steps_open(&f->steps, &f->ops, SAMPLES, 1, 8);
    steps_clear(&f->steps);
    f->logits = ops_float(&f->ops, SAMPLES * VOCAB, 6);
    f->rows = ops_alloc(&f->ops, SAMPLES * sizeof *f->rows);
    f->cuts = ops_alloc(&f->ops, SAMPLES * sizeof *f->cuts);
    f->steps.tables.samples_count = SAMPLES;
    for (int i = 0; i < SAMPLES; i++) {
        f->rows[i] = i;
        f->steps.tables.sample_positions[i] = 5;
        f->steps.tables.sample_slots[i] = i;
        f->steps.slots.slots[i] = (struct slot){.sampling = parameters[i]};
    }
}

static float *slice(struct fixture *f, int first, int count)
{
    float *own = ops_alloc(&f->ops, (size_t)(SAMPLES * count) * sizeof *own);
    for (int i = 0; i < SAMPLES; i++)
        memcpy(own + i * count, f->logits + i * VOCAB + first, (size_t)count * sizeof *own);
    return own;
}

struct shards {
    struct sample_shard pass[8]; // one per rank
    struct sample_cut cut[8];
    int ranks;
};

static void make_shards(struct shards *s, struct fixture *f, int ranks)
{
    int own = VOCAB / ranks;
    size_t bins = (size_t)SAMPLES * SAMPLE_CUT_BINS;
    struct sample_candidate *candidates =
        ops_alloc(&f->ops, (size_t)(ranks * SAMPLES) * sizeof *candidates);
    double *gathered = ops_alloc(&f->ops, (size_t)ranks * bins * sizeof *gathered);
    struct sample_cut_state *states = ops_alloc(&f->ops, SAMPLES * sizeof *states);
    s->ranks = ranks;
    for (int r = 0; r < ranks; r++) {
        s->pass[r] = (struct sample_shard){.tables = f->steps.tables,
                                           .slots = f->steps.slots,
                                           .logits = slice(f, r * own, own),
                                           .vocab_first = r * own,
                                           .vocab_count = own,
                                           .vocab_real = REAL,
                                           .candidates = candidates + r * SAMPLES};
        s->cut[r] = (struct sample_cut){.tables = f->steps.tables,
                                        .slots = f->steps.slots,
                                        .logits = s->pass[r].logits,
                                        .vocab_first = r * own,
                                        .vocab_count = own,
                                        .vocab_real = REAL,
                                        .rows = f->rows,
                                        .rows_count = SAMPLES,
                                        .states = states,
                                        .candidates = candidates,
                                        .ranks = ranks,
                                        .bins = gathered + (size_t)r * bins,
                                        .gathered = gathered,
                                        .cuts = f->cuts};
    }
}

// The whole sampling of a step, as worker/step.c queues it.
static void run(struct fixture *f, int ranks)
{
    struct shards s;
    uint64_t hash;
    struct stream *stream = f->ops.streams[0];
    make_shards(&s, f, ranks);
    for (int r = 0; r < ranks; r++)
        sample_shard(stream, &s.pass[r]);
    sample_cut_clear(stream, f->cuts, SAMPLES);
    sample_cut_begin(stream, &s.cut[0]);
    for (int kind = SAMPLE_CUT_COUNT; kind <= SAMPLE_CUT_MASS; kind++) {
        for (int level = 0; level < LEVELS; level++) {
            for (int r = 0; r < ranks; r++)
                sample_cut_histogram(stream, &s.cut[r], (enum sample_cut_kind)kind, level);
            sample_cut_narrow(stream, &s.cut[0], (enum sample_cut_kind)kind, level);
        }
    }
    sample_cut_end(stream, &s.cut[0]);
    for (int r = 0; r < ranks; r++) {
        s.pass[r].cuts = f->cuts;
        sample_shard(stream, &s.pass[r]);
    }
    static const uint64_t step = 1;
    sample_pick(stream, f->tokens, &hash, s.cut[0].candidates, ranks, &f->steps.tables, &step);
    ops_wait(&f->ops);
}

static int descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

// The definition over a sorted row: which logits stay. Writes keep[REAL], returns how many.
static int expected_keep(bool *keep, const float *logits, const struct slot_sampling *p)
{
    float sorted[REAL];
    double mass = 0, total = 0;
    int count = 0, kept = 0;
    for (int i = 0; i < REAL; i++) {
        if (!isnan(logits[i]))
            sorted[count++] = logits[i];
    }
    qsort(sorted, (size_t)count, sizeof sorted[0], descending);
    float cut = p->top_k > 0 && p->top_k < count ? sorted[p->top_k - 1] : -INFINITY;
    for (int i = 0; i < count && sorted[i] >= cut; i++)
        total += exp((double)(sorted[i] - sorted[0]) / (double)p->temperature);
    for (int i = 0; p->top_p > 0 && p->top_p < 1 && i < count && sorted[i] >= cut; i++) {
        mass += exp((double)(sorted[i] - sorted[0]) / (double)p->temperature);
        if (mass >= (double)p->top_p * total) {
            cut = sorted[i];
            break;
        }
    }
    double least = p->min_p > 0 ? (double)sorted[0] + (double)p->temperature * log((double)p->min_p)
                                : -INFINITY;
    for (int i = 0; i < REAL; i++) {
        keep[i] = logits[i] >= cut && logits[i] >= (float)least;
        kept += keep[i];
    }
    return kept;
}

static const struct slot_sampling varied[SAMPLES] = {
    {.temperature = 1, .top_k = 20},
    {.temperature = 1, .top_p = 0.95f},
    {.temperature = 0.7f, .min_p = 0.05f},
    {.temperature = 0.6f, .top_k = 20, .top_p = 0.95f},
    {.temperature = 1.3f, .top_k = 150, .top_p = 0.5f, .min_p = 0.001f},
    {.temperature = 1, .top_k = 1},
    {.temperature = 1, .top_k = 100000, .top_p = 1},
    {.temperature = 2, .top_p = 0.01f},
    {.temperature = 1, .top_p = 0.999f},
    {.temperature = 0, .top_k = 3, .top_p = 0.1f},
    {.temperature = 1, .min_p = 1},
    {.temperature = 1},
};

static void check_rows(struct fixture *f)
{
    for (int i = 0; i < SAMPLES; i++) {
        bool keep[REAL];
        const float *logits = f->logits + i * VOCAB;
        if (!(varied[i].temperature > 0))
            continue;
        int kept = expected_keep(keep, logits, &varied[i]);
        assert_true(kept >= 1);
        for (int id = 0; id < REAL; id++) {
            if (!isnan(logits[id]))
                assert_int_equal(logits[id] >= f->cuts[i], keep[id]);
        }
        assert_true(f->tokens[i] >= 0 && f->tokens[i] < REAL && keep[f->tokens[i]]);
    }
}

// Rows of which nothing is finite, whatever their cuts: nothing is drawn there; the others draw.
static void rows_without_a_finite_logit(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= 2; ranks++) {
        struct fixture f;
        open_fixture(&f, 3, varied);
        for (int i = 0; i < SAMPLES * VOCAB; i++) {
            if (i / VOCAB % 2 == 0)
                f.logits[i] = i / VOCAB % 4 == 0 ? -INFINITY : NAN;
        }
        run(&f, ranks);
        for (int i = 0; i < SAMPLES; i++)
            assert_int_equal(f.tokens[i] == -1, i % 2 == 0);
        ops_close(&f.ops);
    }
}

static void cuts_are_those_of_the_sorted_row(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        int32_t first[SAMPLES];
        for (int ranks = 1; ranks <= 8; ranks *= 2) {
            struct fixture f;
            open_fixture(&f, seed, varied);
            for (int i = 0; i < SAMPLES * VOCAB && seed % 3 == 0; i++)
                f.logits[i] = roundf(f.logits[i] * 2) / 2; // many ties
            f.logits[3] = NAN;
            f.logits[VOCAB + 7] = -INFINITY;
            f.logits[2 * VOCAB + REAL + 1] = 1e9f; // a padding row, must not count
            run(&f, ranks);
            check_rows(&f);
            if (ranks == 1)
                memcpy(first, f.tokens, sizeof first);
            assert_memory_equal(first, f.tokens, sizeof first);
            ops_close(&f.ops);
        }
    }
}

// 12 rows with the same logits and parameters, many positions: chi-square of what is drawn
// against the filtered softmax.
static void draws_follow_the_filtered_softmax(void **state)
{
    enum { TURNS = 500, CELLS = 5 };
    struct slot_sampling parameters[SAMPLES];
    struct fixture f;
    int counts[REAL] = {0};
    double weights[REAL], total = 0, chi = 0;
    bool keep[REAL];
    (void)state;
    for (int i = 0; i < SAMPLES; i++)
        parameters[i] =
            (struct slot_sampling){.temperature = 0.8f, .top_k = CELLS, .seed = 1000 + (uint64_t)i};
    open_fixture(&f, 5, parameters);
    for (int i = 1; i < SAMPLES; i++)
        memcpy(f.logits + i * VOCAB, f.logits, VOCAB * sizeof(float));
    for (int id = 0; id < VOCAB * SAMPLES; id++)
        f.logits[id] *= 0.05f; // flat, so that every cell is hit often
    assert_int_equal(expected_keep(keep, f.logits, &parameters[0]), CELLS);
    for (int id = 0; id < REAL; id++) {
        weights[id] = keep[id] ? exp((double)f.logits[id] / 0.8f) : 0;
        total += weights[id];
    }
    for (int turn = 0; turn < TURNS; turn++) {
        for (int i = 0; i < SAMPLES; i++)
            f.steps.tables.sample_positions[i] = turn;
        run(&f, 1);
        for (int i = 0; i < SAMPLES; i++)
            counts[f.tokens[i]]++;
    }
    for (int id = 0; id < REAL; id++) {
        double expected = weights[id] / total * TURNS * SAMPLES;
        if (keep[id])
            chi += (counts[id] - expected) * (counts[id] - expected) / expected;
        else
            assert_int_equal(counts[id], 0);
    }
    assert_true(chi < 33); // 4 degrees of freedom: above 33 once in 10^6 seeds
    ops_close(&f.ops);
}

static void inert_and_uncut_rows_are_left_alone(void **state)
{
    struct fixture f;
    (void)state;
    open_fixture(&f, 3, varied);
    f.steps.tables.sample_positions[0] = -1;
    run(&f, 2);
    assert_int_equal(f.tokens[0], -1);
    assert_true(f.cuts[11] == -INFINITY);
    assert_false(sample_cut_needed(&varied[9]));
    assert_false(sample_cut_needed(&varied[11]));
    assert_true(sample_cut_needed(&varied[10]));
    ops_close(&f.ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_without_a_finite_logit),
        cmocka_unit_test(cuts_are_those_of_the_sorted_row),
        cmocka_unit_test(draws_follow_the_filtered_softmax),
        cmocka_unit_test(inert_and_uncut_rows_are_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
