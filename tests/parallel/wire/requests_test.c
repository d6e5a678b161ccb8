// SPDX-License-Identifier: Apache-2.0
// requests_test.c -- a client's requests: there and back, every field's limits and types, unknown
// and unsupported fields by name, frames cut and changed anywhere.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "parallel/wire/requests.h"
#include "parallel/wire/writer.h"

static uint8_t frame[1 << 16];
static size_t frame_bytes;
static struct error error;
static struct generate_request request;

// {"t": "generate", "id": "r1", "ids": [7, 8], key: value}, the value as msgpack bytes.
static enum status decode_with(const char *key, const void *value, size_t value_bytes)
{
    struct writer w;
    writer_init(&w, frame, sizeof frame);
    writer_map(&w, key != NULL ? 4 : 3);
    writer_key(&w, "t");
    writer_key(&w, "generate");
    writer_key(&w, "id");
    writer_key(&w, "r1");
    writer_key(&w, "ids");
    writer_raw(&w, "\x92\x07\x08", 3);
    if (key != NULL) {
        writer_key(&w, key);
        writer_raw(&w, value, value_bytes);
    }
    assert_int_equal(writer_end(&w, &frame_bytes), OK);
    error.text[0] = '\0';
    memset(&request, 0xEE, sizeof request);
    return generate_request_decode(&request, frame, frame_bytes, &error);
}

#define WITH(key, value) decode_with(key, value, sizeof(value) - 1)
#define REAL(hex)        "\xcb" hex

static void refused(enum status got, enum status expected, const char *text)
{
    if (got != expected || strstr(error.text, text) == NULL)
        fail_msg("status %s, text '%s'; expected %s, '%s'", status_name(got), error.text,
                 status_name(expected), text);
    assert_string_equal(request.id, "r1"); // so that the refusal finds its request
}

static void what_is_left_out_is_absent(void **state)
{
    (void)state;
    assert_int_equal(decode_with(NULL, NULL, 0), OK);
    assert_int_equal(request_type_of(frame, frame_bytes), REQUEST_GENERATE);
    assert_string_equal(request.id, "r1");
    assert_null(request.prompt);
    assert_null(request.messages);
    assert_int_equal(request.ids_count, 2);
    assert_int_equal(request.max_tokens, -1);
    assert_true(request.temperature == -1 && request.top_p == -1 && request.min_p == -1);
    assert_int_equal(request.top_k, -1);
    assert_false(request.has_seed);
    assert_false(request.ignore_eos);
    assert_int_equal(request.stop_count, 0);
    assert_int_equal(request.speculative_tokens, -1);
    assert_true(request.enable_thinking && request.skip_special_tokens && request.want_text);
    assert_null(request.unsupported);
    assert_string_equal(request.unknown, "");
}

static void stops_and_logprobs_are_read(void **state)
{
    (void)state;
    assert_int_equal(WITH("stop", "\xa2xb"), OK);
    assert_int_equal(request.stops_count, 1);
    assert_memory_equal(request.stops[0].bytes, "xb", request.stops[0].count);
    assert_int_equal(WITH("stop", "\x92\xa1x\xa3\xe4\xb8\x96"), OK);
    assert_int_equal(request.stops_count, 2);
    assert_int_equal(request.stops[1].count, 3);
    assert_int_equal(WITH("stop", "\x90"), OK);
    assert_int_equal(request.stops_count, 0);
    assert_int_equal(WITH("include_stop_str_in_output", "\xc3"), OK);
    assert_true(request.include_stop);
    assert_int_equal(WITH("logprobs", "\x00"), OK);
    assert_int_equal(request.logprobs, 1);
    assert_int_equal(WITH("logprobs", "\x14"), OK);
    assert_int_equal(request.logprobs, 21);
    assert_int_equal(WITH("logprobs", "\xc2"), OK);
    assert_int_equal(request.logprobs, 0);
    assert_int_equal(WITH("prompt_logprobs", "\x03"), OK);
    assert_int_equal(request.prompt_logprobs, 4);
}

