// SPDX-License-Identifier: Apache-2.0
// tool_values_test.c -- texts to JSON by schemas of every spelling; expectations are what vLLM's
// qwen3_coder parser was seen to make of the same, but where a comment says otherwise.
#include "coordinator/text/tool_values.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// `schema` is the parameter's, as JSON text.
static void check(const char *schema, const char *text, const char *expected)
{
    struct text_buffer out;
    json_t *properties = json_pack("{s:o}", "p", json_loads(schema, JSON_DECODE_ANY, NULL));
    assert_non_null(properties);
    text_buffer_init(&out, 1 << 20);
    const struct tool_value_kind kind = tool_values_kind(properties, "p", 1);
    // A copy of exactly its size, so that a sanitizer sees a byte read past it.
    char *copy = malloc(strlen(text) + (*text == '\0' ? 1 : 0));
    assert_non_null(copy);
    memcpy(copy, text, strlen(text));
    assert_int_equal(tool_values_append(&out, kind, copy, strlen(text), NULL), OK);
    if (out.count != strlen(expected) || memcmp(out.bytes, expected, out.count) != 0)
        fail_msg("%s of %s: found %.*s, expected %s", text, schema, (int)out.count, out.bytes,
                 expected);
    free(copy);
    text_buffer_fini(&out);
    json_decref(properties);
}

#define TYPE(name) "{\"type\": \"" name "\"}"

static void strings_stay_as_they_are(void **state)
{
    (void)state;
    check(TYPE("string"), " 5 ", "\" 5 \"");
    check(TYPE("string"), "null", "\"null\"");
    check(TYPE("string"), "", "\"\"");
    check(TYPE("str"), "a\"\n", "\"a\\\"\\n\"");
    check("{}", "5", "\"5\"");
    check("{\"enum\": [1, 2]}", "1", "\"1\"");
    check("3", "5", "\"5\"");
    check(TYPE("unheard"), "5", "\"5\""); // vLLM reads Python's literals here
}

static void integers_are_read_as_python_does(void **state)
{
    (void)state;
    check(TYPE("integer"), "42", "42");
    check(TYPE("integer"), " -7\n", "-7");
    check(TYPE("integer"), "+007", "7");
    check(TYPE("integer"), "-0", "0");
    check(TYPE("integer"), "00", "0");
    check(TYPE("integer"), "1_000", "1000");
    check(TYPE("integer"), "1__0", "\"1__0\"");
    check(TYPE("integer"), "_1", "\"_1\"");
    check(TYPE("integer"), "1_", "\"1_\"");
    check(TYPE("integer"), "1.0", "\"1.0\"");
    check(TYPE("integer"), "-", "\"-\"");
    check(TYPE("integer"), "", "\"\"");
    check(TYPE("integer"), " x ", "\" x \"");
    check(TYPE("integer"), "123456789012345678901234567890", "123456789012345678901234567890");
    check(TYPE("int64"), "5", "5");
    check(TYPE("unsigned int"), "5", "5");
    check(TYPE("integer"), "None", "null");
    check(TYPE("integer"), "NULL", "null");
}

static void numbers_are_whole_where_they_can_be(void **state)
{
    (void)state;
    check(TYPE("number"), "2.50", "2.5");
    check(TYPE("number"), "3", "3");
    check(TYPE("number"), "3.0", "3");
    check(TYPE("number"), "-0.0", "0");
    check(TYPE("number"), ".5", "0.5");
    check(TYPE("number"), "5.", "5");
    check(TYPE("number"), "1e3", "1000");
    check(TYPE("number"), " 1E-7 ", "1e-07");
    check(TYPE("number"), "1e22", "1e+22"); // vLLM: 10000000000000000000000
    check(TYPE("number"), "18446744073709551616", "18446744073709551616");
    check(TYPE("number"), "0x10", "\"0x10\"");
    check(TYPE("number"), "inf", "\"inf\""); // here and at 1e999 vLLM fails
    check(TYPE("number"), "nan", "\"nan\"");
    check(TYPE("number"), "1e999", "\"1e999\"");
    check(TYPE("number"), "1.2.3", "\"1.2.3\"");
    check(TYPE("number"), "1e", "\"1e\"");
    check(TYPE("number"), ".", "\".\"");
    check(TYPE("number"), "", "\"\"");
    check(TYPE("float"), "null", "null");
}

