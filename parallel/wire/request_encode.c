// SPDX-License-Identifier: Apache-2.0
// request_encode.c -- a generate request as its client writes it: only what was not left out.
#include <string.h>

#include "parallel/wire/requests.h"
#include "parallel/wire/writer.h"

static void write_real(struct writer *writer, const char *key, double value)
{
    writer_key(writer, key);
    writer_double(writer, value);
}

static void write_int(struct writer *writer, const char *key, int64_t value)
{
    writer_key(writer, key);
    writer_int(writer, value);
}

static void write_bool(struct writer *writer, const char *key, bool value)
{
    writer_key(writer, key);
    writer_bool(writer, value);
}

static void write_word(struct writer *writer, const struct request_word *word)
{
    if (word->text.bytes != NULL) {
        writer_text(writer, word->text.bytes, word->text.count);
        return;
    }
    writer_array(writer, (size_t)word->ids_count);
    for (int32_t i = 0; i < word->ids_count; i++)
        writer_int(writer, word->ids[i]);
}

static void write_lists(struct writer *writer, const struct generate_request *request)
{
    if (request->bias_count > 0) {
        writer_key(writer, "logit_bias");
        writer_map(writer, (size_t)request->bias_count);
    }
    for (int32_t i = 0; i < request->bias_count; i++) {
        writer_int(writer, request->bias_ids[i]);
        writer_float(writer, request->biases[i]);
    }
    if (request->allowed_count > 0) {
        writer_key(writer, "allowed_token_ids");
        writer_array(writer, (size_t)request->allowed_count);
    }
    for (int32_t i = 0; i < request->allowed_count; i++)
        writer_int(writer, request->allowed_ids[i]);
    if (request->words_count > 0) {
        writer_key(writer, "bad_words");
        writer_array(writer, (size_t)request->words_count);
    }
    for (int32_t i = 0; i < request->words_count; i++)
        write_word(writer, &request->words[i]);
}

static void write_sampling(struct writer *writer, const struct generate_request *request)
{
    if (request->max_tokens >= 0)
        write_int(writer, "max_tokens", request->max_tokens);
    if (request->temperature >= 0)
        write_real(writer, "temperature", request->temperature);
    if (request->top_k >= 0)
        write_int(writer, "top_k", request->top_k);
    if (request->top_p >= 0)
        write_real(writer, "top_p", request->top_p);
    if (request->min_p >= 0)
        write_real(writer, "min_p", request->min_p);
    if (request->repetition_penalty > 0)
        write_real(writer, "repetition_penalty", request->repetition_penalty);
    if (request->frequency_penalty != 0)
        write_real(writer, "frequency_penalty", request->frequency_penalty);
    if (request->presence_penalty != 0)
        write_real(writer, "presence_penalty", request->presence_penalty);
    if (request->min_tokens > 0)
        write_int(writer, "min_tokens", request->min_tokens);
    if (request->has_seed) {
        writer_key(writer, "seed");
        writer_uint(writer, request->seed);
    }
    if (request->stop_count > 0) {
        writer_key(writer, "stop_token_ids");
        writer_array(writer, (size_t)request->stop_count);
        for (int32_t i = 0; i < request->stop_count; i++)
            writer_int(writer, request->stop_ids[i]);
    }
    if (request->stops_count > 0) {
        writer_key(writer, "stop");
        writer_array(writer, (size_t)request->stops_count);
        for (int32_t i = 0; i < request->stops_count; i++)
            writer_text(writer, request->stops[i].bytes, request->stops[i].count);
    }
    if (request->include_stop)
        write_bool(writer, "include_stop_str_in_output", true);
    if (request->n != 1)
        write_int(writer, "n", request->n);
    write_lists(writer, request);
    if (request->logprobs > 0)
        write_int(writer, "logprobs", request->logprobs - 1);
    if (request->prompt_logprobs > 0)
        write_int(writer, "prompt_logprobs", request->prompt_logprobs - 1);
    if (request->speculative_tokens >= 0)
        write_int(writer, "speculative_tokens", request->speculative_tokens);
    if (request->priority != 0)
        write_int(writer, "priority", request->priority);
    if (request->timeout_ms > 0)
        write_int(writer, "timeout_ms", request->timeout_ms);
    if (request->ignore_eos)
        write_bool(writer, "ignore_eos", true);
    if (!request->enable_thinking)
        write_bool(writer, "enable_thinking", false);
    if (request->preserve_thinking)
        write_bool(writer, "preserve_thinking", true);
    if (request->tools != NULL) {
        writer_key(writer, "tools");
        writer_raw(writer, request->tools, request->tools_bytes);
    }
    if (!request->skip_special_tokens)
        write_bool(writer, "skip_special_tokens", false);
    if (!request->want_text)
        write_bool(writer, "text", false);
}

// How many pairs write_sampling writes.
static size_t sampling_pairs(const struct generate_request *request)
{
    return (size_t)(request->max_tokens >= 0) + (request->temperature >= 0) +
           (request->top_k >= 0) + (request->top_p >= 0) + (request->min_p >= 0) +
           (request->repetition_penalty > 0) + (request->frequency_penalty != 0) +
           (request->presence_penalty != 0) + (request->min_tokens > 0) + request->has_seed +
           (request->priority != 0) + (request->timeout_ms > 0) + (request->stop_count > 0) +
           (request->stops_count > 0) + request->include_stop + (request->n != 1) +
           (request->bias_count > 0) + (request->allowed_count > 0) + (request->words_count > 0) +
           (request->logprobs > 0) + (request->prompt_logprobs > 0) +
           (request->speculative_tokens >= 0) + request->ignore_eos + !request->enable_thinking +
           request->preserve_thinking + (request->tools != NULL) + !request->skip_special_tokens +
           !request->want_text;
}

enum status generate_request_encode(void *buffer, size_t buffer_bytes, size_t *bytes_out,
                                    const struct generate_request *request)
{
    ASSERT(request->stop_count >= 0 && request->stop_count <= REQUEST_STOP_IDS_MAX);
    ASSERT(request->bias_count >= 0 && request->bias_count <= STEP_BIASES_MAX);
    ASSERT(request->allowed_count >= 0 && request->allowed_count <= STEP_ALLOWED_MAX);
    ASSERT(request->words_count >= 0 && request->words_count <= REQUEST_WORDS_MAX);
    ASSERT(request->stops_count >= 0 && request->stops_count <= REQUEST_STOPS_MAX);
    ASSERT((request->prompt != NULL) + (request->ids != NULL) + (request->messages != NULL) == 1);
    struct writer writer;
    writer_init(&writer, buffer, buffer_bytes);
    writer_map(&writer, 3 + sampling_pairs(request));
    writer_key(&writer, "t");
    writer_key(&writer, "generate");
    writer_key(&writer, "id");
    writer_text(&writer, request->id, strnlen(request->id, REQUEST_ID_BYTES_MAX));
    if (request->prompt != NULL) {
        writer_key(&writer, "prompt");
        writer_text(&writer, request->prompt, request->prompt_bytes);
    } else if (request->ids != NULL) {
        writer_key(&writer, "ids");
        writer_array(&writer, (size_t)request->ids_count);
        writer_raw(&writer, request->ids, request->ids_bytes);
    } else {
        writer_key(&writer, "messages");
        writer_raw(&writer, request->messages, request->messages_bytes);
    }
    write_sampling(&writer, request);
    return writer_end(&writer, bytes_out);
}
