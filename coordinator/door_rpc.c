// SPDX-License-Identifier: Apache-2.0
// door_rpc.c -- clients' frames in, their replies out. A client is known by its connection; it is
// gone when a reply cannot be routed to it, and every client with unfinished work gets a ping a
// second, so this is noticed soon.
#include "coordinator/door_rpc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/door_order.h"
#include "coordinator/door_requests.h"
#include "coordinator/door_sampling.h"
#include "coordinator/door_status.h"
#include "coordinator/door_text.h"
#include "parallel/base/clock.h"
#include "parallel/base/log.h"
#include "parallel/base/thread.h"
#include "parallel/wire/socket.h"

#define MS_NS ((uint64_t)CLOCK_NS_PER_MS)

enum {
    POLL_MS = 100,
    REPLY_BYTES_MAX = REQUEST_FRAME_BYTES_MAX,
    // Unsent to one client; over it its work ends. 64 steps of 1,024 rows, 10 MB of tokens: with
    // thousands of streams one may look away for a second or two.
    CLIENT_FRAMES_MAX = 65536,
    STATUS_WAITERS_MAX = 64,
};

static const char cut_off_text[] =
    "its replies were not read: more than the server keeps were waiting";

// A client that asked for the status and waits for the core's answer.
struct status_waiter {
    struct socket_peer peer;
    char id[REQUEST_ID_BYTES_MAX + 1];
};

struct door_rpc {
    struct door_rpc_options options;
    struct socket *socket;
    struct door_text *text;
    struct door_requests requests;
    struct status_waiter waiters[STATUS_WAITERS_MAX];
    int waiters_first, waiters_count; // a ring
    uint8_t *frame;                   // [REPLY_BYTES_MAX]
    uint64_t pinged_ns;
    struct door_seeds seeds;
    bool ended;
    pthread_t thread;
};

// ---- replies ----

static enum status send_reply(struct door_rpc *door, const struct socket_peer *peer,
                              const struct reply *reply)
{
    size_t bytes;
    struct error error;
    enum status status = reply_encode(door->frame, REPLY_BYTES_MAX, &bytes, reply);
    if (status != OK) {
        log_request(LOG_ERROR, reply->id, "a reply does not fit %d bytes", REPLY_BYTES_MAX);
        return status;
    }
    return socket_send(door->socket, peer, door->frame, bytes, &error);
}

static void send_error(struct door_rpc *door, const struct socket_peer *peer, const char *id,
                       const struct error *error)
{
    struct reply reply = {.type = REPLY_ERROR, .error = status_name(error->status)};
    snprintf(reply.id, sizeof reply.id, "%s", id);
    reply.text = error->text;
    reply.text_bytes = strlen(error->text);
    log_request(error->status == E_SYSTEM ? LOG_WARNING : LOG_DEBUG, id, "%s: %s", reply.error,
                error->text);
    (void)!send_reply(door, peer, &reply); // who is gone needs no error
}

// ---- ends ----

// Ends a request's work: the core frees its slot and pages.
static void order_finish(struct door_rpc *door, uint64_t number, const char *reason)
{
    while (!door->ended && !link_finish(door->options.link, number, reason)) { // within 50 ms
        link_wake_core(door->options.link);
        clock_sleep_ns(MS_NS);
    }
    link_wake_core(door->options.link);
}

// Every answer of the request that goes on.
static void finish_all(struct door_rpc *door, const struct door_request *request)
{
    for (const struct door_request *one = request->first; one != NULL; one = one->next) {
        if (!one->ended)
            order_finish(door, one->number, "abort");
    }
}

static void stop_work(struct door_rpc *door, const struct door_request *request, const char *why)
{
    log_request(LOG_INFO, request->id, "%s; its work stops", why);
    finish_all(door, request);
}

static void reply_to(struct door_rpc *door, struct door_request *request, struct reply *reply)
{
    snprintf(reply->id, sizeof reply->id, "%s", request->id);
    enum status status = send_reply(door, &request->peer, reply);
    if (status == E_OVERLOADED) {
        stop_work(door, request, "its client does not read its replies");
        request->first->is_cut_off = true; // its end is told when there is room
    } else if (status != OK) {
        stop_work(door, request, "its client went away");
        door_requests_give_back(&door->requests, request);
    }
}

