// SPDX-License-Identifier: Apache-2.0
// door_sampling_test.c -- seeds that repeat and seeds that do not; sets of stop ids.
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

static void stop_ids(void **state)
{
    (void)state;
    struct coord_sampling sampling = {.stop_count = 9};
    struct model_config config = {.eos_count = 2, .eos_ids = {7, 8}};
    struct tokenizer tokenizer = {.eos_ids = {8, 9}, .eos_count = 2};
    const int32_t own[] = {3, 8};
    assert_int_equal(door_sampling_stops(&sampling, own, 2, false, &config, &tokenizer), OK);
    assert_int_equal(sampling.stop_count, 4);
    const int32_t all[] = {3, 8, 7, 9};
    assert_memory_equal(sampling.stop_ids, all, sizeof all);
    assert_int_equal(door_sampling_stops(&sampling, own, 2, true, &config, &tokenizer), OK);
    assert_int_equal(sampling.stop_count, 2);
    assert_int_equal(door_sampling_stops(&sampling, own, 0, false, &config, NULL), OK);
    assert_int_equal(sampling.stop_count, 2);
    int32_t many[STEP_STOP_IDS_MAX];
    for (int32_t i = 0; i < STEP_STOP_IDS_MAX; i++)
        many[i] = 100 + i;
    assert_int_equal(
        door_sampling_stops(&sampling, many, STEP_STOP_IDS_MAX, true, &config, &tokenizer), OK);
    assert_int_equal(
        door_sampling_stops(&sampling, many, STEP_STOP_IDS_MAX, false, &config, &tokenizer),
        E_LIMIT);
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
        cmocka_unit_test(seeds), cmocka_unit_test(stop_ids),
        cmocka_unit_test(answers_of_one_request_have_seeds_of_their_own)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
