// SPDX-License-Identifier: Apache-2.0
// openai_fuzz.c -- a body of any bytes as a completion and as a chat: a request within its limits,
// or an error that can be told.
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/openai_json.h"
#include "coordinator/openai_request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check_prompts(const struct openai_request *request)
{
    for (int32_t i = 0; i < request->prompts_count; i++) {
        struct openai_prompt prompt = openai_request_prompt(request, i);
        struct openai_error error = {.error = {.status = OK}};
        int32_t *ids = NULL, count = 0;
        ASSERT((prompt.text == NULL) == (prompt.ids != NULL));
        if (prompt.ids == NULL)
            continue;
        if (openai_json_ids(&ids, &count, prompt.ids, "prompt", 1000, &error) == OK) {
            for (int32_t j = 0; j < count; j++)
                ASSERT(ids[j] >= 0 && ids[j] < 1000);
            free(ids);
        }
    }
}

static bool is_within(double value, double min, double max)
{
    return value >= min && value <= max;
}

static void check_sampling(const struct openai_request *request)
{
    ASSERT(request->temperature == -1 ||
           is_within(request->temperature, 0, REQUEST_TEMPERATURE_MAX));
    ASSERT(request->top_p == -1 || (request->top_p > 0 && request->top_p <= 1));
    ASSERT(request->min_p == -1 || is_within(request->min_p, 0, 1));
    ASSERT(request->repetition_penalty == -1 ||
           is_within(request->repetition_penalty, 0.01, REQUEST_REPETITION_MAX));
    ASSERT(is_within(request->frequency_penalty, -2, 2));
    ASSERT(is_within(request->presence_penalty, -2, 2));
    ASSERT(request->top_k >= -1 && request->min_tokens >= 0);
    ASSERT(is_within(request->drafts, 0, STEP_VERIFY_MAX));
    ASSERT(is_within(request->timeout_ms, 0, REQUEST_TIMEOUT_MS_MAX));
    ASSERT(is_within(request->logprobs, 0, 1 + STEP_LOGPROBS_TOP_MAX));
    ASSERT(request->kind == OPENAI_COMPLETION || request->logprobs == 0 ||
           request->logprobs == 1 + request->top_logprobs);
}

static void check_lists(const struct openai_request *request)
{
    ASSERT(is_within(request->stop_ids_count, 0, REQUEST_STOP_IDS_MAX));
    ASSERT(is_within(request->bias_count, 0, STEP_BIASES_MAX));
    ASSERT(is_within(request->allowed_count, 0, STEP_ALLOWED_MAX));
    ASSERT(is_within(request->words_count, 0, REQUEST_WORDS_MAX));
    for (int32_t i = 0; i < request->stop_ids_count; i++)
        ASSERT(request->stop_ids[i] >= 0);
    for (int32_t i = 0; i < request->bias_count; i++) {
        ASSERT(request->bias_ids[i] >= 0);
        ASSERT(is_within((double)request->biases[i], -REQUEST_BIAS_MAX, REQUEST_BIAS_MAX));
    }
    for (int32_t i = 0; i < request->allowed_count; i++)
        ASSERT(request->allowed_ids[i] >= 0);
    for (int32_t i = 0; i < request->words_count; i++) {
        ASSERT(request->words[i].text.bytes != NULL && request->words[i].ids_count == 0);
        ASSERT(is_within((double)request->words[i].text.count, 1, REQUEST_WORD_BYTES_MAX));
    }
}

static void check_request(const struct openai_request *request)
{
    struct stop_strings stops;
    ASSERT(request->prompts_count >= 1 && request->prompts_count <= OPENAI_PROMPTS_MAX);
    ASSERT(is_within(request->n, 1, OPENAI_N_MAX));
    ASSERT(request->n * request->prompts_count <= OPENAI_CHOICES_MAX);
    ASSERT(request->max_tokens == -1 || request->max_tokens >= 1);
    ASSERT(!request->scores_only || (request->echo && request->max_tokens == 1));
    ASSERT(request->tools.tools == NULL ||
           (json_array_size(request->tools.tools) > 0 && request->split_thought));
    check_sampling(request);
    check_lists(request);
    ASSERT(stop_strings_init(&stops, request->stops, request->stops_count, NULL) == OK);
    stop_strings_fini(&stops);
    ASSERT(strpbrk(request->ignored, "\r\n ") == NULL);
    if (request->kind == OPENAI_COMPLETION)
        check_prompts(request);
}

// The error as a body, which has to be JSON of one shape whatever was sent.
static void check_error(const struct openai_error *error)
{
    struct text_buffer out;
    text_buffer_init(&out, 1 << 16);
    ASSERT(error->error.text[0] != '\0');
    ASSERT(openai_error_write(&out, error, "0") == OK);
    json_t *root = json_loadb(out.bytes, out.count, 0, NULL);
    ASSERT(json_object_size(json_object_get(root, "error")) == 5);
    json_decref(root);
    text_buffer_fini(&out);
}

static void run_kind(enum openai_kind kind, const uint8_t *data, size_t bytes)
{
    struct openai_request request;
    struct openai_error error = {.error = {.status = OK}};
    enum status status = openai_request_parse(&request, kind, (const char *)data, bytes, &error);
    if (status == OK) {
        check_request(&request);
        openai_request_fini(&request);
    } else {
        error.error.status = status;
        check_error(&error);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    run_kind(OPENAI_COMPLETION, data, bytes);
    run_kind(OPENAI_CHAT, data, bytes);
    return 0;
}