// The last reply to a request; it is kept for later when the client's queue is full.
static void reply_last(struct door_rpc *door, struct door_request *request, struct reply *reply)
{
    snprintf(reply->id, sizeof reply->id, "%s", request->id);
    if (send_reply(door, &request->peer, reply) == E_OVERLOADED)
        request->first->is_cut_off = true;
    else // who is gone needs no end
        door_requests_give_back(&door->requests, request);
}

static void reply_last_error(struct door_rpc *door, struct door_request *request,
                             enum status status, const char *text)
{
    struct reply reply = {.type = REPLY_ERROR,
                          .error = status_name(status),
                          .text = text,
                          .text_bytes = strlen(text)};
    reply_last(door, request, &reply);
}

// ---- requests ----

static enum status submit(struct door_rpc *door, const struct socket_peer *peer,
                          const struct generate_request *request, struct error *error)
{
    struct link_order order = {.prompt = NULL, .arrived_ns = clock_now_ns()};
    if (door_requests_by_id(&door->requests, peer, request->id) != NULL) {
        return error_set(error, E_INPUT, "id '%s' is taken by an unfinished request of this client",
                         request->id);
    }
    struct door_answer *answer;
    TRY(door_answer_open(&answer, door->text, request, error));
    const struct door_order_sources sources = {
        .rules = {&door->options.sampling_default, &door->options.config, door->options.tokenizer,
                  door->options.vocab_real},
        .text = door->text,
        .seeds = &door->seeds};
    enum status status = door_order_make(&order, request, &sources, error);
    if (status != OK) {
        door_answer_close(answer);
        return status;
    }
    struct door_request *entry = door_requests_take(&door->requests, peer, request->id);
    if (entry != NULL) {
        entry->prompt_tokens = order.prompt_tokens;
        entry->seed = order.sampling.seed;
        snprintf(entry->ignored, sizeof entry->ignored, "%s", request->unknown);
        entry->wants_prompt = request->prompt_logprobs > 0;
        entry->answer = answer;
        answer = NULL;
        if (door_order_give(&order, request, entry, &door->requests, door->options.link,
                            door->text)) {
            link_wake_core(door->options.link);
            return OK;
        }
        finish_all(door, entry); // those that the core has; its news of them finds nobody
        door_requests_give_back(&door->requests, entry);
    }
    free(order.prompt);
    free(order.lists);
    door_answer_close(answer);
    return error_set(error, E_OVERLOADED, "%d requests are unfinished already, the limit is %d",
                     door->requests.capacity - door->requests.free_count, door->requests.capacity);
}

static void on_generate(struct door_rpc *door, const struct socket_peer *peer, const void *frame,
                        size_t bytes)
{
    struct generate_request request;
    struct error error = {.status = OK};
    enum status status = generate_request_decode(&request, frame, bytes, &error);
    if (status == OK)
        status = submit(door, peer, &request, &error);
    if (status != OK) {
        error.status = status;
        send_error(door, peer, request.id, &error);
    }
}

static void on_abort(struct door_rpc *door, const struct socket_peer *peer, const char *id)
{
    struct door_request *request = door_requests_by_id(&door->requests, peer, id);
    struct error error;
    if (request == NULL) {
        (void)error_set(&error, E_NOT_FOUND, "no unfinished request of this client has id '%s'",
                        id);
        send_error(door, peer, id, &error);
        return;
    }
    finish_all(door, request); // its end comes as NEWS_DONE
}

static void on_status(struct door_rpc *door, const struct socket_peer *peer, const char *id)
{
    struct link_order order = {.type = ORDER_STATUS};
    struct error error;
    if (door->waiters_count == STATUS_WAITERS_MAX || !link_order(door->options.link, &order)) {
        (void)error_set(&error, E_OVERLOADED, "%d clients ask for the status already",
                        door->waiters_count);
        send_error(door, peer, id, &error);
        return;
    }
    int at = (door->waiters_first + door->waiters_count++) % STATUS_WAITERS_MAX;
    door->waiters[at].peer = *peer;
    snprintf(door->waiters[at].id, sizeof door->waiters[at].id, "%s", id);
    link_wake_core(door->options.link);
}

static void on_tokenize(struct door_rpc *door, const struct socket_peer *peer, const void *frame,
                        size_t bytes)
{
    struct tokenize_request request;
    struct error error = {.status = OK};
    char *json = NULL;
    enum status status = tokenize_request_decode(&request, frame, bytes, &error);
    if (status == OK)
        status = door_text_tokenize(door->text, &request, &json, &error);
    if (status != OK) {
        error.status = status;
        send_error(door, peer, request.id, &error);
        return;
    }
    struct reply reply = {.type = REPLY_TOKENS, .text = json, .text_bytes = strlen(json)};
    snprintf(reply.id, sizeof reply.id, "%s", request.id);
    (void)!send_reply(door, peer, &reply);
    free(json);
}

