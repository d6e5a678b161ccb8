// SPDX-License-Identifier: Apache-2.0
// request_encode_test.c -- stop strings, lists and log-probabilities of a request there and back;
// what is left out is not written; a buffer that is too small. Plain fields: requests_test.c.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "parallel/wire/requests.h"

static uint8_t frame[1 << 16];
static size_t frame_bytes;
static struct error error;
static struct generate_request out, back;

static void fill(void)
{
    generate_request_init(&out);
    strcpy(out.id, "r");
    out.prompt = "hi";
    out.prompt_bytes = 2;
}

static void lists_there_and_back(void **state)
{
    (void)state;
    fill();
    out.stops_count = REQUEST_STOPS_MAX;
    for (int i = 0; i < REQUEST_STOPS_MAX; i++)
        out.stops[i] = (struct request_text){"stop", 4};
    out.include_stop = true;
    out.logprobs = 3;
    out.prompt_logprobs = 1;
    out.n = 5;
    out.bias_count = STEP_BIASES_MAX;
    for (int i = 0; i < STEP_BIASES_MAX; i++) {
        out.bias_ids[i] = INT32_MAX - i;
        out.biases[i] = i % 2 == 0 ? -100 : 0.5f;
    }
    out.allowed_count = STEP_ALLOWED_MAX;
    for (int i = 0; i < STEP_ALLOWED_MAX; i++)
        out.allowed_ids[i] = 3 * i;
    out.words_count = REQUEST_WORDS_MAX;
    for (int i = 0; i < REQUEST_WORDS_MAX; i++)
        out.words[i] = i % 2 == 0 ? (struct request_word){.text = {"bad", 3}}
                                  : (struct request_word){.ids_count = 8, .ids = {8, i}};
    assert_int_equal(generate_request_encode(frame, sizeof frame, &frame_bytes, &out), OK);
    if (generate_request_decode(&back, frame, frame_bytes, &error) != OK)
        fail_msg("%s", error.text);
    assert_int_equal(back.stops_count, REQUEST_STOPS_MAX);
    assert_memory_equal(back.stops[15].bytes, "stop", back.stops[15].count);
    assert_true(back.include_stop && back.n == 5);
    assert_true(back.logprobs == 3 && back.prompt_logprobs == 1);
    assert_int_equal(back.bias_count, STEP_BIASES_MAX);
    assert_memory_equal(back.bias_ids, out.bias_ids, sizeof out.bias_ids);
    assert_memory_equal(back.biases, out.biases, sizeof out.biases);
    assert_int_equal(back.allowed_count, STEP_ALLOWED_MAX);
    assert_memory_equal(back.allowed_ids, out.allowed_ids, sizeof out.allowed_ids);
    assert_int_equal(back.words_count, REQUEST_WORDS_MAX);
    assert_memory_equal(back.words[0].text.bytes, "bad", back.words[0].text.count);
    assert_true(back.words[1].text.bytes == NULL && back.words[1].ids_count == 8);
    assert_memory_equal(back.words[1].ids, out.words[1].ids, sizeof out.words[1].ids);
    uint8_t *small = malloc(frame_bytes);
    size_t bytes;
    assert_int_equal(generate_request_encode(small, frame_bytes - 1, &bytes, &out), E_LIMIT);
    free(small);
}

static void what_is_left_out_is_not_written(void **state)
{
    (void)state;
    fill();
    assert_int_equal(generate_request_encode(frame, sizeof frame, &frame_bytes, &out), OK);
    assert_int_equal(frame[0], 0x83); // t, id, prompt
    assert_int_equal(generate_request_decode(&back, frame, frame_bytes, &error), OK);
    assert_int_equal(back.n, 1);
    assert_int_equal(back.bias_count + back.allowed_count + back.words_count + back.logprobs, 0);
}

static enum status decode(const char *text, size_t bytes)
{
    return generate_request_decode(&back, text, bytes, &error);
}

static void tools_go_with_messages(void **state)
{
    (void)state;
    static const char tools[] = "\x91\x81\xa4type\xa8"
                                "function";
#define CHAT "\x83\xa2id\xa1m\xa8messages\x91\x80\xa5tools"
    static const char none[] = CHAT "\x90", wrong[] = CHAT "\x05";
    static const char alone[] = "\x83\xa2id\xa1m\xa3ids\x91\x01\xa5tools\x91\x80";
    assert_int_equal(decode(none, sizeof none - 1), OK);
    assert_null(back.tools);
    assert_int_equal(back.tools_bytes, 0);
    assert_int_equal(decode(wrong, sizeof wrong - 1), E_INPUT);
    assert_non_null(strstr(error.text, "array of tools"));
    assert_int_equal(decode(alone, sizeof alone - 1), E_INPUT);
    assert_non_null(strstr(error.text, "'messages'"));
    generate_request_init(&out);
    strcpy(out.id, "m");
    out.messages = (const uint8_t *)"\x91\x80";
    out.messages_bytes = 2;
    out.tools = (const uint8_t *)tools;
    out.tools_bytes = sizeof tools - 1;
    out.preserve_thinking = true;
    assert_int_equal(generate_request_encode(frame, sizeof frame, &frame_bytes, &out), OK);
    assert_int_equal(generate_request_decode(&back, frame, frame_bytes, &error), OK);
    assert_int_equal(back.tools_bytes, out.tools_bytes);
    assert_memory_equal(back.tools, tools, out.tools_bytes);
    assert_true(back.preserve_thinking);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tools_go_with_messages),
        cmocka_unit_test(lists_there_and_back),
        cmocka_unit_test(what_is_left_out_is_not_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
