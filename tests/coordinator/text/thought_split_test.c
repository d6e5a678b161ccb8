// SPDX-License-Identifier: Apache-2.0
// thought_split_test.c -- whole answers and every way of cutting them.
#include "coordinator/text/thought_split.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void check(bool thinking, const char *text, const char *reasoning, const char *content)
{
    size_t bytes = strlen(text);
    for (size_t step = 1; step <= bytes; step++) {
        struct thought_split split;
        struct text_buffer first, second;
        text_buffer_init(&first, 1000);
        text_buffer_init(&second, 1000);
        assert_int_equal(thought_split_init(&split, thinking, NULL), OK);
        for (size_t at = 0; at < bytes; at += step) {
            size_t piece = bytes - at < step ? bytes - at : step;
            assert_int_equal(thought_split_feed(&split, &first, &second, text + at, piece), OK);
            // Nothing is told that has to be taken back.
            assert_true(first.count <= strlen(reasoning) && second.count <= strlen(content));
        }
        assert_int_equal(thought_split_finish(&split, &first), OK);
        assert_int_equal(first.count, strlen(reasoning));
        assert_memory_equal(first.count > 0 ? first.bytes : "", reasoning, first.count);
        assert_int_equal(second.count, strlen(content));
        assert_memory_equal(second.count > 0 ? second.bytes : "", content, second.count);
        thought_split_fini(&split);
        text_buffer_fini(&first);
        text_buffer_fini(&second);
    }
}

static void a_thought_and_an_answer(void **state)
{
    (void)state;
    check(true, "I think.\n</think>\n\nSo it is.\n", "I think.", "So it is.\n");
    check(true, "\n\na\n\nb</think>c\n\nd", "a\n\nb", "c\n\nd");
    check(true, "</think>\n\n12", "", "12");
    check(true, "\n</think>12", "", "12");
    check(true, "a</think>\n", "a", "");
}

static void a_thought_without_end(void **state)
{
    (void)state;
    check(true, "I think and", "I think and", "");
    check(true, "a < b </thin", "a < b </thin", "");
    check(true, "a\n\n", "a", "");
}

static void only_the_first_tag_counts(void **state)
{
    (void)state;
    check(true, "a</think>b</think>c", "a", "b</think>c");
    check(false, "a</think>b\n", "", "a</think>b\n");
    check(false, "\n\nb", "", "\n\nb");
    check(true, "<</think</think>x", "<</think", "x");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thought_and_an_answer),
        cmocka_unit_test(a_thought_without_end),
        cmocka_unit_test(only_the_first_tag_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
