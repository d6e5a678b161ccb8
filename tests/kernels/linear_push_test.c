// SPDX-License-Identifier: Apache-2.0
// linear_push_test.c -- the partial product and the gated norm in front of it against plain
// formulas; what lies in the inbox afterwards; rows alone and together.
#include "kernels/linear_push.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/twins/twins.h"
#include "tests/fixtures/ops.h"

enum { TOKENS = 19, HEADS = 3, DIM = 128, COLUMNS = HEADS * DIM, ROWS = 70, STRIDE = COLUMNS + 8 };

static double value(const bf16 *values, size_t i)
{
    return (double)bf16_to_float(values[i]);
}

static struct linear_push make_op(struct ops *ops, bool gated)
{
    struct linear_push op = {
        .push = &ops->exchanges[0],
        .x = ops_bf16(ops, TOKENS * STRIDE, 2),
        .x_stride = STRIDE,
        .weight = ops_weight(ops, ROWS, COLUMNS, 0),
        .tokens = TOKENS,
        .partial = ops_alloc(ops, TOKENS * ROWS * sizeof(bf16)),
    };
    if (gated) {
        op.gate = ops_bf16(ops, TOKENS * (STRIDE + 2), 4);
        op.gate_stride = STRIDE + 2;
        op.norm = ops_float(ops, DIM, 2);
        op.eps = 1e-6f;
        op.heads = HEADS;
        op.dim = DIM;
        op.gated = ops_alloc(ops, TOKENS * COLUMNS * sizeof(bf16));
    }
    return op;
}

// partial = product of the rows that went in, rounded once, and the inbox holds the same bytes.
static void check_product(const struct linear_push *op, const bf16 *x, int stride)
{
    for (int token = 0; token < op->tokens; token++) {
        for (int row = 0; row < ROWS; row++) {
            const bf16 *w = weight_bf16(&op->weight) + row * COLUMNS;
            double sum = 0, size = 0;
            for (int i = 0; i < COLUMNS; i++) {
                double product = value(x, (size_t)(token * stride + i)) * value(w, (size_t)i);
                sum += product;
                size += fabs(product);
            }
            double error = COLUMNS * 0x1p-52 * size;
            assert_true(ops_rounded_bf16(op->partial[token * ROWS + row], sum, error));
        }
    }
    const uint8_t *lanes[EXCHANGE_RANKS_MAX];
    assert_true(exchange_pull(op->push, lanes));
    assert_memory_equal(lanes[0], op->partial, (size_t)op->tokens * ROWS * sizeof(bf16));
}

static void pushes_the_product(void **state)
{
    (void)state;
    struct ops ops;
    ops_open(&ops, 1, TOKENS * ROWS * sizeof(bf16), 1);
    struct linear_push op = make_op(&ops, false);
    linear_push(ops.streams[0], &op);
    ops_wait(&ops);
    check_product(&op, op.x, STRIDE);
    ops_close(&ops);
}

// Norm before gate, over one head, with the plain weight; one rounding.
static void gates_the_norm_of_each_head(void **state)
{
    (void)state;
    struct ops ops;
    ops_open(&ops, 1, TOKENS * ROWS * sizeof(bf16), 2);
    struct linear_push op = make_op(&ops, true);
    double *twin = ops_alloc(&ops, TOKENS * COLUMNS * sizeof *twin);
    linear_push(ops.streams[0], &op);
    ops_wait(&ops);
    linear_push_gated_twin(twin, &op);
    for (int token = 0; token < TOKENS; token++) {
        for (int head = 0; head < HEADS; head++) {
            double squares = 0;
            const bf16 *x = op.x + token * STRIDE + head * DIM;
            const bf16 *gate = op.gate + token * op.gate_stride + head * DIM;
            for (size_t i = 0; i < DIM; i++)
                squares += value(x, i) * value(x, i);
            for (size_t i = 0; i < DIM; i++) {
                double z = value(gate, i);
                double y = value(x, i) / sqrt(squares / DIM + (double)op.eps) * (double)op.norm[i] *
                           z / (1 + exp(-z));
                size_t at = (size_t)(token * COLUMNS + head * DIM) + i;
                assert_true(fabs(twin[at] - y) <= 1e-12 * fabs(y));
                assert_true(ops_rounded_bf16(op.gated[at], y, 1e-12 * fabs(y)));
            }
        }
    }
    check_product(&op, op.gated, COLUMNS);
    ops_close(&ops);
}

static void alone_is_together(void **state)
{
    (void)state;
    struct ops ops;
    const uint8_t *lanes[EXCHANGE_RANKS_MAX];
    ops_open(&ops, 1, TOKENS * ROWS * sizeof(bf16), 3);
    struct linear_push op = make_op(&ops, true), one = op;
    linear_push(ops.streams[0], &op);
    ops_wait(&ops);
    assert_true(exchange_pull(op.push, lanes));
    one.tokens = 1;
    for (int token = 0; token < TOKENS; token++) {
        one.x = op.x + token * STRIDE;
        one.gate = op.gate + token * op.gate_stride;
        one.partial = ops_alloc(&ops, ROWS * sizeof(bf16));
        one.gated = ops_alloc(&ops, COLUMNS * sizeof(bf16));
        linear_push(ops.streams[0], &one);
        ops_wait(&ops);
        assert_true(exchange_pull(op.push, lanes));
        assert_memory_equal(one.partial, op.partial + token * ROWS, ROWS * sizeof(bf16));
    }
    ops_close(&ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pushes_the_product),
        cmocka_unit_test(gates_the_norm_of_each_head),
        cmocka_unit_test(alone_is_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
