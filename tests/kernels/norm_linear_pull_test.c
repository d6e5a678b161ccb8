// SPDX-License-Identifier: Apache-2.0
// norm_linear_pull_test.c -- residual sum, zero-centred norm and product against plain formulas;
// one rank and two; rows alone and together; what happens when the pull fails.
#include "kernels/norm_linear_pull.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/linear_push.h"
#include "kernels/twins/twins.h"
#include "tests/fixtures/ops.h"

static const float EPS = 1e-6f;

static double value(const bf16 *values, size_t i)
{
    return (double)bf16_to_float(values[i]);
}

static struct norm_linear_pull make_op(struct ops *ops, int tokens, int hidden, int rows)
{
    size_t values = (size_t)tokens * (size_t)hidden;
    return (struct norm_linear_pull){
        .residual = ops_bf16_wide(ops, values),
        .norm = ops_float(ops, (size_t)hidden, 0.5),
        .eps = EPS,
        .tokens = tokens,
        .hidden = hidden,
        .normed = ops_alloc(ops, values * sizeof(bf16)),
        .weight = ops_weight(ops, rows, hidden, 0),
        .y = ops_alloc(ops, (size_t)tokens * (size_t)rows * sizeof(bf16)),
    };
}

// normed against the formula, y against the product of the normed rows as stored. Sums of n
// doubles differ by order by less than n * 2^-52 of the sum of sizes.
static void check_norm_and_product(const struct norm_linear_pull *op)
{
    for (int token = 0; token < op->tokens; token++) {
        size_t at = (size_t)token * (size_t)op->hidden;
        double squares = 0;
        for (int i = 0; i < op->hidden; i++)
            squares += value(op->residual, at + (size_t)i) * value(op->residual, at + (size_t)i);
        double scale = 1 / sqrt(squares / op->hidden + (double)op->eps);
        for (int i = 0; i < op->hidden; i++) {
            double x = value(op->residual, at + (size_t)i) * scale * (1 + (double)op->norm[i]);
            assert_true(ops_rounded_bf16(op->normed[at + (size_t)i], x, fabs(x) * 1e-12));
        }
        for (int row = 0; row < op->weight.rows; row++) {
            const bf16 *w = weight_bf16(&op->weight) + (size_t)row * (size_t)op->hidden;
            size_t to = (size_t)token * (size_t)op->weight.rows + (size_t)row;
            double sum = 0, size = 0;
            for (int i = 0; i < op->hidden; i++) {
                sum += value(op->normed, at + (size_t)i) * value(w, (size_t)i);
                size += fabs(value(op->normed, at + (size_t)i) * value(w, (size_t)i));
            }
            double error = op->hidden * 0x1p-52 * size;
            if (op->y != NULL)
                assert_true(ops_rounded_bf16(op->y[to], sum, error));
            else
                assert_true(ops_rounded_float(op->y_float[to], sum, error));
        }
    }
}

static void normalises_and_multiplies(void **state)
{
    (void)state;
    static const int shapes[][3] = {{1, 64, 10}, {3, 256, 70}, {17, 258, 65}, {2, 1024, 1}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct ops ops;
        ops_open(&ops, 1, 256, 100 + i);
        struct norm_linear_pull op = make_op(&ops, shapes[i][0], shapes[i][1], shapes[i][2]);
        size_t bytes = (size_t)op.tokens * (size_t)op.hidden * sizeof(bf16);
        bf16 *before = ops_copy(&ops, op.residual, bytes);
        norm_linear_pull(ops.streams[0], &op);
        ops_wait(&ops);
        check_norm_and_product(&op);
        assert_memory_equal(op.residual, before, bytes); // nothing pulled: unchanged
        op.y = NULL;
        op.y_float = ops_alloc(&ops, (size_t)op.tokens * (size_t)op.weight.rows * sizeof(float));
        norm_linear_pull(ops.streams[0], &op);
        ops_wait(&ops);
        check_norm_and_product(&op);
        ops_close(&ops);
    }
}

