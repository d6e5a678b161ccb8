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

#define MS_NS  1000000u
#define GAP_NS (60 * MS_NS)

static void test_nothing_known(void **state)
{
    (void)state;
    struct scheduler_pace pace = {0};
    assert_int_equal(scheduler_pace_tokens(&pace, GAP_NS), 64);
    assert_int_equal(scheduler_pace_tokens(&pace, 0), 64);
    assert_int_equal(scheduler_pace_tokens(&pace, UINT64_MAX), 64);
    // A step without prefill teaches the base only.
    scheduler_pace_note(&pace, 5, 0, 2 * MS_NS, GAP_NS);
    assert_int_equal(scheduler_pace_tokens(&pace, GAP_NS), 64);
}

// At most twice of what was tried, until that is as much as fits: 1 ms and 10 us a token, 60 ms.
static void test_grows_to_what_fits(void **state)
{
    (void)state;
    struct scheduler_pace pace = {0};
    int32_t expected = 64;
    scheduler_pace_note(&pace, 5, 0, MS_NS, GAP_NS);
    for (int i = 0; i < 20; i++) {
        int32_t tokens = scheduler_pace_tokens(&pace, GAP_NS);
        assert_int_equal(tokens, expected);
        scheduler_pace_note(&pace, 5, tokens, MS_NS + 10000u * (uint64_t)tokens, GAP_NS);
        expected = 2 * tokens < 5888 ? 2 * tokens : 5888; // of 5900, on the grid
    }
    assert_int_equal(expected, 5888);
}

// Steps without running rows teach it, too, with all that they take.
static void test_prefill_alone(void **state)
{
    (void)state;
    struct scheduler_pace pace = {0};
    scheduler_pace_note(&pace, 0, 4096, 41 * MS_NS, GAP_NS);
    scheduler_pace_note(&pace, 8, 0, 10 * MS_NS, GAP_NS);
    // 41 ms / 4096 tokens: 50 ms are 4995 tokens.
    assert_int_equal(scheduler_pace_tokens(&pace, GAP_NS), 4992);
}

// Small chunks whose length is mostly noise do not undo what a large one has taught.
static void test_noise_of_small_chunks(void **state)
{
    (void)state;
    struct scheduler_pace pace = {0};
    srand(5);
    for (int i = 0; i < 3; i++) {
        scheduler_pace_note(&pace, 5, 0, 5 * MS_NS, GAP_NS);
        scheduler_pace_note(&pace, 5, 4096, (5 + 41) * MS_NS, GAP_NS);
    }
    for (int i = 0; i < 200; i++) {
        uint64_t noise_ns = (uint64_t)(rand() % 4000) * 1000;
        scheduler_pace_note(&pace, 5, 0, 3 * MS_NS + noise_ns, GAP_NS);
        scheduler_pace_note(&pace, 5, 64, 3 * MS_NS + 640000 + noise_ns, GAP_NS);
    }
    // 10 us a token and 55 ms: 5500.
    assert_in_range(scheduler_pace_tokens(&pace, GAP_NS), 3000, 8192);
}

// A machine that got slower, and one where not even the base fits into the gap: prompts get half.
static void test_slower(void **state)
{
    (void)state;
    struct scheduler_pace pace = {0};
    scheduler_pace_note(&pace, 5, 0, MS_NS, GAP_NS);
    for (int i = 0; i < 10; i++)
        scheduler_pace_note(&pace, 5, 4096, 42 * MS_NS, GAP_NS);
    for (int i = 0; i < 4; i++)
        scheduler_pace_note(&pace, 5, 4096, 420 * MS_NS, GAP_NS);
    assert_in_range(scheduler_pace_tokens(&pace, GAP_NS), 512, 1024); // 575 in the end
    for (int i = 0; i < 100; i++)
        scheduler_pace_note(&pace, 5, 0, 100 * MS_NS, GAP_NS);
    int32_t half = scheduler_pace_tokens(&pace, GAP_NS);
    assert_in_range(half, 704, 1024); // 100 ms at 102 us in the end
    assert_int_equal(scheduler_pace_tokens(&pace, 0), half);
}

// Streams that take longer than the gap by themselves, come so fast that no step is without
// prefill, and were few when there was one: prompts get a good part of the time, not 64 tokens.
static void test_streams_fill_the_gap(void **state)
{
    (void)state;
    struct scheduler_pace pace = {0};
    int64_t prefilled = 0;
    uint64_t ns = 0, longest_ns = 0;
    for (int i = 0; i < 8; i++)
        scheduler_pace_note(&pace, 1, 0, 2 * MS_NS, GAP_NS);
    scheduler_pace_note(&pace, 0, 4096, 330 * MS_NS, GAP_NS);
    for (int i = 0; i < 200; i++) {
        int32_t tokens = scheduler_pace_tokens(&pace, GAP_NS);
        uint64_t step_ns = 80 * MS_NS + 80000u * (uint64_t)tokens;
        scheduler_pace_note(&pace, 300, tokens, step_ns, GAP_NS);
        longest_ns = i > 0 && step_ns > longest_ns ? step_ns : longest_ns;
        prefilled += tokens;
        ns += step_ns;
    }
    assert_true(longest_ns < 180 * MS_NS);
    double share = (double)prefilled * 80000.0 / (double)ns;
    assert_true(share > 0.3 && share < 0.55);
}

