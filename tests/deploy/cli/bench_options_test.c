// SPDX-License-Identifier: Apache-2.0
// bench_options_test.c -- what bench's command line accepts, its aliases, and what it refuses.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "deploy/cli/bench_options.h"

static struct bench_options options;
static struct error error;

static enum status parse(const char *line)
{
    static char copy[512];
    char *words[64], *rest = copy, *word;
    int count = 0;
    strcpy(copy, line);
    while ((word = strsep(&rest, " ")) != NULL)
        words[count++] = word;
    return bench_options_parse(&options, count, words, &error);
}

static void a_sweep(void **state)
{
    (void)state;
    assert_int_equal(parse("--rpc tcp://h:1 --input-len 16 --output-len 32 --concurrency 1,8,256 "
                           "--num-prompts 100 --warmup 4 --seed 18446744073709551615 --ignore-eos "
                           "--temperature 0.5 --vocab 300 --json"),
                     OK);
    assert_string_equal(options.rpc, "tcp://h:1");
    assert_int_equal(options.input_tokens, 16);
    assert_int_equal(options.output_tokens, 32);
    assert_int_equal(options.concurrencies_count, 3);
    assert_int_equal(options.concurrencies[0], 1);
    assert_int_equal(options.concurrencies[2], 256);
    assert_int_equal(options.requests, 100);
    assert_int_equal(options.warmup, 4);
    assert_true(options.seed == UINT64_MAX);
    assert_true(options.temperature == 0.5 && options.ignore_eos && options.json);
    assert_int_equal(options.vocab, 300);
}

static void goodput_has_bounds(void **state)
{
    (void)state;
    char line[200];
    static const char head[] = "--url http://h --input-len 1 --output-len 2 --concurrency 1";
    static const char *const wrong[] = {"",      "ttft",    "ttft:",   "ttft:0",   "ttft:-1",
                                        "itl:5", "ttft:5x", "ttft:5,", "ttft:nan", "tpot:1e9"};
    snprintf(line, sizeof line, "%s --goodput ttft:200,tpot:12.5,e2e:1000", head);
    assert_int_equal(parse(line), OK);
    assert_true(options.has_bounds && options.bounds.ttft_ms == 200);
    assert_true(options.bounds.tpot_ms == 12.5 && options.bounds.end_to_end_ms == 1000);
    assert_int_equal(parse(head), OK);
    assert_false(options.has_bounds || options.bounds.ttft_ms > 0);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        snprintf(line, sizeof line, "%s --goodput=%s", head, wrong[i]);
        if (parse(line) != E_USAGE || strstr(error.text, "--goodput") == NULL)
            fail_msg("%s", wrong[i]);
    }
}

static void aliases_and_defaults(void **state)
{
    (void)state;
    assert_int_equal(parse("--base-url http://h --random-input-len 1 --random_output_len 2 "
                           "--max-concurrency 3"),
                     OK);
    assert_string_equal(options.url, "http://h");
    assert_int_equal(options.output_tokens, 2);
    assert_int_equal(options.concurrencies_count, 1); // nothing is left of a call before
    assert_int_equal(options.concurrencies[0], 3);
    assert_int_equal(options.requests, 0);
    assert_false(options.ignore_eos || options.json);
    assert_int_equal(parse("--url http://h --trace t.jsonl --request-rate 2.5 --num-prompts 9"),
                     OK);
    assert_true(options.requests_per_s == 2.5);
    assert_int_equal(options.concurrencies_count, 0);
}

static void refusals(void **state)
{
    (void)state;
    static const char *const lines[][2] = {
        {"--input-len 1 --output-len 1 --concurrency 1", "--rpc"},
        {"--rpc a --url b --input-len 1 --output-len 1 --concurrency 1", "--rpc"},
        {"--rpc a --input-len 1 --concurrency 1", "--output-len"},
        {"--rpc a --trace t --input-len 1 --concurrency 1", "--trace"},
        {"--rpc a --input-len 1 --output-len 1", "--concurrency"},
        {"--rpc a --input-len 1 --output-len 1 --concurrency 1 --request-rate 1", "one of"},
        {"--rpc a --input-len 1 --output-len 1 --request-rate 1", "--num-prompts"},
        {"--rpc a --input-len 0 --output-len 1 --concurrency 1", "--input-len"},
        {"--rpc a --input-len 1 --output-len 1 --concurrency 1,", "--concurrency"},
        {"--rpc a --input-len 1 --output-len 1 --concurrency 1,x", "'x'"},
        {"--rpc a --input-len 1 --output-len 1 --concurrency 0", "'0'"},
        {"--rpc a --input-len 1 --output-len 1 --concurrency 65537", "65536"},
        {"--rpc a --input-len 1 --output-len 1 --concurrency 1 --api-key k", "--api-key"},
        {"--rpc a --input-len 1 --output-len 1 --concurrency "
         "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1",
         "more than 32"},
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        if (parse(lines[i][0]) != E_USAGE || strstr(error.text, lines[i][1]) == NULL)
            fail_msg("'%s': '%s' without '%s'", lines[i][0], error.text, lines[i][1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sweep),
        cmocka_unit_test(goodput_has_bounds),
        cmocka_unit_test(aliases_and_defaults),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