static void without_weight_only_normalises(void **state)
{
    (void)state;
    struct ops ops;
    ops_open(&ops, 1, 256, 200);
    struct norm_linear_pull op = make_op(&ops, 5, 64, 3);
    bf16 *y = op.y;
    op.weight = (struct weight){.format = WEIGHT_NONE};
    op.y = NULL;
    norm_linear_pull(ops.streams[0], &op);
    ops_wait(&ops);
    check_norm_and_product(&op);
    assert_int_equal(y[0].bits, 0xffff);
    ops_close(&ops);
}

// norm_row_twin is what a kernel's normed rows are held against.
static void twin_is_the_row_before_rounding(void **state)
{
    (void)state;
    struct ops ops;
    ops_open(&ops, 1, 256, 201);
    struct norm_linear_pull op = make_op(&ops, 4, 300, 3);
    double *row = ops_alloc(&ops, 300 * sizeof *row);
    norm_linear_pull(ops.streams[0], &op);
    ops_wait(&ops);
    for (int token = 0; token < 4; token++) {
        norm_row_twin(row, op.residual + token * 300, op.norm, (double)op.eps, 300);
        for (int i = 0; i < 300; i++)
            assert_true(ops_rounded_bf16(op.normed[token * 300 + i], row[i], 0));
    }
    ops_close(&ops);
}

// Every token gets the bits that it gets alone.
static void alone_is_together(void **state)
{
    (void)state;
    enum { TOKENS = 37, HIDDEN = 320, ROWS = 66 };
    struct ops ops;
    ops_open(&ops, 1, 256, 202);
    struct norm_linear_pull op = make_op(&ops, TOKENS, HIDDEN, ROWS), one = op;
    norm_linear_pull(ops.streams[0], &op);
    one.tokens = 1;
    one.normed = ops_alloc(&ops, HIDDEN * sizeof(bf16));
    for (int token = 0; token < TOKENS; token++) {
        one.residual = op.residual + token * HIDDEN;
        one.y = ops_alloc(&ops, ROWS * sizeof(bf16));
        norm_linear_pull(ops.streams[0], &one);
        ops_wait(&ops);
        assert_memory_equal(one.y, op.y + token * ROWS, ROWS * sizeof(bf16));
    }
    ops_close(&ops);
}

struct pair_op {
    struct norm_linear_pull pull;
    struct linear_push push;
};

// A product of `columns` own columns is pushed, then pulled into the residual.
static struct pair_op make_pair(struct ops *ops, int rank, int tokens, int hidden, int columns)
{
    struct pair_op pair = {.pull = make_op(ops, tokens, hidden, 20)};
    pair.pull.pull = &ops->exchanges[rank];
    pair.push = (struct linear_push){
        .push = &ops->exchanges[rank],
        .x = ops_bf16_wide(ops, (size_t)tokens * (size_t)columns),
        .x_stride = columns,
        .weight = ops_weight(ops, hidden, columns, 1),
        .tokens = tokens,
        .partial = ops_alloc(ops, (size_t)tokens * (size_t)hidden * sizeof(bf16)),
    };
    return pair;
}

// Makes one rank push the opposite of another: if they come first, f32 keeps what follows; it loses
// it if they come last.
static void cancel(struct ops *ops, const struct linear_push *first, struct linear_push *second)
{
    size_t count = (size_t)first->weight.rows * (size_t)first->weight.columns;
    bf16 *negated = ops_copy(ops, first->weight.data, count * sizeof *negated);
    for (size_t i = 0; i < count; i++)
        negated[i].bits ^= 0x8000;
    second->weight.data = negated;
    second->x = first->x;
}

