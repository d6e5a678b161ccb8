// SPDX-License-Identifier: Apache-2.0
// openai_request.c -- one table of the fields that are read, one of those that only may say nothing
// (openai_neutral.c).
#include "coordinator/openai_request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/openai_json.h"
#include "coordinator/openai_neutral.h"

enum { BOTH = OPENAI_COMPLETION | OPENAI_CHAT };

// ---- fields ----

static enum status bad_field(struct openai_error *error, const char *name, const char *accepted)
{
    return openai_error_of(error, name,
                           error_set(&error->error, E_INPUT, "%s: accepted is %s", name, accepted));
}

static enum status set_model(struct openai_request *request, const json_t *value, const char *name,
                             struct openai_error *error)
{
    request->model = json_string_value(value);
    return request->model != NULL ? OK : bad_field(error, name, "a string");
}

static bool all_of(const json_t *array, int type)
{
    size_t i;
    const json_t *item;
    json_array_foreach((json_t *)(uintptr_t)array, i, item)
    {
        if ((int)json_typeof(item) != type)
            return false;
    }
    return json_array_size(array) > 0;
}

static enum status set_prompt(struct openai_request *request, const json_t *value, const char *name,
                              struct openai_error *error)
{
    request->prompt = value;
    request->prompts_count = 1;
    if (json_is_string(value) || all_of(value, JSON_INTEGER))
        return OK;
    if (!all_of(value, JSON_STRING) && !all_of(value, JSON_ARRAY)) {
        return bad_field(error, name,
                         "a string, an array of strings, an array of token ids, or an array of "
                         "arrays of token ids");
    }
    if (json_array_size(value) > OPENAI_PROMPTS_MAX) {
        return openai_error_of(error, name,
                               error_set(&error->error, E_LIMIT,
                                         "%s has %zu prompts, accepted is up to %d", name,
                                         json_array_size(value), OPENAI_PROMPTS_MAX));
    }
    request->prompts_count = (int32_t)json_array_size(value);
    return OK;
}

static enum status set_messages(struct openai_request *request, const json_t *value,
                                const char *name, struct openai_error *error)
{
    request->messages = value;
    request->prompts_count = 1;
    if (json_is_array(value) && json_array_size(value) > 0)
        return OK;
    return bad_field(error, name, "an array of at least one message");
}

static enum status set_stream_options(struct openai_request *request, const json_t *value,
                                      const char *name, struct openai_error *error)
{
    const json_t *usage = json_object_get(value, "include_usage");
    const json_t *always = json_object_get(value, "continuous_usage_stats");
    if (!json_is_object(value))
        return bad_field(error, name, "an object");
    if (always != NULL && !json_is_null(always)) {
        TRY(openai_json_bool(&request->continuous_usage, always,
                             "stream_options.continuous_usage_stats", error));
    }
    if (usage == NULL || json_is_null(usage))
        return OK;
    return openai_json_bool(&request->include_usage, usage, "stream_options.include_usage", error);
}

static enum status set_max_tokens(struct openai_request *request, const json_t *value,
                                  const char *name, struct openai_error *error)
{
    int64_t count = 0;
    int64_t least = request->kind == OPENAI_COMPLETION ? 0 : 1;
    TRY(openai_json_integer(&count, value, name, (int64_t[]){least, INT32_MAX}, error));
    request->max_tokens = (int32_t)count;
    return OK;
}

static enum status set_n(struct openai_request *request, const json_t *value, const char *name,
                         struct openai_error *error)
{
    int64_t count = 0;
    TRY(openai_json_integer(&count, value, name, (int64_t[]){1, OPENAI_N_MAX}, error));
    request->n = (int32_t)count;
    return OK;
}

// Of a chat true or false, of a completion the number of alternatives.
static enum status set_logprobs(struct openai_request *request, const json_t *value,
                                const char *name, struct openai_error *error)
{
    int64_t top = 0;
    if (json_is_false(value))
        return OK;
    if (request->kind == OPENAI_CHAT) {
        bool wanted = false;
        TRY(openai_json_bool(&wanted, value, name, error));
    } else {
        TRY(openai_json_integer(&top, value, name, (int64_t[]){0, STEP_LOGPROBS_TOP_MAX}, error));
    }
    request->logprobs = 1 + (int32_t)top;
    return OK;
}

static enum status set_top_logprobs(struct openai_request *request, const json_t *value,
                                    const char *name, struct openai_error *error)
{
    int64_t top = 0;
    TRY(openai_json_integer(&top, value, name, (int64_t[]){0, STEP_LOGPROBS_TOP_MAX}, error));
    request->top_logprobs = (int32_t)top;
    return OK;
}