// A machine whose streams alone take more than the gap: 70 ms for 64 of them, 80 us a prompt token.
static uint64_t slow_step_ns(int32_t rows, int32_t tokens)
{
    uint64_t streams_us = rows > 0 ? 60000 + 150 * (uint64_t)rows : 0;
    uint64_t prompts_us = 80 * (uint64_t)tokens;
    return 1000 *
           (streams_us > prompts_us ? streams_us + prompts_us / 4 : streams_us / 4 + prompts_us);
}

enum { PROMPTS = 64, PROMPT_TOKENS = 1024, ANSWER_TOKENS = 256, STEP_TOKENS = 8192 };

struct served {
    uint64_t ns, first_ns, longest_ns; // all; the last first token; the longest step with streams
};

// All prompts come at once, and are read one after the other.
static struct served serve(uint64_t gap_ns)
{
    struct scheduler_pace pace = {0};
    struct served served = {0};
    int32_t left[PROMPTS] = {0}, given = 0, rows = 0;
    while (given < PROMPTS * PROMPT_TOKENS || rows > 0) {
        int32_t budget = STEP_TOKENS - TOKENS_PER_PAGE, rest = PROMPTS * PROMPT_TOKENS - given;
        if (rows > 0 && gap_ns > 0 && scheduler_pace_tokens(&pace, gap_ns) < budget)
            budget = scheduler_pace_tokens(&pace, gap_ns);
        int32_t tokens = rest < budget ? rest : budget;
        uint64_t step_ns = slow_step_ns(rows, tokens);
        scheduler_pace_note(&pace, rows, tokens, step_ns, gap_ns);
        served.ns += step_ns;
        if (rows > 0 && step_ns > served.longest_ns)
            served.longest_ns = step_ns;
        for (int i = 0; i < PROMPTS; i++)
            rows -= left[i] > 0 && --left[i] == 0;
        for (int i = given / PROMPT_TOKENS; i < (given + tokens) / PROMPT_TOKENS; i++) {
            left[i] = ANSWER_TOKENS - 1;
            rows++;
            served.first_ns = served.ns;
        }
        given += tokens;
    }
    return served;
}

// There a queue of prompts drains nearly as fast as without any limit, by steps of twice the time.
static void test_a_queue_on_a_slow_machine(void **state)
{
    (void)state;
    struct served with = serve(GAP_NS), without = serve(0);
    print_message("with the gap %.1f s, last first token %.1f s, longest step %.0f ms; without "
                  "%.1f s, %.1f s, %.0f ms\n",
                  (double)with.ns * 1e-9, (double)with.first_ns * 1e-9,
                  (double)with.longest_ns * 1e-6, (double)without.ns * 1e-9,
                  (double)without.first_ns * 1e-9, (double)without.longest_ns * 1e-6);
    assert_true(with.ns < without.ns + without.ns / 4);
    assert_true(with.first_ns < 3 * without.first_ns);
    assert_true(with.longest_ns < 200 * MS_NS);
}

// A prompt whose tokens cost ever more does not pass for streams that do: the gap holds.
static void test_a_long_prompt(void **state)
{
    (void)state;
    struct scheduler_pace pace = {0};
    for (int i = 0; i < 50; i++)
        scheduler_pace_note(&pace, 64, 0, 17 * MS_NS, GAP_NS);
    for (int64_t position = 0; position < 131072;) {
        int32_t tokens = scheduler_pace_tokens(&pace, GAP_NS);
        uint64_t token_ns = 11000 + (uint64_t)position * 2 / 3;
        uint64_t step_ns = 17 * MS_NS + token_ns * (uint64_t)tokens;
        assert_true(step_ns < 70 * MS_NS);
        scheduler_pace_note(&pace, 64, tokens, step_ns, GAP_NS);
        position += tokens;
    }
}

// A base that was learned with few streams does not hold for many: the next chunk is cut by what
// the last one took too long, and when steps are short enough the estimate holds again.
static void test_more_streams(void **state)
{
    (void)state;
    struct scheduler_pace pace = {0};
    for (int i = 0; i < 8; i++) {
        scheduler_pace_note(&pace, 5, 0, 6 * MS_NS, GAP_NS);
        scheduler_pace_note(&pace, 5, 4096, 60 * MS_NS, GAP_NS);
    }
    int32_t before = scheduler_pace_tokens(&pace, GAP_NS);
    assert_in_range(before, 4032, 4096);
    scheduler_pace_note(&pace, 200, 2048, 96 * MS_NS, GAP_NS);
    assert_int_equal(scheduler_pace_tokens(&pace, GAP_NS), 1280); // 2048 * 60 / 96
    scheduler_pace_note(&pace, 200, 1280, 60 * MS_NS, GAP_NS);
    assert_in_range(scheduler_pace_tokens(&pace, GAP_NS), 1281, before);
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
        scheduler_pace_note(&pace, rand() % 2, tokens, ns[rand() % 6], ns[rand() % 6]);
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
        cmocka_unit_test(test_any_report),    cmocka_unit_test(test_streams_fill_the_gap),
        cmocka_unit_test(test_a_long_prompt), cmocka_unit_test(test_a_queue_on_a_slow_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
