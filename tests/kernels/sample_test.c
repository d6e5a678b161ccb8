// SPDX-License-Identifier: Apache-2.0
// sample_test.c -- the generator's published vectors, the drawn distribution, greedy ties, any
// sharding against the whole, padding, inert rows, the hash.
#include "kernels/sample.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/twins/twins.h"
#include "tests/fixtures/steps.h"

enum { VOCAB = 200, REAL = 187, SAMPLES = 24, SLOTS = 4 };

// The known answers that come with Random123 (file kat_vectors, philox4x32 10).
static void philox_gives_the_published_vectors(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], expected[4];
    } vectors[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        sample_philox(out, vectors[i].counter, vectors[i].key);
        assert_memory_equal(out, vectors[i].expected, sizeof out);
    }
}

// 52 bits of words 1 and 0: 0xe169c58d6627e for seed, position and token 0.
static void uniform_is_as_stated(void **state)
{
    (void)state;
    assert_true(sample_uniform(0, 0, 0) == ((double)0xe169c58d6627eu + 0.5) / 4503599627370496.0);
    uint32_t out[4];
    sample_philox(out, (const uint32_t[4]){(uint32_t)-5, 6, 0, 0},
                  (const uint32_t[2]){0x89abcdefu, 0x01234567u});
    uint64_t bits = ((uint64_t)out[1] << 32 | out[0]) >> 12;
    assert_true(sample_uniform(0x0123456789abcdefu, -5, 6) ==
                ((double)bits + 0.5) / 4503599627370496.0);
}

// Mean and 16 equal cells over 2^16 draws; chi-square of 15 degrees: above 60 once in 10^6 seeds.
static void uniform_is_uniform(void **state)
{
    (void)state;
    enum { DRAWS = 1 << 16, CELLS = 16 };
    int cells[CELLS] = {0};
    for (int i = 0; i < DRAWS; i++) {
        double u = sample_uniform(42, i / 256, i % 256);
        assert_true(u > 0 && u < 1);
        cells[(int)(u * CELLS)]++;
    }
    double chi = 0;
    for (int i = 0; i < CELLS; i++) {
        double off = cells[i] - (double)DRAWS / CELLS;
        chi += off * off * CELLS / DRAWS;
    }
    assert_true(chi < 60);
}

struct fixture {
    struct ops ops;
    struct steps steps;
    float *logits; // [SAMPLES, VOCAB]
};

static void open_fixture(struct fixture *f, uint64_t seed)
{
    ops_open(&f->ops, 1, 256, seed);
    steps_open(&f->steps, &f->ops, SLOTS, 1, 8);
    steps_clear(&f->steps);
    f->logits = ops_float(&f->ops, SAMPLES * VOCAB, 5);
    f->steps.tables.samples_count = SAMPLES;
    for (int i = 0; i < SAMPLES; i++) {
        f->steps.tables.sample_positions[i] = 10 + i / SLOTS;
        f->steps.tables.sample_slots[i] = i % SLOTS;
    }
    for (int i = 0; i < SLOTS; i++) {
        f->steps.slots.slots[i] =
            (struct slot){.sampling = {.temperature = i == 0 ? 0 : 0.4f * (float)i,
                                       .seed = seed * 10 + 1 + (uint64_t)i}};
    }
}

static void close_fixture(struct fixture *f)
{
    ops_close(&f->ops);
}

// Logits of vocab rows first .. first + count, as a rank has them.
static float *slice(struct fixture *f, int first, int count)
{
    float *own = ops_alloc(&f->ops, (size_t)(SAMPLES * count) * sizeof *own);
    for (int i = 0; i < SAMPLES; i++)
        memcpy(own + i * count, f->logits + i * VOCAB + first, (size_t)count * sizeof *own);
    return own;
}

