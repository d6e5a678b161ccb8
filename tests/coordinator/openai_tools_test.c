// SPDX-License-Identifier: Apache-2.0
// openai_tools_test.c -- what a request may say of its tools, and deltas that a client can join.
#include "coordinator/openai_tools.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static enum status check(const char *json, struct openai_error *error)
{
    json_t *value = json_loads(json, JSON_DECODE_ANY, NULL);
    assert_non_null(value);
    *error = (struct openai_error){.error = {.status = OK}};
    enum status status = openai_tools_check(value, error);
    json_decref(value);
    return status;
}

static void tools_of_requests(void **state)
{
    (void)state;
    struct openai_error error;
    assert_int_equal(check("[]", &error), OK);
    assert_int_equal(check("[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]", &error), OK);
    static const char *const wrong[][2] = {
        {"{}", "an array"},
        {"[1]", "tools[0]: "},
        {"[{}]", "tools[0].type"},
        {"[{\"type\":\"x\"}]", "tools[0].type"},
        {"[{\"type\":\"function\"}]", "tools[0].function:"},
        {"[{\"type\":\"function\",\"function\":{\"name\":\"f\"}},"
         "{\"type\":\"function\",\"function\":{\"name\":7}}]",
         "tools[1].function.name"},
        {"[{\"type\":\"function\",\"function\":{\"name\":\"\"}}]", "not empty"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(check(wrong[i][0], &error), E_INPUT);
        assert_non_null(strstr(error.error.text, wrong[i][1]));
        assert_string_equal(error.param, "tools");
    }
}

static enum status choose(bool *none, const char *json, struct openai_error *error)
{
    json_t *value = json_loads(json, JSON_DECODE_ANY, NULL);
    *error = (struct openai_error){.error = {.status = OK}};
    enum status status = openai_tools_choice(none, value, error);
    json_decref(value);
    return status;
}

static void choices(void **state)
{
    (void)state;
    struct openai_error error;
    bool none = false;
    assert_int_equal(choose(&none, "\"none\"", &error), OK);
    assert_true(none);
    assert_int_equal(choose(&none, "\"auto\"", &error), OK);
    assert_false(none);
    assert_int_equal(choose(&none, "\"required\"", &error), E_UNSUPPORTED);
    assert_int_equal(choose(&none, "{\"type\":\"function\"}", &error), E_UNSUPPORTED);
    assert_int_equal(choose(&none, "\"any\"", &error), E_INPUT);
    assert_int_equal(choose(&none, "1", &error), E_INPUT);
    assert_string_equal(error.param, "tool_choice");
}

// Each list of deltas is an array's inside, and the pieces of the arguments join.
static void deltas_join(void **state)
{
    (void)state;
    static const char text[] = "<tool_call>\n<function=f>\n<parameter=a>\n\"q\"\xC3\xA9\\\n"
                               "</parameter>\n</function>\n</tool_call>";
    struct openai_tools tools;
    struct text_buffer content, calls, piece, joined;
    json_t *list = json_array();
    text_buffer_init(&content, 4096);
    text_buffer_init(&calls, 4096);
    text_buffer_init(&joined, 4096);
    openai_tools_init(&tools, &(struct openai_tools_wish){.tools = list}, "id", true);
    for (size_t i = 0; i < sizeof text; i++) {
        bool last = i == sizeof text - 1; // the NUL is not fed
        bool half = (text[i] & 0xC0) == 0xC0;
        text_buffer_init(&piece, 16);
        assert_int_equal(text_buffer_append(&piece, text + i, last ? 0 : half ? 2 : 1, NULL), OK);
        i += half;
        calls.count = 0;
        assert_int_equal(openai_tools_feed(&tools, &content, &calls, &piece, last), OK);
        text_buffer_fini(&piece);
        char array[4200];
        snprintf(array, sizeof array, "[%.*s]", (int)calls.count, calls.bytes);
        json_t *deltas = json_loads(array, 0, NULL);
        assert_non_null(deltas);
        for (size_t j = 0; j < json_array_size(deltas); j++) {
            const json_t *delta = json_array_get(deltas, j);
            const json_t *function = json_object_get(delta, "function");
            assert_int_equal(json_integer_value(json_object_get(delta, "index")), 0);
            assert_int_equal(
                text_buffer_append_text(
                    &joined, json_string_value(json_object_get(function, "arguments")), NULL),
                OK);
        }
        json_decref(deltas);
    }
    assert_int_equal(text_buffer_append(&joined, "", 1, NULL), OK);
    assert_string_equal(joined.bytes, "{\"a\": \"\\\"q\\\"\xC3\xA9\\\\\"}");
    assert_int_equal(content.count, 0);
    assert_false(tools.is_open);
    openai_tools_fini(&tools);
    text_buffer_fini(&content);
    text_buffer_fini(&calls);
    text_buffer_fini(&joined);
    json_decref(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tools_of_requests),
        cmocka_unit_test(choices),
        cmocka_unit_test(deltas_join),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
