// SPDX-License-Identifier: Apache-2.0
// door_http_submit.c -- a body of OpenAI's becomes prompts for the core, one for each choice.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "coordinator/door_http_state.h"
#include "coordinator/door_lists.h"
#include "coordinator/openai_json.h"
#include "parallel/base/clock.h"

// The ids of prompt `index`, malloc'ed; no longer than the model takes.
static enum status encode_prompt(struct http_exchange *exchange, int32_t index, int32_t **ids,
                                 int32_t *count, struct openai_error *error)
{
    const struct openai_request *request = &exchange->request;
    struct door_http *door = exchange->door;
    if (request->kind == OPENAI_CHAT) {
        struct chat_format_options options = chat_format_defaults();
        options.enable_thinking = request->enable_thinking;
        options.preserve_thinking = request->preserve_thinking;
        options.tools = request->tools.tools;
        return openai_error_of(
            error, "messages",
            door_text_chat(door->text, request->messages, &options, ids, count, &error->error));
    }
    struct openai_prompt prompt = openai_request_prompt(request, index);
    if (prompt.text == NULL)
        return openai_json_ids(ids, count, prompt.ids, "prompt", door->options.vocab_real, error);
    return openai_error_of(
        error, "prompt",
        door_text_encode(door->text, prompt.text, prompt.text_bytes, ids, count, &error->error));
}

// As the core would refuse it, before any of its answers has been ordered.
static enum status prompt_ids(struct http_exchange *exchange, int32_t index, int32_t **ids,
                              int32_t *count, struct openai_error *error)
{
    int32_t context = exchange->door->context;
    TRY(encode_prompt(exchange, index, ids, count, error));
    if (*count >= 1 && *count < context)
        return OK;
    free(*ids);
    return openai_error_of(error, exchange->request.kind == OPENAI_CHAT ? "messages" : "prompt",
                           error_set(&error->error, E_INPUT,
                                     "the prompt has %d tokens, accepted is 1 to %d", *count,
                                     context - 1));
}

static enum status fill_sampling(struct http_exchange *exchange, struct coord_sampling *sampling,
                                 struct openai_error *error)
{
    const struct door_http_options *options = &exchange->door->options;
    const struct openai_request *request = &exchange->request;
    const struct door_sampling_rules rules = {.defaults = &options->sampling_default,
                                              .config = &options->config,
                                              .tokenizer = options->tokenizer,
                                              .vocab_real = options->vocab_real};
    const struct door_sampling_wish wish = {
        .temperature = request->temperature,
        .top_k = request->top_k,
        .top_p = request->top_p,
        .min_p = request->min_p,
        .repetition = request->repetition_penalty,
        .frequency = request->frequency_penalty,
        .presence = request->presence_penalty,
        .min_tokens = request->min_tokens,
        .max_tokens = request->max_tokens,
        .drafts = request->drafts,
        .logprobs = request->logprobs,
        .prompt_logprobs = request->echo ? request->logprobs : 0,
        .stop_ids = request->stop_ids,
        .stop_count = request->stop_ids_count,
        .ignore_eos = request->ignore_eos,
    };
    enum status status = door_sampling_fill(sampling, &wish, &rules, &error->error);
    return status == OK ? OK : openai_error_of(error, "stop_token_ids", status);
}

static enum status fill_lists(struct http_exchange *exchange, struct coord_sampling *sampling,
                              struct openai_error *error)
{
    const struct openai_request *request = &exchange->request;
    const struct door_lists_wish wish = {.bias_ids = request->bias_ids,
                                         .biases = request->biases,
                                         .bias_count = request->bias_count,
                                         .allowed_ids = request->allowed_ids,
                                         .allowed_count = request->allowed_count,
                                         .words = request->words,
                                         .words_count = request->words_count};
    const char *field = NULL;
    enum status status = door_lists_make(&exchange->lists, sampling, &wish, exchange->door->text,
                                         &field, &error->error);
    return status == OK ? OK : openai_error_of(error, field, status);
}

