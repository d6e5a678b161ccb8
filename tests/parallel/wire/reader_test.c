// SPDX-License-Identifier: Apache-2.0
// reader_test.c -- every head of msgpack's table, every way for a value to be wrong, and the rules
// of maps, depth and lying lengths.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "parallel/wire/reader.h"

static struct error error;
static uint8_t *exact; // the frame at its exact size, so that asan sees every read beyond it

static struct reader open_bytes(const void *bytes, size_t count)
{
    struct reader reader;
    free(exact);
    exact = malloc(count > 0 ? count : 1);
    memcpy(exact, bytes, count);
    error.text[0] = '\0';
    reader_init(&reader, exact, count, "test", &error);
    return reader;
}

#define OPEN(literal) open_bytes(literal, sizeof(literal) - 1)

static void ends(struct reader *reader, enum status status, const char *text)
{
    assert_int_equal(reader_end(reader), status);
    if (text != NULL)
        assert_string_equal(error.text, text);
}

static void integers_of_every_width(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t count;
        int64_t value;
    } cases[] = {
        {"\x00", 1, 0},
        {"\x7f", 1, 127},
        {"\xff", 1, -1},
        {"\xe0", 1, -32},
        {"\xcc\x80", 2, 128},
        {"\xcd\x01\x00", 3, 256},
        {"\xce\xff\xff\xff\xff", 5, 4294967295},
        {"\xcf\x7f\xff\xff\xff\xff\xff\xff\xff", 9, INT64_MAX},
        {"\xd0\x80", 2, -128},
        {"\xd0\x7f", 2, 127},
        {"\xd1\x80\x00", 3, -32768},
        {"\xd2\x80\x00\x00\x00", 5, INT32_MIN},
        {"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", 9, INT64_MIN},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct reader r = open_bytes(cases[i].bytes, cases[i].count);
        assert_int_equal(reader_peek(&r), READER_INT);
        assert_true(reader_int(&r, INT64_MIN, INT64_MAX) == cases[i].value);
        ends(&r, OK, NULL);
        for (size_t cut = 0; cut < cases[i].count; cut++) {
            r = open_bytes(cases[i].bytes, cut);
            assert_true(reader_int(&r, INT64_MIN, INT64_MAX) == 0);
            ends(&r, E_MALFORMED, "test: the frame ends too early");
        }
    }
    struct reader r = OPEN("\xcf\xff\xff\xff\xff\xff\xff\xff\xff");
    assert_true(reader_uint64(&r) == UINT64_MAX);
    ends(&r, OK, NULL);
    r = OPEN("\xcf\x80\x00\x00\x00\x00\x00\x00\x00");
    reader_int(&r, INT64_MIN, INT64_MAX);
    ends(&r, E_MALFORMED,
         "test: 9223372036854775808 is outside "
         "-9223372036854775808 .. 9223372036854775807");
    r = OPEN("\xff");
    assert_true(reader_uint64(&r) == 0);
    ends(&r, E_MALFORMED, "test: -1 is outside 0 .. 18446744073709551615");
    r = OPEN("\x0a");
    assert_int_equal(reader_int32(&r, 10, 10), 10);
    ends(&r, OK, NULL);
    r = OPEN("\x0b");
    assert_int_equal(reader_int32(&r, 10, 10), 0);
    ends(&r, E_MALFORMED, "test: 11 is outside 10 .. 10");
    r = OPEN("\x09");
    reader_int32(&r, 10, 10);
    ends(&r, E_MALFORMED, "test: 9 is outside 10 .. 10");
}

