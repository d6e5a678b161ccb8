// SPDX-License-Identifier: Apache-2.0
// plan_test.c -- limits are named.
#include "parallel/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

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
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