static enum status set_temperature(struct openai_request *request, const json_t *value,
                                   const char *name, struct openai_error *error)
{
    return openai_json_number(&request->temperature, value, name,
                              (double[]){0, REQUEST_TEMPERATURE_MAX}, error);
}

static enum status set_top_p(struct openai_request *request, const json_t *value, const char *name,
                             struct openai_error *error)
{
    TRY(openai_json_number(&request->top_p, value, name, (double[]){0, 1}, error));
    if (request->top_p > 0)
        return OK;
    return openai_error_of(
        error, name,
        error_set(&error->error, E_INPUT, "%s is 0, accepted is a number above 0, up to 1", name));
}

static enum status set_min_p(struct openai_request *request, const json_t *value, const char *name,
                             struct openai_error *error)
{
    return openai_json_number(&request->min_p, value, name, (double[]){0, 1}, error);
}

static enum status set_repetition(struct openai_request *request, const json_t *value,
                                  const char *name, struct openai_error *error)
{
    return openai_json_number(&request->repetition_penalty, value, name,
                              (double[]){0.01, REQUEST_REPETITION_MAX}, error);
}

static enum status set_frequency(struct openai_request *request, const json_t *value,
                                 const char *name, struct openai_error *error)
{
    return openai_json_number(&request->frequency_penalty, value, name, (double[]){-2, 2}, error);
}

static enum status set_presence(struct openai_request *request, const json_t *value,
                                const char *name, struct openai_error *error)
{
    return openai_json_number(&request->presence_penalty, value, name, (double[]){-2, 2}, error);
}

static enum status set_min_tokens(struct openai_request *request, const json_t *value,
                                  const char *name, struct openai_error *error)
{
    int64_t count = 0;
    TRY(openai_json_integer(&count, value, name, (int64_t[]){0, INT32_MAX}, error));
    request->min_tokens = (int32_t)count;
    return OK;
}

static enum status set_drafts(struct openai_request *request, const json_t *value, const char *name,
                              struct openai_error *error)
{
    int64_t drafts = 0;
    TRY(openai_json_integer(&drafts, value, name, (int64_t[]){0, STEP_VERIFY_MAX - 1}, error));
    request->drafts = 1 + (int32_t)drafts;
    return OK;
}

static enum status set_priority(struct openai_request *request, const json_t *value,
                                const char *name, struct openai_error *error)
{
    int64_t priority = 0;
    TRY(openai_json_integer(&priority, value, name, (int64_t[]){INT32_MIN, INT32_MAX}, error));
    request->priority = (int32_t)priority;
    return OK;
}

static enum status set_timeout(struct openai_request *request, const json_t *value,
                               const char *name, struct openai_error *error)
{
    int64_t timeout_ms = 0;
    TRY(openai_json_integer(&timeout_ms, value, name, (int64_t[]){0, REQUEST_TIMEOUT_MS_MAX},
                            error));
    request->timeout_ms = (int32_t)timeout_ms;
    return OK;
}

static enum status set_top_k(struct openai_request *request, const json_t *value, const char *name,
                             struct openai_error *error)
{
    int64_t count = 0;
    TRY(openai_json_integer(&count, value, name, (int64_t[]){-1, INT32_MAX}, error));
    request->top_k = count < 0 ? 0 : (int32_t)count; // -1 says "off", as 0 does
    return OK;
}

static enum status set_seed(struct openai_request *request, const json_t *value, const char *name,
                            struct openai_error *error)
{
    int64_t seed = 0;
    TRY(openai_json_integer(&seed, value, name, (int64_t[]){INT64_MIN, INT64_MAX}, error));
    request->has_seed = true;
    request->seed = (uint64_t)seed;
    return OK;
}

static enum status add_stop(struct openai_request *request, const json_t *value, const char *name,
                            struct openai_error *error)
{
    size_t bytes = json_string_length(value);
    if (!json_is_string(value) || bytes == 0)
        return bad_field(error, name, "a string or an array of strings, none of them empty");
    if (request->stops_count == STOP_STRINGS_MAX || bytes > STOP_STRINGS_BYTES_MAX) {
        return openai_error_of(error, name,
                               error_set(&error->error, E_LIMIT,
                                         "%s: accepted are up to %d strings of up to %d bytes",
                                         name, STOP_STRINGS_MAX, STOP_STRINGS_BYTES_MAX));
    }
    request->stops[request->stops_count++] =
        (struct stop_string){.bytes = json_string_value(value), .count = bytes};
    return OK;
}