static void every_field_is_read(void **state)
{
    (void)state;
    assert_int_equal(WITH("max_tokens", "\x05"), OK);
    assert_int_equal(request.max_tokens, 5);
    assert_int_equal(WITH("max_tokens", "\xff"), OK);
    assert_int_equal(request.max_tokens, -1);
    assert_int_equal(WITH("temperature", REAL("\x3f\xe0\0\0\0\0\0\0")), OK);
    assert_true(request.temperature == 0.5);
    assert_int_equal(WITH("temperature", "\x00"), OK); // integers are numbers too
    assert_true(request.temperature == 0);
    assert_int_equal(WITH("top_k", "\x14"), OK);
    assert_int_equal(request.top_k, 20);
    assert_int_equal(WITH("top_k", "\xff"), OK);
    assert_int_equal(request.top_k, 0);
    assert_int_equal(WITH("repetition_penalty", REAL("\x3f\xf8\0\0\0\0\0\0")), OK);
    assert_true(request.repetition_penalty == 1.5);
    assert_int_equal(WITH("frequency_penalty", REAL("\xbf\xe0\0\0\0\0\0\0")), OK);
    assert_true(request.frequency_penalty == -0.5);
    assert_int_equal(WITH("presence_penalty", "\x02"), OK);
    assert_true(request.presence_penalty == 2);
    assert_int_equal(WITH("priority", "\xfd"), OK);
    assert_int_equal(request.priority, -3);
    assert_int_equal(WITH("timeout_ms", "\xcd\x01\x02"), OK);
    assert_int_equal(request.timeout_ms, 258);
    assert_int_equal(WITH("min_tokens", "\x09"), OK);
    assert_int_equal(request.min_tokens, 9);
    assert_int_equal(WITH("top_p", "\x01"), OK);
    assert_true(request.top_p == 1);
    assert_int_equal(WITH("min_p", "\x00"), OK);
    assert_true(request.min_p == 0);
    assert_int_equal(WITH("seed", "\xcf\xff\xff\xff\xff\xff\xff\xff\xff"), OK);
    assert_true(request.has_seed && request.seed == UINT64_MAX);
    assert_int_equal(WITH("seed", "\xff"), OK);
    assert_false(request.has_seed);
    assert_int_equal(WITH("ignore_eos", "\xc3"), OK);
    assert_true(request.ignore_eos);
    assert_int_equal(WITH("stop_token_ids", "\x98\x01\x02\x03\x04\x05\x06\x07\x08"), OK);
    assert_int_equal(request.stop_count, 8);
    assert_int_equal(request.stop_ids[7], 8);
    assert_int_equal(WITH("speculative_tokens", "\x05"), OK);
    assert_int_equal(request.speculative_tokens, 5);
    assert_int_equal(WITH("enable_thinking", "\xc2"), OK);
    assert_false(request.enable_thinking);
    assert_int_equal(WITH("skip_special_tokens", "\xc2"), OK);
    assert_false(request.skip_special_tokens);
    assert_int_equal(WITH("text", "\xc2"), OK);
    assert_false(request.want_text);
    static const char *const nilable[] = {"prompt",
                                          "messages",
                                          "max_tokens",
                                          "temperature",
                                          "top_k",
                                          "top_p",
                                          "min_p",
                                          "seed",
                                          "ignore_eos",
                                          "stop_token_ids",
                                          "speculative_tokens",
                                          "enable_thinking",
                                          "skip_special_tokens",
                                          "text"};
    for (size_t i = 0; i < sizeof nilable / sizeof nilable[0]; i++) {
        assert_int_equal(WITH(nilable[i], "\xc0"), OK); // nil is "left out"
        assert_true(request.enable_thinking && request.temperature == -1);
    }
}