static void booleans_are_true_or_false(void **state)
{
    (void)state;
    check(TYPE("boolean"), "true", "true");
    check(TYPE("boolean"), "True", "true");
    check(TYPE("boolean"), "FALSE", "false");
    check(TYPE("boolean"), "yes", "false");
    check(TYPE("bool"), "none", "null");
}

static void containers_are_json_or_text(void **state)
{
    (void)state;
    check(TYPE("object"), "{\"a\":1.50,\"b\":[true,null]}", "{\"a\": 1.5, \"b\": [true, null]}");
    check(TYPE("array"), " [1, 2]\n", "[1, 2]");
    check(TYPE("array"), "\"x\"", "\"x\"");
    check(TYPE("object"), "5", "5");
    check(TYPE("object"), "{\"a\": }", "\"{\\\"a\\\": }\"");
    check(TYPE("object"), "", "\"\"");
    check(TYPE("dict[str, int]"), "{\"\\u00e9\": 1}", "{\"\xc3\xa9\": 1}");
    check(TYPE("array"), "null", "null");
    check(TYPE("object"), "['a']", "\"['a']\""); // vLLM reads Python's literals here
}

static void unions_take_their_first_type(void **state)
{
    (void)state;
    const char *optional = "{\"anyOf\": [{\"type\": \"null\"}, {\"type\": \"string\"}]}";
    check(optional, "None", "null");
    check(optional, "Nones", "\"Nones\"");
    check(optional, "5", "\"5\"");
    check("{\"anyOf\": [{\"type\": \"integer\"}, {\"type\": \"string\"}]}", "5", "5");
    check("{\"anyOf\": [{\"type\": \"integer\"}, {\"type\": \"string\"}]}", "x", "\"x\"");
    check("{\"oneOf\": [{\"type\": \"boolean\"}, 3]}", "true", "true"); // vLLM: a string
    check("{\"type\": [\"number\", \"null\"]}", "5", "5");
    check("{\"type\": [\"string\", \"null\"]}", "null", "null");
    check(TYPE("null"), "null", "null");
    check(TYPE("null"), "x", "\"x\"");
    check("{\"anyOf\": 5}", "5", "\"5\""); // vLLM fails
}

static void tools_of_any_shape_are_searched(void **state)
{
    (void)state;
    json_t *tools =
        json_loads("[3, {}, {\"name\": 5}, {\"function\": {\"name\": \"f\", \"parameters\":"
                   " {\"properties\": {\"x\": {}}}}}, {\"name\": \"g\"}]",
                   0, NULL);
    assert_int_equal(json_object_size(tool_values_properties(tools, "f", 1)), 1);
    assert_null(tool_values_properties(tools, "g", 1));
    assert_null(tool_values_properties(tools, "fx", 2));
    assert_null(tool_values_properties(tools, "", 0));
    assert_null(tool_values_properties(NULL, "f", 1));
    const struct tool_value_kind kind = tool_values_kind(NULL, "f", 1);
    assert_int_equal(kind.type, TOOL_VALUES_STRING);
    assert_false(tool_values_may_be_null(kind, "n", 1));
    json_decref(tools);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strings_stay_as_they_are),
        cmocka_unit_test(integers_are_read_as_python_does),
        cmocka_unit_test(numbers_are_whole_where_they_can_be),
        cmocka_unit_test(booleans_are_true_or_false),
        cmocka_unit_test(containers_are_json_or_text),
        cmocka_unit_test(unions_take_their_first_type),
        cmocka_unit_test(tools_of_any_shape_are_searched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
