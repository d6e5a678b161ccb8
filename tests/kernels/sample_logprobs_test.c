// SPDX-License-Identifier: Apache-2.0
// sample_logprobs_test.c -- against a softmax of the whole row in double, sorted whole: any
// sharding, ties over shards, padding, NaN and infinite logits, entries that are skipped, and
// fewer ids than alternatives.
#include "kernels/sample_logprobs.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixtures/ops.h"

enum { VOCAB = 320, REAL = 301, ROWS = 9, TOP = SAMPLE_LOGPROBS_TOP_MAX };

struct fixture {
    struct ops ops;
    float *logits; // [ROWS, VOCAB]
    int32_t *rows, *tokens, *token_rows, *tops;
    struct sample_logprob *results; // [ROWS]
};

static void open_fixture(struct fixture *f, uint64_t seed)
{
    ops_open(&f->ops, 1, 256, seed);
    f->logits = ops_float(&f->ops, ROWS * VOCAB, 8);
    f->rows = ops_alloc(&f->ops, ROWS * sizeof *f->rows);
    f->tokens = ops_alloc(&f->ops, ROWS * sizeof *f->tokens);
    f->token_rows = ops_alloc(&f->ops, ROWS * sizeof *f->token_rows);
    f->tops = ops_alloc(&f->ops, ROWS * sizeof *f->tops);
    f->results = ops_alloc(&f->ops, ROWS * sizeof *f->results);
    for (int i = 0; i < ROWS; i++) { // entries in another order than rows, tokens in a third
        f->rows[i] = (i * 4 + 2) % ROWS;
        f->token_rows[i] = ROWS - 1 - i;
        f->tokens[i] = (int32_t)(ops_random(&f->ops) % REAL);
        f->tops[i] = i * 20 / (ROWS - 1);
    }
}

static void run(struct fixture *f, int ranks, int rows_count)
{
    int own = VOCAB / ranks;
    struct stream *stream = f->ops.streams[0];
    struct sample_logprob_part *gathered =
        ops_alloc(&f->ops, (size_t)(ranks * rows_count) * sizeof *gathered);
    struct sample_logprobs op = {.vocab_count = own,
                                 .vocab_real = REAL,
                                 .rows_count = rows_count,
                                 .rows = f->rows,
                                 .tokens = f->tokens,
                                 .token_rows = f->token_rows,
                                 .tops = f->tops};
    for (int r = 0; r < ranks; r++) {
        float *shard = ops_alloc(&f->ops, (size_t)(ROWS * own) * sizeof *shard);
        for (int i = 0; i < ROWS; i++)
            memcpy(shard + i * own, f->logits + i * VOCAB + r * own, (size_t)own * sizeof *shard);
        op.logits = shard;
        op.vocab_first = r * own;
        op.parts = gathered + r * rows_count;
        sample_logprobs_shard(stream, &op);
    }
    sample_logprobs_merge(stream, f->results, gathered, ranks, &op);
    ops_wait(&f->ops);
}

static const float *sorted_logits;

static int by_logit(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    float lx = sorted_logits[x], ly = sorted_logits[y];
    return lx != ly ? (lx < ly) - (lx > ly) : (x > y) - (x < y);
}

// The definition, one row: f32 results may differ from it by the last rounding of a number below
// 2^5 and by the sum's order, far less.
static void expect(const struct sample_logprob *result, const float *logits, int32_t token, int top)
{
    int32_t ids[REAL];
    int count = 0;
    double maximum = -INFINITY, sum = 0;
    for (int i = 0; i < REAL; i++) {
        if (logits[i] > -INFINITY)
            ids[count++] = i;
        maximum = fmax(maximum, (double)logits[i]);
    }
    for (int i = 0; i < count; i++)
        sum += exp((double)logits[ids[i]] - maximum);
    double norm = maximum + log(sum);
    sorted_logits = logits;
    qsort(ids, (size_t)count, sizeof ids[0], by_logit);
    assert_int_equal(result->id, token);
    if (logits[token] > -INFINITY)
        assert_true(ops_rounded_float(result->logprob, (double)logits[token] - norm, 1e-12));
    else
        assert_true(result->logprob == -INFINITY);
    assert_int_equal(result->top_count, top < count ? top : count);
    for (int i = 0; i < result->top_count; i++) {
        assert_int_equal(result->top_ids[i], ids[i]);
        assert_true(
            ops_rounded_float(result->top_logprobs[i], (double)logits[ids[i]] - norm, 1e-12));
    }
}

static void expect_all(struct fixture *f)
{
    for (int i = 0; i < ROWS; i++)
        expect(&f->results[i], f->logits + f->rows[i] * VOCAB, f->tokens[f->token_rows[i]],
               f->tops[i]);
}

static void any_sharding_gives_the_whole_rows_numbers(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct fixture f;
        open_fixture(&f, seed);
        for (int ranks = 1; ranks <= 8; ranks *= 2) {
            run(&f, ranks, ROWS);
            expect_all(&f);
        }
        ops_close(&f.ops);
    }
}

static void ties_go_to_the_lower_id_over_shards(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, 3);
    for (int i = 0; i < ROWS * VOCAB; i++) // five values only
        f.logits[i] = (float)(int)(f.logits[i] / 4);
    for (int ranks = 1; ranks <= 4; ranks *= 2) {
        run(&f, ranks, ROWS);
        expect_all(&f);
    }
    ops_close(&f.ops);
}

static void numbers_that_are_none_are_left_out(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, 4);
    for (int row = 0; row < ROWS; row++) {
        float *logits = f.logits + row * VOCAB;
        logits[5] = NAN;
        logits[200] = -INFINITY;
        for (int i = REAL; i < VOCAB; i++)
            logits[i] = 1000; // padding would win
        for (int i = 0; row == 2 && i < VOCAB; i++)
            logits[i] = i % 40 == 0 && i > 0 && i < 300 ? (float)i / 100 : -INFINITY; // seven left
        for (int i = 0; row == 6 && i < VOCAB; i++)
            logits[i] = i == 17 ? -3e38f : -INFINITY;
    }
    f.tokens[0] = 200; // drawn of no mass: cannot be, and must not break
    for (int ranks = 1; ranks <= 4; ranks *= 2) {
        run(&f, ranks, ROWS);
        expect_all(&f);
    }
    ops_close(&f.ops);
}

static void skipped_entries_are_empty(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, 5);
    f.tops[3] = -1;
    f.tokens[f.token_rows[4]] = -1; // an inert row drew nothing
    run(&f, 2, ROWS);
    for (int i = 0; i < ROWS; i++) {
        if (i == 3 || i == 4) {
            assert_int_equal(f.results[i].id, -1);
            assert_int_equal(f.results[i].top_count, 0);
        } else {
            expect(&f.results[i], f.logits + f.rows[i] * VOCAB, f.tokens[f.token_rows[i]],
                   f.tops[i]);
        }
    }
    ops_close(&f.ops);
}

static void lists_may_be_left_out(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, 6);
    f.rows = f.token_rows = NULL;
    run(&f, 4, 4);
    for (int i = 0; i < 4; i++)
        expect(&f.results[i], f.logits + i * VOCAB, f.tokens[i], f.tops[i]);
    ops_close(&f.ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_sharding_gives_the_whole_rows_numbers),
        cmocka_unit_test(ties_go_to_the_lower_id_over_shards),
        cmocka_unit_test(numbers_that_are_none_are_left_out),
        cmocka_unit_test(skipped_entries_are_empty),
        cmocka_unit_test(lists_may_be_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
