// SPDX-License-Identifier: Apache-2.0
// door_http_routes.c -- the table of paths, and the answers that need no prompt to run.
#include <ctype.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "coordinator/door_http_state.h"
#include "coordinator/openai_json.h"
#include "parallel/base/log.h"
#include "parallel/base/version.h"

enum { DETOKENIZE_IDS_AT_ONCE = 1024 }; // a stream's buffer holds their text

static const char application_json[] = "application/json";

// ---- answers ----

void door_http_routes_name(struct http_exchange *exchange)
{
    const char *given =
        MHD_lookup_connection_value(exchange->handle, MHD_HEADER_KIND, "X-Request-Id");
    uint64_t words[2] = {0, 0};
    (void)!getrandom(words, sizeof words, GRND_NONBLOCK);
    snprintf(exchange->own_id, sizeof exchange->own_id, "%016llx%016llx",
             (unsigned long long)words[0], (unsigned long long)words[1]);
    size_t bytes = given == NULL ? 0 : strlen(given);
    bool fits = bytes > 0 && bytes <= HTTP_GIVEN_ID_BYTES_MAX;
    for (size_t i = 0; fits && i < bytes; i++)
        fits = isalnum((unsigned char)given[i]) || strchr("-_.:/", given[i]) != NULL;
    snprintf(exchange->id, sizeof exchange->id, "%s", fits ? given : exchange->own_id);
}

void door_http_routes_answer(struct http_exchange *exchange, int http_code,
                             const char *content_type)
{
    exchange->http_code = http_code;
    exchange->content_type = content_type;
    exchange->phase = HTTP_READY;
}

void door_http_routes_fail(struct http_exchange *exchange, const struct openai_error *error)
{
    int code = openai_error_http_code(error);
    exchange->answer.count = 0;
    if (openai_error_write(&exchange->answer, error, exchange->id) != OK)
        exchange->answer.count = 0; // no memory: the code has to say it all
    door_http_routes_answer(exchange, code, application_json);
    exchange->door->metrics.http_errors++;
    log_request(code >= 500 ? LOG_WARNING : LOG_DEBUG, exchange->id, "%d: %s", code,
                error->error.text);
}

// Ends a handler: what was written is the answer, unless it could not be.
static void finish(struct http_exchange *exchange, enum status status, struct openai_error *error)
{
    if (status == OK) {
        door_http_routes_answer(exchange, 200, application_json);
        return;
    }
    error->error.status = status;
    if (error->error.text[0] == '\0')
        (void)error_set(&error->error, status, "the answer could not be made");
    door_http_routes_fail(exchange, error);
}

// ---- tokens ----

static enum status put_ids(struct text_buffer *out, const int32_t *ids, int32_t count)
{
    char digits[16];
    for (int32_t i = 0; i < count; i++) {
        snprintf(digits, sizeof digits, i > 0 ? ",%d" : "%d", ids[i]);
        TRY(text_buffer_append_text(out, digits, NULL));
    }
    return OK;
}

static enum status ids_of_body(struct http_exchange *exchange, const json_t *root, int32_t **ids,
                               int32_t *count, struct openai_error *error)
{
    struct door_text *text = exchange->door->text;
    const json_t *prompt = json_object_get(root, "prompt");
    const json_t *messages = json_object_get(root, "messages");
    if (json_is_string(prompt)) {
        return openai_error_of(error, "prompt",
                               door_text_encode(text, json_string_value(prompt),
                                                json_string_length(prompt), ids, count,
                                                &error->error));
    }
    if (!json_is_array(messages)) {
        return openai_error_of(
            error, "prompt",
            error_set(&error->error, E_INPUT,
                      "accepted is \"prompt\", a string, or \"messages\", an array"));
    }
    struct chat_format_options options = chat_format_defaults();
    const json_t *kwargs = json_object_get(root, "chat_template_kwargs");
    const json_t *thinking = json_object_get(kwargs, "enable_thinking");
    const json_t *preserve = json_object_get(kwargs, "preserve_thinking");
    const json_t *generation = json_object_get(root, "add_generation_prompt");
    if (thinking != NULL)
        TRY(openai_json_bool(&options.enable_thinking, thinking,
                             "chat_template_kwargs.enable_thinking", error));
    if (preserve != NULL)
        TRY(openai_json_bool(&options.preserve_thinking, preserve,
                             "chat_template_kwargs.preserve_thinking", error));
    if (generation != NULL)
        TRY(openai_json_bool(&options.add_generation_prompt, generation, "add_generation_prompt",
                             error));
    options.tools = json_object_get(root, "tools");
    return openai_error_of(error, "messages",
                           door_text_chat(text, messages, &options, ids, count, &error->error));
}