static void reals_bools_and_nil(void **state)
{
    (void)state;
    struct reader r = OPEN("\xca\x3f\x00\x00\x00");
    assert_true(reader_real(&r, 0, 1) == 0.5);
    ends(&r, OK, NULL);
    r = OPEN("\xcb\x3f\xb9\x99\x99\x99\x99\x99\x9a");
    assert_true(reader_real(&r, 0, 1) == 0.1);
    ends(&r, OK, NULL);
    r = OPEN("\xfe");
    assert_true(reader_real(&r, -5, 1) == -2);
    ends(&r, OK, NULL);
    r = OPEN("\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00");
    assert_true(reader_real(&r, 0, 2) == 0);
    ends(&r, E_MALFORMED, "test: nan is outside 0 .. 2");
    r = OPEN("\xca\x7f\x80\x00\x00");
    reader_real(&r, 0, 2);
    ends(&r, E_MALFORMED, "test: inf is outside 0 .. 2");
    r = OPEN("\x03");
    reader_real(&r, 0, 2);
    ends(&r, E_MALFORMED, "test: 3 is outside 0 .. 2");
    r = OPEN("\xc3\xc2\xc0");
    assert_true(reader_bool(&r));
    assert_false(reader_bool(&r));
    assert_true(reader_nil(&r));
    assert_false(reader_nil(&r));
    ends(&r, OK, NULL);
    r = OPEN("\x01");
    assert_false(reader_bool(&r));
    ends(&r, E_MALFORMED, "test: an integer where a bool belongs");
    r = OPEN("\xc1");
    assert_int_equal(reader_peek(&r), READER_NOTHING);
    reader_bool(&r);
    ends(&r, E_MALFORMED, "test: byte 0xc1 begins no value");
    r = open_bytes("", 0);
    ends(&r, OK, NULL);
}

static void strings_and_binaries(void **state)
{
    (void)state;
    size_t bytes;
    char text[4];
    struct reader r = OPEN("\xa3"
                           "abc"
                           "\xd9\x02hi\xda\x00\x01x\xdb\x00\x00\x00\x01y");
    assert_memory_equal(reader_str(&r, &bytes, 3), "abc", 3);
    assert_int_equal(bytes, 3);
    reader_text(&r, text, sizeof text);
    assert_string_equal(text, "hi");
    assert_memory_equal(reader_str(&r, &bytes, 1), "x", 1);
    assert_memory_equal(reader_str(&r, &bytes, 1), "y", 1);
    ends(&r, OK, NULL);
    r = OPEN("\xa4"
             "abcd");
    reader_text(&r, text, sizeof text);
    assert_string_equal(text, "");
    ends(&r, E_MALFORMED, "test: 4 bytes, the limit is 3");
    r = OPEN("\xa3"
             "ab\xff");
    reader_text(&r, text, sizeof text);
    ends(&r, E_MALFORMED, "test: invalid UTF-8 at byte 2 of 3");
    r = OPEN("\xa3"
             "a\0b");
    reader_text(&r, text, sizeof text);
    ends(&r, E_MALFORMED, "test: a NUL at byte 1 of 3");
    r = OPEN("\xdb\xff\xff\xff\xff"
             "abc");
    assert_memory_equal(reader_str(&r, &bytes, SIZE_MAX), "", 1);
    ends(&r, E_MALFORMED, "test: claims 4294967295 bytes, 3 are left");
    r = OPEN("\xc4\x02hi\xc5\x00\x01x\xc6\x00\x00\x00\x01y");
    assert_memory_equal(reader_bin(&r, &bytes, 2), "hi", 2);
    reader_bytes(&r, text, 1);
    assert_int_equal(text[0], 'x');
    reader_bytes(&r, text, 2);
    ends(&r, E_MALFORMED, "test: 1 bytes where 2 belong");
    r = OPEN("\xc4\x03hi!");
    reader_bin(&r, &bytes, 2);
    ends(&r, E_MALFORMED, "test: 3 bytes, the limit is 2");
    int32_t numbers[2];
    r = OPEN("\xc4\x08\x01\x00\x00\x00\xff\xff\xff\x7f");
    assert_int_equal(reader_int32s(&r, numbers, 2, 0), 2);
    assert_int_equal(numbers[0], 1);
    assert_int_equal(numbers[1], INT32_MAX);
    r = OPEN("\xc4\x04\xff\xff\xff\xff");
    assert_int_equal(reader_int32s(&r, numbers, 2, -1), 1);
    assert_int_equal(numbers[0], -1);
}

