// SPDX-License-Identifier: Apache-2.0
// openai_json_test.c -- the bounds of bodies, one below and one above; ids; strings and back.
#include "coordinator/openai_json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "parallel/wire/requests.h"

static struct openai_error error;

static enum status parse(const char *body, size_t bytes)
{
    json_t *root = NULL;
    memset(&error, 0, sizeof error);
    enum status status = openai_json_parse(&root, body, bytes, &error);
    assert_true((root != NULL) == (status == OK));
    json_decref(root);
    return status;
}

static enum status parse_text(const char *body)
{
    return parse(body, strlen(body));
}

// {"a": [[[...]]]} of so many levels in all.
static enum status parse_depth(size_t depth)
{
    char body[1000] = "{\"a\":";
    for (size_t i = 1; i < depth; i++)
        strcat(body, "[");
    if (depth == 1)
        strcat(body, "1");
    for (size_t i = 1; i < depth; i++)
        strcat(body, "]");
    strcat(body, "}");
    return parse_text(body);
}

// {"a":[0,0,...]} with so many zeros.
static enum status parse_values(size_t count)
{
    char *body = malloc(2 * count + 16);
    assert_non_null(body);
    size_t at = 0;
    memcpy(body, "{\"a\":[", 6);
    at = 6;
    for (size_t i = 0; i < count; i++) {
        body[at++] = '0';
        body[at++] = ',';
    }
    memcpy(body + at - 1, "]}", 2);
    enum status status = parse(body, at + 1);
    free(body);
    return status;
}

static void bodies(void **state)
{
    (void)state;
    assert_int_equal(parse_text("{}"), OK);
    assert_int_equal(parse_text(" {\"a\": \"[[[{{{\\\"[\"} "), OK);
    assert_int_equal(parse_text(""), E_MALFORMED);
    assert_int_equal(parse_text("{\"a\":1"), E_MALFORMED);
    assert_int_equal(parse_text("{\"a\":1}x"), E_MALFORMED);
    assert_int_equal(parse_text("{\"a\":1,\"a\":2}"), E_MALFORMED);
    assert_int_equal(parse_text("{\"a\":\"\xff\"}"), E_MALFORMED);
    assert_int_equal(parse_text("{\"a\":NaN}"), E_MALFORMED);
    assert_int_equal(parse_text("{\"a\":123456789012345678901}"), E_MALFORMED);
    assert_int_equal(parse_text("[]"), E_INPUT);
    assert_int_equal(parse("{\"a\":\"\\", 7), E_MALFORMED); // ends within an escape
}

static void bounds(void **state)
{
    (void)state;
    assert_int_equal(parse_depth(1), OK);
    assert_int_equal(parse_depth(OPENAI_DEPTH_MAX), OK);
    assert_int_equal(parse_depth(OPENAI_DEPTH_MAX + 1), E_LIMIT);
    assert_non_null(strstr(error.error.text, "64"));
    // 1, the object, its colon and the array make 4; n zeros have n - 1 commas.
    assert_int_equal(parse_values(OPENAI_VALUES_MAX - 3), OK);
    assert_int_equal(parse_values(OPENAI_VALUES_MAX - 2), E_LIMIT);
}

static enum status ids_of(const char *text, int32_t vocab, int32_t *count)
{
    int32_t *ids = NULL;
    json_t *value = json_loads(text, 0, NULL);
    memset(&error, 0, sizeof error);
    enum status status = openai_json_ids(&ids, count, value, "prompt", vocab, &error);
    if (status == OK && *count > 1)
        assert_int_equal(ids[1], json_integer_value(json_array_get(value, 1)));
    free(ids);
    json_decref(value);
    return status;
}

static void token_ids(void **state)
{
    (void)state;
    int32_t count = -1;
    assert_int_equal(ids_of("[0, 9]", 10, &count), OK);
    assert_int_equal(count, 2);
    assert_int_equal(ids_of("[]", 10, &count), OK);
    assert_int_equal(count, 0);
    assert_int_equal(ids_of("[0, 10]", 10, &count), E_INPUT);
    assert_string_equal(error.param, "prompt");
    assert_non_null(
        strstr(error.error.text, "prompt[1] is 10, accepted is a token id from 0 to 9"));
    assert_int_equal(ids_of("[-1]", 10, &count), E_INPUT);
    assert_int_equal(ids_of("[4294967296]", 10, &count), E_INPUT);
    assert_int_equal(ids_of("[1.0]", 10, &count), E_INPUT);
    assert_int_equal(ids_of("[\"1\"]", 10, &count), E_INPUT);
}

// Writes text as a JSON string and gives what a parser reads from it.
static void there_and_back(const char *text, size_t bytes, const char *wanted, size_t wanted_bytes)
{
    struct text_buffer out;
    text_buffer_init(&out, 1000);
    assert_int_equal(openai_json_string(&out, text, bytes), OK);
    json_t *value = json_loadb(out.bytes, out.count, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    assert_non_null(value);
    assert_int_equal(json_string_length(value), wanted_bytes);
    assert_memory_equal(json_string_value(value), wanted, wanted_bytes);
    json_decref(value);
    text_buffer_fini(&out);
}

static void strings(void **state)
{
    (void)state;
    char all[128];
    for (int i = 0; i < 128; i++)
        all[i] = (char)i;
    there_and_back(all, sizeof all, all, sizeof all);
    there_and_back("", 0, "", 0);
    there_and_back("\xf0\x9f\xa6\x8a \"\\", 7, "\xf0\x9f\xa6\x8a \"\\", 7);
    there_and_back("a\xff"
                   "b\xe4\xbd",
                   5,
                   "a\xef\xbf\xbd"
                   "b\xef\xbf\xbd\xef\xbf\xbd",
                   11);
    struct text_buffer out;
    text_buffer_init(&out, 5);
    assert_int_equal(openai_json_string(&out, "abcd", 4), E_LIMIT);
    text_buffer_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bodies),
        cmocka_unit_test(bounds),
        cmocka_unit_test(token_ids),
        cmocka_unit_test(strings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
