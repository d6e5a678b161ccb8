// SPDX-License-Identifier: Apache-2.0
// scheduler_pace_test.c -- from what steps took to how many prompt tokens the next may carry.
#include "coordinator/scheduler_pace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "parallel/memory_plan.h"

#define MS_NS 1000000u

static void test_nothing_known(void **state)
{
    (void)state;
    struct scheduler_pace pace = {0};
    assert_int_equal(scheduler_pace_tokens(&pace, 60 * MS_NS), 64);
    assert_int_equal(scheduler_pace_tokens(&pace, 0), 64);
    assert_int_equal(scheduler_pace_tokens(&pace, UINT64_MAX), 64);
    scheduler_pace_note(&pace, 5, 0, 2 * MS_NS); // a step without prefill teaches the base only
    assert_int_equal(scheduler_pace_tokens(&pace, 60 * MS_NS), 64);
}

// At most twice of what was tried, until that is as much as fits: 1 ms and 10 us a token, 60 ms.
static void test_grows_to_what_fits(void **state)
{
    (void)state;
    struct scheduler_pace pace = {0};
    int32_t expected = 64;
    scheduler_pace_note(&pace, 5, 0, MS_NS);
    for (int i = 0; i < 20; i++) {
        int32_t tokens = scheduler_pace_tokens(&pace, 60 * MS_NS);
        assert_int_equal(tokens, expected);
        scheduler_pace_note(&pace, 5, tokens, MS_NS + 10000u * (uint64_t)tokens);
        expected = 2 * tokens < 5888 ? 2 * tokens : 5888; // of 5900, on the grid
    }
    assert_int_equal(expected, 5888);
}

// Steps without running rows teach it, too, with all that they take.
static void test_prefill_alone(void **state)
{
    (void)state;
    struct scheduler_pace pace = {0};
    scheduler_pace_note(&pace, 0, 4096, 41 * MS_NS);
    scheduler_pace_note(&pace, 8, 0, 10 * MS_NS);
    // 41 ms / 4096 tokens: 50 ms are 4995 tokens.
    assert_int_equal(scheduler_pace_tokens(&pace, 60 * MS_NS), 4992);
}

// Small chunks whose length is mostly noise do not undo what a large one has taught.
static void test_noise_of_small_chunks(void **state)
{
    (void)state;
    struct scheduler_pace pace = {0};
    srand(5);
    for (int i = 0; i < 3; i++) {
        scheduler_pace_note(&pace, 5, 0, 5 * MS_NS);
        scheduler_pace_note(&pace, 5, 4096, (5 + 41) * MS_NS);
    }
    for (int i = 0; i < 200; i++) {
        uint64_t noise_ns = (uint64_t)(rand() % 4000) * 1000;
        scheduler_pace_note(&pace, 5, 0, 3 * MS_NS + noise_ns);
        scheduler_pace_note(&pace, 5, 64, 3 * MS_NS + 640000 + noise_ns);
    }
    // 10 us a token and 55 ms: 5500.
    assert_in_range(scheduler_pace_tokens(&pace, 60 * MS_NS), 3000, 8192);
}

// A machine that got slower, and one where not even the base fits into the gap.
static void test_slower(void **state)
{
    (void)state;
    struct scheduler_pace pace = {0};
    scheduler_pace_note(&pace, 5, 0, MS_NS);
    for (int i = 0; i < 10; i++)
        scheduler_pace_note(&pace, 5, 4096, 42 * MS_NS);
    for (int i = 0; i < 4; i++)
        scheduler_pace_note(&pace, 5, 4096, 420 * MS_NS);
    assert_in_range(scheduler_pace_tokens(&pace, 60 * MS_NS), 512, 1024); // 575 in the end
    for (int i = 0; i < 100; i++)
        scheduler_pace_note(&pace, 5, 0, 100 * MS_NS);
    assert_int_equal(scheduler_pace_tokens(&pace, 60 * MS_NS), 64);
    assert_int_equal(scheduler_pace_tokens(&pace, 0), 64);
}

// A base that was learned with few streams does not hold for many: the next chunk is cut by what
// the last one took too long, and when steps are short enough the estimate holds again.
static void test_more_streams(void **state)
{
    (void)state;
    struct scheduler_pace pace = {0};
    for (int i = 0; i < 8; i++) {
        scheduler_pace_note(&pace, 5, 0, 6 * MS_NS);
        scheduler_pace_note(&pace, 5, 4096, 60 * MS_NS);
    }
    int32_t before = scheduler_pace_tokens(&pace, 60 * MS_NS);
    assert_in_range(before, 4032, 4096);
    scheduler_pace_note(&pace, 200, 2048, 96 * MS_NS);
    assert_int_equal(scheduler_pace_tokens(&pace, 60 * MS_NS), 1280); // 2048 * 60 / 96
    scheduler_pace_note(&pace, 200, 1280, 60 * MS_NS);
    assert_in_range(scheduler_pace_tokens(&pace, 60 * MS_NS), 1281, before);
}

// Any report gives a number of tokens on the grid.
static void test_any_report(void **state)
{
    (void)state;
    const uint64_t ns[] = {0, 1, 1000, 1000000000, UINT64_MAX / 2, UINT64_MAX};
    struct scheduler_pace pace = {0};
    srand(8);
    for (int i = 0; i < 20000; i++) {
        int32_t tokens = rand() % 3 == 0 ? 0 : 1 + rand() % STEP_TOKENS_MAX;
        scheduler_pace_note(&pace, rand() % 2, tokens, ns[rand() % 6]);
        int32_t most = scheduler_pace_tokens(&pace, ns[rand() % 6]);
        assert_true(most >= 64 && most <= STEP_TOKENS_MAX && most % 64 == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_known), cmocka_unit_test(test_grows_to_what_fits),
        cmocka_unit_test(test_prefill_alone), cmocka_unit_test(test_noise_of_small_chunks),
        cmocka_unit_test(test_slower),        cmocka_unit_test(test_more_streams),
        cmocka_unit_test(test_any_report),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
