// SPDX-License-Identifier: Apache-2.0
// mtp_input_test.c -- the head's input against a plain computation: embedding half first, each half
// with its own norm; inert rows are zero.
#include "kernels/mtp_input.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixtures/ops.h"

enum { VOCAB = 20, HIDDEN = 96, TOKENS = 6 };

static const int32_t ids[TOKENS] = {3, -1, 19, 0, 3, -7};

static double value(const bf16 *values, int i)
{
    return (double)bf16_to_float(values[i]);
}

static void check_half(const bf16 *half, const bf16 *x, const float *norm)
{
    double squares = 0;
    for (int i = 0; i < HIDDEN; i++)
        squares += value(x, i) * value(x, i);
    for (int i = 0; i < HIDDEN; i++) {
        double exact = value(x, i) / sqrt(squares / HIDDEN + (double)1e-6f) * (1 + (double)norm[i]);
        assert_true(ops_rounded_bf16(half[i], exact, fabs(exact) * 1e-12));
    }
}

static void joins_two_norms_and_multiplies(void **state)
{
    (void)state;
    struct ops ops;
    ops_open(&ops, 1, 256, 1);
    struct mtp_input op = {
        .ids = ids,
        .hidden_rows = ops_bf16(&ops, TOKENS * HIDDEN, 5),
        .embedding = ops_weight(&ops, VOCAB, HIDDEN, 1),
        .fc = ops_weight(&ops, HIDDEN, 2 * HIDDEN, 0),
        .embedding_norm = ops_float(&ops, HIDDEN, 0.5),
        .hidden_norm = ops_float(&ops, HIDDEN, 0.5),
        .eps = 1e-6f,
        .tokens = TOKENS,
        .hidden = HIDDEN,
        .joined = ops_alloc(&ops, TOKENS * 2 * HIDDEN * sizeof(bf16)),
        .y = ops_alloc(&ops, TOKENS * HIDDEN * sizeof(bf16)),
    };
    mtp_input(ops.streams[0], &op);
    ops_wait(&ops);
    for (int token = 0; token < TOKENS; token++) {
        const bf16 *joined = op.joined + token * 2 * HIDDEN;
        if (ids[token] >= 0) {
            check_half(joined, weight_bf16(&op.embedding) + ids[token] * HIDDEN, op.embedding_norm);
            check_half(joined + HIDDEN, op.hidden_rows + token * HIDDEN, op.hidden_norm);
        }
        for (int row = 0; row < HIDDEN; row++) {
            const bf16 *w = weight_bf16(&op.fc) + row * 2 * HIDDEN;
            double sum = 0, size = 0;
            for (int i = 0; i < 2 * HIDDEN; i++) {
                sum += value(joined, i) * value(w, i);
                size += fabs(value(joined, i) * value(w, i));
            }
            bf16 y = op.y[token * HIDDEN + row];
            if (ids[token] < 0)
                assert_int_equal(y.bits, 0);
            else
                assert_true(ops_rounded_bf16(y, sum, 2 * HIDDEN * 0x1p-52 * size));
        }
    }
    ops_close(&ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(joins_two_norms_and_multiplies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
