// SPDX-License-Identifier: Apache-2.0
// wire_json_test.c -- msgpack values against the JSON text that they stand for, and what JSON has
// not.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/wire_json.h"
#include "parallel/wire/reader.h"
#include "parallel/wire/writer.h"

enum { FRAME_BYTES = 4096 };

static uint8_t frame[FRAME_BYTES];
static struct writer writer;
static struct error error;

static struct writer *begin(void)
{
    writer_init(&writer, frame, sizeof frame);
    return &writer;
}

static enum status convert(json_t **out)
{
    size_t bytes;
    assert_int_equal(writer_end(&writer, &bytes), OK);
    memset(&error, 0, sizeof error);
    return wire_json(out, frame, bytes, "messages", &error);
}

// What was written is this JSON, keys in the order of writing.
static void assert_json(const char *expected)
{
    json_t *json;
    if (convert(&json) != OK)
        fail_msg("%s: %s", expected, error.text);
    char *text = json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY);
    assert_string_equal(text, expected);
    free(text);
    json_decref(json);
}

static void assert_refused(enum status status, const char *part)
{
    json_t *json = NULL;
    assert_int_equal(convert(&json), status);
    assert_null(json);
    if (strstr(error.text, part) == NULL || strstr(error.text, "messages") == NULL)
        fail_msg("'%s' does not name messages and %s", error.text, part);
}

static void values_are_the_same(void **state)
{
    (void)state;
    writer_nil(begin());
    assert_json("null");
    writer_bool(begin(), true);
    assert_json("true");
    writer_int(begin(), INT64_MIN);
    assert_json("-9223372036854775808");
    writer_uint(begin(), INT64_MAX);
    assert_json("9223372036854775807");
    writer_double(begin(), -0.5);
    assert_json("-0.5");
    writer_float(begin(), 0.25f);
    assert_json("0.25");
    writer_text(begin(), "", 0);
    assert_json("\"\"");
    writer_text(begin(), "a\"\n\xc3\xa9", 5);
    assert_json("\"a\\\"\\n\xc3\xa9\"");
}

static void containers_are_the_same(void **state)
{
    (void)state;
    writer_array(begin(), 0);
    assert_json("[]");
    writer_map(begin(), 0);
    assert_json("{}");
    struct writer *w = begin();
    writer_array(w, 2);
    writer_map(w, 2);
    writer_key(w, "role");
    writer_key(w, "user");
    writer_key(w, "content");
    writer_array(w, 3);
    writer_int(w, 1);
    writer_nil(w);
    writer_map(w, 1);
    writer_key(w, "");
    writer_bool(w, false);
    writer_int(w, 7);
    assert_json("[{\"role\":\"user\",\"content\":[1,null,{\"\":false}]},7]");
}

static void what_json_has_not_is_refused(void **state)
{
    (void)state;
    writer_bin(begin(), "ab", 2);
    assert_refused(E_INPUT, "JSON");
    writer_uint(begin(), (uint64_t)INT64_MAX + 1);
    assert_refused(E_INPUT, "9223372036854775807");
    writer_double(begin(), (double)NAN);
    assert_refused(E_INPUT, "nan");
    writer_double(begin(), (double)INFINITY);
    assert_refused(E_INPUT, "inf");
    writer_map(begin(), 1);
    writer_int(&writer, 1);
    writer_int(&writer, 2);
    assert_refused(E_INPUT, "");
    writer_raw(begin(), "\xa2\xc3\x28", 3); // a string that is no UTF-8
    assert_refused(E_INPUT, "UTF-8");
    writer_raw(begin(), "\xa2\x61\x00", 3); // which no text for people holds
    assert_refused(E_INPUT, "NUL at byte 1");
    writer_raw(begin(), "\x81\xa2\xc3\x28\x01", 5); // as a key
    assert_refused(E_INPUT, "UTF-8");
}

static void nesting_is_bounded(void **state)
{
    (void)state;
    for (int depth = READER_DEPTH_MAX - 1; depth <= READER_DEPTH_MAX; depth++) {
        json_t *json = NULL;
        struct writer *w = begin();
        for (int i = 0; i < depth; i++)
            writer_array(w, 1);
        writer_int(w, 1);
        if (depth < READER_DEPTH_MAX) {
            assert_int_equal(convert(&json), OK);
            json_decref(json);
        } else {
            assert_refused(E_INPUT, "32");
        }
    }
}

// Every prefix of a frame fails, and none leaks (seen by the leak sanitizer).
static void cut_frames_are_malformed(void **state)
{
    (void)state;
    struct writer *w = begin();
    size_t bytes;
    writer_map(w, 2);
    writer_key(w, "a");
    writer_array(w, 2);
    writer_key(w, "text");
    writer_double(w, 1.5);
    writer_key(w, "b");
    writer_map(w, 1);
    writer_key(w, "c");
    writer_int(w, 1 << 20);
    assert_int_equal(writer_end(w, &bytes), OK);
    for (size_t cut = 0; cut < bytes; cut++) {
        json_t *json = NULL;
        uint8_t *copy = malloc(cut + 1); // so that a sanitizer sees a read beyond
        memcpy(copy, frame, cut);
        enum status status = wire_json(&json, copy, cut, "messages", &error);
        free(copy);
        assert_int_not_equal(status, OK);
        assert_null(json);
    }
    frame[bytes] = 1; // one byte too many
    json_t *json = NULL;
    assert_int_not_equal(wire_json(&json, frame, bytes + 1, "messages", &error), OK);
    assert_null(json);
}

// A length that lies costs no memory.
static void lying_lengths_are_refused(void **state)
{
    (void)state;
    writer_raw(begin(), "\xdd\x00\x0f\xff\xff\x01", 6);
    json_t *json = NULL;
    assert_int_not_equal(convert(&json), OK);
    writer_raw(begin(), "\xdf\xff\xff\xff\xff\xa1\x61\x01", 8);
    assert_int_not_equal(convert(&json), OK);
    writer_raw(begin(), "\xdb\xff\xff\xff\xff\x61", 6);
    assert_int_not_equal(convert(&json), OK);
    assert_null(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_the_same),          cmocka_unit_test(containers_are_the_same),
        cmocka_unit_test(what_json_has_not_is_refused), cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(cut_frames_are_malformed),     cmocka_unit_test(lying_lengths_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
