// SPDX-License-Identifier: Apache-2.0
// json_wire_test.c -- every kind of JSON value as msgpack bytes, sizes and depth.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "deploy/cli/json_wire.h"
#include "parallel/wire/reader.h"

static struct error error;
static uint8_t buffer[4096];

static enum status pack(const char *text, size_t *bytes)
{
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(value);
    struct writer writer;
    writer_init(&writer, buffer, json_wire_bytes_max(strlen(text)));
    enum status status = json_wire_value(&writer, value, &error);
    if (status == OK)
        assert_int_equal(writer_end(&writer, bytes), OK); // the stated size was enough
    json_decref(value);
    return status;
}

static void every_kind_has_its_bytes(void **state)
{
    (void)state;
    static const struct {
        const char *json, *packed;
        size_t bytes;
    } cases[] = {
        {"null", "\xc0", 1},
        {"true", "\xc3", 1},
        {"false", "\xc2", 1},
        {"-1", "\xff", 1},
        {"9223372036854775807", "\xcf\x7f\xff\xff\xff\xff\xff\xff\xff", 9},
        {"1e1", "\xcb\x40\x24\0\0\0\0\0\0", 9},
        {"\"h\\u00e9\"", "\xa3h\xc3\xa9", 4},
        {"[]", "\x90", 1},
        {"[0.5,0.5]", "\x92\xcb\x3f\xe0\0\0\0\0\0\0\xcb\x3f\xe0\0\0\0\0\0\0", 19},
        {"{\"a\":{\"b\":[1]}}", "\x81\xa1\x61\x81\xa1\x62\x91\x01", 8},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t bytes;
        assert_int_equal(pack(cases[i].json, &bytes), OK);
        assert_int_equal(bytes, cases[i].bytes);
        assert_memory_equal(buffer, cases[i].packed, bytes);
    }
}

static void members_have_no_head(void **state)
{
    (void)state;
    json_t *object = json_loads("{\"k\":7}", 0, NULL);
    struct writer writer;
    size_t bytes;
    writer_init(&writer, buffer, sizeof buffer);
    assert_int_equal(json_wire_members(&writer, object, &error), OK);
    assert_int_equal(writer_end(&writer, &bytes), OK);
    assert_int_equal(bytes, 3);
    assert_memory_equal(buffer, "\xa1k\x07", 3);
    json_decref(object);
}

// What is packed at the deepest level that is allowed, the reader of the wire also takes.
static void depth_is_the_readers(void **state)
{
    (void)state;
    char text[2 * READER_DEPTH_MAX + 2];
    for (int levels = READER_DEPTH_MAX - 1; levels <= READER_DEPTH_MAX; levels++) {
        memset(text, '[', (size_t)levels);
        text[levels] = '1';
        memset(text + levels + 1, ']', (size_t)levels);
        text[2 * levels + 1] = '\0';
        size_t bytes, value_bytes;
        enum status status = pack(text, &bytes);
        if (levels == READER_DEPTH_MAX) {
            assert_int_equal(status, E_INPUT);
            assert_string_equal(error.text, "nested deeper than 32 levels");
            continue;
        }
        assert_int_equal(status, OK);
        struct reader reader;
        reader_init(&reader, buffer, bytes, "test", &error);
        reader_value(&reader, &value_bytes);
        assert_int_equal(reader_end(&reader), OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_has_its_bytes),
        cmocka_unit_test(members_have_no_head),
        cmocka_unit_test(depth_is_the_readers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