static void first_error_stays(void **state)
{
    (void)state;
    size_t bytes;
    struct reader r = OPEN("\x05\xa1x\x07");
    reader_bool(&r);
    assert_int_equal(reader_peek(&r), READER_NOTHING);
    assert_int_equal(reader_int32(&r, 0, 9), 0);
    assert_int_equal(reader_array(&r, 9), 0);
    reader_str(&r, &bytes, 9);
    assert_int_equal(bytes, 0);
    reader_value(&r, &bytes);
    assert_int_equal(bytes, 0);
    reader_fail(&r, E_INPUT, "another");
    ends(&r, E_MALFORMED, "test: an integer where a bool belongs");
    reader_init(&r, "\x05", 1, "test", NULL); // no place for a text is fine
    reader_bool(&r);
    assert_int_equal(reader_end(&r), E_MALFORMED);
}

static void a_person_gets_bad_input(void **state)
{
    (void)state;
    size_t bytes;
    struct reader r = OPEN("\x05");
    r.status_value = E_INPUT;
    reader_bool(&r);
    ends(&r, E_INPUT, NULL);
    r = OPEN("\xa3"
             "abc");
    r.status_value = E_INPUT;
    reader_str(&r, &bytes, 2);
    ends(&r, E_LIMIT, "test: 3 bytes, the limit is 2");
    r = OPEN("\x92\x01\x02");
    r.status_value = E_INPUT;
    reader_array(&r, 1);
    ends(&r, E_LIMIT, "test: 2 elements, the limit is 1");
    r = OPEN("\xa3"
             "ab");
    r.status_value = E_INPUT;
    reader_str(&r, &bytes, 9);
    ends(&r, E_MALFORMED, NULL);
}

static void arrays_are_bounded(void **state)
{
    (void)state;
    struct reader r = OPEN("\x92\x01\x02");
    assert_int_equal(reader_array(&r, 2), 2);
    r = OPEN("\xdc\x00\x02\x01\x02");
    reader_tuple(&r, 2);
    assert_int_equal(reader_int32(&r, 0, 9), 1);
    assert_int_equal(reader_int32(&r, 0, 9), 2);
    ends(&r, OK, NULL);
    r = OPEN("\x92\x01\x02");
    reader_tuple(&r, 3);
    ends(&r, E_MALFORMED, "test: 2 elements where 3 belong");
    r = OPEN("\xdd\xff\xff\xff\xff\x01");
    assert_int_equal(reader_array(&r, INT32_MAX), 0);
    ends(&r, E_MALFORMED, "test: claims 4294967295 elements, 1 bytes are left");
    r = OPEN("\x92\x01\x02");
    assert_int_equal(reader_array(&r, 1), 0);
    ends(&r, E_MALFORMED, "test: 2 elements, the limit is 1");
}

static void values_are_read_over_whole(void **state)
{
    (void)state;
    static const char all[] = "\x9b\x01\xa1x\xc4\x01y\xc0\xc2\xca\x00\x00\x00\x00\xd4\x01z"
                              "\xc7\x02\x05zz\xd8\x01zzzzzzzzzzzzzzzz\x81\xa1k\x91\x80\x90";
    size_t bytes;
    struct reader r = OPEN(all);
    assert_ptr_equal(reader_value(&r, &bytes), exact);
    assert_int_equal(bytes, sizeof all - 1);
    ends(&r, OK, NULL);
    for (size_t cut = 0; cut < sizeof all - 1; cut++) {
        r = open_bytes(all, cut);
        reader_value(&r, &bytes);
        assert_int_equal(bytes, 0);
        ends(&r, E_MALFORMED, NULL);
    }
    r = OPEN("\xdf\xff\xff\xff\xff\x01");
    reader_value(&r, &bytes);
    ends(&r, E_MALFORMED, "test: claims 8589934590 values, 1 bytes are left");
    r = OPEN("\xc9\xff\xff\xff\xff\x01");
    reader_value(&r, &bytes);
    ends(&r, E_MALFORMED, "test: claims 4294967296 bytes, 1 are left");
    uint8_t deep[READER_DEPTH_MAX + 1];
    memset(deep, 0x91, sizeof deep);
    deep[READER_DEPTH_MAX - 1] = 0xC0; // 31 arrays around a nil: 32 levels
    r = open_bytes(deep, READER_DEPTH_MAX);
    reader_value(&r, &bytes);
    ends(&r, OK, NULL);
    deep[READER_DEPTH_MAX - 1] = 0x91;
    deep[READER_DEPTH_MAX] = 0xC0;
    r = open_bytes(deep, READER_DEPTH_MAX + 1);
    reader_value(&r, &bytes);
    ends(&r, E_MALFORMED, "test: deeper than 32 levels");
}

