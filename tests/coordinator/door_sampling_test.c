// SPDX-License-Identifier: Apache-2.0
// door_sampling_test.c -- defaults; seeds that repeat and seeds that do not; sets of stop ids.
#include "coordinator/door_sampling.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void seeds(void **state)
{
    (void)state;
    struct door_seeds a = {.has_seed = true, .seed = 5}, b = a;
    struct door_seeds door = {.has_seed = true, .seed = 5, .link_index = 1};
    struct door_seeds other = {.has_seed = true, .seed = 6}, random = {.has_seed = false};
    uint64_t first = door_sampling_seed(&a), second = door_sampling_seed(&a);
    assert_true(first != second);
    assert_true(door_sampling_seed(&b) == first && door_sampling_seed(&b) == second);
    assert_true(door_sampling_seed(&door) != first);
    assert_true(door_sampling_seed(&other) != first);
    assert_true(door_sampling_seed(&random) != door_sampling_seed(&random));
}

static struct error error;
static const struct coord_sampling fallback = {
    .temperature = 0.5f, .top_k = 9, .top_p = 0.75f, .min_p = 0.25f, .repetition = 1.5f};

static void what_is_absent_is_filled_in(void **state)
{
    (void)state;
    struct model_config config = {.eos_count = 0};
    const struct door_sampling_rules rules = {&fallback, &config, NULL, 1000};
    struct door_sampling_wish wish = {
        .temperature = -1, .top_k = -1, .top_p = -1, .min_p = -1, .repetition = -1};
    struct coord_sampling sampling;
    assert_int_equal(door_sampling_fill(&sampling, &wish, &rules, &error), OK);
    assert_true(sampling.temperature == 0.5f && sampling.top_p == 0.75f);
    assert_true(sampling.min_p == 0.25f && sampling.repetition == 1.5f);
    assert_int_equal(sampling.top_k, 9);
    wish = (struct door_sampling_wish){.frequency = -2,
                                       .presence = 2,
                                       .min_tokens = 3,
                                       .max_tokens = 4,
                                       .drafts = 5,
                                       .logprobs = 6,
                                       .prompt_logprobs = 7};
    assert_int_equal(door_sampling_fill(&sampling, &wish, &rules, &error), OK);
    assert_true(sampling.temperature == 0 && sampling.top_p == 0 && sampling.min_p == 0);
    assert_true(sampling.repetition == 0 && sampling.top_k == 0); // 0 is not absent
    assert_true(sampling.frequency == -2 && sampling.presence == 2);
    assert_int_equal(sampling.min_tokens, 3);
    assert_int_equal(sampling.max_tokens, 4);
    assert_int_equal(sampling.drafts, 5);
    assert_int_equal(sampling.logprobs, 6);
    assert_int_equal(sampling.prompt_logprobs, 7);
}

static void stop_ids(void **state)
{
    (void)state;
    struct coord_sampling sampling;
    struct model_config config = {.eos_count = 2, .eos_ids = {7, 8}};
    struct tokenizer tokenizer = {.eos_ids = {8, 9}, .eos_count = 2};
    const int32_t own[] = {3, 8}, all[] = {3, 8, 7, 9};
    struct door_sampling_rules rules = {&fallback, &config, &tokenizer, 1000};
    struct door_sampling_wish wish = {.stop_ids = own, .stop_count = 2};
    assert_int_equal(door_sampling_fill(&sampling, &wish, &rules, &error), OK);
    assert_int_equal(sampling.stop_count, 4);
    assert_memory_equal(sampling.stop_ids, all, sizeof all);
    wish.ignore_eos = true;
    assert_int_equal(door_sampling_fill(&sampling, &wish, &rules, &error), OK);
    assert_int_equal(sampling.stop_count, 2);
    rules.vocab_real = 8;
    assert_int_equal(door_sampling_fill(&sampling, &wish, &rules, &error), E_INPUT);
    assert_string_equal(error.text, "'stop_token_ids'[1]: 8 is outside 0 .. 7");
    rules = (struct door_sampling_rules){&fallback, &config, NULL, 1000};
    wish = (struct door_sampling_wish){.stop_count = 0};
    assert_int_equal(door_sampling_fill(&sampling, &wish, &rules, &error), OK);
    assert_int_equal(sampling.stop_count, 2);
    int32_t many[STEP_STOP_IDS_MAX];
    for (int32_t i = 0; i < STEP_STOP_IDS_MAX; i++)
        many[i] = 100 + i;
    wish = (struct door_sampling_wish){
        .stop_ids = many, .stop_count = STEP_STOP_IDS_MAX, .ignore_eos = true};
    assert_int_equal(door_sampling_fill(&sampling, &wish, &rules, &error), OK);
    wish.ignore_eos = false;
    assert_int_equal(door_sampling_fill(&sampling, &wish, &rules, &error), E_LIMIT);
}

// Of n answers the first is what it is alone; the others differ from it, from one another and from
// those of a neighbouring seed.
static void answers_of_one_request_have_seeds_of_their_own(void **state)
{
    enum { COUNT = 128 };
    uint64_t seeds_of[2 * COUNT];
    (void)state;
    for (int32_t i = 0; i < COUNT; i++) {
        seeds_of[i] = door_sampling_choice_seed(7, i);
        seeds_of[COUNT + i] = door_sampling_choice_seed(8, i);
        assert_true(seeds_of[i] == door_sampling_choice_seed(7, i));
    }
    assert_true(seeds_of[0] == 7 && seeds_of[COUNT] == 8);
    for (int i = 0; i < 2 * COUNT; i++) {
        for (int k = 0; k < i; k++)
            assert_true(seeds_of[i] != seeds_of[k]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seeds), cmocka_unit_test(what_is_absent_is_filled_in),
        cmocka_unit_test(stop_ids),
        cmocka_unit_test(answers_of_one_request_have_seeds_of_their_own)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