// Draws with `ranks` shards; candidates (may be NULL) receives [ranks, SAMPLES].
static void draw(struct fixture *f, int ranks, int32_t *tokens, uint64_t *hash,
                 struct sample_candidate *candidates)
{
    int own = VOCAB / ranks;
    struct sample_candidate *gathered =
        ops_alloc(&f->ops, (size_t)(ranks * SAMPLES) * sizeof *gathered);
    for (int rank = 0; rank < ranks; rank++) {
        struct sample_shard op = {
            .tables = f->steps.tables,
            .slots = f->steps.slots,
            .logits = slice(f, rank * own, own),
            .vocab_first = rank * own,
            .vocab_count = own,
            .vocab_real = REAL,
            .candidates = gathered + rank * SAMPLES,
        };
        sample_shard(f->ops.streams[0], &op);
    }
    static const uint64_t step = 77;
    sample_pick(f->ops.streams[0], tokens, hash, gathered, ranks, &f->steps.tables, &step);
    ops_wait(&f->ops);
    if (candidates != NULL)
        memcpy(candidates, gathered, (size_t)(ranks * SAMPLES) * sizeof *gathered);
}

// The definition, in one loop over the whole vocabulary.
static int32_t expected_token(const struct fixture *f, int sample)
{
    const float *logits = f->logits + sample * VOCAB;
    const struct slot_sampling *sampling =
        &f->steps.slots.slots[f->steps.tables.sample_slots[sample]].sampling;
    int32_t position = f->steps.tables.sample_positions[sample];
    int32_t best = -1;
    float best_value = 0;
    for (int32_t id = 0; id < REAL; id++) {
        double value = (double)logits[id];
        if (sampling->temperature > 0) {
            double u = sample_uniform(sampling->seed, position, id);
            value = value / (double)sampling->temperature - log(-log(u));
        }
        if (best < 0 || (float)value > best_value) {
            best = id;
            best_value = (float)value;
        }
    }
    return best;
}

static void any_sharding_draws_the_same(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct fixture f;
        uint64_t hashes[4];
        open_fixture(&f, seed);
        for (int i = 0; i < 4; i++) {
            int32_t tokens[SAMPLES];
            draw(&f, 1 << i, tokens, &hashes[i], NULL);
            for (int sample = 0; sample < SAMPLES; sample++)
                assert_int_equal(tokens[sample], expected_token(&f, sample));
            assert_true(hashes[i] == hashes[0]);
        }
        close_fixture(&f);
    }
}

// Candidates carry what log-probabilities need: maximum, mass and the unperturbed logit.
static void candidates_give_log_probabilities(void **state)
{
    (void)state;
    enum { RANKS = 4 };
    struct fixture f;
    int32_t tokens[SAMPLES];
    uint64_t hash;
    struct sample_candidate candidates[RANKS * SAMPLES];
    open_fixture(&f, 30);
    draw(&f, RANKS, tokens, &hash, candidates);
    for (int sample = 0; sample < SAMPLES; sample++) {
        double mass = 0, exact = 0;
        for (int rank = 0; rank < RANKS; rank++) {
            const struct sample_candidate *c = &candidates[rank * SAMPLES + sample];
            assert_true(c->logit == f.logits[sample * VOCAB + c->id]);
            mass += (double)c->sum * exp((double)c->maximum);
        }
        for (int id = 0; id < REAL; id++)
            exact += exp((double)f.logits[sample * VOCAB + id]);
        assert_true(fabs(mass - exact) <= exact * 1e-6);
    }
    close_fixture(&f);
}

static void greedy_ties_go_to_the_lowest_id(void **state)
{
    (void)state;
    struct fixture f;
    int32_t tokens[SAMPLES];
    uint64_t hash;
    open_fixture(&f, 31);
    for (int i = 0; i < SAMPLES; i++) {
        f.steps.tables.sample_slots[i] = 0; // greedy
        for (int id = i; id < VOCAB; id += 13)
            f.logits[i * VOCAB + id] = 9; // ties within and across shards, padding rows as well
    }
    for (int ranks = 1; ranks <= 8; ranks *= 2) {
        draw(&f, ranks, tokens, &hash, NULL);
        for (int i = 0; i < SAMPLES; i++)
            assert_int_equal(tokens[i], i);
    }
    close_fixture(&f);
}