static void tokenize(struct http_exchange *exchange)
{
    struct openai_error error = {.error = {.status = OK}};
    json_t *root = NULL;
    int32_t *ids = NULL, count = 0;
    char head[96];
    enum status status =
        openai_json_parse(&root, exchange->body.bytes, exchange->body.count, &error);
    if (status == OK)
        status = ids_of_body(exchange, root, &ids, &count, &error);
    snprintf(head, sizeof head, "{\"count\":%d,\"max_model_len\":%d,\"tokens\":[", count,
             exchange->door->context);
    if (status == OK)
        status = text_buffer_append_text(&exchange->answer, head, NULL);
    if (status == OK)
        status = put_ids(&exchange->answer, ids, count);
    if (status == OK)
        status = text_buffer_append_text(&exchange->answer, "],\"token_strs\":null}", NULL);
    free(ids);
    json_decref(root);
    finish(exchange, status, &error);
}

static enum status text_of_ids(struct http_exchange *exchange, const int32_t *ids, int32_t count,
                               struct text_buffer *out, struct openai_error *error)
{
    struct door_stream *stream = door_stream_open(exchange->door->text, false);
    enum status status = OK;
    if (stream == NULL) {
        return error_set(&error->error, E_UNSUPPORTED,
                         "there is no text: this model directory has no tokenizer");
    }
    for (int32_t at = 0; at < count && status == OK; at += DETOKENIZE_IDS_AT_ONCE) {
        int32_t rest = count - at;
        size_t bytes;
        const char *text = door_stream_feed(
            stream, ids + at, rest < DETOKENIZE_IDS_AT_ONCE ? rest : DETOKENIZE_IDS_AT_ONCE,
            rest <= DETOKENIZE_IDS_AT_ONCE, &bytes);
        status = text_buffer_append(out, text, bytes, &error->error);
    }
    door_stream_close(stream);
    return status;
}

static void detokenize(struct http_exchange *exchange)
{
    struct openai_error error = {.error = {.status = OK}};
    struct text_buffer text;
    json_t *root = NULL;
    int32_t *ids = NULL, count = 0;
    text_buffer_init(&text, HTTP_ANSWER_BYTES_MAX);
    enum status status =
        openai_json_parse(&root, exchange->body.bytes, exchange->body.count, &error);
    const json_t *tokens = json_object_get(root, "tokens");
    if (status == OK && !json_is_array(tokens)) {
        status = error_set(&error.error, E_INPUT, "tokens: accepted is an array of token ids");
        (void)openai_error_of(&error, "tokens", status);
    }
    if (status == OK) {
        status = openai_json_ids(&ids, &count, tokens, "tokens", exchange->door->options.vocab_real,
                                 &error);
    }
    if (status == OK)
        status = text_of_ids(exchange, ids, count, &text, &error);
    if (status == OK)
        status = text_buffer_append_text(&exchange->answer, "{\"prompt\":", NULL);
    if (status == OK)
        status = openai_json_string(&exchange->answer, text.bytes, text.count);
    if (status == OK)
        status = text_buffer_append_text(&exchange->answer, "}", NULL);
    text_buffer_fini(&text);
    free(ids);
    json_decref(root);
    finish(exchange, status, &error);
}

// ---- the server ----

static void models(struct http_exchange *exchange)
{
    struct openai_error error = {.error = {.status = OK}};
    const struct door_http *door = exchange->door;
    finish(exchange,
           openai_reply_models(&exchange->answer, door->options.model_name, door->started_s,
                               door->context),
           &error);
}

