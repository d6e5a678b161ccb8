// SPDX-License-Identifier: Apache-2.0
// silu_mul_test.c -- the gate against its formula, at the extremes too.
#include "kernels/silu_mul.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kernels/twins/twins.h"
#include "tests/fixtures/ops.h"

static double sigmoid(double x)
{
    return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x));
}

static void gates_up_with_silu(void **state)
{
    (void)state;
    enum { TOKENS = 5, WIDTH = 77 };
    struct ops ops;
    ops_open(&ops, 1, 256, 1);
    bf16 *gate_up = ops_bf16(&ops, TOKENS * 2 * WIDTH, 8);
    bf16 *y = ops_alloc(&ops, TOKENS * WIDTH * sizeof *y);
    double row[WIDTH];
    silu_mul(ops.streams[0], y, gate_up, TOKENS, WIDTH);
    ops_wait(&ops);
    for (int token = 0; token < TOKENS; token++) {
        const bf16 *from = gate_up + token * 2 * WIDTH;
        silu_mul_row_twin(row, from, WIDTH);
        for (int i = 0; i < WIDTH; i++) {
            double gate = (double)bf16_to_float(from[i]);
            double exact = gate * sigmoid(gate) * (double)bf16_to_float(from[WIDTH + i]);
            assert_true(fabs(row[i] - exact) <= 1e-14 * fabs(exact));
            assert_true(ops_rounded_bf16(y[token * WIDTH + i], exact, 1e-14 * fabs(exact)));
        }
    }
    ops_close(&ops);
}

// exp overflows for the most negative gates: the result is -0 or 0, never NaN.
static void extremes_are_finite(void **state)
{
    (void)state;
    enum { WIDTH = 4 };
    static const float gates[WIDTH] = {-3e38f, -1000, 1000, 3e38f};
    static const float expected[WIDTH] = {0, 0, 500, 1.5e38f};
    struct ops ops;
    ops_open(&ops, 1, 256, 2);
    bf16 *gate_up = ops_alloc(&ops, 2 * WIDTH * sizeof *gate_up);
    bf16 *y = ops_alloc(&ops, WIDTH * sizeof *y);
    for (int i = 0; i < WIDTH; i++) {
        gate_up[i] = bf16_from_float(gates[i]);
        gate_up[WIDTH + i] = bf16_from_float(0.5f);
    }
    silu_mul(ops.streams[0], y, gate_up, 1, WIDTH);
    ops_wait(&ops);
    for (int i = 0; i < WIDTH; i++)
        assert_true(bf16_to_float(y[i]) == bf16_to_float(bf16_from_float(expected[i])));
    ops_close(&ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gates_up_with_silu),
        cmocka_unit_test(extremes_are_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
