// SPDX-License-Identifier: Apache-2.0
// writer_test.c -- the bytes of every kind of value by msgpack's table, and every size of buffer
// that is too small.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "parallel/wire/writer.h"

static const uint8_t blob[2] = {0xAB, 0x00};
static const int32_t numbers[2] = {1, -2};

// One of everything.
static void write_all(struct writer *w)
{
    writer_map(w, 2);
    writer_key(w, "a");
    writer_array(w, 9);
    writer_nil(w);
    writer_bool(w, true);
    writer_bool(w, false);
    writer_int(w, -33);
    writer_int(w, 5);
    writer_uint(w, UINT64_MAX);
    writer_float(w, 0.5f);
    writer_double(w, 0.1);
    writer_int32s(w, numbers, 2);
    writer_raw(w, "\xa1z", 2);
    writer_bin(w, blob, 2);
}

static const uint8_t expected[] =
    "\x82\xa1"
    "a\x99\xc0\xc3\xc2\xd0\xdf\x05\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xca\x3f\x00\x00\x00"
    "\xcb\x3f\xb9\x99\x99\x99\x99\x99\x9a\xc4\x08\x01\x00\x00\x00\xfe\xff\xff\xff\xa1z"
    "\xc4\x02\xab";

static void every_value_has_its_bytes(void **state)
{
    (void)state;
    uint8_t buffer[256];
    struct writer w;
    size_t bytes;
    writer_init(&w, buffer, sizeof buffer);
    write_all(&w);
    assert_int_equal(writer_end(&w, &bytes), OK);
    assert_int_equal(bytes, sizeof expected); // its last byte is the literal's NUL
    assert_memory_equal(buffer, expected, bytes);
}

static void too_small_a_buffer_is_told(void **state)
{
    (void)state;
    for (size_t room = 0; room <= sizeof expected; room++) {
        uint8_t *buffer = malloc(room + 1); // its end is checked by hand and by asan
        buffer[room] = 0x5A;
        struct writer w;
        size_t bytes = 77;
        writer_init(&w, buffer, room);
        write_all(&w);
        bool fits = room == sizeof expected;
        assert_int_equal(writer_end(&w, &bytes), fits ? OK : E_LIMIT);
        assert_int_equal(bytes, fits ? room : 0);
        assert_int_equal(buffer[room], 0x5A);
        free(buffer);
    }
}

static void text_becomes_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t bytes;
        const char *expected;
    } cases[] = {
        {"", 0, ""},
        {"h\xc3\xa9", 3, "h\xc3\xa9"},
        {"h\xc3", 2, "h?"}, // cut in the middle of a code point
        {"\xff\xff\xe2\x82\xac\x80", 6, "??\xe2\x82\xac?"},
        {"\xed\xa0\x80", 3, "???"}, // a surrogate
        {"a\0b", 3, "a?b"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t buffer[32];
        struct writer w;
        size_t bytes;
        writer_init(&w, buffer, sizeof buffer);
        writer_text(&w, cases[i].text, cases[i].bytes);
        assert_int_equal(writer_end(&w, &bytes), OK);
        assert_int_equal(bytes, 1 + cases[i].bytes);
        assert_int_equal(buffer[0], 0xA0 | cases[i].bytes);
        assert_memory_equal(buffer + 1, cases[i].expected, cases[i].bytes);
    }
    char long_text[70000];
    memset(long_text, 'x', sizeof long_text);
    static uint8_t buffer[70005];
    struct writer w;
    size_t bytes;
    writer_init(&w, buffer, sizeof buffer);
    writer_text(&w, long_text, sizeof long_text);
    assert_int_equal(writer_end(&w, &bytes), OK);
    assert_memory_equal(buffer, "\xdb\x00\x01\x11\x70xx", 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_value_has_its_bytes),
        cmocka_unit_test(too_small_a_buffer_is_told),
        cmocka_unit_test(text_becomes_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
