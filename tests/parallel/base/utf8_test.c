// SPDX-License-Identifier: Apache-2.0
// utf8_test.c -- every sequence of up to three bytes, and four-byte ones at the borders, against
// the definition: decode, then ask whether the shortest form of that code point is the same bytes.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "parallel/base/utf8.h"

// Writes a code point in its shortest form; 0 for one that UTF-8 does not have.
static size_t encode(uint8_t *out, uint32_t point)
{
    if (point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF))
        return 0;
    if (point < 0x80) {
        out[0] = (uint8_t)point;
        return 1;
    }
    size_t bytes = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    for (size_t i = bytes - 1; i > 0; i--) {
        out[i] = (uint8_t)(0x80 | (point & 0x3F));
        point >>= 6;
    }
    static const uint8_t marks[5] = {0, 0, 0xC0, 0xE0, 0xF0};
    out[0] = (uint8_t)(marks[bytes] | point);
    return bytes;
}

static void every_code_point_is_valid_and_its_pieces_are_not(void **state)
{
    (void)state;
    for (uint32_t point = 0; point <= 0x110000; point++) {
        uint8_t bytes[4];
        size_t count = encode(bytes, point);
        assert_int_equal(utf8_valid_bytes(bytes, count), count);
        if (count > 1) {
            assert_int_equal(utf8_valid_bytes(bytes, count - 1), 0);
            assert_int_equal(utf8_valid_bytes(bytes + 1, count - 1), 0);
        }
    }
}

static void every_three_bytes_agree_with_the_definition(void **state)
{
    (void)state;
    // All valid sequences as a set of two- and three-byte strings; the rest must be refused.
    static uint8_t valid2[1 << 16], valid3[1 << 24];
    for (uint32_t point = 0x80; point < 0x10000; point++) {
        uint8_t b[4];
        size_t count = encode(b, point);
        if (count == 2)
            valid2[b[0] << 8 | b[1]] = 1;
        if (count == 3)
            valid3[b[0] << 16 | b[1] << 8 | b[2]] = 1;
    }
    for (uint32_t i = 0x800000; i < 1 << 24; i++) {
        uint8_t b[3] = {(uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i};
        size_t expected = valid3[i]                       ? 3
                          : valid2[i >> 8] && b[2] < 0x80 ? 3
                          : valid2[i >> 8]                ? 2
                                                          : 0;
        if (utf8_valid_bytes(b, 3) != expected)
            fail_msg("%02x %02x %02x: %zu, not %zu", b[0], b[1], b[2], utf8_valid_bytes(b, 3),
                     expected);
    }
}

static void four_byte_borders(void **state)
{
    (void)state;
    assert_int_equal(utf8_valid_bytes("\xF0\x90\x80\x80", 4), 4); // U+10000
    assert_int_equal(utf8_valid_bytes("\xF0\x8F\xBF\xBF", 4), 0); // overlong U+FFFF
    assert_int_equal(utf8_valid_bytes("\xF4\x8F\xBF\xBF", 4), 4); // U+10FFFF
    assert_int_equal(utf8_valid_bytes("\xF4\x90\x80\x80", 4), 0); // U+110000
    assert_int_equal(utf8_valid_bytes("\xF5\x80\x80\x80", 4), 0);
    assert_int_equal(utf8_valid_bytes("\xF1\x80\x80\xC0", 4), 0);
}

static void the_offset_is_that_of_the_first_bad_byte(void **state)
{
    (void)state;
    char text[64];
    for (size_t length = 0; length < sizeof text; length++) {
        memset(text, 'a', sizeof text);
        assert_int_equal(utf8_valid_bytes(text, length), length);
        for (size_t bad = 0; bad < length; bad++) {
            text[bad] = '\xFF';
            assert_int_equal(utf8_valid_bytes(text, length), bad);
            text[bad] = 'a';
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point_is_valid_and_its_pieces_are_not),
        cmocka_unit_test(every_three_bytes_agree_with_the_definition),
        cmocka_unit_test(four_byte_borders),
        cmocka_unit_test(the_offset_is_that_of_the_first_bad_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