static void lists_are_read(void **state)
{
    (void)state;
    assert_int_equal(WITH("logit_bias", "\x82\x05\x02\xa2"
                                        "17\xcb\xbf\xe0\0\0\0\0\0\0"),
                     OK);
    assert_int_equal(request.bias_count, 2);
    assert_true(request.bias_ids[0] == 5 && request.biases[0] == 2);
    assert_true(request.bias_ids[1] == 17 && request.biases[1] == -0.5f);
    assert_int_equal(WITH("allowed_token_ids", "\x92\x05\x06"), OK);
    assert_int_equal(request.allowed_count, 2);
    assert_int_equal(WITH("bad_words", "\x92\xa2no\x92\x07\x08"), OK);
    assert_int_equal(request.words_count, 2);
    assert_int_equal(request.words[1].ids[1], 8);
    assert_int_equal(WITH("n", "\xcc\x80"), OK);
    assert_int_equal(request.n, 128);
    refused(WITH("n", "\x00"), E_INPUT, "'n': 0 is outside 1 .. 128");
    refused(WITH("n", "\xcc\x81"), E_INPUT, "'n': 129 is outside 1 .. 128");
    refused(WITH("logit_bias", "\x81\x05\x65"), E_INPUT, "'logit_bias'[0]: 101 is outside -100");
    refused(WITH("logit_bias", "\x81\xa2x5\x01"), E_INPUT, "'x5' is no token id");
    refused(WITH("logit_bias", "\x81\xff\x01"), E_INPUT, "'logit_bias'[0]: -1 is outside");
    refused(WITH("logit_bias", "\x91\x05"), E_INPUT, "'logit_bias': an array where a map belongs");
    refused(WITH("allowed_token_ids", "\x91\xff"), E_INPUT, "'allowed_token_ids'[0]: -1");
    refused(WITH("bad_words", "\x91\xa0"), E_INPUT, "'bad_words'[0]: an empty word");
    refused(WITH("bad_words", "\x91\x90"), E_INPUT, "'bad_words'[0]: an empty word");
    refused(WITH("bad_words", "\x91\x99\x01\x01\x01\x01\x01\x01\x01\x01\x01"), E_LIMIT,
            "'bad_words'[0]: 9 elements, the limit is 8");
}

