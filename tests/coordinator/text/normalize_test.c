// SPDX-License-Identifier: Apache-2.0
// normalize_test.c -- normal form C where it is easy to get wrong; the breadth is in the golden
// texts of tokenizer_test.c.
#include "coordinator/text/normalize.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct normalize_scratch scratch;

static void check(const char *text, const char *expected)
{
    const char *out;
    size_t bytes;
    assert_int_equal(normalize_nfc(&scratch, text, strlen(text), &out, &bytes, NULL), OK);
    assert_int_equal(bytes, strlen(expected));
    assert_memory_equal(out, expected, bytes);
}

static void marks_join_and_reorder(void **state)
{
    (void)state;
    check("", "");
    check("plain", "plain");
    check("e\u0301", "\u00e9");
    check("ae\u0301b", "a\u00e9b");
    check("\u0301", "\u0301");
    check("e\u0316\u0301", "\u00e9\u0316");
    check("e\u0301\u0316", "\u00e9\u0316");
    check("\u1e0b\u0323", "\u1e0d\u0307");
    check("\u212b", "\u00c5");
    check("A\u030a", "\u00c5");
    check("\u1100\u1161\u11a8", "\uac01");
    check("\uac00\u11a8", "\uac01");
    check("\u0344", "\u0308\u0301");
    check("\u0958", "\u0915\u093c"); // excluded from composition
    check("a\u0315\u0300\u05ae"
          "b",
          "\u00e0\u05ae\u0315"
          "b");
    check("\U0001d15e", "\U0001d157\U0001d165");
    check("\U00011935\u0301x", "\U00011935\u0301x");
}

static void code_points_newer_than_unicode_9_stay_and_keep_others_apart(void **state)
{
    (void)state;
    check("\U00011935\U00011930", "\U00011935\U00011930"); // a composition of Unicode 13
    check("a\u1acf\u0301", "a\u1acf\u0301");               // would reorder and compose
    check("e\u0897\u0301", "e\u0897\u0301");
    check("\U000105d2\u0307", "\U000105d2\u0307"); // a composition of Unicode 16
    check("e\u0301\u0897e\u0301", "\u00e9\u0897\u00e9");
}

static void ascii_is_not_copied(void **state)
{
    (void)state;
    const char *text = "caf\u00e9 \u02ff", *out;
    size_t bytes;
    assert_int_equal(normalize_nfc(&scratch, text, strlen(text), &out, &bytes, NULL), OK);
    assert_ptr_equal(out, text);
}

// Both ways of sorting marks, around the border between them.
static void runs_of_marks_of_any_length_are_sorted(void **state)
{
    (void)state;
    static const size_t lengths[] = {1, 15, 16, 17, 18, 1000, 200000};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        const size_t pairs = lengths[i], bytes = 1 + 4 * pairs;
        char *text = malloc(bytes), *expected = malloc(bytes);
        assert_true(text != NULL && expected != NULL);
        text[0] = 'a';
        memcpy(expected, "\u00e1", 2);
        for (size_t p = 0; p < pairs; p++) {
            memcpy(text + 1 + 4 * p, "\u0301\u0316", 4);
            memcpy(expected + 2 + 2 * p, "\u0316", 2);
            if (p + 1 < pairs)
                memcpy(expected + 2 + 2 * (pairs + p), "\u0301", 2);
        }
        const char *out;
        size_t count;
        assert_int_equal(normalize_nfc(&scratch, text, bytes, &out, &count, NULL), OK);
        assert_int_equal(count, bytes - 1); // a and the first acute became one of two bytes
        assert_memory_equal(out, expected, count);
        free(text);
        free(expected);
    }
}

static void a_result_above_the_limit_is_refused(void **state)
{
    (void)state;
    struct normalize_scratch small;
    struct error error;
    const char *out;
    size_t bytes;
    normalize_scratch_init(&small, 20);
    const char *text = "e\u0301\u0316\u0316\u0316\u0316\u0316\u0316\u0316\u0316\u0316";
    assert_int_equal(normalize_nfc(&small, text, strlen(text), &out, &bytes, &error), E_LIMIT);
    assert_non_null(strstr(error.text, "20 bytes"));
    normalize_scratch_fini(&small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marks_join_and_reorder),
        cmocka_unit_test(code_points_newer_than_unicode_9_stay_and_keep_others_apart),
        cmocka_unit_test(ascii_is_not_copied),
        cmocka_unit_test(runs_of_marks_of_any_length_are_sorted),
        cmocka_unit_test(a_result_above_the_limit_is_refused),
    };
    normalize_scratch_init(&scratch, 10 << 20);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    normalize_scratch_fini(&scratch);
    return failed;
}
