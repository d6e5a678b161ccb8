// SPDX-License-Identifier: Apache-2.0
// openai_fuzz.c -- a body of any bytes as a completion and as a chat: a request within its limits,
// or an error that can be told.
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

static void check_request(const struct openai_request *request)
{
    struct stop_strings stops;
    ASSERT(request->prompts_count >= 1 && request->prompts_count <= OPENAI_PROMPTS_MAX);
    ASSERT(request->max_tokens == -1 || request->max_tokens >= 1);
    ASSERT(request->temperature == -1 || request->temperature >= 0);
    ASSERT(request->top_k >= -1 && request->min_tokens >= 0);
    ASSERT(request->stop_ids_count <= REQUEST_STOP_IDS_MAX);
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