static void on_drain(struct door_rpc *door, const struct socket_peer *peer, const char *id)
{
    struct link_order order = {.type = ORDER_DRAIN};
    struct reply reply = {.type = REPLY_DRAINING};
    struct error error;
    snprintf(reply.id, sizeof reply.id, "%s", id);
    if (!link_order(door->options.link, &order)) {
        (void)error_set(&error, E_OVERLOADED, "the core has more orders than it can take");
        send_error(door, peer, id, &error);
        return;
    }
    link_wake_core(door->options.link);
    (void)!send_reply(door, peer, &reply);
}

static void on_plain(struct door_rpc *door, const struct socket_peer *peer, enum request_type type,
                     const void *frame, size_t bytes)
{
    struct plain_request request;
    struct error error = {.status = OK};
    enum status status = plain_request_decode(&request, frame, bytes, &error);
    if (status != OK) {
        request_id_of(request.id, frame, bytes);
        error.status = status;
        send_error(door, peer, request.id, &error);
    } else if (type == REQUEST_ABORT) {
        on_abort(door, peer, request.id);
    } else if (type == REQUEST_STATUS) {
        on_status(door, peer, request.id);
    } else {
        on_drain(door, peer, request.id);
    }
}

static void on_frame(struct door_rpc *door, const struct socket_peer *peer, const void *frame,
                     size_t bytes)
{
    enum request_type type = request_type_of(frame, bytes);
    struct error error;
    char id[REQUEST_ID_BYTES_MAX + 1];
    if (door->ended) {
        request_id_of(id, frame, bytes);
        (void)error_set(&error, E_FAILED, LINK_ENDED_TEXT);
        send_error(door, peer, id, &error);
        return;
    }
    switch (type) {
    case REQUEST_GENERATE: on_generate(door, peer, frame, bytes); return;
    case REQUEST_TOKENIZE: on_tokenize(door, peer, frame, bytes); return;
    case REQUEST_ABORT:
    case REQUEST_STATUS:
    case REQUEST_DRAIN: on_plain(door, peer, type, frame, bytes); return;
    default:
        request_id_of(id, frame, bytes);
        (void)error_set(&error, E_MALFORMED,
                        "a message of %zu bytes is no msgpack map with a known \"t\": generate, "
                        "abort, status, tokenize, drain",
                        bytes);
        send_error(door, peer, id, &error);
    }
}

// For one turn: news must not wait until no client wants anything.
static void receive_clients(struct door_rpc *door)
{
    struct socket_peer peer;
    const void *frame;
    size_t bytes;
    uint64_t end_ns = clock_now_ns() + LINK_TURN_MS * MS_NS;
    while (clock_now_ns() < end_ns) {
        struct error error;
        enum status status = socket_receive(door->socket, &peer, &frame, &bytes);
        if (status == E_TIMEOUT)
            return;
        if (status == OK) {
            on_frame(door, &peer, frame, bytes);
            continue;
        }
        (void)error_set(&error, status, "the message was dropped: its %s are above the limit of %d",
                        status == E_LIMIT ? "bytes" : "frames",
                        status == E_LIMIT ? REQUEST_FRAME_BYTES_MAX : 1);
        send_error(door, &peer, "", &error);
    }
}

// ---- news ----

static void tell_accepted(struct door_rpc *door, struct door_request *request)
{
    struct reply reply = {.type = REPLY_ACCEPTED,
                          .seed = request->first->seed,
                          .prompt_tokens = request->first->prompt_tokens};
    if (request->first->accepted)
        return; // once for all answers
    request = request->first;
    snprintf(reply.ignored, sizeof reply.ignored, "%s", request->ignored);
    request->accepted = true;
    reply_to(door, request, &reply);
}

// Of the answer's ids, and of the prompt's next tokens. A prompt's first token has none: it comes
// as an empty entry before the others.
static void fill_logprobs(struct reply *reply, struct door_request *request,
                          const struct link_news *news)
{
    static const struct step_logprob nothing = {.id = -1};
    const struct step_logprob *entries = news->logprobs != NULL ? news->logprobs : &nothing;
    bool first = request->wants_prompt && !request->prompt_told;
    reply->prompt_logprobs = first ? entries : entries + 1;
    reply->prompt_logprobs_count = news->prompt_logprobs_count + first;
    reply->logprobs = entries + 1 + news->prompt_logprobs_count;
    reply->logprobs_count = news->logprobs_count > 0 ? reply->ids_count : 0;
    request->prompt_told = true;
}

