// SPDX-License-Identifier: Apache-2.0
// serve_options_test.c -- what goes to the coordinator, what stays, what is refused by name.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "deploy/cli/serve_options.h"

static struct serve_options options;
static struct error error;
static char forwarded[1024]; // the coordinator's words, a space behind each

static enum status parse(const char *const *words)
{
    static char storage[64][128]; // the options borrow the words
    char *list[64] = {NULL};
    int count = 0;
    for (; words[count] != NULL; count++) {
        snprintf(storage[count], sizeof storage[count], "%s", words[count]);
        list[count] = storage[count];
    }
    enum status status = serve_options_parse(&options, count, list, &error);
    char joined[1024] = "";
    for (int i = 0; status == OK && options.forwarded[i] != NULL; i++) {
        strcat(joined, options.forwarded[i]);
        strcat(joined, " ");
    }
    memcpy(forwarded, joined, sizeof forwarded);
    return status;
}

#define PARSE(...) parse((const char *const[]){__VA_ARGS__, NULL})

static void the_coordinators_words_are_forwarded(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--model", "m"), OK);
    assert_string_equal(forwarded, "--model m ");
    assert_int_equal(options.ranks, 1);
    assert_int_equal(options.drain_timeout_s, 30);
    assert_int_equal(PARSE("--model=m", "-tp", "4", "--backend", "cpu", "--load-format=dummy",
                           "--rpc", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0", "--api-key", "k",
                           "--max_model_len", "4096", "--max-num-seqs", "8",
                           "--max-num-batched-tokens", "512", "--gpu-memory-utilization", "0.5",
                           "--max-queued", "9", "--max-prefill-gap-ms", "33",
                           "--num-gpu-blocks-override", "77", "--checkpoint-interval", "128",
                           "--seed", "7", "--served-model-name", "n", "--drain-timeout", "3",
                           "--curve-dir", "keys", "--log-format", "json", "--insecure"),
                     OK);
    assert_string_equal(
        forwarded,
        "--model m --tp 4 --load-format dummy --rpc tcp://127.0.0.1:0 "
        "--http 127.0.0.1:0 --api-key k "
        "--max-model-len 4096 --max-num-seqs 8 --max-num-batched-tokens 512 "
        "--gpu-memory-utilization 0.5 --max-queued 9 --max-prefill-gap-ms 33 --kv-pages 77 "
        "--checkpoint-interval 128 --seed 7 --served-model-name n --drain-timeout 3 --curve-dir "
        "keys --log-format json "
        "--insecure ");
    assert_string_equal(options.log_format, "json");
    assert_string_equal(options.curve_dir, "keys");
    assert_int_equal(options.ranks, 4);
    assert_int_equal(options.drain_timeout_s, 3);
    assert_int_equal(PARSE("--model", "m", "--dp", "1", "--dry-run"), OK);
    assert_string_equal(forwarded, "--model m --dry-run ");
    assert_null(options.curve_dir);
    assert_true(options.dry_run);
    assert_int_equal(PARSE("--model", "m", "--no-enable-prefix-caching"), OK);
    assert_string_equal(forwarded, "--model m --no-prefix-cache ");
    assert_int_equal(PARSE("--model", "m", "--enable-prefix-caching"), OK); // as vLLM spells it
    assert_string_equal(forwarded, "--model m ");
    assert_int_equal(PARSE("--model", "m", "--num-speculative-tokens", "auto"), OK);
    assert_string_equal(forwarded, "--model m --speculative-tokens auto ");
    assert_int_equal(PARSE("--model", "m", "--draft-vocab", "32768"), OK);
    assert_string_equal(forwarded, "--model m --draft-vocab 32768 ");
    assert_int_equal(PARSE("--model", "m", "--mamba-ssm-cache-dtype", "bfloat16"), OK);
    assert_string_equal(forwarded, "--model m --state-dtype bfloat16 ");
    assert_int_equal(PARSE("--model", "m", "--state-dtype", "float16"), E_USAGE);
    assert_non_null(strstr(error.text, "float16"));
    assert_non_null(strstr(error.text, "auto|float32|bfloat16"));
    assert_int_equal(PARSE("--model", "m"), OK); // nothing is left of the last call
    assert_string_equal(forwarded, "--model m ");
}

static void what_is_not_served_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *option, *text;
    } elsewhere[] = {
        {"--host", "--host: use --http HOST:PORT"},
        {"--port", "--port: use --http HOST:PORT"},
        {"--speculative-config", "--speculative-config: use --speculative-tokens K|auto"},
    };
    for (size_t i = 0; i < sizeof elsewhere / sizeof elsewhere[0]; i++) {
        assert_int_equal(PARSE("--model", "m", elsewhere[i].option, "1"), E_USAGE);
        assert_string_equal(error.text, elsewhere[i].text);
    }
    assert_int_equal(PARSE("--model", "m", "--dp", "2"), E_USAGE);
    assert_non_null(strstr(error.text, "--dp: more than one group is not in this version"));
    assert_int_equal(PARSE("--tp", "2"), E_USAGE);
    assert_int_equal(PARSE("--model", "m", "--tp", "9"), E_USAGE);
    assert_non_null(strstr(error.text, "--tp: 9 is outside 1 .. 8"));
    assert_int_equal(PARSE("--model", "m", "--backend", "tpu"), E_USAGE);
}

static void the_backend(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--model", "m"), OK);
    assert_string_equal(serve_options_backend(&options, false), "cpu");
    assert_int_equal(PARSE("--model", "m", "--backend", "cuda"), OK);
    assert_string_equal(serve_options_backend(&options, false), "cuda"); // and fails by name later
    assert_int_equal(PARSE("--model", "m", "--backend", "cpu"), OK);
    assert_string_equal(serve_options_backend(&options, true), "cpu");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_coordinators_words_are_forwarded),
        cmocka_unit_test(what_is_not_served_is_refused),
        cmocka_unit_test(the_backend),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
