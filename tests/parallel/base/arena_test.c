// SPDX-License-Identifier: Apache-2.0
// arena_test.c -- alignment, exact fit, refusal without loss, counting.
#include "parallel/base/arena.h"

#include <setjmp.h>
#include <stdalign.h>
#include <stdarg.h>

#include <cmocka.h>

static void pieces_are_aligned_and_apart(void **state)
{
    (void)state;
    alignas(64) uint8_t memory[256];
    struct arena arena;
    arena_init(&arena, memory, sizeof memory);
    assert_ptr_equal(arena_take(&arena, 1, 1), memory);
    assert_ptr_equal(arena_take(&arena, 3, 8), memory + 8);
    assert_ptr_equal(arena_take(&arena, 0, 1), memory + 11);
    assert_ptr_equal(arena_take(&arena, 10, 64), memory + 64);
    assert_ptr_equal(arena_take(&arena, 6, 1), memory + 74);
    assert_int_equal(arena.used, 80);
}

static void exact_fit_and_no_more(void **state)
{
    (void)state;
    alignas(64) uint8_t memory[100];
    struct arena arena;
    arena_init(&arena, memory, sizeof memory);
    assert_non_null(arena_take(&arena, 60, 4));
    assert_null(arena_take(&arena, 41, 1));
    assert_null(arena_take(&arena, 37, 64)); // 64 + 37 > 100
    assert_null(arena_take(&arena, 1, 128)); // the gap alone is too large
    assert_null(arena_take(&arena, SIZE_MAX, 64));
    assert_int_equal(arena.used, 60); // a refusal takes nothing
    assert_ptr_equal(arena_take(&arena, 36, 64), memory + 64);
    assert_int_equal(arena.used, 100);
    assert_null(arena_take(&arena, 1, 1));
    assert_ptr_equal(arena_take(&arena, 0, 1), memory + 100);
}

static void counts_without_memory(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL, SIZE_MAX);
    assert_null(arena_take(&arena, 1, 1));
    assert_null(arena_take(&arena, 100, 4096));
    assert_int_equal(arena.used, 4196);
    assert_null(arena_take(&arena, SIZE_MAX - 4196, 1));
    assert_int_equal(arena.used, SIZE_MAX);
    assert_null(arena_take(&arena, 1, 1));
    assert_int_equal(arena.used, SIZE_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_are_aligned_and_apart),
        cmocka_unit_test(exact_fit_and_no_more),
        cmocka_unit_test(counts_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