static const char *const keys[] = {"one", "two"};

static enum status read_map(struct reader r, bool strict, int32_t *one, int32_t *two)
{
    struct reader_map map;
    size_t bytes;
    *one = *two = -1;
    reader_map_open(&r, &map, keys, 2, strict);
    for (int32_t key; (key = reader_map_key(&r, &map)) != READER_MAP_END;) {
        if (key == 0)
            *one = reader_int32(&r, 0, 9);
        else if (key == 1)
            *two = reader_int32(&r, 0, 9);
        else
            reader_value(&r, &bytes);
    }
    return reader_end(&r);
}

static void maps_know_their_keys(void **state)
{
    (void)state;
    int32_t one, two;
    static const char good[] = "\x82\xa3two\x02\xa3one\x01";
    assert_int_equal(read_map(OPEN(good), true, &one, &two), OK);
    assert_int_equal(one, 1);
    assert_int_equal(two, 2);
    for (size_t cut = 0; cut < sizeof good - 1; cut++)
        assert_int_equal(read_map(open_bytes(good, cut), true, &one, &two), E_MALFORMED);
    assert_int_equal(read_map(OPEN("\x81\xa3two\x02"), true, &one, &two), E_MALFORMED);
    assert_string_equal(error.text, "test: key 'one' is missing");
    assert_int_equal(read_map(OPEN("\x81\xa3two\x02"), false, &one, &two), OK);
    assert_int_equal(read_map(OPEN("\x82\xa3two\x02\xa3two\x02"), false, &one, &two), E_MALFORMED);
    assert_string_equal(error.text, "test: 'two': this key comes twice");
    static const char unknown[] = "\x83\xa3two\x02\xa3six\x92\x01\x02\xa3one\x01";
    assert_int_equal(read_map(OPEN(unknown), true, &one, &two), E_MALFORMED);
    assert_string_equal(error.text, "test: key 'six' is unknown");
    assert_int_equal(read_map(OPEN(unknown), false, &one, &two), OK);
    assert_int_equal(one, 1);
    assert_int_equal(read_map(OPEN("\x82\x01\x02\x03\x04"), false, &one, &two), E_MALFORMED);
    assert_string_equal(error.text, "test: an integer where a string belongs");
    assert_int_equal(read_map(OPEN("\xdf\x7f\xff\xff\xff\xa3one\x01"), false, &one, &two),
                     E_MALFORMED);
    assert_string_equal(error.text, "test: claims 2147483647 pairs, 5 bytes are left");
    assert_int_equal(read_map(OPEN("\x82\xa3two\x0a\xa3one\x01"), true, &one, &two), E_MALFORMED);
    assert_string_equal(error.text, "test: 'two': 10 is outside 0 .. 9");
    assert_int_equal(read_map(OPEN("\x82\xa3two\x02\xa3one\x01\xc0"), true, &one, &two),
                     E_MALFORMED);
    assert_string_equal(error.text, "test: 1 bytes too many");
    assert_int_equal(read_map(OPEN("\x90"), false, &one, &two), E_MALFORMED);
    assert_string_equal(error.text, "test: an array where a map belongs");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_of_every_width),    cmocka_unit_test(reals_bools_and_nil),
        cmocka_unit_test(strings_and_binaries),       cmocka_unit_test(first_error_stays),
        cmocka_unit_test(a_person_gets_bad_input),    cmocka_unit_test(arrays_are_bounded),
        cmocka_unit_test(values_are_read_over_whole), cmocka_unit_test(maps_know_their_keys),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(exact);
    return failed;
}
