// SPDX-License-Identifier: Apache-2.0
// bench_rpc.c -- bench over the RPC door: every stream on one connection.
#include "deploy/cli/bench_door.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "deploy/client/client.h"
#include "parallel/base/clock.h"

enum { ID_BYTES_MAX = 5 }; // of a token id as msgpack

struct bench_rpc {
    struct bench_door door; // first, so that one is the other
    struct client *client;
    uint8_t *packed; // a prompt's ids
    size_t packed_room;
};

static enum status send_request(struct bench_door *door, const struct bench_request *request,
                                struct error *error)
{
    struct bench_rpc *rpc = (struct bench_rpc *)door;
    struct generate_request message;
    size_t room = (size_t)request->ids_count * ID_BYTES_MAX;
    if (room > rpc->packed_room) {
        uint8_t *grown = realloc(rpc->packed, room);
        if (grown == NULL)
            return error_set(error, E_SYSTEM, "no memory for a prompt of %d tokens",
                             (int)request->ids_count);
        rpc->packed = grown;
        rpc->packed_room = room;
    }
    generate_request_init(&message);
    snprintf(message.id, sizeof message.id, "%" PRId64, request->number);
    TRY(generate_request_pack_ids(rpc->packed, rpc->packed_room, &message.ids_bytes, request->ids,
                                  request->ids_count));
    message.ids = rpc->packed;
    message.ids_count = request->ids_count;
    message.max_tokens = request->max_tokens;
    message.temperature = request->temperature;
    message.has_seed = true;
    message.seed = request->seed;
    message.ignore_eos = request->ignore_eos;
    return client_generate(rpc->client, &message, error);
}

// True when the reply is an event of a request.
static bool read_event(struct bench_event *out, const struct reply *reply)
{
    char *end;
    *out = (struct bench_event){.number = strtoll(reply->id, &end, 10), .when_ns = clock_now_ns()};
    if (end == reply->id || *end != '\0')
        return false; // of no request of ours
    switch (reply->type) {
    case REPLY_DELTA:
        out->type = BENCH_EVENT_TOKENS;
        out->tokens = reply->ids_count;
        return reply->ids_count > 0; // text alone: what was held back
    case REPLY_FINAL:
        out->type = BENCH_EVENT_DONE;
        out->usage = (struct bench_usage){.prompt_tokens = reply->usage.prompt_tokens,
                                          .completion_tokens = reply->usage.completion_tokens,
                                          .cached_tokens = reply->usage.cached_tokens,
                                          .drafted = reply->usage.drafted,
                                          .accepted = reply->usage.accepted};
        return true;
    case REPLY_ERROR:
        out->type = BENCH_EVENT_FAILED;
        out->status = status_from_name(reply->error);
        snprintf(out->kind, sizeof out->kind, "%s", reply->error);
        snprintf(out->text, sizeof out->text, "%.*s", (int)reply->text_bytes, reply->text);
        return true;
    default: return false;
    }
}

static enum status next_event(struct bench_door *door, struct bench_event *out, int timeout_ms,
                              struct error *error)
{
    struct bench_rpc *rpc = (struct bench_rpc *)door;
    uint64_t end_ns = clock_now_ns() + (uint64_t)timeout_ms * CLOCK_NS_PER_MS;
    for (;;) {
        const struct reply *reply;
        uint64_t now_ns = clock_now_ns();
        uint64_t left_ns = end_ns > now_ns ? end_ns - now_ns : 0;
        TRY(client_next(rpc->client, &reply, (int)(left_ns / CLOCK_NS_PER_MS), error));
        if (reply->type == REPLY_ERROR && reply->id[0] == '\0') // of a frame without id
            return error_set(error, status_from_name(reply->error), "%.*s", (int)reply->text_bytes,
                             reply->text);
        if (read_event(out, reply))
            return OK;
    }
}

static void close_rpc(struct bench_door *door)
{
    struct bench_rpc *rpc = (struct bench_rpc *)door;
    client_close(rpc->client);
    free(rpc->packed);
    free(rpc);
}

// The number of token ids, if the server's status has it.
static enum status ask_vocab(struct bench_rpc *rpc, struct error *error)
{
    const struct reply *reply;
    TRY(client_status(rpc->client, "status", error));
    do
        TRY(client_next(rpc->client, &reply, CLIENT_SILENCE_MS_MAX, error));
    while (strcmp(reply->id, "status") != 0);
    if (reply->type != REPLY_STATUS)
        return error_set(error, status_from_name(reply->error), "%.*s", (int)reply->text_bytes,
                         reply->text);
    json_t *status = json_loadb(reply->text, reply->text_bytes, 0, NULL);
    json_int_t vocab = json_integer_value(json_object_get(status, "vocab"));
    rpc->door.vocab = vocab >= 1 && vocab <= INT32_MAX ? (int32_t)vocab : 0;
    json_decref(status);
    return OK;
}

enum status bench_rpc_open(struct bench_door **out, const struct bench_options *options,
                           struct error *error)
{
    const struct client_options client = {
        .endpoint = options->rpc, .insecure = options->insecure, .curve_dir = options->curve_dir};
    struct bench_rpc *rpc = calloc(1, sizeof *rpc);
    if (rpc == NULL)
        return error_set(error, E_SYSTEM, "no memory for a connection");
    rpc->door = (struct bench_door){.send = send_request, .next = next_event, .close = close_rpc};
    enum status status = client_open(&rpc->client, &client, error);
    if (status == OK)
        status = ask_vocab(rpc, error);
    if (status != OK) {
        close_rpc(&rpc->door);
        return status;
    }
    *out = &rpc->door;
    return OK;
}
