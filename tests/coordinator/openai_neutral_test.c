// SPDX-License-Identifier: Apache-2.0
// openai_neutral_test.c -- values that ask for nothing, and their neighbours that do.
#include "coordinator/openai_neutral.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static enum openai_neutral check(const char *name, const char *text)
{
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(value);
    enum openai_neutral neutral = openai_neutral_check(name, value);
    json_decref(value);
    return neutral;
}

static void silent_or_asking(void **state)
{
    (void)state;
    static const struct {
        const char *name, *silent, *asks;
    } cases[] = {
        {"best_of", "1", "2"},
        {"best_of", "1.0", "0"},
        {"best_of", "1", "\"1\""},
        {"top_logprobs", "0", "1"},
        {"echo", "false", "true"},
        {"suffix", "\"\"", "\" \""},
        {"tools", "[]", "[1]"},
        {"tool_choice", "\"auto\"", "\"required\""},
        {"tool_choice", "\"none\"", "{\"type\":\"function\"}"},
        {"response_format", "{\"type\":\"text\"}", "{\"type\":\"json_object\"}"},
        {"response_format", "null", "{}"},
        {"modalities", "[\"text\"]", "[\"text\",\"audio\"]"},
        {"modalities", "[]", "[\"audio\"]"},
        {"guided_json", "null", "{}"},
        {"add_generation_prompt", "true", "false"},
        {"use_beam_search", "false", "true"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (check(cases[i].name, cases[i].silent) != OPENAI_NEUTRAL_SILENT)
            fail_msg("%s %s", cases[i].name, cases[i].silent);
        if (check(cases[i].name, cases[i].asks) != OPENAI_NEUTRAL_ASKS)
            fail_msg("%s %s", cases[i].name, cases[i].asks);
    }
}

static void without_effect_or_unknown(void **state)
{
    (void)state;
    assert_int_equal(check("user", "\"me\""), OPENAI_NEUTRAL_SILENT);
    assert_int_equal(check("metadata", "{\"a\":1}"), OPENAI_NEUTRAL_SILENT);
    assert_int_equal(check("frobnicate", "null"), OPENAI_NEUTRAL_UNKNOWN);
    assert_int_equal(check("", "1"), OPENAI_NEUTRAL_UNKNOWN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(silent_or_asking),
        cmocka_unit_test(without_effect_or_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
