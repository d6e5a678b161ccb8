// SPDX-License-Identifier: Apache-2.0
// door_http_generate.c -- the core's news to choices: text, stop strings, thoughts, events. Prompts
// go to the core in door_http_submit.c.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/door_http_state.h"
#include "parallel/base/clock.h"
#include "parallel/base/log.h"

enum { NUMBER_INDEX_BITS = 24, NUMBER_LINK_SHIFT = 56 };
enum { SENT_BYTES_KEPT = 64 << 10 }; // of a stream, before the rest is moved to the front

// ---- numbers ----

bool door_http_take_number(struct door_http *door, struct http_choice *choice)
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

void door_http_give_back_number(struct door_http *door, struct http_choice *choice)
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
    // The core empties it every 50 ms, until it ends.
    while (!door->ended && !link_finish(door->options.link, choice->number, reason)) {
        link_wake_core(door->options.link);
        clock_sleep_ns(CLOCK_NS_PER_MS);
    }
    link_wake_core(door->options.link);
}

// Nobody waits for this exchange's text any more.
static void stop_work(struct http_exchange *exchange)
{
    for (int32_t i = 0; exchange->choices != NULL && i < exchange->choices_count; i++) {
        struct http_choice *choice = &exchange->choices[i];
        if (choice->number == 0)
            continue;
        order_finish(exchange->door, choice, "abort");
        door_http_give_back_number(exchange->door, choice);
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
    openai_logprobs_fini(&choice->logprobs);
    free(choice->ids);
}

void door_http_generate_end(struct http_exchange *exchange)
{
    stop_work(exchange);
    for (int32_t i = 0; exchange->choices != NULL && i < exchange->choices_count; i++)
        close_choice(&exchange->choices[i]);
    free(exchange->choices);
    exchange->choices = NULL;
    free(exchange->lists);
    exchange->lists = NULL;
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

static void generate(struct http_exchange *exchange, enum openai_kind kind)
{
    struct openai_error error = {.error = {.status = OK}};
    enum status status = door_http_submit(exchange, kind, &error);
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
        piece->logprobs == NULL && piece->ids == NULL && piece->finish_reason == NULL && !ids_only)
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
        .logprobs = choice->logprobs.any ? &choice->logprobs : NULL,
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

// Of the prompt's next tokens, before anything is drawn. Its first token has none.
static enum status take_prompt_logprobs(struct http_choice *choice, const struct link_news *news)
{
    if (!choice->tells_prompt)
        return OK;
    if (!choice->prompt_told)
        TRY(openai_logprobs_add_first(&choice->logprobs, choice->prompt_first));
    choice->prompt_told = true;
    for (int32_t i = 0; i < news->prompt_logprobs_count; i++)
        TRY(openai_logprobs_add(&choice->logprobs, &news->logprobs[1 + i], true));
    return OK;
}

// Of the drawn token `index` of the news; one whose text is not told takes no room in the text.
static enum status take_logprob(struct http_choice *choice, const struct link_news *news,
                                int32_t index)
{
    if (news->logprobs_count == 0)
        return OK;
    const struct step_logprob *entry = &news->logprobs[1 + news->prompt_logprobs_count + index];
    return openai_logprobs_add(&choice->logprobs, entry, !is_stop_id(choice, entry->id));
}

static enum status take_tokens(struct http_choice *choice, const struct link_news *news)
{
    struct http_exchange *exchange = choice->exchange;
    int32_t count = 0;
    begin_event(exchange->door);
    if (exchange->request.stream)
        openai_logprobs_clear(&choice->logprobs);
    TRY(take_prompt_logprobs(choice, news));
    while (count < news->tokens_count && !choice->text.is_stopped &&
           !exchange->request.scores_only) {
        size_t bytes = 0;
        TRY(take_logprob(choice, news, count));
        int32_t id = news->tokens[count++];
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
    for (int32_t i = 0; i < exchange->choices_count; i++) {
        const struct openai_usage *one = &exchange->choices[i].usage;
        bool is_first = i % exchange->request.n == 0; // the others share its prompt
        usage.prompt_tokens += is_first ? one->prompt_tokens : 0;
        usage.cached_tokens += is_first ? one->cached_tokens : 0;
        usage.completion_tokens += one->completion_tokens;
        usage.target_steps += one->target_steps;
        usage.drafted += one->drafted;
        usage.accepted += one->accepted;
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
    for (int32_t i = 0; i < exchange->choices_count; i++) {
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
    if (stream)
        openai_logprobs_clear(&choice->logprobs);
    TRY(flush_text(choice));
    choice->finish_reason =
        openai_tools_reason(&choice->text.tools, choice->text.is_stopped ? "stop" : news->reason);
    choice->usage.cached_tokens = news->usage.cached_tokens;
    choice->usage.target_steps = news->usage.target_steps;
    choice->usage.drafted = news->usage.drafted;
    choice->usage.accepted = news->usage.accepted;
    if (stream) {
        struct openai_piece piece = piece_of(choice);
        TRY(put_event(choice, &piece));
    }
    if (++exchange->done_count < exchange->choices_count)
        return OK;
    return stream ? end_stream(exchange) : end_whole(exchange);
}

static void on_done(struct http_choice *choice, const struct link_news *news)
{
    struct http_exchange *exchange = choice->exchange;
    // Its last bytes may hold a stop string: an order for a request that has ended does nothing.
    enum status status = end_choice(choice, news);
    door_http_give_back_number(exchange->door, choice);
    if (status != OK)
        cut_off_slow(exchange);
    else if (exchange->phase != HTTP_WAITING)
        door_http_wake(exchange);
}

// The prompt's text, which opens a stream that echoes it.
static enum status tell_echo(const struct http_choice *choice)
{
    const struct openai_piece piece = {.index = choice->index,
                                       .content = text_of(&choice->content)};
    return openai_reply_chunk(&choice->exchange->answer, &choice->exchange->head, &piece);
}

// Events begin once the core has taken every prompt: until then a refusal has an HTTP code.
static void on_accepted(struct http_choice *choice)
{
    struct http_exchange *exchange = choice->exchange;
    exchange->accepted_count++;
    if (!exchange->request.stream || exchange->accepted_count < exchange->choices_count)
        return;
    enum status status = OK;
    text_buffer_fini(&exchange->answer);
    text_buffer_init(&exchange->answer, HTTP_STREAM_BYTES_MAX);
    for (int32_t i = 0; i < exchange->choices_count && status == OK; i++) {
        if (exchange->head.kind == OPENAI_CHAT)
            status = openai_reply_role(&exchange->answer, &exchange->head, i);
        else if (exchange->request.echo)
            status = tell_echo(&exchange->choices[i]);
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
    door_http_give_back_number(exchange->door, choice);
    fail(exchange, &error);
}

void door_http_generate_ended(struct door_http *door)
{
    struct openai_error error = {.error = {.status = E_FAILED, .text = LINK_ENDED_TEXT}};
    for (struct http_exchange *exchange = door->exchanges; exchange != NULL;
         exchange = exchange->next) {
        if (exchange->choices != NULL &&
            (exchange->phase == HTTP_WAITING || exchange->phase == HTTP_STREAMING))
            fail(exchange, &error);
    }
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
    if (news->type == NEWS_TOKENS)
        free(news->logprobs);
}