// The largest logits are padding: they are never drawn, and a shard of padding stays silent.
static void padding_is_never_drawn(void **state)
{
    (void)state;
    struct fixture f;
    int32_t tokens[SAMPLES];
    uint64_t hash;
    struct sample_candidate candidates[8 * SAMPLES];
    open_fixture(&f, 32);
    for (int i = 0; i < SAMPLES * VOCAB; i++)
        f.logits[i] = i % VOCAB >= REAL ? 1000 : f.logits[i];
    draw(&f, 8, tokens, &hash, candidates);
    for (int i = 0; i < SAMPLES; i++) {
        assert_in_range(tokens[i], 0, REAL - 1);
        assert_true(candidates[7 * SAMPLES + i].maximum < 10);
    }
    struct sample_shard op = {
        .tables = f.steps.tables,
        .slots = f.steps.slots,
        .logits = f.logits,
        .vocab_first = REAL,
        .vocab_count = VOCAB - REAL,
        .vocab_real = REAL,
        .candidates = ops_alloc(&f.ops, SAMPLES * sizeof(struct sample_candidate)),
    };
    sample_shard(f.ops.streams[0], &op);
    ops_wait(&f.ops);
    for (int i = 0; i < SAMPLES; i++) {
        assert_int_equal(op.candidates[i].id, -1);
        assert_true(op.candidates[i].sum == 0);
    }
    close_fixture(&f);
}

static void inert_rows_draw_nothing(void **state)
{
    (void)state;
    struct fixture f;
    int32_t tokens[SAMPLES];
    uint64_t hash;
    open_fixture(&f, 33);
    for (int i = 0; i < SAMPLES; i += 2) {
        f.steps.tables.sample_positions[i] = -1;
        f.steps.tables.sample_slots[i] = i % 4 == 0 ? -1 : 2;
    }
    draw(&f, 2, tokens, &hash, NULL);
    for (int i = 0; i < SAMPLES; i++)
        assert_int_equal(tokens[i], i % 2 == 0 ? -1 : expected_token(&f, i));
    close_fixture(&f);
}

static void nan_and_minus_infinity_lose(void **state)
{
    (void)state;
    struct fixture f;
    int32_t tokens[SAMPLES];
    uint64_t hash;
    open_fixture(&f, 34);
    for (int sample = 0; sample < SAMPLES; sample++) {
        for (int id = 0; id < VOCAB; id++)
            f.logits[sample * VOCAB + id] = id % 2 ? -INFINITY : NAN;
        f.logits[sample * VOCAB + 100 + sample] = -40;
    }
    struct sample_candidate candidates[SAMPLES];
    draw(&f, 4, tokens, &hash, NULL);
    for (int sample = 0; sample < SAMPLES; sample++)
        assert_int_equal(tokens[sample], 100 + sample);
    draw(&f, 1, tokens, &hash, candidates);
    for (int sample = 0; sample < SAMPLES; sample++) {
        assert_int_equal(tokens[sample], 100 + sample);
        assert_true(candidates[sample].sum == 1); // a NaN has no mass
    }
    close_fixture(&f);
}

static void nothing_finite_is_no_token(void **state)
{
    static const float values[] = {NAN, -INFINITY, INFINITY};
    (void)state;
    struct fixture f;
    int32_t tokens[SAMPLES];
    uint64_t hash;
    open_fixture(&f, 36);
    for (int sample = 0; sample < SAMPLES; sample++) {
        for (int id = 0; id < VOCAB && sample < 3; id++)
            f.logits[sample * VOCAB + id] = values[sample];
    }
    for (int ranks = 1; ranks <= 4; ranks *= 2) {
        draw(&f, ranks, tokens, &hash, NULL);
        for (int sample = 0; sample < SAMPLES; sample++)
            assert_int_equal(tokens[sample], sample < 3 ? -1 : expected_token(&f, sample));
    }
    close_fixture(&f);
}

