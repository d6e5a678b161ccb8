// SPDX-License-Identifier: Apache-2.0
// linear_test.c -- the product inside the twins: its one order of summing, element by element, for
// any number of tokens; against a plain sum; gathers, strides and edges.
#include "kernels/twins/linear.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixtures/ops.h"

static const int token_counts[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100};
static const struct {
    int rows, columns;
} shapes[] = {{1, 2}, {3, 64}, {64, 256}, {65, 260}, {130, 1000}, {2, 7}, {63, 513}, {128, 2048}};

enum {
    TOKEN_COUNTS = sizeof token_counts / sizeof token_counts[0],
    SHAPES = sizeof shapes / sizeof shapes[0],
    TOKENS_MAX = 100,
};

static double value(const bf16 *values, int i)
{
    return (double)bf16_to_float(values[i]);
}

// The order that linear.h promises, spelled out with scalars.
static double dot_in_order(const bf16 *x, const bf16 *w, int columns)
{
    double sum = 0;
    for (int first = 0; first < columns; first += 256) {
        double lanes[8] = {0};
        for (int i = first; i < columns && i < first + 256; i++)
            lanes[i % 8] += value(x, i) * value(w, i);
        double folded[4];
        for (int i = 0; i < 4; i++)
            folded[i] = lanes[i] + lanes[i + 4];
        sum += (folded[0] + folded[2]) + (folded[1] + folded[3]);
    }
    return sum;
}

static void check_shape(struct ops *ops, int rows, int columns)
{
    size_t stride = (size_t)columns + 3;
    const bf16 *x = ops_bf16_wide(ops, TOKENS_MAX * stride);
    const bf16 *w = ops_bf16_wide(ops, (size_t)rows * (size_t)columns);
    double *expected = ops_alloc(ops, TOKENS_MAX * (size_t)rows * sizeof *expected);
    for (int token = 0; token < TOKENS_MAX; token++) {
        for (int row = 0; row < rows; row++)
            expected[token * rows + row] =
                dot_in_order(x + (size_t)token * stride, w + row * columns, columns);
    }
    for (int i = 0; i < TOKEN_COUNTS; i++) {
        size_t count = (size_t)token_counts[i] * (size_t)rows;
        struct linear_rows linear = {x, stride, NULL, w, token_counts[i], rows, columns};
        double *y = ops_alloc(ops, count * sizeof *y);
        float *y_float = ops_alloc(ops, count * sizeof *y_float);
        bf16 *y_bf16 = ops_alloc(ops, count * sizeof *y_bf16);
        linear_rows_double(y, &linear);
        linear_rows_float(y_float, &linear);
        linear_rows_bf16(y_bf16, &linear);
        assert_memory_equal(y, expected, count * sizeof *y);
        for (size_t j = 0; j < count; j++) {
            assert_true(y_float[j] == (float)expected[j]);
            assert_true(ops_rounded_bf16(y_bf16[j], expected[j], 0));
        }
    }
}

// Whatever runs beside a token, and on any instruction set, its bits are those of the stated order.
static void every_token_count_gives_the_stated_order(void **state)
{
    (void)state;
    for (int i = 0; i < SHAPES; i++) {
        struct ops ops;
        ops_open(&ops, 1, 256, (uint64_t)i);
        check_shape(&ops, shapes[i].rows, shapes[i].columns);
        ops_close(&ops);
    }
}

// A sum of n exact products of size up to m in any order differs from the true sum by less than
// n * 2^-53 * (sum of |products|): the plain loop is held to that as well.
static void agrees_with_a_plain_sum(void **state)
{
    (void)state;
    enum { ROWS = 65, COLUMNS = 5120, TOKENS = 5 };
    struct ops ops;
    ops_open(&ops, 1, 256, 7);
    const bf16 *x = ops_bf16_wide(&ops, TOKENS * COLUMNS);
    const bf16 *w = ops_bf16_wide(&ops, ROWS * COLUMNS);
    double *y = ops_alloc(&ops, TOKENS * ROWS * sizeof *y);
    linear_rows_double(y, &(struct linear_rows){x, COLUMNS, NULL, w, TOKENS, ROWS, COLUMNS});
    for (int token = 0; token < TOKENS; token++) {
        for (int row = 0; row < ROWS; row++) {
            double sum = 0, size = 0;
            for (int i = 0; i < COLUMNS; i++) {
                double product = value(x, token * COLUMNS + i) * value(w, row * COLUMNS + i);
                sum += product;
                size += fabs(product);
            }
            assert_true(fabs(y[token * ROWS + row] - sum) <= 2 * COLUMNS * 0x1p-53 * size);
        }
    }
    ops_close(&ops);
}

static void gathers_rows(void **state)
{
    (void)state;
    enum { ROWS = 70, COLUMNS = 24, TOKENS = 19, SOURCES = 5 };
    struct ops ops;
    ops_open(&ops, 1, 256, 8);
    const bf16 *x = ops_bf16_wide(&ops, SOURCES * COLUMNS);
    const bf16 *w = ops_bf16_wide(&ops, ROWS * COLUMNS);
    int32_t *gather = ops_alloc(&ops, TOKENS * sizeof *gather);
    double *y = ops_alloc(&ops, TOKENS * ROWS * sizeof *y);
    for (int i = 0; i < TOKENS; i++)
        gather[i] = (i * 3 + 1) % SOURCES;
    linear_rows_double(y, &(struct linear_rows){x, COLUMNS, gather, w, TOKENS, ROWS, COLUMNS});
    for (int token = 0; token < TOKENS; token++) {
        for (int row = 0; row < ROWS; row++) {
            double sum = dot_in_order(x + gather[token] * COLUMNS, w + row * COLUMNS, COLUMNS);
            assert_true(y[token * ROWS + row] == sum);
        }
    }
    ops_close(&ops);
}

// An infinity or NaN in one token stays in its row.
static void poison_stays_in_its_row(void **state)
{
    (void)state;
    enum { ROWS = 10, COLUMNS = 20, TOKENS = 4 };
    struct ops ops;
    ops_open(&ops, 1, 256, 9);
    bf16 *x = ops_bf16(&ops, TOKENS * COLUMNS, 1);
    const bf16 *w = ops_bf16(&ops, ROWS * COLUMNS, 1);
    double *y = ops_alloc(&ops, TOKENS * ROWS * sizeof *y);
    x[2 * COLUMNS + 5] = bf16_from_float(NAN);
    linear_rows_double(y, &(struct linear_rows){x, COLUMNS, NULL, w, TOKENS, ROWS, COLUMNS});
    for (int i = 0; i < TOKENS * ROWS; i++)
        assert_int_equal(isnan(y[i]), i / ROWS == 2);
    ops_close(&ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_token_count_gives_the_stated_order),
        cmocka_unit_test(agrees_with_a_plain_sum),
        cmocka_unit_test(gathers_rows),
        cmocka_unit_test(poison_stays_in_its_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
