// SPDX-License-Identifier: Apache-2.0
// stop_strings_test.c -- against a plain search over the whole text, for every way of cutting it.
#include "coordinator/text/stop_strings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { TEXT_BYTES_MAX = 4096 };

static struct stop_strings stops;
static struct text_buffer out;
static struct error error;

static int set_up(void **state)
{
    (void)state;
    text_buffer_init(&out, TEXT_BYTES_MAX);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    stop_strings_fini(&stops);
    text_buffer_fini(&out);
    return 0;
}

static int open_stops(struct stop_string *strings, const char *const *texts)
{
    int count = 0;
    for (; texts[count] != NULL; count++)
        strings[count] = (struct stop_string){.bytes = texts[count], .count = strlen(texts[count])};
    return count;
}

// What must come out, found the slow way: the match that ends first, the longest of those.
static int plain(const char *text, const struct stop_string *strings, int count, size_t *cut)
{
    for (size_t end = 1; end <= strlen(text); end++) {
        int found = -1;
        for (int i = 0; i < count; i++) {
            bool ends = strings[i].count <= end && memcmp(text + end - strings[i].count,
                                                          strings[i].bytes, strings[i].count) == 0;
            if (ends && (found < 0 || strings[i].count > strings[found].count))
                found = i;
        }
        if (found >= 0) {
            *cut = end - strings[found].count;
            return found;
        }
    }
    *cut = strlen(text);
    return -1;
}

// Feeds text in pieces of `step` bytes; what has come out must never reach beyond the cut.
static void check(const char *text, const char *const *texts, size_t step)
{
    struct stop_string strings[STOP_STRINGS_MAX];
    size_t cut, used = 0, bytes = strlen(text);
    int count = open_stops(strings, texts), found = -1;
    int wanted = plain(text, strings, count, &cut);
    enum status status = OK;
    out.count = 0;
    assert_int_equal(stop_strings_init(&stops, strings, count, &error), OK);
    for (size_t at = 0; at < bytes && found < 0; at += step) {
        size_t piece = bytes - at < step ? bytes - at : step;
        found = stop_strings_feed(&stops, &out, text + at, piece, &used, &status);
        assert_int_equal(status, OK);
        assert_true(out.count <= cut);
        if (found >= 0)
            assert_int_equal(at + used, cut + strings[found].count);
        else
            assert_int_equal(used, piece);
    }
    if (found < 0)
        assert_int_equal(stop_strings_finish(&stops, &out), OK);
    assert_int_equal(found, wanted);
    assert_int_equal(out.count, cut);
    assert_memory_equal(out.bytes != NULL ? out.bytes : "", text, cut);
    stop_strings_fini(&stops);
}

static void like_a_plain_search(void **state)
{
    (void)state;
    static const char *const sets[][5] = {{"aab", NULL},
                                          {"aba", "bab", NULL},
                                          {"aaaa", "aa", NULL},
                                          {"abab", "ba", "b", NULL},
                                          {"abcabd", "cab", NULL},
                                          {"c", NULL},
                                          {"bbab", "abba", "aabb", "bbbb", NULL},
                                          {"aaaaaaaab", "ab", NULL}};
    uint32_t random = 1;
    for (int round = 0; round < 400; round++) {
        char text[64];
        size_t bytes = (random >> 8) % (sizeof text - 1);
        for (size_t i = 0; i < bytes; i++) {
            random = random * 1664525 + 1013904223;
            text[i] = "aab"[(random >> 16) % 3];
        }
        text[bytes] = '\0';
        random = random * 1664525 + 1013904223;
        for (size_t set = 0; set < sizeof sets / sizeof sets[0]; set++) {
            for (size_t step = 1; step < 9; step++)
                check(text, sets[set], step);
        }
    }
}

static void held_back_text_comes_at_the_end(void **state)
{
    (void)state;
    static const char *const one[] = {"END.", NULL};
    check("the EN", one, 1);
    check("the END", one, 3);
    check("the END.", one, 3);
    check("", one, 1);
    check("EEEENDEND.x", one, 2);
    static const char *const code_points[] = {"\xe4\xbd\xa0", NULL};
    check("x\xe4\xbd\xa1\xe4\xbd\xa0y", code_points, 1);
}

static void a_search_begins_anew_behind_a_match(void **state)
{
    (void)state;
    struct stop_string string = {.bytes = "aa", .count = 2};
    size_t used;
    enum status status;
    assert_int_equal(stop_strings_init(&stops, &string, 1, &error), OK);
    assert_int_equal(stop_strings_feed(&stops, &out, "aaab", 4, &used, &status), 0);
    assert_int_equal(used, 2);
    assert_int_equal(stop_strings_feed(&stops, &out, "ab", 2, &used, &status), -1);
    assert_int_equal(stop_strings_finish(&stops, &out), OK);
    assert_int_equal(out.count, 2);
    assert_memory_equal(out.bytes, "ab", 2);
}

static void zeros_are_bytes(void **state)
{
    (void)state;
    struct stop_string string = {.bytes = "a\0b", .count = 3};
    size_t used;
    enum status status;
    assert_int_equal(stop_strings_init(&stops, &string, 1, &error), OK);
    assert_int_equal(stop_strings_feed(&stops, &out, "xa\0a\0bc", 7, &used, &status), 0);
    assert_int_equal(used, 6);
    assert_int_equal(out.count, 3);
    assert_memory_equal(out.bytes, "xa\0", 3);
}

static void limits_are_named(void **state)
{
    (void)state;
    static char long_text[STOP_STRINGS_BYTES_MAX + 1];
    struct stop_string strings[STOP_STRINGS_MAX + 1];
    size_t used;
    enum status status;
    memset(long_text, 'a', sizeof long_text);
    for (int i = 0; i <= STOP_STRINGS_MAX; i++)
        strings[i] = (struct stop_string){.bytes = long_text, .count = STOP_STRINGS_BYTES_MAX};
    assert_int_equal(stop_strings_init(&stops, strings, STOP_STRINGS_MAX + 1, &error), E_LIMIT);
    assert_non_null(strstr(error.text, "16"));
    assert_int_equal(stop_strings_init(&stops, strings, STOP_STRINGS_MAX, &error), OK);
    stop_strings_fini(&stops);
    strings[0].count++;
    assert_int_equal(stop_strings_init(&stops, strings, 1, &error), E_LIMIT);
    assert_non_null(strstr(error.text, "512"));
    strings[0].count = 0;
    assert_int_equal(stop_strings_init(&stops, strings, 1, &error), E_INPUT);
    assert_int_equal(stop_strings_init(&stops, strings, 0, &error), OK);
    out.bytes_max = 3;
    assert_int_equal(stop_strings_feed(&stops, &out, "abc", 3, &used, &status), -1);
    assert_int_equal(status, OK);
    (void)!stop_strings_feed(&stops, &out, "d", 1, &used, &status);
    assert_int_equal(status, E_LIMIT);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(like_a_plain_search),
        TEST(held_back_text_comes_at_the_end),
        TEST(a_search_begins_anew_behind_a_match),
        TEST(zeros_are_bytes),
        TEST(limits_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