// Draws at many positions follow softmax(logits / temperature). Chi-square of 49 degrees has mean
// 49 and deviation 9.9; 100 is five deviations. A temperature off by 5 % gives several hundred.
static void draws_follow_the_softmax(void **state)
{
    (void)state;
    enum { IDS = 50, DRAWS = 40000, BATCH = SAMPLES };
    static const float temperatures[] = {0.7f, 1.0f, 2.0f};
    for (int t = 0; t < 3; t++) {
        struct fixture f;
        int counts[IDS] = {0};
        double mass = 0, chi = 0;
        open_fixture(&f, 35);
        f.steps.slots.slots[1].sampling.temperature = temperatures[t];
        float *logits = ops_float(&f.ops, IDS, 1.5);
        for (int i = 0; i < BATCH; i++)
            memcpy(f.logits + i * IDS, logits, IDS * sizeof *logits);
        struct sample_shard op = {f.steps.tables,
                                  f.steps.slots,
                                  f.logits,
                                  0,
                                  IDS,
                                  IDS,
                                  NULL,
                                  ops_alloc(&f.ops, BATCH * sizeof(struct sample_candidate)),
                                  NULL};
        for (int first = 0; first < DRAWS; first += BATCH) {
            for (int i = 0; i < BATCH; i++) {
                f.steps.tables.sample_slots[i] = 1;
                f.steps.tables.sample_positions[i] = first + i;
            }
            sample_shard(f.ops.streams[0], &op);
            ops_wait(&f.ops);
            for (int i = 0; i < BATCH && first + i < DRAWS; i++)
                counts[op.candidates[i].id]++;
        }
        for (int id = 0; id < IDS; id++)
            mass += exp((double)logits[id] / (double)temperatures[t]);
        for (int id = 0; id < IDS; id++) {
            double mean = DRAWS * exp((double)logits[id] / (double)temperatures[t]) / mass;
            assert_true(mean > 5); // the approximation holds
            chi += (counts[id] - mean) * (counts[id] - mean) / mean;
        }
        if (!(chi < 100))
            fail_msg("temperature %g: chi-square %g", (double)temperatures[t], chi);
        close_fixture(&f);
    }
}

// splitmix64's finaliser, from its publication.
static uint64_t finalised(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void hash_is_of_step_slots_and_tokens(void **state)
{
    (void)state;
    struct fixture f;
    int32_t tokens[SAMPLES];
    uint64_t hash, seed = finalised(77), expected = seed;
    open_fixture(&f, 36);
    f.steps.tables.sample_slots[1] = -1; // of no sequence: not in the hash
    f.steps.tables.sample_positions[1] = -1;
    draw(&f, 2, tokens, &hash, NULL);
    for (int i = 0; i < SAMPLES; i++) {
        if (i == 1)
            continue;
        uint64_t slot = (uint64_t)f.steps.tables.sample_slots[i];
        uint64_t position = (uint32_t)f.steps.tables.sample_positions[i];
        uint64_t token = (uint32_t)tokens[i];
        expected += finalised(finalised(seed + (slot << 32 | position)) + token);
    }
    assert_true(hash == expected);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_vectors),
        cmocka_unit_test(uniform_is_as_stated),
        cmocka_unit_test(uniform_is_uniform),
        cmocka_unit_test(any_sharding_draws_the_same),
        cmocka_unit_test(candidates_give_log_probabilities),
        cmocka_unit_test(greedy_ties_go_to_the_lowest_id),
        cmocka_unit_test(padding_is_never_drawn),
        cmocka_unit_test(inert_rows_draw_nothing),
        cmocka_unit_test(nan_and_minus_infinity_lose),
        cmocka_unit_test(nothing_finite_is_no_token),
        cmocka_unit_test(draws_follow_the_softmax),
        cmocka_unit_test(hash_is_of_step_slots_and_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
