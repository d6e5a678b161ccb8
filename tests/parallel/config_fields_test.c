// SPDX-License-Identifier: Apache-2.0
// config_fields_test.c -- the first problem stays, later ones are silent, values are shown cut.
#include "parallel/config_fields.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void test_first_problem_stays(void **state)
{
    (void)state;
    json_t *object = json_pack("{s:i, s:s, s:b, s:n}", "one", 1, "word", "w", "yes", 1, "none");
    struct error error = {0};
    struct config_fields fields = {object, "dir/config.json", "part.", &error, OK};
    assert_int_equal(config_fields_int(&fields, "one", 0, 5), 1);
    assert_int_equal(config_fields_int_or(&fields, "none", 9, 0, 5), 9); // null is absent
    assert_true(config_fields_bool_or(&fields, "yes", false));
    assert_true(config_fields_number_or(&fields, "one", 0, 0, 5) == 1);
    assert_string_equal(config_fields_text(&fields, "word"), "w");
    assert_null(config_fields_text(&fields, "none"));
    assert_int_equal(fields.status, OK);

    assert_int_equal(config_fields_int(&fields, "word", 2, 5), 2);
    assert_int_equal(fields.status, E_INPUT);
    assert_string_equal(error.text,
                        "dir/config.json: part.word is \"w\"; an integer in [2, 5] is expected");
    (void)config_fields_int(&fields, "absent", 0, 5);
    config_fields_fail(&fields, E_LIMIT, "later");
    assert_int_equal(fields.status, E_INPUT);
    assert_non_null(strstr(error.text, "part.word"));
    json_decref(object);
}

static void test_long_values_are_cut(void **state)
{
    (void)state;
    char word[4096];
    memset(word, 'x', sizeof word - 1);
    word[sizeof word - 1] = '\0';
    json_t *object = json_pack("{s:s}", "long", word);
    struct error error = {0};
    struct config_fields fields = {object, "config.json", "", &error, OK};
    (void)config_fields_int(&fields, "long", 0, 5);
    assert_true(strlen(error.text) < 200);
    assert_non_null(strstr(error.text, "xxx...; an integer in [0, 5] is expected"));
    json_decref(object);
}

static void test_error_may_be_null(void **state)
{
    (void)state;
    json_t *object = json_object();
    struct config_fields fields = {object, "config.json", "", NULL, OK};
    (void)config_fields_int(&fields, "absent", 0, 5);
    assert_int_equal(fields.status, E_INPUT);
    json_decref(object);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_problem_stays),
        cmocka_unit_test(test_long_values_are_cut),
        cmocka_unit_test(test_error_may_be_null),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