static enum status set_stop(struct openai_request *request, const json_t *value, const char *name,
                            struct openai_error *error)
{
    if (!json_is_array(value))
        return add_stop(request, value, name, error);
    for (size_t i = 0; i < json_array_size(value); i++)
        TRY(add_stop(request, json_array_get(value, i), name, error));
    return OK;
}

static enum status set_stop_ids(struct openai_request *request, const json_t *value,
                                const char *name, struct openai_error *error)
{
    size_t count = json_array_size(value);
    if (!json_is_array(value))
        return bad_field(error, name, "an array of token ids");
    if (count > REQUEST_STOP_IDS_MAX) {
        return openai_error_of(error, name,
                               error_set(&error->error, E_LIMIT,
                                         "%s has %zu ids, accepted is up to %d", name, count,
                                         REQUEST_STOP_IDS_MAX));
    }
    for (size_t i = 0; i < count; i++) {
        int64_t id = 0;
        TRY(openai_json_integer(&id, json_array_get(value, i), name, (int64_t[]){0, INT32_MAX},
                                error));
        request->stop_ids[request->stop_ids_count++] = (int32_t)id;
    }
    return OK;
}

static enum status too_many(struct openai_error *error, const char *name, size_t count, int limit)
{
    return openai_error_of(error, name,
                           error_set(&error->error, E_LIMIT,
                                     "%s has %zu entries, accepted is up to %d", name, count,
                                     limit));
}

// {"id": bias}: ids in decimal.
static enum status set_bias(struct openai_request *request, const json_t *value, const char *name,
                            struct openai_error *error)
{
    const char *key;
    const json_t *item;
    if (!json_is_object(value))
        return bad_field(error, name, "an object from token ids to numbers");
    if (json_object_size(value) > STEP_BIASES_MAX)
        return too_many(error, name, json_object_size(value), STEP_BIASES_MAX);
    json_object_foreach((json_t *)(uintptr_t)value, key, item)
    {
        char *end;
        double bias = 0;
        long id = strtol(key, &end, 10);
        if (key[0] < '0' || key[0] > '9' || *end != '\0' || id > INT32_MAX)
            return bad_field(error, name, "an object whose names are token ids");
        TRY(openai_json_number(&bias, item, name, (double[]){-REQUEST_BIAS_MAX, REQUEST_BIAS_MAX},
                               error));
        request->bias_ids[request->bias_count] = (int32_t)id;
        request->biases[request->bias_count++] = (float)bias;
    }
    return OK;
}

static enum status set_allowed(struct openai_request *request, const json_t *value,
                               const char *name, struct openai_error *error)
{
    size_t count = json_array_size(value);
    if (!json_is_array(value))
        return bad_field(error, name, "an array of token ids");
    if (count > STEP_ALLOWED_MAX)
        return too_many(error, name, count, STEP_ALLOWED_MAX);
    for (size_t i = 0; i < count; i++) {
        int64_t id = 0;
        TRY(openai_json_integer(&id, json_array_get(value, i), name, (int64_t[]){0, INT32_MAX},
                                error));
        request->allowed_ids[request->allowed_count++] = (int32_t)id;
    }
    return OK;
}

static enum status set_words(struct openai_request *request, const json_t *value, const char *name,
                             struct openai_error *error)
{
    size_t count = json_array_size(value);
    if (!json_is_array(value))
        return bad_field(error, name, "an array of strings");
    if (count > REQUEST_WORDS_MAX)
        return too_many(error, name, count, REQUEST_WORDS_MAX);
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(value, i);
        struct request_text text = {.bytes = json_string_value(item),
                                    .count = json_string_length(item)};
        if (text.count == 0 || text.count > REQUEST_WORD_BYTES_MAX)
            return bad_field(error, name, "an array of strings of 1 to 256 bytes");
        request->words[request->words_count++] = (struct request_word){.text = text};
    }
    return OK;
}

static void ignore(struct openai_request *request, const char *prefix, const char *name);

static enum status set_template(struct openai_request *request, const json_t *value,
                                const char *name, struct openai_error *error)
{
    const char *key;
    const json_t *item;
    if (!json_is_object(value))
        return bad_field(error, name, "an object");
    json_object_foreach((json_t *)(uintptr_t)value, key, item)
    {
        if (strcmp(key, "enable_thinking") == 0)
            TRY(openai_json_bool(&request->enable_thinking, item,
                                 "chat_template_kwargs.enable_thinking", error));
        else if (strcmp(key, "preserve_thinking") == 0)
            TRY(openai_json_bool(&request->preserve_thinking, item,
                                 "chat_template_kwargs.preserve_thinking", error));
        else
            ignore(request, "chat_template_kwargs.", key);
    }
    return OK;
}

