// SPDX-License-Identifier: Apache-2.0
// openai_request_test.c -- every field: what it is read as, what is refused and how it is named.
#include "coordinator/openai_request.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct openai_request request;
static struct openai_error error;
static bool is_open;

static enum status parse(enum openai_kind kind, const char *body)
{
    if (is_open)
        openai_request_fini(&request);
    memset(&error, 0, sizeof error);
    enum status status = openai_request_parse(&request, kind, body, strlen(body), &error);
    is_open = status == OK;
    return status;
}

// The completion {"prompt":"p", FIELD}.
static enum status with(const char *field)
{
    char body[1024];
    snprintf(body, sizeof body, "{\"prompt\":\"p\",%s}", field);
    return parse(OPENAI_COMPLETION, body);
}

static int tear_down(void **state)
{
    (void)state;
    if (is_open)
        openai_request_fini(&request);
    is_open = false;
    return 0;
}

static void what_is_left_out(void **state)
{
    (void)state;
    assert_int_equal(parse(OPENAI_COMPLETION, "{\"prompt\":\"p\"}"), OK);
    assert_int_equal(request.max_tokens, 16);
    assert_true(request.temperature < 0 && request.top_p < 0 && request.min_p < 0);
    assert_int_equal(request.top_k, -1);
    assert_true(request.repetition_penalty < 0);
    assert_false(request.has_seed || request.stream || request.include_usage);
    assert_false(request.ignore_eos || request.include_stop || request.return_token_ids);
    assert_true(request.skip_special_tokens && request.enable_thinking && request.split_thought);
    assert_null(request.model);
    assert_string_equal(request.ignored, "");
    assert_int_equal(parse(OPENAI_CHAT, "{\"messages\":[{}]}"), OK);
    assert_int_equal(request.max_tokens, -1);
    assert_int_equal(request.prompts_count, 1);
    // null is the same as absent
    assert_int_equal(with("\"max_tokens\":null,\"stop\":null,\"seed\":null,\"n\":null"), OK);
    assert_int_equal(request.max_tokens, 16);
}

static void what_is_read(void **state)
{
    (void)state;
    assert_int_equal(
        with("\"max_tokens\":7,\"temperature\":0.5,\"top_p\":0.25,\"min_p\":0.125,\"top_k\":9,"
             "\"seed\":-2,\"stream\":true,\"stream_options\":{\"include_usage\":true},"
             "\"repetition_penalty\":1.5,\"frequency_penalty\":-1,\"presence_penalty\":2,"
             "\"min_tokens\":3,\"priority\":-2,\"timeout_ms\":1500,\"stop_token_ids\":[4,5],"
             "\"speculative_tokens\":0,"
             "\"ignore_eos\":true,\"model\":\"m\","
             "\"include_stop_str_in_output\":true,\"return_token_ids\":true,"
             "\"skip_special_tokens\":false"),
        OK);
    assert_int_equal(request.max_tokens, 7);
    assert_true(request.temperature == 0.5 && request.top_p == 0.25 && request.min_p == 0.125);
    assert_int_equal(request.top_k, 9);
    assert_true(request.has_seed && request.seed == UINT64_MAX - 1);
    assert_true(request.stream && request.include_usage && request.ignore_eos);
    assert_true(request.repetition_penalty == 1.5 && request.frequency_penalty == -1);
    assert_true(request.presence_penalty == 2);
    assert_int_equal(request.min_tokens, 3);
    assert_int_equal(request.priority, -2);
    assert_int_equal(request.drafts, 1); // 0 is not the server's choice
    assert_int_equal(request.timeout_ms, 1500);
    assert_int_equal(request.stop_ids_count, 2);
    assert_int_equal(request.stop_ids[1], 5);
    assert_string_equal(request.model, "m");
    assert_true(request.include_stop && request.return_token_ids);
    assert_false(request.skip_special_tokens);
    assert_int_equal(with("\"top_k\":-1"), OK);
    assert_int_equal(request.top_k, 0);
    assert_int_equal(parse(OPENAI_CHAT, "{\"messages\":[{}],\"max_completion_tokens\":3,"
                                        "\"chat_template_kwargs\":{\"enable_thinking\":false,"
                                        "\"preserve_thinking\":true,\"odd\":1}}"),
                     OK);
    assert_int_equal(request.max_tokens, 3);
    assert_true(!request.enable_thinking && request.preserve_thinking);
    assert_string_equal(request.ignored, "chat_template_kwargs.odd");
}

static void stops_are_strings(void **state)
{
    (void)state;
    assert_int_equal(with("\"stop\":\"one\""), OK);
    assert_int_equal(request.stops_count, 1);
    assert_int_equal(request.stops[0].count, 3);
    assert_int_equal(with("\"stop\":[\"a\",\"b\\u0000c\"]"), OK);
    assert_int_equal(request.stops_count, 2);
    assert_int_equal(request.stops[1].count, 3);
    assert_memory_equal(request.stops[1].bytes, "b\0c", 3);
    assert_int_equal(with("\"stop\":[]"), OK);
    assert_int_equal(request.stops_count, 0);
}

