// SPDX-License-Identifier: Apache-2.0
// python_json_test.c -- values whose text Python was asked for: json.dumps, str and repr.
#include "coordinator/text/python_json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void check_real(double value, const char *expected)
{
    struct text_buffer out;
    text_buffer_init(&out, 100);
    assert_int_equal(python_json_append_real(&out, value, NULL), OK);
    if (out.count != strlen(expected) || memcmp(out.bytes, expected, out.count) != 0)
        fail_msg("found %.*s, expected %s", (int)out.count, out.bytes, expected);
    text_buffer_fini(&out);
}

static void reals_are_printed_as_repr_does(void **state)
{
    (void)state;
    check_real(0.1, "0.1");
    check_real(0.0, "0.0");
    check_real(-0.0, "-0.0");
    check_real(1.0, "1.0");
    check_real(-12.5, "-12.5");
    check_real(100.0, "100.0");
    check_real(1e15, "1000000000000000.0");
    check_real(9999999999999998.0, "9999999999999998.0");
    check_real(1e16, "1e+16");
    check_real(1.5e300, "1.5e+300");
    check_real(1e-4, "0.0001");
    check_real(0.00012345, "0.00012345");
    check_real(0.05, "0.05");
    check_real(1e-5, "1e-05");
    check_real(1.25e-7, "1.25e-07");
    check_real(5e-324, "5e-324");
    check_real(1.7976931348623157e308, "1.7976931348623157e+308");
    check_real(1.0 / 3, "0.3333333333333333");
    check_real(2.0 / 3, "0.6666666666666666");
    check_real(123456789.125, "123456789.125");
    check_real(5e22, "5e+22");
    check_real(9007199254740993.0, "9007199254740992.0");
}

// Whatever is printed reads back as the same number, over a walk through all exponents.
static void reals_read_back(void **state)
{
    (void)state;
    uint64_t bits = 0x123456789abcdefULL;
    struct text_buffer out;
    text_buffer_init(&out, 100);
    for (int i = 0; i < 20000; i++) {
        double value;
        bits = bits * 6364136223846793005ULL + 1442695040888963407ULL;
        const uint64_t finite = (bits >> 52 & 0x7ff) == 0x7ff ? bits >> 2 : bits;
        memcpy(&value, &finite, sizeof value);
        out.count = 0;
        assert_int_equal(python_json_append_real(&out, value, NULL), OK);
        assert_int_equal(text_buffer_append(&out, "", 1, NULL), OK);
        assert_true(strtod(out.bytes, NULL) == value);
        assert_non_null(strpbrk(out.bytes, ".e"));
    }
    text_buffer_fini(&out);
}

static void check(const char *json, const char *dumps, const char *str)
{
    struct text_buffer out;
    json_t *value = json_loads(json, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    assert_non_null(value);
    text_buffer_init(&out, 1000);
    assert_int_equal(python_json_append(&out, value, NULL), OK);
    assert_int_equal(out.count, strlen(dumps));
    assert_memory_equal(out.bytes, dumps, out.count);
    out.count = 0;
    assert_int_equal(python_json_append_str(&out, value, NULL), OK);
    if (str != NULL) {
        assert_int_equal(out.count, strlen(str));
        assert_memory_equal(out.bytes, str, out.count);
    }
    text_buffer_fini(&out);
    json_decref(value);
}

static void values_are_printed_as_dumps_and_str_do(void **state)
{
    (void)state;
    check("true", "true", "True");
    check("false", "false", "False");
    check("null", "null", "None");
    check("-9223372036854775808", "-9223372036854775808", "-9223372036854775808");
    check("1.50", "1.5", "1.5");
    check("\"a b\"", "\"a b\"", "a b");
    check("[]", "[]", "[]");
    check("{ }", "{}", "{}");
    check("{\"b\":[1,2.0,{\"a\":null}],\"a\":true}",
          "{\"b\": [1, 2.0, {\"a\": null}], \"a\": true}",
          "{\"b\": [1, 2.0, {\"a\": null}], \"a\": true}");
    check("{\"a\":1,\"b\":2,\"a\":3}", "{\"a\": 3, \"b\": 2}", NULL);
}

static void strings_escape_what_json_must(void **state)
{
    (void)state;
    check("\"\\u0000\\u0001\\b\\t\\n\\u000b\\f\\r\\u001f\\\"\\\\/\\u007f<>&\"",
          "\"\\u0000\\u0001\\b\\t\\n\\u000b\\f\\r\\u001f\\\"\\\\/\x7f<>&\"", NULL);
    check("{\"\\n\\u00e9\":\"\\u2028\\ud83d\\ude00\"}",
          "{\"\\n\xc3\xa9\": \"\xe2\x80\xa8\xf0\x9f\x98\x80\"}", NULL);
}

static void the_buffers_limit_is_kept(void **state)
{
    (void)state;
    struct text_buffer out;
    struct error error;
    json_t *value = json_loads("[1, 2, 3]", 0, NULL);
    text_buffer_init(&out, 8);
    assert_int_equal(python_json_append(&out, value, &error), E_LIMIT);
    text_buffer_fini(&out);
    json_decref(value);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reals_are_printed_as_repr_does),
        cmocka_unit_test(reals_read_back),
        cmocka_unit_test(values_are_printed_as_dumps_and_str_do),
        cmocka_unit_test(strings_escape_what_json_must),
        cmocka_unit_test(the_buffers_limit_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