static void tell_tokens(struct door_rpc *door, struct door_request *request,
                        const struct link_news *news)
{
    struct reply reply = {.type = REPLY_DELTA,
                          .index = request->index,
                          .ids = news->tokens,
                          .ids_count = news->tokens_count,
                          .text = ""};
    bool stopped = false;
    if (request->answer != NULL && door_answer_stopped(request->answer))
        return; // drawn before the core heard of the stop string
    if (request->answer != NULL) {
        reply.ids_count = door_answer_feed(request->answer, news->tokens, news->tokens_count,
                                           &reply.text, &reply.text_bytes);
        stopped = door_answer_stopped(request->answer);
    }
    fill_logprobs(&reply, request, news);
    request->tokens += reply.ids_count;
    uint64_t number = request->number;
    reply_to(door, request, &reply);
    if (stopped && door_requests_by_number(&door->requests, number) != NULL)
        order_finish(door, number, "stop");
}

// An answer has ended: of several it is told, and the last one ends the request.
static void tell_end(struct door_rpc *door, struct door_request *request, const char *reason,
                     const struct usage *usage)
{
    struct door_request *first = request->first;
    struct reply reply = {
        .type = REPLY_CHOICE, .index = request->index, .finish_reason = reason, .usage = *usage};
    uint64_t number = first->number;
    door_requests_end(request, reason, usage);
    if (first->next != NULL)
        reply_to(door, request, &reply);
    if (door_requests_by_number(&door->requests, number) == NULL || first->is_cut_off ||
        first->left > 0)
        return;
    reply = (struct reply){
        .type = REPLY_FINAL, .finish_reason = first->finish_reason, .usage = first->usage};
    reply_last(door, first, &reply);
}

static void tell_done(struct door_rpc *door, struct door_request *request,
                      const struct link_news *news)
{
    uint64_t number = request->number;
    bool stopped = false;
    if (request->answer != NULL) {
        struct reply tail = {.type = REPLY_DELTA, .index = request->index};
        door_answer_finish(request->answer, &tail.text, &tail.text_bytes);
        stopped = door_answer_stopped(request->answer);
        if (tail.text_bytes > 0)
            reply_to(door, request, &tail);
        request = door_requests_by_number(&door->requests, number);
        if (request == NULL || request->first->is_cut_off)
            return;
    }
    const struct usage usage = {.prompt_tokens = news->usage.prompt_tokens,
                                .completion_tokens = request->tokens,
                                .cached_tokens = news->usage.cached_tokens,
                                .target_steps = news->usage.target_steps,
                                .drafted = news->usage.drafted,
                                .accepted = news->usage.accepted};
    tell_end(door, request, stopped ? "stop" : news->reason, &usage);
}

static void tell_error(struct door_rpc *door, struct door_request *request,
                       const struct link_news *news)
{
    struct reply reply = {.type = REPLY_ERROR, .error = status_name(news->status)};
    reply.text = news->text != NULL ? news->text : reply.error;
    log_request(news->status == E_FAILED || news->status == E_SYSTEM ? LOG_WARNING : LOG_DEBUG,
                request->id, "%s: %s", reply.error, reply.text);
    reply.text_bytes = strlen(reply.text);
    request->ended = true;
    finish_all(door, request); // its other answers
    reply_last(door, request->first, &reply);
}

static void tell_status(struct door_rpc *door, const struct overview *overview)
{
    if (door->waiters_count == 0)
        return;
    struct status_waiter *waiter = &door->waiters[door->waiters_first];
    door->waiters_first = (door->waiters_first + 1) % STATUS_WAITERS_MAX;
    door->waiters_count--;
    struct socket_counts counts = socket_counts(door->socket);
    char *json =
        overview != NULL ? door_status_json(door->options.model_name, overview, &counts) : NULL;
    if (json == NULL) {
        struct error error;
        (void)error_set(&error, E_SYSTEM, "no memory for the status");
        send_error(door, &waiter->peer, waiter->id, &error);
        return;
    }
    struct reply reply = {.type = REPLY_STATUS, .text = json, .text_bytes = strlen(json)};
    snprintf(reply.id, sizeof reply.id, "%s", waiter->id);
    (void)!send_reply(door, &waiter->peer, &reply);
    free(json);
}

