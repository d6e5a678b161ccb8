// SPDX-License-Identifier: Apache-2.0
// door_http_generate.c -- prompts to the core, its news to choices: text, stop strings, thoughts,
// events.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "coordinator/door_http_state.h"
#include "coordinator/openai_json.h"
#include "parallel/base/clock.h"
#include "parallel/base/log.h"

enum { NUMBER_INDEX_BITS = 24, NUMBER_LINK_SHIFT = 56 };
enum { SENT_BYTES_KEPT = 64 << 10 }; // of a stream, before the rest is moved to the front

// ---- numbers ----

static bool take_number(struct door_http *door, struct http_choice *choice)
{
    if (door->numbers_free_count == 0)
        return false;
    int32_t index = door->numbers_free[--door->numbers_free_count];
    struct http_number *number = &door->numbers[index];
    number->generation++;
    number->choice = choice;
    choice->number = (uint64_t)door->options.link_index << NUMBER_LINK_SHIFT |
                     (uint64_t)number->generation << NUMBER_INDEX_BITS | (uint64_t)index;
    return true;
}

static void give_back_number(struct door_http *door, struct http_choice *choice)
{
    uint64_t index = choice->number & ((1u << NUMBER_INDEX_BITS) - 1);
    door->numbers[index].choice = NULL;
    door->numbers_free[door->numbers_free_count++] = (int32_t)index;
    choice->number = 0;
}

static struct http_choice *choice_of(const struct door_http *door, uint64_t number)
{
    uint64_t index = number & ((1u << NUMBER_INDEX_BITS) - 1);
    if (index >= (uint64_t)door->options.requests_max)
        return NULL;
    struct http_choice *choice = door->numbers[index].choice;
    return choice != NULL && choice->number == number ? choice : NULL;
}

// ---- ends ----

static void order_finish(struct door_http *door, const struct http_choice *choice,
                         const char *reason)
{
    struct link_order order = {.type = ORDER_FINISH, .request = choice->number, .reason = reason};
    while (!link_order(door->options.link, &order)) { // the core empties its ring every 50 ms
        link_wake_core(door->options.link);
        clock_sleep_ns(CLOCK_NS_PER_MS);
    }
    link_wake_core(door->options.link);
}

// Nobody waits for this exchange's text any more.
static void stop_work(struct http_exchange *exchange)
{
    for (int32_t i = 0; exchange->choices != NULL && i < exchange->request.prompts_count; i++) {
        struct http_choice *choice = &exchange->choices[i];
        if (choice->number == 0)
            continue;
        order_finish(exchange->door, choice, "abort");
        give_back_number(exchange->door, choice);
    }
}

void door_http_generate_cut_off(struct http_exchange *exchange, const char *why)
{
    if (exchange->phase == HTTP_GONE)
        return;
    log_request(LOG_INFO, exchange->id, "%s; its work stops", why);
    stop_work(exchange);
    exchange->phase = HTTP_GONE;
    door_http_wake(exchange);
}

static void close_choice(struct http_choice *choice)
{
    door_stream_close(choice->stream);
    answer_text_fini(&choice->text);
    text_buffer_fini(&choice->content);
    text_buffer_fini(&choice->reasoning);
    text_buffer_fini(&choice->calls);
    free(choice->ids);
}

void door_http_generate_end(struct http_exchange *exchange)
{
    stop_work(exchange);
    for (int32_t i = 0; exchange->choices != NULL && i < exchange->request.prompts_count; i++)
        close_choice(&exchange->choices[i]);
    free(exchange->choices);
    exchange->choices = NULL;
    if (exchange->has_request)
        openai_request_fini(&exchange->request);
    exchange->has_request = false;
}

// The whole exchange fails: by its HTTP code, or by an event once events have begun.
static void fail(struct http_exchange *exchange, const struct openai_error *error)
{
    stop_work(exchange);
    if (exchange->phase != HTTP_STREAMING) {
        door_http_routes_fail(exchange, error);
    } else {
        enum status status = openai_reply_failure(&exchange->answer, error, exchange->id);
        if (status == OK)
            status = openai_reply_done(&exchange->answer);
        exchange->phase = status == OK ? HTTP_ENDED : HTTP_GONE;
        log_request(LOG_WARNING, exchange->id, "%s", error->error.text);
    }
    door_http_wake(exchange);
}

