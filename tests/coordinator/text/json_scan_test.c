// SPDX-License-Identifier: Apache-2.0
// json_scan_test.c -- strings as jansson reads them, extents of values, texts that are not JSON.
#include "coordinator/text/json_scan.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct json_scan scan_text(const char *text, struct error *error)
{
    struct json_scan scan;
    json_scan_init(&scan, "t.json", text, strlen(text), error);
    return scan;
}

// Reads one string by the scanner and by jansson: same bytes, or both refuse.
static void check_string(const char *text)
{
    struct error error;
    struct text_buffer out;
    text_buffer_init(&out, 1000);
    struct json_scan scan = scan_text(text, &error);
    json_scan_string(&scan, &out);
    json_t *expected = json_loads(text, JSON_DECODE_ANY, NULL);
    if (json_is_string(expected)) {
        assert_int_equal(scan.status, OK);
        assert_int_equal(out.count, json_string_length(expected));
        assert_memory_equal(out.bytes, json_string_value(expected), out.count);
        assert_int_equal(scan.at, scan.bytes);
    } else {
        assert_int_equal(scan.status, E_MALFORMED);
    }
    json_decref(expected);
    text_buffer_fini(&out);
}

static void strings_read_as_jansson_reads_them(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "\"plain\"",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
        "\"\\u0041\\u00e9\\u65e5\\uFFFD\"",
        "\"\\ud83d\\ude00\"",
        "\"\xc3\xa9\xf0\x9f\x98\x80\"",
        "\"\\u00\"",
        "\"\\ud83d\"",
        "\"\\ud83dx\"",
        "\"\\ud83d\\u0041\"",
        "\"\\ude00\"",
        "\"\\u0000\"",
        "\"\\q\"",
        "\"\\",
        "\"open",
        "\"",
        "\"tab\there\"",
        "\"line\nend\"",
        "\"\\uD7FF\\uE000\"",
        "x",
        "",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        check_string(texts[i]);
}

static void numbers_are_whole_and_bounded(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum status status;
        uint32_t value;
    } cases[] = {
        {"0", OK, 0},
        {" 248319,", OK, 248319},
        {"4294967295]", OK, 4294967295u},
        {"4294967296", E_MALFORMED, 0},
        {"99999999999999999999999", E_MALFORMED, 0},
        {"-1", E_MALFORMED, 0},
        {"1.5", E_MALFORMED, 0},
        {"1e3", E_MALFORMED, 0},
        {"01", E_MALFORMED, 0},
        {"", E_MALFORMED, 0},
        {"x", E_MALFORMED, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error error;
        struct json_scan scan = scan_text(cases[i].text, &error);
        assert_int_equal(json_scan_u32(&scan), cases[i].value);
        assert_int_equal(scan.status, cases[i].status);
    }
}

static void a_skip_ends_where_the_value_does(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t start, bytes;
    } cases[] = {
        {" 12 ,", 1, 2},
        {"\"a\\\"]}\" ", 0, 7},
        {"{\"a\": [1, {\"b\": \"}\"}], \"c\": null} x", 0, 33},
        {"[]", 0, 2},
        {"\n true]", 2, 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error error;
        struct json_scan scan = scan_text(cases[i].text, &error);
        const struct json_extent extent = json_scan_skip(&scan);
        assert_int_equal(scan.status, OK);
        assert_int_equal(extent.start, cases[i].start);
        assert_int_equal(extent.bytes, cases[i].bytes);
    }
}

static void a_skip_refuses_what_does_not_pair(void **state)
{
    (void)state;
    static const char *const texts[] = {"",  "  ", "{", "[1, 2", "[1}", "{\"a\": \"x",
                                        "]", ",",  ":", "[\"\\"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct error error;
        struct json_scan scan = scan_text(texts[i], &error);
        assert_int_equal(json_scan_skip(&scan).bytes, 0);
        assert_int_equal(scan.status, E_MALFORMED);
        assert_non_null(strstr(error.text, "t.json: byte "));
    }
    char deep[80];
    memset(deep, '[', 65);
    memset(deep + 65, 0, sizeof deep - 65);
    struct error error;
    struct json_scan scan = scan_text(deep, &error);
    json_scan_skip(&scan);
    assert_int_equal(scan.status, E_LIMIT);
    assert_non_null(strstr(error.text, "64"));
}

static void the_first_error_stays(void **state)
{
    (void)state;
    struct error error;
    struct text_buffer out;
    text_buffer_init(&out, 100);
    struct json_scan scan = scan_text("[1 2]", &error);
    assert_true(json_scan_enter(&scan, '[', ']'));
    assert_int_equal(json_scan_u32(&scan), 1);
    assert_false(json_scan_more(&scan, ']'));
    assert_int_equal(scan.status, E_MALFORMED);
    assert_string_equal(error.text, "t.json: byte 3: expected ]");
    json_scan_string(&scan, &out);
    json_scan_fail(&scan, "later");
    assert_int_equal(json_scan_u32(&scan), 0);
    assert_int_equal(json_scan_peek(&scan), 0);
    assert_int_equal(out.count, 0);
    assert_string_equal(error.text, "t.json: byte 3: expected ]");
    text_buffer_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strings_read_as_jansson_reads_them),
        cmocka_unit_test(numbers_are_whole_and_bounded),
        cmocka_unit_test(a_skip_ends_where_the_value_does),
        cmocka_unit_test(a_skip_refuses_what_does_not_pair),
        cmocka_unit_test(the_first_error_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
