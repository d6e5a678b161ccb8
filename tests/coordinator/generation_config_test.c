// SPDX-License-Identifier: Apache-2.0
// generation_config_test.c -- what a release recommends is taken as it is, or refused by name.
#include "coordinator/generation_config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64], path[128];
static struct error error;

static void put(const char *text)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static struct coord_sampling load(void)
{
    struct coord_sampling sampling;
    memset(&sampling, 0x55, sizeof sampling);
    if (generation_config_load(&sampling, dir, &error) != OK)
        fail_msg("%s", error.text);
    return sampling;
}

static void fields_are_taken(void **state)
{
    (void)state;
    put("{\"temperature\": 0.5, \"top_k\": 20, \"top_p\": 0.75, \"min_p\": 0.25, "
        "\"repetition_penalty\": 1.5, \"do_sample\": true, \"transformers_version\": \"5\", "
        "\"num_beams\": \"many\"}");
    struct coord_sampling sampling = load();
    assert_true(sampling.temperature == 0.5F && sampling.top_p == 0.75F);
    assert_true(sampling.min_p == 0.25F && sampling.repetition == 1.5F);
    assert_int_equal(sampling.top_k, 20);
    assert_int_equal(sampling.stop_count, 0);
    put("{\"temperature\": 0.5, \"top_k\": -1, \"do_sample\": false}");
    sampling = load();
    assert_true(sampling.temperature == 0);
    assert_int_equal(sampling.top_k, 0);
}

static void the_rest_is_off(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{}", "{\"temperature\": null, \"top_k\": null, \"top_p\": null, \"do_sample\": null}"};
    for (size_t i = 0; i <= sizeof texts / sizeof texts[0]; i++) {
        if (i < sizeof texts / sizeof texts[0])
            put(texts[i]);
        else
            unlink(path);
        struct coord_sampling sampling = load();
        assert_true(sampling.temperature == 1 && sampling.top_p == 1 && sampling.min_p == 0);
        assert_true(sampling.repetition == 1);
        assert_int_equal(sampling.top_k, 0);
    }
}

static void wrong_values_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *text, *end; // of the error's text, behind the path
        enum status status;
    } cases[] = {
        {"{\"temperature\": \"hot\"}", "temperature is \"hot\"; a number in [0, 1000] is expected",
         E_INPUT},
        {"{\"temperature\": -1}", "temperature is -1; a number in [0, 1000] is expected", E_INPUT},
        {"{\"temperature\": 1000.5}", "temperature is 1000.5; a number in [0, 1000] is expected",
         E_INPUT},
        {"{\"top_k\": 2.5}", "top_k is 2.5; an integer in [-1, 2147483647] is expected", E_INPUT},
        {"{\"top_k\": -2}", "top_k is -2; an integer in [-1, 2147483647] is expected", E_INPUT},
        {"{\"top_p\": 0}", "top_p is 0; a number above 0, up to 1, is expected", E_INPUT},
        {"{\"top_p\": 1.5}", "top_p is 1.5; a number in [0, 1] is expected", E_INPUT},
        {"{\"min_p\": []}", "min_p is []; a number in [0, 1] is expected", E_INPUT},
        {"{\"repetition_penalty\": 0.0}",
         "repetition_penalty is 0.0; a number above 0, up to 10, is expected", E_INPUT},
        {"{\"do_sample\": 1}", "do_sample is 1; true or false is expected", E_INPUT},
        {"{\"top_p\": 0.5,", "line 1, column 14: string or '}' expected near end of file",
         E_MALFORMED},
        {"[]", "a JSON object is expected", E_MALFORMED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct coord_sampling sampling;
        char text[256];
        put(cases[i].text);
        assert_int_equal(generation_config_load(&sampling, dir, &error), cases[i].status);
        snprintf(text, sizeof text, "%s: %s", path, cases[i].end);
        assert_string_equal(error.text, text);
    }
}

static int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/deltamesh-generation-XXXXXX");
    if (mkdtemp(dir) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/generation_config.json", dir);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_are_taken),
        cmocka_unit_test(the_rest_is_off),
        cmocka_unit_test(wrong_values_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