static void version(struct http_exchange *exchange)
{
    struct openai_error error = {.error = {.status = OK}};
    enum status status = text_buffer_append_text(&exchange->answer, "{\"version\":", NULL);
    if (status == OK)
        status = openai_json_string(&exchange->answer, version_build(), strlen(version_build()));
    if (status == OK)
        status = text_buffer_append_text(&exchange->answer, "}", NULL);
    finish(exchange, status, &error);
}

static void live(struct http_exchange *exchange)
{
    struct openai_error error = {.error = {.status = OK}};
    finish(exchange, text_buffer_append_text(&exchange->answer, "{\"status\":\"live\"}", NULL),
           &error);
}

// Waits for the core's word, so that a core that hangs is no healthy server.
static void ask_status(struct http_exchange *exchange)
{
    struct door_http *door = exchange->door;
    struct link_order order = {.type = ORDER_STATUS};
    exchange->asks_status = true;
    exchange->phase = HTTP_WAITING;
    if (!door->status_asked && link_order(door->options.link, &order)) {
        link_wake_core(door->options.link);
        door->status_asked = true;
    }
}

static void answer_metrics(struct http_exchange *exchange, const struct overview *overview)
{
    struct openai_error error = {.error = {.status = OK}};
    struct door_http *door = exchange->door;
    finish(
        exchange,
        door_metrics_write(&exchange->answer, &door->metrics, overview, door->options.model_name),
        &error);
    exchange->content_type = "text/plain; version=0.0.4; charset=utf-8";
}

static void answer_ready(struct http_exchange *exchange, const struct coord_status *status)
{
    char text[160];
    struct openai_error error = {.error = {.status = OK}};
    bool draining = status->draining || exchange->door->draining;
    bool ready = status->groups_ready > 0 && !draining && !status->failed;
    snprintf(text, sizeof text,
             "{\"status\":\"%s\",\"groups_ready\":%d,\"groups\":%d,\"running\":%d,\"queued\":%d}",
             status->failed ? "failed"
             : draining     ? "draining"
             : ready        ? "ready"
                            : "starting",
             status->groups_ready, status->groups, status->running, status->queued);
    finish(exchange, text_buffer_append_text(&exchange->answer, text, NULL), &error);
    if (!ready)
        exchange->http_code = 503;
}

void door_http_routes_status(struct door_http *door, const struct overview *overview)
{
    for (struct http_exchange *exchange = door->exchanges; exchange != NULL;
         exchange = exchange->next) {
        struct openai_error error = {.http_code = 503};
        if (!exchange->asks_status || exchange->phase != HTTP_WAITING)
            continue;
        exchange->asks_status = false;
        if (overview == NULL) {
            (void)error_set(&error.error, E_TIMEOUT, "the core did not answer within %d ms",
                            HTTP_STATUS_MS);
            door_http_routes_fail(exchange, &error);
        } else if (strcmp(exchange->route->path, "/metrics") == 0) {
            answer_metrics(exchange, overview);
        } else {
            answer_ready(exchange, &overview->status);
        }
        door_http_wake(exchange);
    }
    door->status_asked = false;
}

// ---- paths ----

static const struct http_route routes[] = {
    {"/v1/completions", true, false, door_http_generate_completion},
    {"/v1/chat/completions", true, false, door_http_generate_chat},
    {"/v1/models", false, false, models},
    {"/tokenize", true, false, tokenize},
    {"/detokenize", true, false, detokenize},
    {"/health", false, true, ask_status},
    {"/health/ready", false, true, ask_status},
    {"/health/live", false, true, live},
    {"/metrics", false, true, ask_status},
    {"/version", false, true, version},
};

enum status door_http_routes_find(struct http_exchange *exchange, const char *method,
                                  const char *path, struct openai_error *error)
{
    bool is_get = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
    bool is_post = strcmp(method, "POST") == 0;
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        if (strcmp(routes[i].path, path) != 0)
            continue;
        if (routes[i].is_post ? is_post : is_get) {
            exchange->route = &routes[i];
            return OK;
        }
        exchange->allow = routes[i].is_post ? "POST" : "GET, HEAD";
        error->http_code = 405;
        return error_set(&error->error, E_UNSUPPORTED, "%s is answered to %s only", path,
                         exchange->allow);
    }
    return error_set(&error->error, E_NOT_FOUND, "there is no '%.200s' here", path);
}