// Each order has ids and lists of its own, which the core frees.
static enum status copy_ids(int32_t **out, const int32_t *ids, int32_t count,
                            struct openai_error *error)
{
    *out = count > 0 ? malloc((size_t)count * sizeof **out) : NULL;
    if (count > 0 && *out == NULL)
        return error_set(&error->error, E_SYSTEM, "no memory for %d ids", count);
    if (count > 0)
        memcpy(*out, ids, (size_t)count * sizeof **out);
    return OK;
}

static enum status open_choice(struct http_exchange *exchange, int32_t index,
                               const struct coord_sampling *sampling, struct openai_error *error)
{
    const struct openai_request *request = &exchange->request;
    struct http_choice *choice = &exchange->choices[index];
    bool thinking = request->kind == OPENAI_CHAT && request->enable_thinking;
    const struct answer_text_options options = {.stops = request->stops,
                                                .stops_count = request->stops_count,
                                                .include_stop = request->include_stop,
                                                .in_thought = thinking && request->split_thought,
                                                .tools = request->tools,
                                                .id = exchange->own_id,
                                                .is_stream = request->stream};
    choice->exchange = exchange;
    choice->index = index;
    choice->stream = door_stream_open(exchange->door->text, request->skip_special_tokens);
    text_buffer_init(&choice->content, HTTP_ANSWER_BYTES_MAX);
    text_buffer_init(&choice->reasoning, HTTP_ANSWER_BYTES_MAX);
    text_buffer_init(&choice->calls, HTTP_ANSWER_BYTES_MAX);
    if (!request->include_stop) {
        choice->stop_ids_count = sampling->stop_count;
        memcpy(choice->stop_ids, sampling->stop_ids, sizeof choice->stop_ids);
    }
    openai_logprobs_init(&choice->logprobs, request->kind, exchange->door->options.tokenizer,
                         HTTP_ANSWER_BYTES_MAX);
    return openai_error_of(error, "stop", answer_text_init(&choice->text, &options, &error->error));
}

// ids[count] is a prompt.
struct prompt {
    int32_t *ids;
    int32_t count;
};

// The prompt is the beginning of the answer's text, as it was given or as its ids read.
static enum status open_echo(struct http_choice *choice, const struct prompt *ids,
                             struct openai_error *error)
{
    struct http_exchange *exchange = choice->exchange;
    const struct openai_request *request = &exchange->request;
    struct openai_prompt prompt = openai_request_prompt(request, choice->index / request->n);
    choice->tells_prompt = request->logprobs > 0;
    choice->prompt_first = ids->ids[0];
    if (prompt.text != NULL)
        return text_buffer_append(&choice->content, prompt.text, prompt.text_bytes, &error->error);
    struct door_stream *stream = door_stream_open(exchange->door->text, false);
    enum status status = OK;
    for (int32_t i = 0; i <= ids->count && stream != NULL && status == OK; i++) {
        bool last = i == ids->count;
        size_t bytes;
        const char *text = door_stream_feed(stream, ids->ids + i, last ? 0 : 1, last, &bytes);
        status = text_buffer_append(&choice->content, text, bytes, &error->error);
    }
    door_stream_close(stream);
    return status;
}

static enum status order_choice(struct http_exchange *exchange, struct http_choice *choice,
                                struct link_order *order, struct openai_error *error)
{
    struct door_http *door = exchange->door;
    const struct coord_sampling *sampling = &order->sampling;
    TRY(copy_ids(&order->lists, exchange->lists, coord_sampling_lists(sampling), error));
    if (door_http_take_number(door, choice)) {
        order->request = choice->number;
        choice->usage.prompt_tokens = order->prompt_tokens;
        if (link_order(door->options.link, order)) {
            link_wake_core(door->options.link);
            return OK;
        }
        door_http_give_back_number(door, choice);
    }
    free(order->lists);
    return error_set(
        &error->error, E_OVERLOADED, "%d prompts are unfinished already, the limit is %d",
        door->options.requests_max - door->numbers_free_count, door->options.requests_max);
}