static void every_field_has_its_limits(void **state)
{
    (void)state;
    refused(WITH("max_tokens", "\x00"), E_INPUT, "'max_tokens': 0 is outside 1 .. 2147483647");
    refused(WITH("max_tokens", "\xfe"), E_INPUT, "'max_tokens': -2 is outside");
    refused(WITH("max_tokens", "\xce\x80\0\0\0"), E_INPUT, "'max_tokens': 2147483648 is outside");
    refused(WITH("max_tokens", REAL("\x3f\xf0\0\0\0\0\0\0")), E_INPUT,
            "'max_tokens': a real where an integer belongs");
    refused(WITH("temperature", REAL("\x7f\xf8\0\0\0\0\0\0")), E_INPUT,
            "'temperature': nan is outside 0 .. 1000");
    refused(WITH("temperature", REAL("\x7f\xf0\0\0\0\0\0\0")), E_INPUT, "'temperature': inf");
    refused(WITH("temperature", REAL("\xbf\xe0\0\0\0\0\0\0")), E_INPUT, "'temperature': -0.5");
    refused(WITH("temperature", "\xff"), E_INPUT, "'temperature': -1 is outside");
    refused(WITH("repetition_penalty", "\x00"), E_INPUT, "'repetition_penalty': 0 is outside");
    refused(WITH("repetition_penalty", "\x0b"), E_INPUT, "'repetition_penalty': 11 is outside");
    refused(WITH("frequency_penalty", "\x03"), E_INPUT, "'frequency_penalty': 3 is outside -2");
    refused(WITH("presence_penalty", "\xfd"), E_INPUT, "'presence_penalty': -3 is outside -2");
    refused(WITH("timeout_ms", "\xff"), E_INPUT, "'timeout_ms': -1 is outside");
    refused(WITH("timeout_ms", "\xce\x05\x26\x5c\x01"), E_INPUT,
            "'timeout_ms': 86400001 is outside");
    refused(WITH("priority", "\xce\x80\x00\x00\x00"), E_INPUT, "'priority': 2147483648 is outside");
    refused(WITH("min_tokens", "\xff"), E_INPUT, "'min_tokens': -1 is outside");
    refused(WITH("stop", "\xa0"), E_INPUT, "'stop': an empty string");
    refused(WITH("stop", "\x92\xa1x\x05"), E_INPUT, "'stop'[1]: an integer where a string belongs");
    refused(WITH("stop", "\x05"), E_INPUT, "'stop': an integer where an array belongs");
    refused(WITH("stop", "\xdc\x00\x11\xa1x\xa1x\xa1x\xa1x\xa1x\xa1x\xa1x\xa1x\xa1x\xa1x\xa1x"
                         "\xa1x\xa1x\xa1x\xa1x\xa1x\xa1x"),
            E_LIMIT, "'stop': 17 elements, the limit is 16");
    refused(WITH("logprobs", "\x15"), E_INPUT, "'logprobs': 21 is outside 0 .. 20");
    refused(WITH("logprobs", "\xff"), E_INPUT, "'logprobs': -1 is outside 0 .. 20");
    refused(WITH("logprobs", "\xc3"), E_INPUT, "'logprobs': true is no number of alternatives");
    refused(WITH("prompt_logprobs", "\x15"), E_INPUT, "'prompt_logprobs': 21 is outside 0 .. 20");
    refused(WITH("temperature", "\xcd\x03\xe9"), E_INPUT, "'temperature': 1001 is outside");
    refused(WITH("temperature", "\xa1"
                                "1"),
            E_INPUT, "'temperature': a string where a real belongs");
    refused(WITH("top_k", "\xfe"), E_INPUT, "'top_k': -2 is outside 0 ..");
    refused(WITH("top_p", "\x00"), E_INPUT, "'top_p': 0 is outside");
    refused(WITH("top_p", REAL("\x3f\xf0\0\0\0\0\0\x01")), E_INPUT, "'top_p': 1 is outside 0 .. 1");
    refused(WITH("min_p", "\x02"), E_INPUT, "'min_p': 2 is outside 0 .. 1");
    refused(WITH("min_p", "\xff"), E_INPUT, "'min_p': -1 is outside 0 .. 1");
    refused(WITH("seed", "\xfe"), E_INPUT, "'seed': -2 is outside 0 .. 18446744073709551615");
    refused(WITH("ignore_eos", "\x01"), E_INPUT, "'ignore_eos': an integer where a bool belongs");
    refused(WITH("stop_token_ids", "\x99\x01\x02\x03\x04\x05\x06\x07\x08\x09"), E_LIMIT,
            "'stop_token_ids': 9 elements, the limit is 8");
    refused(WITH("stop_token_ids", "\x92\x01\xff"), E_INPUT, "'stop_token_ids'[1]: -1 is outside");
    refused(WITH("stop_token_ids", "\x01"), E_INPUT, "'stop_token_ids': an integer where an array");
    refused(WITH("speculative_tokens", "\x06"), E_INPUT,
            "'speculative_tokens': 6 is outside 0 .. 5");
    refused(WITH("speculative_tokens", "\xff"), E_INPUT, "'speculative_tokens': -1 is outside");
    refused(WITH("enable_thinking", "\xa3yes"), E_INPUT,
            "'enable_thinking': a string where a bool");
    refused(WITH("text", "\x01"), E_INPUT, "'text': an integer where a bool belongs");
    refused(WITH("max_tokens", "\xcd\x01"), E_MALFORMED, "'max_tokens': the frame ends too early");
    refused(WITH("ids", "\x91\x01"), E_INPUT, "'ids': this key comes twice");
}