static void prompts_of_every_kind(void **state)
{
    (void)state;
    assert_int_equal(parse(OPENAI_COMPLETION, "{\"prompt\":\"a\\u0000b\"}"), OK);
    struct openai_prompt prompt = openai_request_prompt(&request, 0);
    assert_int_equal(prompt.text_bytes, 3);
    assert_null(prompt.ids);
    assert_int_equal(parse(OPENAI_COMPLETION, "{\"prompt\":[1,2,3]}"), OK);
    assert_int_equal(request.prompts_count, 1);
    prompt = openai_request_prompt(&request, 0);
    assert_null(prompt.text);
    assert_int_equal(json_array_size(prompt.ids), 3);
    assert_int_equal(parse(OPENAI_COMPLETION, "{\"prompt\":[\"a\",\"bc\"]}"), OK);
    assert_int_equal(request.prompts_count, 2);
    assert_string_equal(openai_request_prompt(&request, 1).text, "bc");
    assert_int_equal(parse(OPENAI_COMPLETION, "{\"prompt\":[[1],[2,3]]}"), OK);
    assert_int_equal(request.prompts_count, 2);
    assert_int_equal(json_array_size(openai_request_prompt(&request, 1).ids), 2);
}

static void what_is_refused_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *field, *param, *part;
        enum status status;
    } cases[] = {
        {"\"max_tokens\":0", "max_tokens", "max_tokens is 0, accepted is", E_INPUT},
        {"\"max_tokens\":2147483648", "max_tokens", "2147483647", E_INPUT},
        {"\"max_tokens\":true", "max_tokens", "true", E_INPUT},
        {"\"temperature\":1001", "temperature", "1001", E_INPUT},
        {"\"temperature\":[]", "temperature", "an array", E_INPUT},
        {"\"top_p\":-0.1", "top_p", "-0.1", E_INPUT},
        {"\"top_p\":0", "top_p", "above 0", E_INPUT},
        {"\"min_p\":1.1", "min_p", "1.1", E_INPUT},
        {"\"top_k\":-2", "top_k", "-2", E_INPUT},
        {"\"top_k\":1.0", "top_k", "a whole number", E_INPUT},
        {"\"repetition_penalty\":0", "repetition_penalty", "10", E_INPUT},
        {"\"frequency_penalty\":-2.5", "frequency_penalty", "-2.5", E_INPUT},
        {"\"presence_penalty\":2.5", "presence_penalty", "2.5", E_INPUT},
        {"\"min_tokens\":-1", "min_tokens", "-1", E_INPUT},
        {"\"speculative_tokens\":6", "speculative_tokens", "5", E_INPUT},
        {"\"timeout_ms\":86400001", "timeout_ms", "86400001", E_INPUT},
        {"\"priority\":2147483648", "priority", "2147483648", E_INPUT},
        {"\"seed\":\"x\"", "seed", "a string", E_INPUT},
        {"\"stop\":[1]", "stop", "strings", E_INPUT},
        {"\"stop\":[\"\"]", "stop", "empty", E_INPUT},
        {"\"stop_token_ids\":[-1]", "stop_token_ids", "-1", E_INPUT},
        {"\"stop_token_ids\":5", "stop_token_ids", "array", E_INPUT},
        {"\"stop_token_ids\":[1,2,3,4,5,6,7,8,9]", "stop_token_ids", "up to 8", E_LIMIT},
        {"\"stream\":1", "stream", "true or false", E_INPUT},
        {"\"stream_options\":[]", "stream_options", "object", E_INPUT},
        {"\"stream_options\":{\"include_usage\":1}", "stream_options.include_usage", "1", E_INPUT},
        {"\"model\":[]", "model", "string", E_INPUT},
        {"\"n\":0", "n", "n is 0, accepted is a whole number from 1 to 128", E_INPUT},
        {"\"n\":129", "n", "n is 129, accepted is a whole number from 1 to 128", E_INPUT},
        {"\"logprobs\":21", "logprobs", "logprobs is 21, accepted is a whole number from 0 to 20",
         E_INPUT},
        {"\"logprobs\":true", "logprobs", "logprobs", E_INPUT},
        {"\"echo\":1", "echo", "echo", E_INPUT},
        {"\"best_of\":2", "best_of", "not served", E_UNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (with(cases[i].field) != cases[i].status || strcmp(error.param, cases[i].param) != 0 ||
            strstr(error.error.text, cases[i].part) == NULL)
            fail_msg("%s: param '%s', text '%s'", cases[i].field, error.param, error.error.text);
        assert_int_equal(error.error.status, cases[i].status);
    }
    assert_int_equal(parse(OPENAI_COMPLETION, "{}"), E_INPUT);
    assert_string_equal(error.param, "prompt");
    assert_int_equal(parse(OPENAI_CHAT, "{\"prompt\":\"p\"}"), E_INPUT);
    assert_string_equal(error.param, "messages");
    assert_int_equal(parse(OPENAI_COMPLETION, "{\"prompt\":[\"a\",1]}"), E_INPUT);
    assert_int_equal(parse(OPENAI_COMPLETION, "{\"prompt\":[]}"), E_INPUT);
}

static void unknown_fields_are_told_and_cannot_forge_a_header(void **state)
{
    (void)state;
    assert_int_equal(with("\"x\":1,\"a\\r\\nB: c\":2,\"\":3"), OK);
    assert_string_equal(request.ignored, "x,a??B??c,");
    char body[4000] = "{\"prompt\":\"p\"";
    for (int i = 0; i < 100; i++)
        snprintf(body + strlen(body), sizeof body - strlen(body), ",\"some_field_%d\":1", i);
    strcat(body, "}");
    assert_int_equal(parse(OPENAI_COMPLETION, body), OK);
    assert_true(strlen(request.ignored) < sizeof request.ignored);
    assert_true(strlen(request.ignored) > sizeof request.ignored - 20);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(what_is_left_out),         TEST(what_is_read),
        TEST(stops_are_strings),        TEST(prompts_of_every_kind),
        TEST(what_is_refused_is_named), TEST(unknown_fields_are_told_and_cannot_forge_a_header),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