static void on_news(void *argument, const struct link_news *news)
{
    struct door_rpc *door = (struct door_rpc *)argument;
    struct door_request *request = door_requests_by_number(&door->requests, news->request);
    if (request != NULL && request->first->is_cut_off)
        request = NULL; // the client hears of its end alone
    switch (news->type) {
    case NEWS_READY:
    case NEWS_DRAINING: break; // the core takes or refuses, which clients are told
    case NEWS_STATUS:
        tell_status(door, news->overview);
        free(news->overview);
        break;
    case NEWS_END: door->ended = true; break;
    case NEWS_ACCEPTED:
        if (request != NULL)
            tell_accepted(door, request);
        break;
    case NEWS_TOKENS:
        if (request != NULL)
            tell_tokens(door, request, news);
        free(news->logprobs);
        break;
    case NEWS_DONE:
        if (request != NULL)
            tell_done(door, request, news);
        break;
    case NEWS_ERROR:
        if (request != NULL)
            tell_error(door, request, news);
        free(news->text);
        break;
    }
}

// Whoever has unfinished work hears something: a ping; that it was cut off, when it reads again; or
// that the core has ended, which had not read of it by then.
static void tell_clients(struct door_rpc *door)
{
    for (int32_t i = 0; i < door->requests.capacity; i++) {
        struct door_request *request = &door->requests.table[i];
        struct reply reply = {.type = REPLY_PING};
        if (!request->used || request->first != request)
            continue;
        if (request->is_cut_off)
            reply_last_error(door, request, E_OVERLOADED, cut_off_text);
        else if (door->ended)
            reply_last_error(door, request, E_FAILED, LINK_ENDED_TEXT);
        else
            reply_to(door, request, &reply);
    }
}

static void ping(struct door_rpc *door)
{
    if (clock_now_ns() - door->pinged_ns < CLIENT_PING_INTERVAL_MS * MS_NS)
        return;
    door->pinged_ns = clock_now_ns();
    tell_clients(door);
}

static void *run(void *argument)
{
    struct door_rpc *door = (struct door_rpc *)argument;
    while (!door->ended) {
        (void)socket_wait(door->socket, door->options.link->door_fd, POLL_MS);
        link_take_news(door->options.link, on_news, door);
        receive_clients(door);
        ping(door);
    }
    tell_clients(door);
    receive_clients(door); // who wrote before it could know is answered, too
    return NULL;
}

// ---- start and end ----

static enum status open_door(struct door_rpc *door, struct error *error)
{
    door->frame = malloc(REPLY_BYTES_MAX);
    if (door->frame == NULL)
        return error_set(error, E_SYSTEM, "no memory for the RPC door");
    TRY(door_requests_open(&door->requests, door->options.requests_max, door->options.link_index,
                           error));
    TRY(door_text_open(&door->text, door->options.tokenizer, door->options.vocab_real, error));
    struct socket_options socket = {.endpoint = door->options.endpoint,
                                    .frame_bytes_max = REQUEST_FRAME_BYTES_MAX,
                                    .queue_frames_max = CLIENT_FRAMES_MAX,
                                    .insecure = door->options.insecure,
                                    .curve_dir = door->options.curve_dir,
                                    .curve_who = "client"};
    return socket_open_router(&door->socket, &socket, error);
}

static void free_door(struct door_rpc *door)
{
    socket_close(door->socket, 1000);
    door_requests_close(&door->requests);
    door_text_close(door->text);
    free(door->frame);
    free(door);
}

enum status door_rpc_open(struct door_rpc **out, const struct door_rpc_options *options,
                          struct error *error)
{
    struct door_rpc *door = calloc(1, sizeof *door);
    if (door == NULL)
        return error_set(error, E_SYSTEM, "no memory for the RPC door");
    door->options = *options;
    door->seeds = (struct door_seeds){
        .has_seed = options->has_seed, .seed = options->seed, .link_index = options->link_index};
    enum status status = open_door(door, error);
    if (status == OK && thread_start(&door->thread, "door-rpc", run, door) != 0)
        status = error_set(error, E_SYSTEM, "no thread for the RPC door");
    if (status != OK) {
        free_door(door);
        return status;
    }
    *out = door;
    return OK;
}

const char *door_rpc_endpoint(const struct door_rpc *door)
{
    return socket_endpoint(door->socket);
}

void door_rpc_close(struct door_rpc *door)
{
    pthread_join(door->thread, NULL);
    free_door(door);
}