// All ranks push and pull several times; each residual must be the f32 sum in rank order.
static void check_ranks(int ranks)
{
    enum { TOKENS = 6, HIDDEN = 128, COLUMNS = 24, ROUNDS = 5 };
    struct ops ops;
    struct pair_op pairs[EXCHANGE_RANKS_MAX];
    size_t bytes = (size_t)TOKENS * HIDDEN * sizeof(bf16);
    ops_open(&ops, ranks, bytes, 300 + (uint64_t)ranks);
    for (int rank = 0; rank < ranks; rank++) {
        pairs[rank] = make_pair(&ops, rank, TOKENS, HIDDEN, COLUMNS);
        memcpy(pairs[rank].pull.residual, pairs[0].pull.residual, bytes);
        pairs[rank].pull.norm = pairs[0].pull.norm;
        pairs[rank].pull.weight = pairs[0].pull.weight;
        if (rank > 0) // small beside rank 0's
            pairs[rank].push.x = ops_bf16(&ops, (size_t)TOKENS * COLUMNS, 1e-4);
    }
    if (ranks > 2)
        cancel(&ops, &pairs[0].push, &pairs[1].push);
    for (int round = 0; round < ROUNDS; round++) {
        bf16 *before = ops_copy(&ops, pairs[0].pull.residual, bytes);
        for (int rank = 0; rank < ranks; rank++) {
            linear_push(ops.streams[rank], &pairs[rank].push);
            norm_linear_pull(ops.streams[rank], &pairs[rank].pull);
        }
        ops_wait(&ops);
        for (int i = 0; i < TOKENS * HIDDEN; i++) {
            float sum = bf16_to_float(before[i]);
            for (int rank = 0; rank < ranks; rank++)
                sum += bf16_to_float(pairs[rank].push.partial[i]);
            assert_int_equal(pairs[0].pull.residual[i].bits, bf16_from_float(sum).bits);
        }
        for (int rank = 0; rank < ranks; rank++) {
            check_norm_and_product(&pairs[rank].pull);
            assert_memory_equal(pairs[rank].pull.residual, pairs[0].pull.residual, bytes);
            assert_false(exchange_failed(&ops.exchanges[rank]));
        }
    }
    ops_close(&ops);
}

static void pulls_of_one_rank(void **state)
{
    (void)state;
    check_ranks(1);
}

static void pulls_of_two_ranks_on_two_threads(void **state)
{
    (void)state;
    check_ranks(2);
}

// More ranks than cores.
static void pulls_of_four_ranks(void **state)
{
    (void)state;
    check_ranks(4);
}

// Rows so small that eps decides.
static void eps_bounds_the_scale(void **state)
{
    (void)state;
    struct ops ops;
    ops_open(&ops, 1, 256, 203);
    struct norm_linear_pull op = make_op(&ops, 3, 64, 3);
    op.residual = ops_bf16(&ops, 3 * 64, 1e-3);
    for (int i = 0; i < 64; i++)
        op.residual[i] = (bf16){0};
    norm_linear_pull(ops.streams[0], &op);
    ops_wait(&ops);
    check_norm_and_product(&op);
    ops_close(&ops);
}

static void failed_pull_leaves_the_residual(void **state)
{
    (void)state;
    struct ops ops;
    ops_open(&ops, 2, 4096, 400);
    struct pair_op pair = make_pair(&ops, 0, 2, 64, 8);
    bf16 *before = ops_copy(&ops, pair.pull.residual, 2 * 64 * sizeof(bf16));
    linear_push(ops.streams[0], &pair.push); // rank 1 never pushes
    exchange_abort(&ops.exchanges[0]);
    norm_linear_pull(ops.streams[0], &pair.pull);
    ops_wait(&ops);
    assert_true(exchange_failed(&ops.exchanges[0]));
    assert_memory_equal(pair.pull.residual, before, 2 * 64 * sizeof(bf16));
    ops_close(&ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(normalises_and_multiplies),
        cmocka_unit_test(without_weight_only_normalises),
        cmocka_unit_test(twin_is_the_row_before_rounding),
        cmocka_unit_test(alone_is_together),
        cmocka_unit_test(pulls_of_one_rank),
        cmocka_unit_test(pulls_of_two_ranks_on_two_threads),
        cmocka_unit_test(pulls_of_four_ranks),
        cmocka_unit_test(eps_bounds_the_scale),
        cmocka_unit_test(failed_pull_leaves_the_residual),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