// Gives the prompt to the core for one choice.
static enum status submit_one(struct http_exchange *exchange, int32_t index,
                              const struct prompt *prompt, const struct coord_sampling *sampling,
                              struct openai_error *error)
{
    struct http_choice *choice = &exchange->choices[index];
    struct link_order order = {.type = ORDER_SUBMIT,
                               .priority = exchange->request.priority,
                               .timeout_ms = exchange->request.timeout_ms,
                               .arrived_ns = clock_now_ns(),
                               .prompt_tokens = prompt->count,
                               .sampling = *sampling};
    order.sampling.seed = door_sampling_choice_seed(sampling->seed, index % exchange->request.n);
    TRY(open_choice(exchange, index, sampling, error));
    if (exchange->request.echo)
        TRY(open_echo(choice, prompt, error));
    TRY(copy_ids(&order.prompt, prompt->ids, prompt->count, error));
    enum status status = order_choice(exchange, choice, &order, error);
    if (status != OK)
        free(order.prompt);
    return status;
}

// All choices of one prompt, which is read once.
static enum status submit_prompt(struct http_exchange *exchange, int32_t index,
                                 struct coord_sampling *sampling, struct openai_error *error)
{
    const struct openai_request *request = &exchange->request;
    struct prompt prompt = {.ids = NULL};
    sampling->seed = request->has_seed ? request->seed : door_sampling_seed(&exchange->door->seeds);
    TRY(prompt_ids(exchange, index, &prompt.ids, &prompt.count, error));
    enum status status = OK;
    for (int32_t i = 0; i < request->n && status == OK; i++)
        status = submit_one(exchange, index * request->n + i, &prompt, sampling, error);
    free(prompt.ids);
    return status;
}

static enum status check_state(const struct http_exchange *exchange, struct openai_error *error)
{
    const struct door_http *door = exchange->door;
    const char *model = exchange->request.model;
    if (door->draining || door->ended || door->context == 0) {
        error->http_code = 503;
        return error_set(&error->error, E_OVERLOADED,
                         door->draining ? "the server drains and takes no new requests"
                         : door->ended  ? "the server ends"
                                        : "the model is still being loaded");
    }
    if (model == NULL || model[0] == '\0' || strcmp(model, door->options.model_name) == 0)
        return OK;
    return openai_error_of(error, "model",
                           error_set(&error->error, E_NOT_FOUND,
                                     "the model '%.100s' is not served here; '%.200s' is", model,
                                     door->options.model_name));
}

enum status door_http_submit(struct http_exchange *exchange, enum openai_kind kind,
                             struct openai_error *error)
{
    struct coord_sampling sampling;
    TRY(openai_request_parse(&exchange->request, kind, exchange->body.bytes, exchange->body.count,
                             error));
    exchange->has_request = true;
    TRY(check_state(exchange, error));
    TRY(fill_sampling(exchange, &sampling, error));
    TRY(fill_lists(exchange, &sampling, error));
    int32_t count = exchange->request.prompts_count * exchange->request.n;
    exchange->choices = calloc((size_t)count, sizeof *exchange->choices);
    if (exchange->choices == NULL)
        return error_set(&error->error, E_SYSTEM, "no memory for %d answers", count);
    exchange->choices_count = count;
    snprintf(exchange->answer_id, sizeof exchange->answer_id, "%s-%s",
             kind == OPENAI_CHAT ? "chatcmpl" : "cmpl", exchange->own_id);
    exchange->head = (struct openai_head){.kind = kind,
                                          .id = exchange->answer_id,
                                          .model = exchange->door->options.model_name,
                                          .created_s = (int64_t)time(NULL)};
    for (int32_t i = 0; i < exchange->request.prompts_count; i++)
        TRY(submit_prompt(exchange, i, &sampling, error));
    return OK;
}
