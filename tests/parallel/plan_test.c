// SPDX-License-Identifier: Apache-2.0
// plan_test.c -- member numbers and places are inverse; limits are named.
#include "parallel/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_places(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= RANKS_MAX; ranks++) {
        int member = 0;
        for (int group = 0; group < 3; group++) {
            for (int rank = 0; rank < ranks; rank++, member++) {
                struct place place = plan_place(member, ranks);
                assert_int_equal(place.group, group);
                assert_int_equal(place.rank, rank);
                assert_int_equal(place.ranks, ranks);
                assert_int_equal(plan_member(place), member);
            }
        }
    }
}

static void test_limits(void **state)
{
    (void)state;
    struct error error = {0};
    assert_int_equal(plan_check(1, 1, &error), OK);
    assert_int_equal(plan_check(GROUPS_MAX, RANKS_MAX, &error), OK);
    assert_int_equal(plan_check(0, 1, &error), E_INPUT);
    assert_int_equal(plan_check(GROUPS_MAX + 1, 1, &error), E_INPUT);
    assert_non_null(strstr(error.text, "65 data-parallel groups; 1 to 64"));
    assert_int_equal(plan_check(1, 0, &error), E_INPUT);
    assert_int_equal(plan_check(1, 9, &error), E_INPUT);
    assert_non_null(strstr(error.text, "9 tensor-parallel ranks; 1 to 8"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
