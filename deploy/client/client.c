// SPDX-License-Identifier: Apache-2.0
// client.c -- the list of unfinished requests and the watch over the server's silence.
#include "deploy/client/client.h"

#include <stdlib.h>
#include <string.h>

#include "parallel/base/clock.h"
#include "parallel/wire/socket.h"

enum {
    QUEUE_FRAMES_MAX = 10000,  // small ones: deltas one way, requests the other
    POLL_MS = 20,              // between looks at what the monitor and the queue tell
    FRAME_SLACK_BYTES = 65536, // of a generate request beside its prompt: stop strings and lists
};

struct client {
    struct socket *socket;
    char (*unfinished)[REQUEST_ID_BYTES_MAX + 1]; // [unfinished_max], ids
    int32_t unfinished_count, unfinished_max;
    int32_t silence_ms_max;
    uint64_t heard_ns;            // last message, or the first request after a pause
    uint64_t disconnections_seen; // of socket_counts
    struct reply reply;
    int32_t ids[CLIENT_DELTA_IDS_MAX];
};

static uint64_t after_ms(int64_t duration_ms)
{
    return clock_now_ns() + (uint64_t)duration_ms * CLOCK_NS_PER_MS;
}

enum status client_open(struct client **out, const struct client_options *options,
                        struct error *error)
{
    struct client *client = calloc(1, sizeof *client);
    if (client == NULL)
        return error_set(error, E_SYSTEM, "no memory for a client");
    client->silence_ms_max =
        options->silence_ms_max > 0 ? options->silence_ms_max : CLIENT_SILENCE_MS_MAX;
    const struct socket_options socket_options = {.endpoint = options->endpoint,
                                                  .frame_bytes_max = REQUEST_FRAME_BYTES_MAX,
                                                  .queue_frames_max = QUEUE_FRAMES_MAX,
                                                  .insecure = options->insecure,
                                                  .curve_dir = options->curve_dir,
                                                  .curve_who = "client"};
    enum status status = socket_open_dealer(&client->socket, &socket_options, error);
    int32_t wait_ms = options->connect_ms_max > 0 ? options->connect_ms_max : CLIENT_CONNECT_MS_MAX;
    uint64_t end_ns = after_ms(wait_ms);
    while (status == OK && !socket_is_connected(client->socket)) {
        if (clock_now_ns() >= end_ns)
            status = error_set(error, E_CONNECTION, "no server at %s answered within %d ms%s",
                               options->endpoint, (int)wait_ms, socket_refusal(client->socket));
        else
            socket_wait(client->socket, -1, POLL_MS);
    }
    if (status != OK) {
        client_close(client);
        return status;
    }
    client->disconnections_seen = socket_counts(client->socket).disconnected;
    *out = client;
    return OK;
}

void client_close(struct client *client)
{
    if (client == NULL)
        return;
    socket_close(client->socket, 0);
    free(client->unfinished);
    free(client);
}

int32_t client_unfinished(const struct client *client)
{
    return client->unfinished_count;
}

static int32_t find_unfinished(const struct client *client, const char *id)
{
    for (int32_t i = 0; i < client->unfinished_count; i++) {
        if (strcmp(client->unfinished[i], id) == 0)
            return i;
    }
    return -1;
}

static enum status add_unfinished(struct client *client, const char *id, struct error *error)
{
    if (client->unfinished_count == client->unfinished_max) {
        int32_t room = client->unfinished_max > 0 ? 2 * client->unfinished_max : 64;
        void *grown = realloc(client->unfinished, (size_t)room * sizeof *client->unfinished);
        if (grown == NULL)
            return error_set(error, E_SYSTEM, "no memory for %d requests in flight", (int)room);
        client->unfinished = grown;
        client->unfinished_max = room;
    }
    if (client->unfinished_count == 0)
        client->heard_ns = clock_now_ns(); // silence counts from here
    strcpy(client->unfinished[client->unfinished_count++], id);
    return OK;
}

// Sends a frame, waiting a bounded time for room in the queue.
static enum status send_frame(struct client *client, const void *frame, size_t frame_bytes,
                              struct error *error)
{
    uint64_t end_ns = after_ms(CLIENT_SEND_MS_MAX);
    for (;;) {
        enum status status = socket_send(client->socket, NULL, frame, frame_bytes, error);
        if (status != E_OVERLOADED || clock_now_ns() >= end_ns)
            return status;
        clock_sleep_ns((uint64_t)POLL_MS * CLOCK_NS_PER_MS);
    }
}