static void exactly_one_prompt_is_needed(void **state)
{
    (void)state;
    refused(WITH("prompt", "\xa2hi"), E_INPUT,
            "generate: 2 of 'prompt', 'ids' and 'messages' are given, 1 is needed");
    refused(WITH("messages", "\x91\x80"), E_INPUT, "2 of 'prompt', 'ids' and 'messages'");
    static const struct {
        const char *bytes;
        size_t count;
        enum status status;
        const char *text;
    } cases[] = {
#define CASE(bytes, status, text) {bytes, sizeof(bytes) - 1, status, text}
        CASE("\x81\xa2id\xa2r1", E_INPUT, "0 of 'prompt'"),
        CASE("\x82\xa2id\xa2r1\xa6prompt\xa0", E_INPUT, "'prompt': an empty prompt"),
        CASE("\x82\xa2id\xa2r1\xa6prompt\xa2h\xff", E_INPUT,
             "'prompt': invalid UTF-8 at byte 1 of 2"),
        CASE("\x82\xa2id\xa2r1\xa6prompt\x05", E_INPUT, "'prompt': an integer where a string"),
        CASE("\x82\xa2id\xa2r1\xa3ids\x90", E_INPUT, "'ids': an empty prompt"),
        CASE("\x82\xa2id\xa2r1\xa3ids\x92\x01\xff", E_INPUT, "'ids'[1]: -1 is outside"),
        CASE("\x82\xa2id\xa2r1\xa3ids\x91\xa1x", E_INPUT, "'ids'[0]: a string where an integer"),
        CASE("\x82\xa2id\xa2r1\xa8messages\x90", E_INPUT, "'messages': an empty array"),
        CASE("\x82\xa2id\xa2r1\xa8messages\x80", E_INPUT, "'messages': not an array"),
#undef CASE
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        refused(generate_request_decode(&request, cases[i].bytes, cases[i].count, &error),
                cases[i].status, cases[i].text);
}

static void prompts_of_each_kind_are_borrowed(void **state)
{
    (void)state;
    static const char text[] = "\x82\xa2id\xa2r1\xa6prompt\xa2hi";
    assert_int_equal(generate_request_decode(&request, text, sizeof text - 1, &error), OK);
    assert_ptr_equal(request.prompt, text + sizeof text - 3);
    assert_int_equal(request.prompt_bytes, 2);
    static const char chat[] = "\x82\xa2id\xa2r1\xa8messages\x91\x81\xa4role\xa4user";
    assert_int_equal(generate_request_decode(&request, chat, sizeof chat - 1, &error), OK);
    assert_int_equal(request.messages_bytes, 12);
    assert_memory_equal(request.messages, chat + sizeof chat - 13, 12);
    size_t bytes = REQUEST_TEXT_BYTES_MAX + 64;
    uint8_t *long_frame = malloc(bytes);
    for (int over = 0; over < 2; over++) {
        struct generate_request out;
        generate_request_init(&out);
        memcpy(out.id, "r1", 3);
        char *prompt = malloc(REQUEST_TEXT_BYTES_MAX + 1);
        memset(prompt, 'x', REQUEST_TEXT_BYTES_MAX + 1);
        out.prompt = prompt;
        out.prompt_bytes = REQUEST_TEXT_BYTES_MAX + (size_t)over;
        assert_int_equal(generate_request_encode(long_frame, bytes, &frame_bytes, &out), OK);
        enum status status = generate_request_decode(&request, long_frame, frame_bytes, &error);
        if (over)
            refused(status, E_LIMIT, "'prompt': 8388609 bytes, the limit is 8388608");
        else
            assert_int_equal(status, OK);
        free(prompt);
    }
    free(long_frame);
}

static void ids_have_their_limits(void **state)
{
    (void)state;
    enum { COUNT = 300 };
    int32_t ids[COUNT], back[COUNT + 1];
    uint8_t packed[COUNT * 5];
    struct generate_request out;
    for (int i = 0; i < COUNT; i++)
        ids[i] = i * 800;
    generate_request_init(&out);
    memcpy(out.id, "r1", 3);
    assert_int_equal(generate_request_pack_ids(packed, sizeof packed, &out.ids_bytes, ids, COUNT),
                     OK);
    out.ids = packed;
    out.ids_count = COUNT;
    assert_int_equal(generate_request_encode(frame, sizeof frame, &frame_bytes, &out), OK);
    assert_int_equal(generate_request_decode(&request, frame, frame_bytes, &error), OK);
    back[COUNT] = -77;
    assert_int_equal(generate_request_ids(back, COUNT, 248077, &request, &error), OK);
    assert_memory_equal(back, ids, sizeof ids);
    assert_int_equal(back[COUNT], -77);
    refused(generate_request_ids(back, COUNT - 1, 248077, &request, &error), E_LIMIT,
            "generate: 'ids': 300 tokens, the limit is 299");
    refused(generate_request_ids(back, COUNT, 239200, &request, &error), E_INPUT,
            "generate: 'ids'[299]: 239200 is outside 0 .. 239199");
    assert_int_equal(generate_request_ids(back, COUNT, 239201, &request, &error), OK);
    size_t bytes;
    assert_int_equal(generate_request_pack_ids(packed, 10, &bytes, ids, COUNT), E_LIMIT);

    // One more than any server takes.
    struct writer w;
    size_t room = REQUEST_PROMPT_TOKENS_MAX + 64;
    uint8_t *large = malloc(room);
    writer_init(&w, large, room);
    writer_map(&w, 2);
    writer_key(&w, "id");
    writer_key(&w, "r1");
    writer_key(&w, "ids");
    writer_array(&w, REQUEST_PROMPT_TOKENS_MAX + 1);
    for (int i = 0; i <= REQUEST_PROMPT_TOKENS_MAX; i++)
        writer_int(&w, 1);
    assert_int_equal(writer_end(&w, &bytes), OK);
    refused(generate_request_decode(&request, large, bytes, &error), E_LIMIT,
            "'ids': 1048577 elements, the limit is 1048576");
    free(large);
}

static void an_id_is_needed(void **state)
{
    (void)state;
    char frame_of[128] = "\x82\xa2id";
    struct generate_request out;
    assert_int_equal(generate_request_decode(&out, "\x81\xa6prompt\xa2hi", 11, &error), E_INPUT);
    assert_string_equal(error.text, "generate: key 'id' is missing");
    assert_string_equal(out.id, "");
    assert_int_equal(generate_request_decode(&out, "\x82\xa2id\xa0\xa6prompt\xa2hi", 15, &error),
                     E_INPUT);
    assert_string_equal(error.text, "generate: 'id': empty, 1 to 64 bytes are needed");
    for (int bytes = 64; bytes <= 65; bytes++) {
        frame_of[4] = '\xd9';
        frame_of[5] = (char)bytes;
        memset(frame_of + 6, 'i', (size_t)bytes);
        memcpy(frame_of + 6 + bytes, "\xa6prompt\xa2hi", 10);
        enum status status = generate_request_decode(&out, frame_of, 16 + (size_t)bytes, &error);
        assert_int_equal(status, bytes == 64 ? OK : E_LIMIT);
    }
    assert_string_equal(error.text, "generate: 'id': 65 bytes, the limit is 64");
    assert_string_equal(out.id, "");
}

static void a_misspelt_field_is_named(void **state)
{
    (void)state;
    assert_int_equal(WITH("temprature", "\x92\x01\x81\xa1x\xc0"), OK);
    assert_string_equal(request.unknown, "temprature");
    // A hundred unknown keys: sixteen names, then dots; long names: no overflow.
    for (int long_names = 0; long_names < 2; long_names++) {
        struct writer w;
        writer_init(&w, frame, sizeof frame);
        writer_map(&w, 102);
        writer_key(&w, "id");
        writer_key(&w, "r1");
        for (int i = 0; i < 100; i++) {
            char name[128];
            memset(name, 'A' + i % 26, sizeof name);
            name[long_names ? 100 : 1] = '\0';
            writer_key(&w, name);
            writer_nil(&w);
        }
        writer_key(&w, "prompt");
        writer_key(&w, "hi");
        assert_int_equal(writer_end(&w, &frame_bytes), OK);
        assert_int_equal(generate_request_decode(&request, frame, frame_bytes, &error), OK);
        size_t bytes = strlen(request.unknown);
        assert_true(bytes < sizeof request.unknown);
        assert_string_equal(request.unknown + bytes - 4, ",...");
        if (!long_names)
            assert_string_equal(request.unknown, "A,B,C,D,E,F,G,H,I,J,K,L,M,N,O,P,...");
    }
}

static void unsupported_fields_are_known_by_name(void **state)
{
    (void)state;
    static const char *const names[] = {
        "best_of",
        "length_penalty",
        "top_logprobs",
        "logprob_token_ids",
        "logits_processors",
        "structured_outputs",
        "response_format",
        "guided_json",
        "guided_regex",
        "guided_choice",
        "guided_grammar",
        "documents",
        "repetition_detection",
        "thinking_token_budget",
        "truncate_prompt_tokens",
        "echo",
        "suffix",
        "use_beam_search",
        "prompt_embeds",
        "multi_modal_data",
        "lora_request",
        "extra_args",
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        static const struct {
            const char *value;
            size_t bytes;
        } telling[] = {{"\x02", 1},     {"\xc3", 1},          {"\xa1x", 2},
                       {"\x91\x01", 2}, {"\x81\xa1k\x01", 4}, {"\xcb\x3f\xe0\0\0\0\0\0\0", 9}},
          silent[] = {{"\xc0", 1}, {"\xc2", 1}, {"\x90", 1}, {"\x80", 1}, {"\xa0", 1}};
        for (size_t j = 0; j < sizeof telling / sizeof telling[0]; j++) {
            assert_int_equal(decode_with(names[i], telling[j].value, telling[j].bytes), OK);
            assert_non_null(request.unsupported);
            assert_string_equal(request.unsupported, names[i]);
        }
        for (size_t j = 0; j < sizeof silent / sizeof silent[0]; j++) {
            assert_int_equal(decode_with(names[i], silent[j].value, silent[j].bytes), OK);
            assert_null(request.unsupported);
        }
        assert_string_equal(request.unknown, ""); // known, if not served
        assert_int_equal(WITH(names[i], "\x00"), OK);
        assert_true((request.unsupported == NULL) == (i == 2)); // neutral at 0
        assert_int_equal(WITH(names[i], REAL("\x3f\xf0\0\0\0\0\0\0")), OK);
        assert_true((request.unsupported == NULL) == (i < 2)); // neutral at 1
    }
}

static void there_and_back(void **state)
{
    (void)state;
    struct generate_request out = {.id = "request 1",
                                   .prompt = "h\xc3\xa9llo",
                                   .prompt_bytes = 6,
                                   .max_tokens = 7,
                                   .temperature = 0.25,
                                   .top_k = 0,
                                   .top_p = 0.9,
                                   .min_p = 0.1,
                                   .repetition_penalty = 1.5,
                                   .frequency_penalty = -0.5,
                                   .presence_penalty = 2,
                                   .min_tokens = 9,
                                   .priority = -7,
                                   .timeout_ms = 5000,
                                   .has_seed = true,
                                   .seed = 42,
                                   .ignore_eos = true,
                                   .stop_count = 2,
                                   .stop_ids = {5, 6},
                                   .n = 1,
                                   .speculative_tokens = 3};
    assert_int_equal(generate_request_encode(frame, sizeof frame, &frame_bytes, &out), OK);
    assert_int_equal(generate_request_decode(&request, frame, frame_bytes, &error), OK);
    assert_string_equal(request.id, out.id);
    assert_int_equal(request.prompt_bytes, 6);
    assert_memory_equal(request.prompt, out.prompt, 6);
    assert_int_equal(request.max_tokens, 7);
    assert_true(request.temperature == 0.25 && request.top_p == 0.9 && request.min_p == 0.1);
    assert_int_equal(request.top_k, 0);
    assert_true(request.repetition_penalty == 1.5 && request.frequency_penalty == -0.5);
    assert_true(request.presence_penalty == 2 && request.min_tokens == 9);
    assert_true(request.priority == -7 && request.timeout_ms == 5000);
    assert_true(request.has_seed && request.seed == 42 && request.ignore_eos);
    assert_int_equal(request.stop_count, 2);
    assert_int_equal(request.stop_ids[1], 6);
    assert_int_equal(request.speculative_tokens, 3);
    assert_false(request.enable_thinking || request.skip_special_tokens || request.want_text);
    for (size_t cut = 0; cut < frame_bytes; cut++) {
        uint8_t *piece = malloc(cut + 1);
        memcpy(piece, frame, cut);
        assert_int_equal(generate_request_decode(&request, piece, cut, &error), E_MALFORMED);
        size_t bytes;
        assert_int_equal(generate_request_encode(piece, cut, &bytes, &out), E_LIMIT);
        free(piece);
    }
    for (size_t at = 0; at < frame_bytes; at++) {
        uint8_t kept = frame[at];
        for (int value = 0; value < 256; value++) {
            frame[at] = (uint8_t)value;
            enum status status = generate_request_decode(&request, frame, frame_bytes, &error);
            assert_true(status == OK || status == E_MALFORMED || status == E_INPUT ||
                        status == E_LIMIT);
        }
        frame[at] = kept;
    }
    generate_request_init(&out);
    out.messages = (const uint8_t *)"\x91\x80";
    out.messages_bytes = 2;
    memcpy(out.id, "m", 2);
    assert_int_equal(generate_request_encode(frame, sizeof frame, &frame_bytes, &out), OK);
    assert_memory_equal(frame, "\x83\xa1t\xa8generate\xa2id\xa1m\xa8messages\x91\x80", frame_bytes);
}

static void plain_requests(void **state)
{
    (void)state;
    static const enum request_type types[] = {REQUEST_ABORT, REQUEST_STATUS, REQUEST_DRAIN};
    struct plain_request back;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(plain_request_encode(frame, sizeof frame, &frame_bytes, types[i], "an id"),
                         OK);
        assert_int_equal(request_type_of(frame, frame_bytes), types[i]);
        assert_int_equal(plain_request_decode(&back, frame, frame_bytes, &error), OK);
        assert_string_equal(back.id, "an id");
        for (size_t cut = 0; cut < frame_bytes; cut++)
            assert_int_equal(plain_request_decode(&back, frame, cut, &error), E_MALFORMED);
    }
    assert_int_equal(plain_request_decode(&back, "\x82\xa1x\x91\x01\xa2id\xa1q", 10, &error), OK);
    assert_string_equal(back.id, "q");
    assert_int_equal(plain_request_decode(&back, "\x80", 1, &error), E_INPUT);
    assert_int_equal(plain_request_decode(&back, "\x81\xa2id\x05", 5, &error), E_INPUT);
    struct tokenize_request tokenize;
    static const char text[] = "\x83\xa1t\xa8tokenize\xa2id\xa1q\xa4text\xa2hi";
    assert_int_equal(request_type_of(text, sizeof text - 1), REQUEST_TOKENIZE);
    assert_int_equal(tokenize_request_decode(&tokenize, text, sizeof text - 1, &error), OK);
    assert_string_equal(tokenize.id, "q");
    assert_ptr_equal(tokenize.value, text);
    assert_int_equal(tokenize.value_bytes, sizeof text - 1);
    assert_int_equal(tokenize_request_decode(&tokenize, text, sizeof text - 2, &error),
                     E_MALFORMED);
}

