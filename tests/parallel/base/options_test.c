// SPDX-License-Identifier: Apache-2.0
// options_test.c -- every kind, alias and spelling of an option, and every way to get it wrong.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "parallel/base/options.h"

static bool flag;
static const char *text, *choice;
static int32_t number;
static double real;
static uint64_t seed;

static struct option table[] = {
    {.name = "--ignore-eos", .kind = OPTION_FLAG, .value = &flag, .help = "go on after the end"},
    {.name = "--model",
     .aliases = "-m",
     .kind = OPTION_TEXT,
     .value = &text,
     .argument = "DIR",
     .help = "model directory"},
    {.name = "--load-format",
     .kind = OPTION_CHOICE,
     .value = &choice,
     .argument = "auto|dummy",
     .help = "where weights come from"},
    {.name = "--tp",
     .aliases = "-tp --tensor-parallel-size",
     .kind = OPTION_INT,
     .value = &number,
     .min = 1,
     .max = 64,
     .argument = "N",
     .help = "ranks"},
    {.name = "--fraction",
     .kind = OPTION_REAL,
     .value = &real,
     .min = 0,
     .max = 1,
     .argument = "F",
     .help = "of memory"},
    {.name = "--seed", .kind = OPTION_SEED, .value = &seed, .argument = "S", .help = "of draws"},
    {.name = "--host", .kind = OPTION_REFUSED, .help = "not in this version"},
};
enum { TABLE_COUNT = sizeof table / sizeof table[0] };

static struct error error;

static enum status parse(int count, const char *const *words)
{
    flag = false;
    text = choice = NULL;
    number = 0;
    real = -1;
    seed = 0;
    error.text[0] = '\0';
    for (int i = 0; i < TABLE_COUNT; i++)
        table[i].given = NULL;
    return options_parse(table, TABLE_COUNT, count, (char *const *)words, &error);
}

#define PARSE(...)                                                                                 \
    parse((int)(sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *)),                           \
          (const char *[]){__VA_ARGS__})

static void refuses(enum status status, const char *part)
{
    assert_int_equal(status, E_USAGE);
    if (strstr(error.text, part) == NULL)
        fail_msg("'%s' is not in '%s'", part, error.text);
}

static void every_kind_is_read(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--ignore-eos", "--model", "/m", "--load-format=dummy", "--tp", "4",
                           "--fraction", "0.5", "--seed", "18446744073709551615"),
                     OK);
    assert_true(flag);
    assert_string_equal(text, "/m");
    assert_string_equal(choice, "dummy");
    assert_int_equal(number, 4);
    assert_true(real == 0.5);
    assert_true(seed == UINT64_MAX);
    assert_string_equal(table[3].given, "4");
    assert_string_equal(table[0].given, "");
}

static void nothing_given_keeps_defaults(void **state)
{
    (void)state;
    assert_int_equal(parse(0, NULL), OK);
    assert_false(flag);
    assert_null(text);
    assert_null(table[3].given);
}

static void aliases_underscores_and_last_wins(void **state)
{
    (void)state;
    assert_int_equal(PARSE("-tp", "2"), OK);
    assert_int_equal(number, 2);
    assert_int_equal(PARSE("--tensor_parallel_size=8", "--load_format", "auto"), OK);
    assert_int_equal(number, 8);
    assert_string_equal(choice, "auto");
    assert_int_equal(PARSE("--tp", "2", "--tp=3"), OK);
    assert_int_equal(number, 3);
    assert_int_equal(PARSE("--model=a=b"), OK);
    assert_string_equal(text, "a=b");
    assert_int_equal(PARSE("--model", "--tp"), OK); // a value may look like an option
    assert_string_equal(text, "--tp");
}

static void wrong_words_are_named(void **state)
{
    (void)state;
    refuses(PARSE("--modle", "x"), "unknown option --modle; did you mean --model?");
    refuses(PARSE("--zebra-crossing"), "unknown option --zebra-crossing; see --help");
    refuses(PARSE("hello"), "unexpected word 'hello'");
    refuses(PARSE("-"), "unexpected word '-'");
    refuses(PARSE("--model"), "--model needs a value: DIR");
    refuses(PARSE("--ignore-eos=yes"), "--ignore-eos takes no value");
    refuses(PARSE("--host", "x"), "--host: not in this version");
    refuses(PARSE("--host=127.0.0.1"), "--host: not in this version");
    char *longest = malloc(5000);
    memset(longest, 'x', 5000);
    memcpy(longest, "--", 2);
    longest[4999] = '\0';
    refuses(PARSE(longest), "unexpected word '--xx");
    free(longest);
}

static void wrong_values_are_named(void **state)
{
    (void)state;
    refuses(PARSE("--tp", "0"), "--tp: 0 is outside 1 .. 64");
    refuses(PARSE("--tp", "65"), "--tp: 65 is outside 1 .. 64");
    refuses(PARSE("--tp", "99999999999999999999"), "outside 1 .. 64");
    refuses(PARSE("--tp", "2x"), "--tp: '2x' is not a whole number");
    refuses(PARSE("--tp="), "--tp: '' is not a whole number");
    refuses(PARSE("--fraction", "nan"), "--fraction: nan is outside 0 .. 1");
    refuses(PARSE("--fraction", "1.01"), "--fraction: 1.01 is outside 0 .. 1");
    refuses(PARSE("--fraction", "half"), "--fraction: 'half' is not a number");
    refuses(PARSE("--seed", "-1"), "--seed: '-1'");
    refuses(PARSE("--seed", "18446744073709551616"), "--seed: '18446744073709551616'");
    refuses(PARSE("--load-format", "gguf"), "--load-format: 'gguf' is none of auto|dummy");
    refuses(PARSE("--load-format", "aut"), "none of");
}

static void help_names_every_row_but_the_refused(void **state)
{
    (void)state;
    char *help = NULL;
    size_t help_bytes = 0;
    FILE *file = open_memstream(&help, &help_bytes);
    assert_non_null(file);
    options_print(file, table, TABLE_COUNT);
    fclose(file);
    for (int i = 0; i < TABLE_COUNT; i++) {
        if (table[i].kind != OPTION_REFUSED)
            assert_non_null(strstr(help, table[i].name));
    }
    assert_null(strstr(help, "--host"));
    assert_non_null(strstr(help, "also -tp --tensor-parallel-size"));
    free(help);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_is_read),
        cmocka_unit_test(nothing_given_keeps_defaults),
        cmocka_unit_test(aliases_underscores_and_last_wins),
        cmocka_unit_test(wrong_words_are_named),
        cmocka_unit_test(wrong_values_are_named),
        cmocka_unit_test(help_names_every_row_but_the_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