enum status client_send(struct client *client, const void *frame, size_t frame_bytes,
                        struct error *error)
{
    char id[REQUEST_ID_BYTES_MAX + 1];
    request_id_of(id, frame, frame_bytes);
    if (id[0] == '\0')
        return error_set(error, E_INPUT, "a request needs an 'id' of 1 to %d bytes",
                         REQUEST_ID_BYTES_MAX);
    if (find_unfinished(client, id) >= 0)
        return error_set(error, E_INPUT, "request '%s' is still unfinished", id);
    TRY(send_frame(client, frame, frame_bytes, error));
    return add_unfinished(client, id, error);
}

enum status client_generate(struct client *client, const struct generate_request *request,
                            struct error *error)
{
    size_t room = FRAME_SLACK_BYTES + request->prompt_bytes + request->ids_bytes +
                  request->messages_bytes + request->tools_bytes;
    void *frame = malloc(room);
    if (frame == NULL)
        return error_set(error, E_SYSTEM, "no memory for a request of %zu bytes", room);
    size_t bytes;
    enum status status = generate_request_encode(frame, room, &bytes, request);
    ASSERT(status == OK); // the slack holds every other field, all of them bounded
    status = client_send(client, frame, bytes, error);
    free(frame);
    return status;
}

static enum status send_plain(struct client *client, enum request_type type, const char *id,
                              struct error *error)
{
    uint8_t frame[REQUEST_ID_BYTES_MAX + 64];
    size_t bytes;
    enum status status = plain_request_encode(frame, sizeof frame, &bytes, type, id);
    ASSERT(status == OK);
    if (type == REQUEST_ABORT) // not a request of its own: it speaks of one
        return send_frame(client, frame, bytes, error);
    return client_send(client, frame, bytes, error);
}

enum status client_status(struct client *client, const char *id, struct error *error)
{
    return send_plain(client, REQUEST_STATUS, id, error);
}

enum status client_drain(struct client *client, const char *id, struct error *error)
{
    return send_plain(client, REQUEST_DRAIN, id, error);
}

enum status client_abort(struct client *client, const char *id, struct error *error)
{
    return send_plain(client, REQUEST_ABORT, id, error);
}

// Takes note of a reply that ends its request.
static void note_reply(struct client *client)
{
    enum reply_type type = client->reply.type;
    if (type == REPLY_ACCEPTED || type == REPLY_DELTA || type == REPLY_CHOICE || type == REPLY_PING)
        return;
    int32_t index = find_unfinished(client, client->reply.id);
    if (index < 0)
        return;
    client->unfinished_count--;
    if (index != client->unfinished_count)
        memcpy(client->unfinished[index], client->unfinished[client->unfinished_count],
               sizeof *client->unfinished);
}

// E_CONNECTION when the server is gone while something is unfinished. The disconnections were
// counted before the socket was found empty: what came before them has been read.
static enum status check_server(struct client *client, uint64_t disconnections, struct error *error)
{
    bool broke = disconnections != client->disconnections_seen;
    client->disconnections_seen = disconnections;
    if (client->unfinished_count == 0)
        return OK;
    int32_t lost = client->unfinished_count;
    uint64_t silence_ns = clock_now_ns() - client->heard_ns;
    if (!broke && silence_ns < (uint64_t)client->silence_ms_max * CLOCK_NS_PER_MS)
        return OK;
    client->unfinished_count = 0;
    if (broke)
        return error_set(error, E_CONNECTION,
                         "the connection to %s broke, %d requests were unfinished",
                         socket_endpoint(client->socket), (int)lost);
    return error_set(error, E_CONNECTION, "%s was silent for %d ms, %d requests were unfinished",
                     socket_endpoint(client->socket), (int)client->silence_ms_max, (int)lost);
}

enum status client_next(struct client *client, const struct reply **out, int timeout_ms,
                        struct error *error)
{
    uint64_t end_ns = after_ms(timeout_ms);
    for (;;) {
        const void *frame;
        size_t bytes;
        uint64_t disconnections = socket_counts(client->socket).disconnected;
        enum status status = socket_receive(client->socket, NULL, &frame, &bytes);
        if (status == OK) {
            client->heard_ns = clock_now_ns();
            TRY(reply_decode(&client->reply, client->ids, CLIENT_DELTA_IDS_MAX, frame, bytes,
                             error));
            if (client->reply.type == REPLY_PING)
                continue;
            note_reply(client);
            *out = &client->reply;
            return OK;
        }
        if (status != E_TIMEOUT)
            return error_set(error, E_MALFORMED, "%s sent a message that is no reply",
                             socket_endpoint(client->socket));
        TRY(check_server(client, disconnections, error));
        uint64_t now_ns = clock_now_ns();
        if (now_ns >= end_ns)
            return error_set(error, E_TIMEOUT, "nothing came within %d ms", timeout_ms);
        uint64_t left_ms = (end_ns - now_ns) / CLOCK_NS_PER_MS + 1;
        // Silence is looked for at least once a second.
        socket_wait(client->socket, -1, left_ms < 1000 ? (int)left_ms : 1000);
    }
}
