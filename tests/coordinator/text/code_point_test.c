// SPDX-License-Identifier: Apache-2.0
// code_point_test.c -- every code point there and back, and the ill-formed sequences of The Unicode
// Standard's own tables.
#include "coordinator/text/code_point.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void every_code_point_returns(void **state)
{
    (void)state;
    for (uint32_t point = 0; point < 0x110000; point++) {
        if (point >= 0xd800 && point < 0xe000)
            continue;
        char bytes[CODE_POINT_BYTES_MAX];
        const size_t count = code_point_encode(bytes, point);
        size_t length, at = 0;
        assert_int_equal(code_point_look(bytes, count, &length), CODE_POINT_WHOLE);
        assert_int_equal(length, count);
        assert_int_equal(code_point_next(bytes, &at), point);
        assert_int_equal(at, count);
        for (size_t cut = 1; cut < count; cut++) {
            assert_int_equal(code_point_look(bytes, cut, &length), CODE_POINT_CUT);
            assert_int_equal(length, cut);
        }
    }
}

static void ill_formed_sequences_have_their_length(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        enum code_point_verdict verdict;
        size_t length;
    } cases[] = {
        {"\x80", CODE_POINT_INVALID, 1},         // continuation alone
        {"\xbf\x80", CODE_POINT_INVALID, 1},     // and two
        {"\xc0\x80", CODE_POINT_INVALID, 1},     // overlong
        {"\xc1\xbf", CODE_POINT_INVALID, 1},     // overlong
        {"\xe0\x80\x80", CODE_POINT_INVALID, 1}, // overlong: 0xe0 wants 0xa0 or more
        {"\xe0\xa0", CODE_POINT_CUT, 2},
        {"\xed\xa0\x80", CODE_POINT_INVALID, 1}, // surrogate
        {"\xed\x9f\x41", CODE_POINT_INVALID, 2},
        {"\xf0\x80\x80\x80", CODE_POINT_INVALID, 1}, // overlong
        {"\xf0\x90\x80\x41", CODE_POINT_INVALID, 3},
        {"\xf4\x90\x80\x80", CODE_POINT_INVALID, 1}, // above U+10FFFF
        {"\xf4\x8f\xbf", CODE_POINT_CUT, 3},
        {"\xf5\x80\x80\x80", CODE_POINT_INVALID, 1},
        {"\xff", CODE_POINT_INVALID, 1},
        {"\xe2\x28\xa1", CODE_POINT_INVALID, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t length;
        assert_int_equal(code_point_look(cases[i].bytes, strlen(cases[i].bytes), &length),
                         cases[i].verdict);
        assert_int_equal(length, cases[i].length);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point_returns),
        cmocka_unit_test(ill_formed_sequences_have_their_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
