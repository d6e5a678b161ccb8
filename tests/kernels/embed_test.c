// SPDX-License-Identifier: Apache-2.0
// embed_test.c -- rows are copied exactly; inert ids give zeros.
#include "kernels/embed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixtures/ops.h"

static void copies_rows_and_zeroes_inert_ones(void **state)
{
    (void)state;
    enum { VOCAB = 31, HIDDEN = 50, TOKENS = 7 };
    static const int32_t ids[TOKENS] = {0, 30, -1, 5, 5, -1000, 17};
    struct ops ops;
    ops_open(&ops, 1, 256, 1);
    struct weight table = ops_weight(&ops, VOCAB, HIDDEN, 1);
    bf16 *y = ops_alloc(&ops, TOKENS * HIDDEN * sizeof *y);
    embed(ops.streams[0], y, ids, &table, TOKENS);
    ops_wait(&ops);
    for (int token = 0; token < TOKENS; token++) {
        for (int i = 0; i < HIDDEN; i++) {
            int bits = ids[token] < 0
                           ? 0
                           : weight_bf16(&table)[(size_t)ids[token] * HIDDEN + (size_t)i].bits;
            assert_int_equal(y[token * HIDDEN + i].bits, bits);
        }
    }
    ops_close(&ops);
}

static void no_tokens_write_nothing(void **state)
{
    (void)state;
    static const int32_t ids[1] = {0};
    struct ops ops;
    ops_open(&ops, 1, 256, 2);
    struct weight table = ops_weight(&ops, 2, 4, 1);
    bf16 *y = ops_alloc(&ops, 4 * sizeof *y);
    embed(ops.streams[0], y, ids, &table, 0);
    ops_wait(&ops);
    assert_int_equal(y[0].bits, 0xffff);
    ops_close(&ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_rows_and_zeroes_inert_ones),
        cmocka_unit_test(no_tokens_write_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
