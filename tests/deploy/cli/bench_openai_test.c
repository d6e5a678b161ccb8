// SPDX-License-Identifier: Apache-2.0
// bench_openai_test.c -- bodies, addresses, and streams as several servers write them, cut at
// every byte.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "deploy/cli/bench_openai.h"

static void addresses(void **state)
{
    (void)state;
    static const char *const bases[] = {
        "http://host:8000",
        "http://host:8000/",
        "http://host:8000/v1",
        "http://host:8000/v1/",
        "http://host:8000/v1/completions",
    };
    for (size_t i = 0; i < sizeof bases / sizeof bases[0]; i++) {
        char *url = bench_openai_url(bases[i], "/v1/completions");
        assert_string_equal(url, "http://host:8000/v1/completions");
        free(url);
    }
    char *url = bench_openai_url("https://host/proxy/v1", "/v1/models");
    assert_string_equal(url, "https://host/proxy/v1/models");
    free(url);
}

static void a_body(void **state)
{
    (void)state;
    const int32_t ids[] = {3, 248076};
    struct bench_request request = {.ids = ids,
                                    .ids_count = 2,
                                    .max_tokens = 9,
                                    .seed = UINT64_MAX,
                                    .temperature = 0.5,
                                    .ignore_eos = true};
    char *body = bench_openai_body(&request, "a \"model\"");
    assert_string_equal(body, "{\"model\":\"a \\\"model\\\"\",\"prompt\":[3,248076],"
                              "\"max_tokens\":9,\"temperature\":0.5,\"seed\":2147483647,"
                              "\"ignore_eos\":true,\"stream\":true,"
                              "\"stream_options\":{\"include_usage\":true}}");
    free(body);
    request.ignore_eos = false;
    body = bench_openai_body(&request, NULL);
    assert_null(strstr(body, "model\""));
    assert_null(strstr(body, "ignore_eos")); // OpenAI's own server refuses what it does not know
    free(body);
}

static void the_first_model(void **state)
{
    (void)state;
    static const char text[] = "{\"object\":\"list\",\"data\":[{\"id\":\"demo\"},{\"id\":\"b\"}]}";
    char *model = bench_openai_first_model(text, sizeof text - 1);
    assert_string_equal(model, "demo");
    free(model);
    assert_null(bench_openai_first_model("{\"data\":[]}", 11));
    assert_null(bench_openai_first_model("<html>", 6));
    assert_null(bench_openai_first_model(NULL, 0));
}

// Feeds text in pieces; the sum of all tokens.
static int32_t feed(struct bench_openai_stream *stream, const char *text, size_t piece_bytes)
{
    int32_t tokens, sum = 0;
    for (size_t at = 0, left = strlen(text); left > 0;) {
        size_t bytes = left < piece_bytes ? left : piece_bytes;
        assert_true(bench_openai_feed(stream, text + at, bytes));
        while (bench_openai_next(stream, &tokens))
            sum += tokens;
        at += bytes;
        left -= bytes;
    }
    return sum;
}

static const char vllm[] =
    "data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"text\":\" a\",\"finish_reason\":null}]}\n\n"
    "data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"text\":\"\",\"finish_reason\":null}]}\n\n"
    "data: "
    "{\"id\":\"x\",\"choices\":[{\"index\":0,\"text\":\"b\",\"finish_reason\":\"length\"}]}\n\n"
    "data: {\"id\":\"x\",\"choices\":[],\"usage\":{\"prompt_tokens\":4,\"total_tokens\":7,"
    "\"completion_tokens\":3,\"prompt_tokens_details\":{\"cached_tokens\":2}}}\n\n"
    "data: [DONE]\n\n";

static void a_stream_cut_anywhere(void **state)
{
    (void)state;
    for (size_t piece_bytes = 1; piece_bytes <= sizeof vllm; piece_bytes++) {
        struct bench_openai_stream stream;
        bench_openai_stream_init(&stream);
        assert_int_equal(feed(&stream, vllm, piece_bytes), 3);
        assert_true(stream.done && stream.finished && !stream.failed);
        assert_int_equal(stream.usage.prompt_tokens, 4);
        assert_int_equal(stream.usage.completion_tokens, 3);
        assert_int_equal(stream.usage.cached_tokens, 2);
        assert_int_equal(stream.usage.drafted, -1);
        bench_openai_stream_fini(&stream);
    }
}

static void other_forms(void **state)
{
    (void)state;
    struct bench_openai_stream stream;
    bench_openai_stream_init(&stream);
    // Comments, names, carriage returns, no space, ids told, an end without text, no usage.
    assert_int_equal(feed(&stream,
                          ": ping\r\n\r\nevent: message\r\n"
                          "data:{\"choices\":[{\"text\":\"abc\",\"token_ids\":[1,2,3]}]}\r\n\r\n"
                          "data:{\"choices\":[{\"text\":\"\",\"finish_reason\":\"stop\"}],"
                          "\"usage\":null}\r\n\r\n",
                          1000),
                     3);
    assert_true(stream.finished && !stream.done && !stream.failed);
    assert_int_equal(stream.usage.completion_tokens, -1);
    assert_int_equal(feed(&stream, "data: [DONE]\r\n\r\n", 1000), 0);
    assert_true(stream.done && !stream.failed);
    bench_openai_stream_fini(&stream);
}

static void errors_in_a_stream(void **state)
{
    (void)state;
    static const char *const texts[][2] = {
        {"data: {\"error\":{\"message\":\"no group is left\",\"code\":500}}\n\n", "no group"},
        {"data: {\"error\":\"plain\"}\n\n", "an error"},
        {"data: {broken\n\n", ""},
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct bench_openai_stream stream;
        bench_openai_stream_init(&stream);
        assert_int_equal(feed(&stream, texts[i][0], 7), 0);
        assert_true(stream.failed);
        assert_non_null(strstr(stream.text, texts[i][1]));
        assert_true(stream.text[0] != '\0');
        bench_openai_stream_fini(&stream);
    }
}

static void lines_are_bounded(void **state)
{
    (void)state;
    struct bench_openai_stream stream;
    int32_t tokens;
    char *piece = calloc(1, 1 << 20);
    memset(piece, 'x', 1 << 20);
    bench_openai_stream_init(&stream);
    for (int i = 0; i < BENCH_OPENAI_LINE_BYTES_MAX >> 20; i++) {
        assert_true(bench_openai_feed(&stream, piece, 1 << 20));
        assert_false(bench_openai_next(&stream, &tokens));
    }
    assert_false(bench_openai_feed(&stream, piece, 1));
    bench_openai_stream_fini(&stream);
    free(piece);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses),         cmocka_unit_test(a_body),
        cmocka_unit_test(the_first_model),   cmocka_unit_test(a_stream_cut_anywhere),
        cmocka_unit_test(other_forms),       cmocka_unit_test(errors_in_a_stream),
        cmocka_unit_test(lines_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