static void type_and_id_are_found_anywhere(void **state)
{
    (void)state;
    static const char late[] = "\x83\xa1x\x82\xa1t\xa1y\xa2id\xa1z\xa2id\xa1q\xa1t\xa5"
                               "abort";
    char id[REQUEST_ID_BYTES_MAX + 1];
    assert_int_equal(request_type_of(late, sizeof late - 1), REQUEST_ABORT);
    request_id_of(id, late, sizeof late - 1);
    assert_string_equal(id, "q");
    assert_int_equal(request_type_of("\x81\xa1t\xa4nope", 8), REQUEST_NONE);
    assert_int_equal(request_type_of("\x81\xa1t\x05", 4), REQUEST_NONE);
    assert_int_equal(request_type_of("garbage", 7), REQUEST_NONE);
    assert_int_equal(request_type_of("", 0), REQUEST_NONE);
    request_id_of(id, "garbage", 7);
    assert_string_equal(id, "");
    request_id_of(id, "\x81\xa2id\x05", 5);
    assert_string_equal(id, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_left_out_is_absent),
        cmocka_unit_test(every_field_is_read),
        cmocka_unit_test(lists_are_read),
        cmocka_unit_test(stops_and_logprobs_are_read),
        cmocka_unit_test(every_field_has_its_limits),
        cmocka_unit_test(exactly_one_prompt_is_needed),
        cmocka_unit_test(prompts_of_each_kind_are_borrowed),
        cmocka_unit_test(ids_have_their_limits),
        cmocka_unit_test(an_id_is_needed),
        cmocka_unit_test(a_misspelt_field_is_named),
        cmocka_unit_test(unsupported_fields_are_known_by_name),
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(plain_requests),
        cmocka_unit_test(type_and_id_are_found_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
