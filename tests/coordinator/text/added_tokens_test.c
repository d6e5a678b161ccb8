// SPDX-License-Identifier: Apache-2.0
// added_tokens_test.c -- walks over texts: longest first, stripping, neighbours; what a set
// refuses.
#include "coordinator/text/added_tokens.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct added_tokens set;

static void add(const char *content, uint32_t id, bool left, bool right)
{
    char copy[64];
    const size_t bytes = strlen(content);
    memcpy(copy, content, bytes);
    const struct added_token token = {copy, bytes, id, left, right};
    assert_int_equal(added_tokens_add(&set, token, NULL), OK);
}

static int make_set(void **state)
{
    (void)state;
    added_tokens_init(&set);
    add("<b>", 2, false, false);
    add("<a>", 1, false, false);
    add("<a><b>", 3, false, false);
    add("<a", 4, false, false);
    add("<left>", 5, true, false);
    add("<right>", 6, false, true);
    add("\u00e9", 7, false, false);
    return added_tokens_seal(&set, NULL) == OK ? 0 : 1;
}

static int drop_set(void **state)
{
    (void)state;
    added_tokens_fini(&set);
    return 0;
}

// Walks `text`; pieces are written as [text] and #id.
static void check(const char *text, const char *expected)
{
    char found[256] = "";
    size_t count = 0;
    struct added_walk walk;
    struct added_piece piece;
    added_tokens_start(&walk, &set, text, strlen(text));
    while (added_tokens_next(&walk, &piece)) {
        const size_t room = sizeof found - count;
        count +=
            (size_t)(piece.token != NULL ? snprintf(found + count, room, "#%u", piece.token->id)
                                         : snprintf(found + count, room, "[%.*s]", (int)piece.bytes,
                                                    text + piece.start));
        assert_true(count < sizeof found);
    }
    assert_string_equal(found, expected);
}

static void the_longest_at_the_leftmost_place_wins(void **state)
{
    (void)state;
    check("", "");
    check("plain < text", "[plain < text]");
    check("<a>", "#1");
    check("x<a>y", "[x]#1[y]");
    check("<a><b>", "#3");
    check("<a><a><b><b>", "#1#3#2");
    check("<a<b>", "#4#2");
    check("<a><", "#1[<]");
    check("<", "[<]");
    check("caf\u00e9", "[caf]#7");
    check("<<b>>", "[<]#2[>]");
}

static void stripping_takes_white_space_only(void **state)
{
    (void)state;
    check("x \t\n<left> y", "[x]#5[ y]");
    check("x<right> \u3000\u00a0\ny", "[x]#6[y]");
    check(" <left>", "#5");
    check("<right> ", "#6");
    check("<right>  <left>", "#6#5");
    check("<a> <left>", "#1#5");
    check("x\u180e<left>", "[x\u180e]#5");
    check("\u00e9<left>", "#7#5");
}

static void exact_contents_are_found(void **state)
{
    (void)state;
    assert_int_equal(added_tokens_find(&set, "<a><b>", 6)->id, 3);
    assert_int_equal(added_tokens_find(&set, "<a", 2)->id, 4);
    assert_null(added_tokens_find(&set, "<a><", 4));
    assert_null(added_tokens_find(&set, "<", 1));
    assert_null(added_tokens_find(&set, "", 0));
}

static void what_a_set_refuses(void **state)
{
    (void)state;
    struct added_tokens other;
    struct error error;
    char same[] = "same", empty[] = "", large[ADDED_TOKENS_BYTES_MAX + 2];
    memset(large, 'x', sizeof large);
    added_tokens_init(&other);
    assert_int_equal(added_tokens_seal(&other, &error), OK);
    assert_int_equal(added_tokens_add(&other, (struct added_token){.content = empty}, &error),
                     E_INPUT);
    const struct added_token long_one = {.content = large, .bytes = ADDED_TOKENS_BYTES_MAX + 1};
    assert_int_equal(added_tokens_add(&other, long_one, &error), E_LIMIT);
    assert_non_null(strstr(error.text, "256"));
    for (uint32_t id = 0; id < 2; id++) {
        const struct added_token token = {.content = same, .bytes = 4, .id = id};
        assert_int_equal(added_tokens_add(&other, token, &error), OK);
    }
    assert_int_equal(added_tokens_seal(&other, &error), E_INPUT);
    assert_non_null(strstr(error.text, "\"same\" appears twice"));
    added_tokens_fini(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_longest_at_the_leftmost_place_wins),
        cmocka_unit_test(stripping_takes_white_space_only),
        cmocka_unit_test(exact_contents_are_found),
        cmocka_unit_test(what_a_set_refuses),
    };
    return cmocka_run_group_tests(tests, make_set, drop_set);
}
