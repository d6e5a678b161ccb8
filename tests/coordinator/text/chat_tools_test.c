// SPDX-License-Identifier: Apache-2.0
// chat_tools_test.c -- calls in both forms of scalars, arguments in both of theirs, and what is
// refused. Whole conversations with tools are chat_format_test.c's.
#include "coordinator/text/chat_tools.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define CALL(arguments) "[{\"function\": {\"name\": \"f\", \"arguments\": " arguments "}}]"

static void check_calls(const char *calls, bool after_text, bool json_scalars, const char *expected)
{
    struct text_buffer out;
    json_t *value = json_loads(calls, 0, NULL);
    assert_non_null(value);
    text_buffer_init(&out, 1000);
    assert_int_equal(chat_tools_check_calls(value, 0, NULL), OK);
    assert_int_equal(chat_tools_append_calls(&out, value, after_text, json_scalars, NULL), OK);
    assert_int_equal(out.count, strlen(expected));
    assert_memory_equal(out.bytes, expected, out.count);
    text_buffer_fini(&out);
    json_decref(value);
}

static void scalars_are_written_in_the_form_asked_for(void **state)
{
    (void)state;
    const char *calls = CALL("{\"a\": true, \"b\": null, \"c\": 1.0, \"d\": [true], \"e\": \"t\"}");
    check_calls(calls, false, false,
                "<tool_call>\n<function=f>\n<parameter=a>\nTrue\n</parameter>\n<parameter=b>\n"
                "None\n</parameter>\n<parameter=c>\n1.0\n</parameter>\n<parameter=d>\n[true]\n"
                "</parameter>\n<parameter=e>\nt\n</parameter>\n</function>\n</tool_call>");
    check_calls(calls, false, true,
                "<tool_call>\n<function=f>\n<parameter=a>\ntrue\n</parameter>\n<parameter=b>\n"
                "null\n</parameter>\n<parameter=c>\n1.0\n</parameter>\n<parameter=d>\n[true]\n"
                "</parameter>\n<parameter=e>\nt\n</parameter>\n</function>\n</tool_call>");
}

static void arguments_may_be_objects_texts_or_nothing(void **state)
{
    (void)state;
    static const char none[] = "\n\n<tool_call>\n<function=f>\n</function>\n</tool_call>";
    static const char one[] = "\n\n<tool_call>\n<function=f>\n<parameter=a>\nx\ny\n</parameter>\n"
                              "</function>\n</tool_call>";
    check_calls(CALL("{}"), true, false, none);
    check_calls(CALL("null"), true, false, none);
    check_calls(CALL("\"\""), true, false, none);
    check_calls(CALL("\"{ }\""), true, false, none);
    check_calls("[{\"name\": \"f\"}]", true, false, none);
    check_calls(CALL("{\"a\": \"x\\ny\"}"), true, false, one);
    check_calls(CALL("\"{\\\"a\\\":\\\"x\\\\ny\\\"}\""), true, false, one);
    check_calls("[{\"name\": \"f\"}, {\"name\": \"g\"}]", false, false,
                "<tool_call>\n<function=f>\n</function>\n</tool_call>\n"
                "<tool_call>\n<function=g>\n</function>\n</tool_call>");
    check_calls("[]", true, false, "");
}

static void refuse(const char *calls, const char *words)
{
    struct error error;
    json_t *value = json_loads(calls, JSON_DECODE_ANY, NULL);
    assert_non_null(value);
    assert_int_equal(chat_tools_check_calls(value, 7, &error), E_INPUT);
    if (strstr(error.text, words) == NULL)
        fail_msg("%s: \"%s\" lacks \"%s\"", calls, error.text, words);
    json_decref(value);
}

static void wrong_calls_are_refused_by_place(void **state)
{
    (void)state;
    refuse("{}", "messages[7].tool_calls: not a list");
    refuse("[{\"name\": \"f\"}, 3]", "messages[7].tool_calls[1]: not an object");
    refuse("[{\"function\": 3}]", "messages[7].tool_calls[0]: not an object");
    refuse("[{\"function\": {}}]", "messages[7].tool_calls[0].function.name: not a string");
    refuse(CALL("3"), "messages[7].tool_calls[0].function.arguments: not an object");
    refuse(CALL("\"[1]\""), "function.arguments: not an object");
    refuse(CALL("\"{\\\"a\\\": \""), "function.arguments: not an object");
}

static void definitions_are_one_a_line(void **state)
{
    (void)state;
    struct text_buffer out;
    struct error error;
    json_t *tools = json_loads("[{\"b\":1,\"a\":0.1}, {}]", 0, NULL);
    json_t *wrong = json_loads("[{}, []]", 0, NULL);
    text_buffer_init(&out, 4000);
    assert_int_equal(chat_tools_append_definitions(&out, tools, &error), OK);
    assert_int_equal(text_buffer_append(&out, "", 1, NULL), OK);
    assert_non_null(strstr(out.bytes, "<tools>\n{\"b\": 1, \"a\": 0.1}\n{}\n</tools>\n\nIf you"));
    assert_int_equal(chat_tools_append_definitions(&out, wrong, &error), E_INPUT);
    assert_non_null(strstr(error.text, "tools[1]"));
    text_buffer_fini(&out);
    json_decref(tools);
    json_decref(wrong);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars_are_written_in_the_form_asked_for),
        cmocka_unit_test(arguments_may_be_objects_texts_or_nothing),
        cmocka_unit_test(wrong_calls_are_refused_by_place),
        cmocka_unit_test(definitions_are_one_a_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
