// SPDX-License-Identifier: Apache-2.0
// pretokenize_test.c -- where each family cuts, told by hand; the breadth is in the golden texts of
// tokenizer_test.c.
#include "coordinator/text/pretokenize.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FAMILY                                                                                     \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}|"                   \
    " ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define QWEN2                                                                                      \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"                           \
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

// Cuts `text` and compares with `pieces`, which are parted by '/' (so neither holds one).
static void check(const char *regex, const char *text, const char *pieces)
{
    struct pretokenize pretokenize;
    struct pretokenize_scratch scratch;
    assert_int_equal(pretokenize_init(&pretokenize, regex, NULL), OK);
    assert_int_equal(pretokenize_scratch_init(&scratch, NULL), OK);
    char found[256] = "";
    size_t at = 0, count = 0;
    while (at < strlen(text)) {
        const size_t start = at;
        assert_int_equal(pretokenize_next(&pretokenize, &scratch, text, strlen(text), &at, NULL),
                         OK);
        if (start > 0)
            found[count++] = '/';
        assert_true(count + at - start < sizeof found);
        memcpy(found + count, text + start, at - start);
        count += at - start;
    }
    found[count] = 0;
    assert_string_equal(found, pieces);
    pretokenize_scratch_fini(&scratch);
    pretokenize_fini(&pretokenize);
}

static void words_digits_signs_and_spaces(void **state)
{
    (void)state;
    check(FAMILY, "Hello, world", "Hello/,/ world");
    check(FAMILY, "a 12 b", "a/ /1/2/ b");
    check(FAMILY, "I'll he'S x'y", "I/'ll/ he/'S/ x/'y");
    check(FAMILY, "a   b", "a/  / b");
    check(FAMILY, "a  \n\n b", "a/  \n\n/ b");
    check(FAMILY, "x = {\r\n\r\ny", "x/ =/ {\r\n\r\n/y");
    check(FAMILY, "end  ", "end/  ");
    check(FAMILY, "\u00a0\u3000x", "\u00a0/\u3000x");
    check(FAMILY, "'\u017fa", "'\u017f/a"); // long s is an s to (?i)
}

static void marks_belong_to_words_in_one_family_only(void **state)
{
    (void)state;
    check(FAMILY, "a\u0315b", "a\u0315b");
    check(QWEN2, "a\u0315b", "a/\u0315b");
    check(FAMILY, ".\u0315", ".\u0315");
    check(QWEN2, ".\u0315", ".\u0315");
    check(QWEN2, "\u0315\u0315 ", "\u0315\u0315/ ");
}

static void newer_letters_and_the_old_separator(void **state)
{
    (void)state;
    check(FAMILY, "a\U00031350b", "a\U00031350b");                  // an ideograph of Unicode 15
    check(FAMILY, "a\U000105c0b", "a\U000105c0b");                  // a letter of Unicode 16
    check(FAMILY, "a\u0897b", "a\u0897b");                          // a mark of Unicode 16
    check(FAMILY, "\U0001e4f0\U0001e4f0", "\U0001e4f0/\U0001e4f0"); // a digit of Unicode 15
    check(FAMILY, "1\u180e.", "1/\u180e.");                         // no space since Unicode 6.3
}

static void another_expression_is_refused(void **state)
{
    (void)state;
    struct pretokenize pretokenize;
    struct error error;
    assert_int_equal(pretokenize_init(&pretokenize, "\\s+|\\w+", &error), E_UNSUPPORTED);
    assert_non_null(strstr(error.text, "\\s+|\\w+"));
}

// Ten million spaces are more steps than PCRE2 allows by itself.
static void a_long_run_of_spaces_is_one_piece(void **state)
{
    (void)state;
    struct pretokenize pretokenize;
    struct pretokenize_scratch scratch;
    const size_t bytes = 12000000;
    char *text = malloc(bytes);
    assert_non_null(text);
    memset(text, ' ', bytes);
    text[bytes - 1] = 'x';
    assert_int_equal(pretokenize_init(&pretokenize, FAMILY, NULL), OK);
    assert_int_equal(pretokenize_scratch_init(&scratch, NULL), OK);
    size_t at = 0;
    assert_int_equal(pretokenize_next(&pretokenize, &scratch, text, bytes, &at, NULL), OK);
    assert_int_equal(at, bytes - 2);
    pretokenize_scratch_fini(&scratch);
    pretokenize_fini(&pretokenize);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_digits_signs_and_spaces),
        cmocka_unit_test(marks_belong_to_words_in_one_family_only),
        cmocka_unit_test(newer_letters_and_the_old_separator),
        cmocka_unit_test(another_expression_is_refused),
        cmocka_unit_test(a_long_run_of_spaces_is_one_piece),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