// ---- requests ----

static enum status prompt_ids(struct http_exchange *exchange, int32_t index, int32_t **ids,
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

static enum status fill_sampling(struct http_exchange *exchange, struct coord_sampling *sampling,
                                 struct openai_error *error)
{
    struct door_http *door = exchange->door;
    const struct openai_request *request = &exchange->request;
    *sampling = door->options.sampling_default;
    sampling->max_tokens = request->max_tokens;
    if (request->temperature >= 0)
        sampling->temperature = (float)request->temperature;
    if (request->top_k >= 0)
        sampling->top_k = request->top_k;
    if (request->top_p >= 0)
        sampling->top_p = (float)request->top_p;
    if (request->min_p >= 0)
        sampling->min_p = (float)request->min_p;
    if (request->repetition_penalty >= 0)
        sampling->repetition = (float)request->repetition_penalty;
    sampling->frequency = (float)request->frequency_penalty;
    sampling->presence = (float)request->presence_penalty;
    sampling->min_tokens = request->min_tokens;
    for (int32_t i = 0; i < request->stop_ids_count; i++) {
        if (request->stop_ids[i] >= door->options.vocab_real) {
            return openai_error_of(error, "stop_token_ids",
                                   error_set(&error->error, E_INPUT,
                                             "stop_token_ids[%d] is %d, the model has %d token ids",
                                             i, request->stop_ids[i], door->options.vocab_real));
        }
    }
    if (door_sampling_stops(sampling, request->stop_ids, request->stop_ids_count,
                            request->ignore_eos, &door->options.config,
                            door->options.tokenizer) == OK)
        return OK;
    return openai_error_of(error, "stop_token_ids",
                           error_set(&error->error, E_LIMIT,
                                     "stop_token_ids: more than %d with the model's own",
                                     STEP_STOP_IDS_MAX));
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
                                                .id = exchange->id,
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
    return openai_error_of(error, "stop", answer_text_init(&choice->text, &options, &error->error));
}

// Gives one prompt to the core.
static enum status submit_one(struct http_exchange *exchange, int32_t index,
                              const struct coord_sampling *sampling, struct openai_error *error)
{
    struct door_http *door = exchange->door;
    struct link_order order = {.type = ORDER_SUBMIT,
                               .arrived_ns = clock_now_ns(),
                               .priority = exchange->request.priority,
                               .timeout_ms = exchange->request.timeout_ms,
                               .sampling = *sampling};
    struct http_choice *choice = &exchange->choices[index];
    TRY(open_choice(exchange, index, sampling, error));
    TRY(prompt_ids(exchange, index, &order.prompt, &order.prompt_tokens, error));
    order.sampling.seed =
        exchange->request.has_seed ? exchange->request.seed : door_sampling_seed(&door->seeds);
    if (take_number(door, choice)) {
        order.request = choice->number;
        choice->usage.prompt_tokens = order.prompt_tokens;
        if (link_order(door->options.link, &order)) {
            link_wake_core(door->options.link);
            return OK;
        }
        give_back_number(door, choice);
    }
    free(order.prompt);
    return error_set(
        &error->error, E_OVERLOADED, "%d prompts are unfinished already, the limit is %d",
        door->options.requests_max - door->numbers_free_count, door->options.requests_max);
}

static enum status check_state(const struct http_exchange *exchange, struct openai_error *error)
{
    const struct door_http *door = exchange->door;
    const char *model = exchange->request.model;
    if (door->draining || door->context == 0) {
        error->http_code = 503;
        return error_set(&error->error, E_OVERLOADED,
                         door->draining ? "the server drains and takes no new requests"
                                        : "the model is still being loaded");
    }
    if (model == NULL || model[0] == '\0' || strcmp(model, door->options.model_name) == 0)
        return OK;
    return openai_error_of(error, "model",
                           error_set(&error->error, E_NOT_FOUND,
                                     "the model '%.100s' is not served here; '%.200s' is", model,
                                     door->options.model_name));
}

static enum status submit(struct http_exchange *exchange, enum openai_kind kind,
                          struct openai_error *error)
{
    struct coord_sampling sampling;
    TRY(openai_request_parse(&exchange->request, kind, exchange->body.bytes, exchange->body.count,
                             error));
    exchange->has_request = true;
    TRY(check_state(exchange, error));
    TRY(fill_sampling(exchange, &sampling, error));
    int32_t count = exchange->request.prompts_count;
    exchange->choices = calloc((size_t)count, sizeof *exchange->choices);
    if (exchange->choices == NULL)
        return error_set(&error->error, E_SYSTEM, "no memory for %d prompts", count);
    snprintf(exchange->answer_id, sizeof exchange->answer_id, "%s-%s",
             kind == OPENAI_CHAT ? "chatcmpl" : "cmpl", exchange->id);
    exchange->head = (struct openai_head){.kind = kind,
                                          .id = exchange->answer_id,
                                          .model = exchange->door->options.model_name,
                                          .created_s = (int64_t)time(NULL)};
    for (int32_t i = 0; i < count; i++)
        TRY(submit_one(exchange, i, &sampling, error));
    return OK;
}

static void generate(struct http_exchange *exchange, enum openai_kind kind)
{
    struct openai_error error = {.error = {.status = OK}};
    enum status status = submit(exchange, kind, &error);
    if (status == OK) {
        exchange->phase = HTTP_WAITING;
        return;
    }
    error.error.status = status;
    fail(exchange, &error);
}

void door_http_generate_completion(struct http_exchange *exchange)
{
    generate(exchange, OPENAI_COMPLETION);
}

void door_http_generate_chat(struct http_exchange *exchange)
{
    generate(exchange, OPENAI_CHAT);
}

// ---- events ----

// What the buffers hold is told as one event, unless it says nothing.
static enum status put_event(struct http_choice *choice, const struct openai_piece *piece)
{
    struct http_exchange *exchange = choice->exchange;
    bool ids_only = choice->stream == NULL; // then an event is all there is to see of a step
    if (piece->content.count == 0 && piece->reasoning.count == 0 && piece->calls.count == 0 &&
        piece->ids == NULL && piece->finish_reason == NULL && !ids_only)
        return OK;
    if (exchange->answer_sent >= SENT_BYTES_KEPT) {
        exchange->answer.count -= exchange->answer_sent;
        memmove(exchange->answer.bytes, exchange->answer.bytes + exchange->answer_sent,
                exchange->answer.count);
        exchange->answer_sent = 0;
    }
    return openai_reply_chunk(&exchange->answer, &exchange->head, piece);
}

static void cut_off_slow(struct http_exchange *exchange)
{
    exchange->door->metrics.clients_slow++;
    door_http_generate_cut_off(exchange, "its client does not read its answer");
}

// Where a choice's text goes: the door's buffers, of one event, or the choice's own, of a whole
// answer.
static struct answer_parts parts_of(struct http_choice *choice)
{
    struct door_http *door = choice->exchange->door;
    if (choice->exchange->request.stream) {
        return (struct answer_parts){
            .reasoning = &door->reasoning, .content = &door->content, .calls = &door->calls};
    }
    return (struct answer_parts){
        .reasoning = &choice->reasoning, .content = &choice->content, .calls = &choice->calls};
}

static void begin_event(struct door_http *door)
{
    door->content.count = door->reasoning.count = door->calls.count = 0;
}

static struct openai_text text_of(const struct text_buffer *buffer)
{
    return (struct openai_text){.bytes = buffer->bytes, .count = buffer->count};
}

static struct openai_piece piece_of(struct http_choice *choice)
{
    struct answer_parts parts = parts_of(choice);
    return (struct openai_piece){
        .index = choice->index,
        .content = text_of(parts.content),
        .reasoning = text_of(parts.reasoning),
        .calls = text_of(parts.calls),
        .finish_reason = choice->finish_reason,
        .stop = choice->text.stop,
        .usage = choice->exchange->request.continuous_usage ? &choice->usage : NULL};
}

static enum status feed_text(struct http_choice *choice, const char *bytes, size_t count)
{
    struct answer_parts parts = parts_of(choice);
    bool stops_apply = choice->usage.completion_tokens >= choice->exchange->request.min_tokens;
    TRY(answer_text_feed(&choice->text, &parts, bytes, count, stops_apply));
    if (choice->text.is_stopped)
        order_finish(choice->exchange->door, choice, "stop");
    return OK;
}

// What the filters hold back once nothing follows.
static enum status flush_text(struct http_choice *choice)
{
    struct answer_parts parts = parts_of(choice);
    size_t count = 0;
    if (!choice->text.is_stopped && choice->stream != NULL) {
        const char *tail = door_stream_feed(choice->stream, NULL, 0, true, &count);
        TRY(feed_text(choice, tail, count));
    }
    return answer_text_finish(&choice->text, &parts);
}

static bool is_stop_id(const struct http_choice *choice, int32_t id)
{
    for (int32_t i = 0; i < choice->stop_ids_count; i++) {
        if (choice->stop_ids[i] == id)
            return true;
    }
    return false;
}

static enum status keep_id(struct http_choice *choice, int32_t id)
{
    if (!choice->exchange->request.return_token_ids || choice->exchange->request.stream)
        return OK;
    int32_t *ids = text_buffer_grow_items(choice->ids, &choice->ids_capacity, choice->ids_count + 1,
                                          sizeof *ids);
    if (ids == NULL)
        return E_SYSTEM;
    choice->ids = ids;
    choice->ids[choice->ids_count++] = id;
    return OK;
}

static enum status take_tokens(struct http_choice *choice, const struct link_news *news)
{
    struct http_exchange *exchange = choice->exchange;
    int32_t count = 0;
    begin_event(exchange->door);
    while (count < news->tokens_count && !choice->text.is_stopped) {
        int32_t id = news->tokens[count++];
        size_t bytes = 0;
        choice->usage.completion_tokens++;
        TRY(keep_id(choice, id));
        if (choice->stream == NULL || is_stop_id(choice, id))
            continue;
        const char *text = door_stream_feed(choice->stream, &id, 1, false, &bytes);
        TRY(feed_text(choice, text, bytes));
    }
    if (!exchange->request.stream)
        return OK;
    struct openai_piece piece = piece_of(choice);
    piece.finish_reason = NULL; // its event comes when the core is done with it
    if (exchange->request.return_token_ids) {
        piece.ids = news->tokens;
        piece.ids_count = count;
    }
    return put_event(choice, &piece);
}

static void on_tokens(struct http_choice *choice, const struct link_news *news)
{
    struct http_exchange *exchange = choice->exchange;
    if (choice->text.is_stopped)
        return;
    enum status status = take_tokens(choice, news);
    if (status == E_LIMIT)
        cut_off_slow(exchange);
    else if (status != OK)
        door_http_generate_cut_off(exchange, "there is no memory for its answer");
    else if (exchange->request.stream)
        door_http_wake(exchange);
}

// ---- ends of choices ----

static struct openai_usage usage_of(const struct http_exchange *exchange)
{
    struct openai_usage usage = {.prompt_tokens = 0};
    for (int32_t i = 0; i < exchange->request.prompts_count; i++) {
        const struct openai_usage *one = &exchange->choices[i].usage;
        usage.prompt_tokens += one->prompt_tokens;
        usage.completion_tokens += one->completion_tokens;
        usage.cached_tokens += one->cached_tokens;
    }
    return usage;
}

static enum status end_stream(struct http_exchange *exchange)
{
    struct openai_usage usage = usage_of(exchange);
    if (exchange->request.include_usage)
        TRY(openai_reply_usage(&exchange->answer, &exchange->head, &usage));
    exchange->phase = HTTP_ENDED;
    return openai_reply_done(&exchange->answer);
}

static enum status end_whole(struct http_exchange *exchange)
{
    struct openai_usage usage = usage_of(exchange);
    TRY(openai_reply_begin(&exchange->answer, &exchange->head));
    for (int32_t i = 0; i < exchange->request.prompts_count; i++) {
        struct http_choice *choice = &exchange->choices[i];
        struct openai_piece piece = piece_of(choice);
        if (exchange->request.return_token_ids) {
            static const int32_t none[1];
            piece.ids = choice->ids != NULL ? choice->ids : none;
            piece.ids_count = (int32_t)choice->ids_count;
        }
        TRY(openai_reply_choice(&exchange->answer, &exchange->head, &piece));
    }
    TRY(openai_reply_end(&exchange->answer, &usage));
    door_http_routes_answer(exchange, 200, "application/json");
    return OK;
}

static enum status end_choice(struct http_choice *choice, const struct link_news *news)
{
    struct http_exchange *exchange = choice->exchange;
    bool stream = exchange->request.stream;
    begin_event(exchange->door);
    TRY(flush_text(choice));
    choice->finish_reason =
        openai_tools_reason(&choice->text.tools, choice->text.is_stopped ? "stop" : news->reason);
    choice->usage.cached_tokens = news->usage.cached_tokens;
    if (stream) {
        struct openai_piece piece = piece_of(choice);
        TRY(put_event(choice, &piece));
    }
    if (++exchange->done_count < exchange->request.prompts_count)
        return OK;
    return stream ? end_stream(exchange) : end_whole(exchange);
}

static void on_done(struct http_choice *choice, const struct link_news *news)
{
    struct http_exchange *exchange = choice->exchange;
    // Its last bytes may hold a stop string: an order for a request that has ended does nothing.
    enum status status = end_choice(choice, news);
    give_back_number(exchange->door, choice);
    if (status != OK)
        cut_off_slow(exchange);
    else if (exchange->phase != HTTP_WAITING)
        door_http_wake(exchange);
}

// Events begin once the core has taken every prompt: until then a refusal has an HTTP code.
static void on_accepted(struct http_choice *choice)
{
    struct http_exchange *exchange = choice->exchange;
    exchange->accepted_count++;
    if (!exchange->request.stream || exchange->accepted_count < exchange->request.prompts_count)
        return;
    enum status status = OK;
    text_buffer_fini(&exchange->answer);
    text_buffer_init(&exchange->answer, HTTP_STREAM_BYTES_MAX);
    for (int32_t i = 0; i < exchange->request.prompts_count && status == OK; i++) {
        if (exchange->head.kind == OPENAI_CHAT)
            status = openai_reply_role(&exchange->answer, &exchange->head, i);
    }
    exchange->http_code = 200;
    exchange->content_type = "text/event-stream; charset=utf-8";
    exchange->phase = HTTP_STREAMING;
    if (status != OK)
        cut_off_slow(exchange);
    door_http_wake(exchange);
}

static void on_error(struct http_choice *choice, const struct link_news *news)
{
    struct http_exchange *exchange = choice->exchange;
    struct openai_error error = {.error = {.status = news->status}};
    snprintf(error.error.text, sizeof error.error.text, "%s",
             news->text != NULL ? news->text : status_name(news->status));
    give_back_number(exchange->door, choice);
    fail(exchange, &error);
}

void door_http_generate_news(struct door_http *door, const struct link_news *news)
{
    struct http_choice *choice = choice_of(door, news->request);
    switch (choice != NULL ? news->type : NEWS_READY) {
    case NEWS_ACCEPTED: on_accepted(choice); break;
    case NEWS_TOKENS: on_tokens(choice, news); break;
    case NEWS_DONE: on_done(choice, news); break;
    case NEWS_ERROR: on_error(choice, news); break;
    default: break;
    }
    if (news->type == NEWS_ERROR)
        free(news->text);
}
