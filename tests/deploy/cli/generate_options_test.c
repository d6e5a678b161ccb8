// SPDX-License-Identifier: Apache-2.0
// generate_options_test.c -- flags become defaults of the wire's fields.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "deploy/cli/generate_options.h"

static struct generate_options options;
static struct error error;

static enum status parse(const char *const *words)
{
    static char storage[64][128];
    char *list[64] = {NULL};
    int count = 0;
    for (; words[count] != NULL; count++) {
        snprintf(storage[count], sizeof storage[count], "%s", words[count]);
        list[count] = storage[count];
    }
    return generate_options_parse(&options, count, list, &error);
}

#define PARSE(...) parse((const char *const[]){__VA_ARGS__, NULL})

static const struct generate_default *find(const char *key)
{
    for (int i = 0; i < options.defaults_count; i++) {
        if (strcmp(options.defaults[i].key, key) == 0)
            return &options.defaults[i];
    }
    return NULL;
}

static void only_temperature_has_a_default_of_its_own(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--rpc", "tcp://x:1", "--prompt", "p"), OK);
    assert_int_equal(options.defaults_count, 1);
    assert_non_null(find("temperature"));
    assert_int_equal(find("temperature")->kind, DEFAULT_REAL);
    assert_true(find("temperature")->real == 0);
    assert_string_equal(options.backend, "auto");
    assert_int_equal(options.ranks, 1);
    assert_false(options.json);
}

static void flags_become_fields(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--model", "m", "--requests=-", "--max-tokens", "5", "--temperature",
                           "0.5", "--top-k", "20", "--top-p", "0.9", "--min-p", "0.1", "--seed",
                           "18446744073709551615", "--ignore-eos", "--json", "-tp", "2"),
                     OK);
    assert_int_equal(options.defaults_count, 7);
    assert_int_equal(find("max_tokens")->number, 5);
    assert_int_equal(find("max_tokens")->kind, DEFAULT_INT);
    assert_true(find("temperature")->real == 0.5);
    assert_int_equal(find("top_k")->number, 20);
    assert_true(find("top_p")->real == 0.9);
    assert_true(find("min_p")->real == 0.1);
    assert_int_equal(find("seed")->kind, DEFAULT_SEED);
    assert_true(find("seed")->seed == UINT64_MAX);
    assert_int_equal(find("ignore_eos")->kind, DEFAULT_TRUE);
    assert_null(find("speculative_tokens")); // the server's choice
    assert_true(options.json);
    assert_int_equal(options.ranks, 2);
    assert_int_equal(PARSE("--rpc", "x", "--prompt", "p", "--speculative-tokens", "0"), OK);
    assert_int_equal(find("speculative_tokens")->number, 0);
    assert_int_equal(PARSE("--rpc", "x", "--prompt", "p"), OK); // nothing is left of it
    assert_int_equal(options.defaults_count, 1);
}

static void choices_are_exclusive(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--prompt", "p"), E_USAGE);
    assert_int_equal(PARSE("--rpc", "x", "--model", "m", "--prompt", "p"), E_USAGE);
    assert_int_equal(PARSE("--rpc", "x"), E_USAGE);
    assert_int_equal(PARSE("--rpc", "x", "--prompt", "p", "--requests", "-"), E_USAGE);
    assert_int_equal(PARSE("--rpc", "x", "--prompt", "p", "--speculative-tokens", "6"), E_USAGE);
    assert_non_null(strstr(error.text, "5"));
    assert_int_equal(PARSE("--rpc", "x", "--prompt", "p", "--max-tokens", "0"), E_USAGE);
    assert_int_equal(PARSE("--rpc", "x", "--prompt", "p", "--temperature", "1001"), E_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_temperature_has_a_default_of_its_own),
        cmocka_unit_test(flags_become_fields),
        cmocka_unit_test(choices_are_exclusive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