static enum status set_tools(struct openai_request *request, const json_t *value, const char *name,
                             struct openai_error *error)
{
    (void)name;
    TRY(openai_tools_check(value, error));
    request->tools.tools = json_array_size(value) > 0 ? value : NULL;
    return OK;
}

static enum status set_tool_choice(struct openai_request *request, const json_t *value,
                                   const char *name, struct openai_error *error)
{
    (void)name;
    return openai_tools_choice(&request->no_tools, value, error);
}

static enum status set_parallel(struct openai_request *request, const json_t *value,
                                const char *name, struct openai_error *error)
{
    bool parallel = true;
    TRY(openai_json_bool(&parallel, value, name, error));
    request->tools.one_only = !parallel;
    return OK;
}

#define SET_FLAG(field)                                                                            \
    static enum status set_##field(struct openai_request *request, const json_t *value,            \
                                   const char *name, struct openai_error *error)                   \
    {                                                                                              \
        return openai_json_bool(&request->field, value, name, error);                              \
    }
SET_FLAG(stream)
SET_FLAG(echo)
SET_FLAG(ignore_eos)
SET_FLAG(skip_special_tokens)
SET_FLAG(include_stop)
SET_FLAG(return_token_ids)
SET_FLAG(enable_thinking)
SET_FLAG(split_thought)
#undef SET_FLAG

static const struct {
    const char *name;
    unsigned kinds;
    enum status (*set)(struct openai_request *request, const json_t *value, const char *name,
                       struct openai_error *error);
} fields[] = {
    {"model", BOTH, set_model},
    {"prompt", OPENAI_COMPLETION, set_prompt},
    {"messages", OPENAI_CHAT, set_messages},
    {"stream", BOTH, set_stream},
    {"stream_options", BOTH, set_stream_options},
    {"max_tokens", BOTH, set_max_tokens},
    {"max_completion_tokens", OPENAI_CHAT, set_max_tokens},
    {"n", BOTH, set_n},
    {"logit_bias", BOTH, set_bias},
    {"allowed_token_ids", BOTH, set_allowed},
    {"bad_words", BOTH, set_words},
    {"logprobs", BOTH, set_logprobs},
    {"top_logprobs", OPENAI_CHAT, set_top_logprobs},
    {"echo", OPENAI_COMPLETION, set_echo},
    {"temperature", BOTH, set_temperature},
    {"top_p", BOTH, set_top_p},
    {"top_k", BOTH, set_top_k},
    {"min_p", BOTH, set_min_p},
    {"repetition_penalty", BOTH, set_repetition},
    {"frequency_penalty", BOTH, set_frequency},
    {"presence_penalty", BOTH, set_presence},
    {"min_tokens", BOTH, set_min_tokens},
    {"speculative_tokens", BOTH, set_drafts},
    {"priority", BOTH, set_priority},
    {"timeout_ms", BOTH, set_timeout},
    {"seed", BOTH, set_seed},
    {"stop", BOTH, set_stop},
    {"stop_token_ids", BOTH, set_stop_ids},
    {"ignore_eos", BOTH, set_ignore_eos},
    {"skip_special_tokens", BOTH, set_skip_special_tokens},
    {"include_stop_str_in_output", BOTH, set_include_stop},
    {"return_token_ids", BOTH, set_return_token_ids},
    {"chat_template_kwargs", OPENAI_CHAT, set_template},
    {"enable_thinking", OPENAI_CHAT, set_enable_thinking},
    {"separate_reasoning", OPENAI_CHAT, set_split_thought},
    {"tools", OPENAI_CHAT, set_tools},
    {"tool_choice", OPENAI_CHAT, set_tool_choice},
    {"parallel_tool_calls", OPENAI_CHAT, set_parallel},
};

enum { FIELDS_COUNT = sizeof fields / sizeof fields[0] };

// ---- the whole ----

// Names go into a header line: only what is harmless there.
static void ignore(struct openai_request *request, const char *prefix, const char *name)
{
    char clean[64];
    size_t used = strlen(request->ignored), count = 0;
    for (; name[count] != '\0' && count < sizeof clean - 1; count++) {
        char c = name[count];
        bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                    c == '_' || c == '-' || c == '.';
        clean[count] = fine ? c : '?';
    }
    clean[count] = '\0';
    if (used + strlen(prefix) + count + 2 < sizeof request->ignored) {
        snprintf(request->ignored + used, sizeof request->ignored - used, "%s%s%s",
                 used > 0 ? "," : "", prefix, clean);
    }
}

