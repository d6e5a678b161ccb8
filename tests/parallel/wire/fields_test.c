// SPDX-License-Identifier: Apache-2.0
// fields_test.c -- one table with every kind of field, there, back and wrong.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "parallel/wire/fields.h"

struct thing {
    uint8_t before;
    int32_t number;
    uint64_t wide;
    char text[8];
    uint8_t bytes[3];
    uint8_t after;
};

static const struct field fields[] = {
    {"n", FIELD_INT32, offsetof(struct thing, number), 4, -3, 7},
    {"w", FIELD_UINT64, offsetof(struct thing, wide), 8, 0, 0},
    {"s", FIELD_TEXT, offsetof(struct thing, text), 8, 0, 0},
    {"b", FIELD_BYTES, offsetof(struct thing, bytes), 3, 0, 0},
};
static const struct field_table table = {"thing", fields, 4};
static struct error error;

static void there_and_back(void **state)
{
    (void)state;
    const struct thing thing = {1, -3, UINT64_MAX, "seven77", {9, 0, 8}, 2};
    struct thing back = {.before = 0xAA, .after = 0xBB};
    uint8_t frame[64];
    size_t bytes;
    assert_int_equal(fields_encode(frame, sizeof frame, &bytes, &table, &thing), OK);
    assert_memory_equal(frame, "\x85\xa1t\xa5thing\xa1n\xfd\xa1w", 14);
    assert_int_equal(fields_decode(&back, &table, frame, bytes, &error), OK);
    assert_int_equal(back.number, -3);
    assert_true(back.wide == UINT64_MAX);
    assert_string_equal(back.text, "seven77");
    assert_memory_equal(back.bytes, thing.bytes, 3);
    assert_int_equal(back.before, 0xAA); // nothing beyond the fields is written
    assert_int_equal(back.after, 0xBB);
    for (size_t cut = 0; cut < bytes; cut++)
        assert_int_equal(fields_decode(&back, &table, frame, cut, &error), E_MALFORMED);
    for (size_t room = 0; room < bytes; room++) {
        uint8_t small[64];
        size_t small_bytes;
        assert_int_equal(fields_encode(small, room, &small_bytes, &table, &thing), E_LIMIT);
    }
}

static void refused(const char *frame, size_t bytes, const char *text)
{
    struct thing back;
    assert_int_equal(fields_decode(&back, &table, frame, bytes, &error), E_MALFORMED);
    assert_string_equal(error.text, text);
}

#define REFUSED(frame, text) refused(frame, sizeof(frame) - 1, text)

static void wrong_frames_are_named(void **state)
{
    (void)state;
    REFUSED("\x81\xa1t\xa5thank", "thing: 't': 'thank' where 'thing' belongs");
    REFUSED("\x81\xa1t\xa4thin", "thing: 't': 'thin' where 'thing' belongs");
    REFUSED("\x82\xa1t\xa5thing\xa1n\x08", "thing: 'n': 8 is outside -3 .. 7");
    REFUSED("\x82\xa1t\xa5thing\xa1n\xfc", "thing: 'n': -4 is outside -3 .. 7");
    REFUSED("\x82\xa1t\xa5thing\xa1w\xff", "thing: 'w': -1 is outside 0 .. 18446744073709551615");
    REFUSED("\x82\xa1t\xa5thing\xa1s\xa8"
            "eight888",
            "thing: 's': 8 bytes, the limit is 7");
    REFUSED("\x82\xa1t\xa5thing\xa1"
            "b\xc4\x02xx",
            "thing: 'b': 2 bytes where 3 belong");
    REFUSED("\x82\xa1t\xa5thing\xa1n\xa1x", "thing: 'n': a string where an integer belongs");
    REFUSED("\x81\xa1t\xa5thing", "thing: key 'n' is missing");
    REFUSED("\x82\xa1t\xa5thing\xa1q\x01", "thing: key 'q' is unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(wrong_frames_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
