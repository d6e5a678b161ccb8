// SPDX-License-Identifier: Apache-2.0
// weight_fill_test.c -- the op makes exactly the values of parallel/dummy.h, whatever rectangle is
// asked for and in whatever kind it is stored.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kernels/weight_fill.h"
#include "parallel/dummy.h"
#include "tests/fixtures/ops.h"

enum { ROWS = 12, COLUMNS = 37 };

static void check_rectangle(struct ops *ops, const char *name, int64_t row, int64_t rows,
                            int64_t column, int64_t columns)
{
    struct dummy_tensor tensor = dummy_tensor(name, COLUMNS);
    for (int is_f32 = 0; is_f32 < 2; is_f32++) {
        size_t count = (size_t)(rows * columns);
        struct weight_fill op = {.out = ops_alloc(ops, count * (is_f32 ? 4 : 2)),
                                 .is_f32 = is_f32 != 0,
                                 .seed = tensor.seed,
                                 .centre = tensor.centre,
                                 .step = tensor.step,
                                 .row = row,
                                 .rows = rows,
                                 .column = column,
                                 .columns = columns,
                                 .tensor_columns = COLUMNS};
        weight_fill(ops->streams[0], &op);
        ops_wait(ops);
        for (size_t i = 0; i < count; i++) {
            int64_t at = (row + (int64_t)i / columns) * COLUMNS + column + (int64_t)i % columns;
            bf16 want = {dummy_value(&tensor, (uint64_t)at)};
            if (is_f32)
                assert_true(((float *)op.out)[i] == bf16_to_float(want));
            else
                assert_int_equal(((bf16 *)op.out)[i].bits, want.bits);
        }
    }
}

static void test_rectangles(void **state)
{
    (void)state;
    static const char *const names[] = {"embed_tokens.weight", "layers.0.linear_attn.norm.weight",
                                        "layers.0.linear_attn.A_log", "norm.weight"};
    struct ops ops;
    ops_open(&ops, 1, 256, 1);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        check_rectangle(&ops, names[i], 0, ROWS, 0, COLUMNS);
        check_rectangle(&ops, names[i], 3, 1, 0, COLUMNS);
        check_rectangle(&ops, names[i], 0, ROWS, COLUMNS - 1, 1);
        check_rectangle(&ops, names[i], 5, 7, 11, 16);
        check_rectangle(&ops, names[i], 5, 0, 11, 16);
    }
    ops_close(&ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rectangles)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