static enum status set_one(struct openai_request *request, const char *name, const json_t *value,
                           struct openai_error *error)
{
    if (json_is_null(value))
        return OK; // absent
    for (int i = 0; i < FIELDS_COUNT; i++) {
        if ((fields[i].kinds & request->kind) != 0 && strcmp(fields[i].name, name) == 0)
            return fields[i].set(request, value, fields[i].name, error);
    }
    enum openai_neutral neutral = openai_neutral_check(name, value);
    if (neutral == OPENAI_NEUTRAL_UNKNOWN)
        ignore(request, "", name);
    if (neutral != OPENAI_NEUTRAL_ASKS)
        return OK;
    return openai_error_of(error, name,
                           error_set(&error->error, E_UNSUPPORTED,
                                     "%s is not served by this version; leave it out", name));
}

// What several fields say together.
static enum status check_whole(struct openai_request *request, struct openai_error *error)
{
    if (request->top_logprobs > 0 && request->logprobs == 0)
        return bad_field(error, "top_logprobs", "0 unless logprobs is true");
    if (request->kind == OPENAI_CHAT && request->logprobs > 0)
        request->logprobs = 1 + request->top_logprobs;
    request->scores_only = request->max_tokens == 0;
    if (request->scores_only && !request->echo)
        return openai_error_of(error, "max_tokens",
                               error_set(&error->error, E_INPUT,
                                         "max_tokens is 0, accepted is 1 to %d, and 0 with echo",
                                         INT32_MAX));
    if (request->scores_only)
        request->max_tokens = 1;
    if (request->n * request->prompts_count <= OPENAI_CHOICES_MAX)
        return OK;
    return openai_error_of(error, "n",
                           error_set(&error->error, E_LIMIT,
                                     "n is %d for %d prompts, accepted are up to %d answers",
                                     request->n, request->prompts_count, OPENAI_CHOICES_MAX));
}

static enum status set_all(struct openai_request *request, struct openai_error *error)
{
    const char *name;
    const json_t *value;
    json_object_foreach(request->root, name, value)
    {
        TRY(set_one(request, name, value, error));
    }
    if (request->kind == OPENAI_COMPLETION && request->prompt == NULL)
        return bad_field(error, "prompt",
                         "a string, token ids, or an array of either; it is absent");
    if (request->kind == OPENAI_CHAT && request->messages == NULL)
        return bad_field(error, "messages", "an array of messages; it is absent");
    TRY(check_whole(request, error));
    if (request->no_tools)
        request->tools.tools = NULL; // not in the prompt, so that none is called
    if (request->tools.tools == NULL || request->split_thought)
        return OK;
    return openai_error_of(error, "separate_reasoning",
                           error_set(&error->error, E_UNSUPPORTED,
                                     "separate_reasoning: false is not served together with "
                                     "tools: calls are looked for behind the thought"));
}

enum status openai_request_parse(struct openai_request *out, enum openai_kind kind,
                                 const char *body, size_t bytes, struct openai_error *error)
{
    struct openai_request request = {
        .kind = kind,
        .n = 1,
        .temperature = -1,
        .top_p = -1,
        .min_p = -1,
        .top_k = -1,
        .repetition_penalty = -1,
        .max_tokens = kind == OPENAI_CHAT ? -1 : OPENAI_COMPLETION_TOKENS_DEFAULT,
        .skip_special_tokens = true,
        .enable_thinking = true,
        .split_thought = true};
    TRY(openai_json_parse(&request.root, body, bytes, error));
    enum status status = set_all(&request, error);
    if (status != OK) {
        json_decref(request.root);
        return status;
    }
    *out = request;
    return OK;
}

void openai_request_fini(struct openai_request *request)
{
    json_decref(request->root);
    request->root = NULL;
}

struct openai_prompt openai_request_prompt(const struct openai_request *request, int32_t index)
{
    const json_t *value = request->prompt;
    if (json_is_array(value) && !json_is_integer(json_array_get(value, 0)))
        value = json_array_get(value, (size_t)index);
    return (struct openai_prompt){.text = json_string_value(value),
                                  .text_bytes = json_string_length(value),
                                  .ids = json_is_array(value) ? value : NULL};
}
