// SPDX-License-Identifier: Apache-2.0
// client.h -- the RPC client in C: many requests in flight over one connection, replies one by one
// as they come. The messages are those of parallel/wire/requests.h. Installed as
// libdeltamesh-client; pkg-config deltamesh-client.
//
// Threads: a client is one thread's at a time; nothing is shared between clients, so that any
// number of threads may have one each. A client may be handed to another thread when no call is
// under way (the hand-over itself has to be a synchronisation). No signal is touched.
// Waits: client_open, sends and client_next end within the bounds below; nothing else waits.
// Connections: a lost one is told once, by client_next as E_CONNECTION, and every unfinished
// request is forgotten: the server stops its work, and nothing is sent again by itself. The client
// goes on dialling its endpoint (50 ms, then up to 1 s between tries); until somebody answers there
// sends fail with E_CONNECTION at once. Ids of forgotten requests may be used again.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "parallel/base/status.h"
#include "parallel/wire/requests.h"

enum {
    CLIENT_CONNECT_MS_MAX = 5000,  // for the server to answer at all, unless told otherwise
    CLIENT_SILENCE_MS_MAX = 10000, // ten of the server's pings
    CLIENT_SEND_MS_MAX = 10000,    // for room in a full queue to the server
    CLIENT_DELTA_IDS_MAX = 65536,  // of one reply
};

struct client; // opaque

struct client_options {
    const char *endpoint;   // tcp://HOST:PORT of the server's RPC door
    int32_t connect_ms_max; // 0 = CLIENT_CONNECT_MS_MAX
    int32_t silence_ms_max; // 0 = CLIENT_SILENCE_MS_MAX
    bool insecure;          // allow an endpoint that is not on the loopback
    const char *curve_dir;  // a folder with server.public, client.public, client.secret, or NULL
};

// Connects and waits until the server has answered the handshake. E_CONNECTION when it has not
// within connect_ms_max; E_USAGE or E_UNSUPPORTED for the endpoint.
enum status client_open(struct client **out, const struct client_options *options,
                        struct error *error) MUST_CHECK;

// Ends the connection; the server stops what is unfinished. NULL is allowed.
void client_close(struct client *client);

// Queues a request. Its reply or replies come from client_next. E_LIMIT when it is larger than
// REQUEST_FRAME_BYTES_MAX, E_INPUT when its id is missing or that of an unfinished request,
// E_CONNECTION, E_OVERLOADED when the queue stays full for CLIENT_SEND_MS_MAX.
// client_send takes a whole frame that holds "t" and "id", written by the caller.
enum status client_generate(struct client *client, const struct generate_request *request,
                            struct error *error) MUST_CHECK;
enum status client_status(struct client *client, const char *id, struct error *error) MUST_CHECK;
enum status client_drain(struct client *client, const char *id, struct error *error) MUST_CHECK;
enum status client_send(struct client *client, const void *frame, size_t frame_bytes,
                        struct error *error) MUST_CHECK;

// Asks the server to end an unfinished request; its final reply still comes. Errors as above.
enum status client_abort(struct client *client, const char *id, struct error *error) MUST_CHECK;

// Requests whose last reply has not come.
int32_t client_unfinished(const struct client *client);

// Waits for the next reply, which is lent until the next call; pings are not shown. E_TIMEOUT:
// nothing came within timeout_ms (a signal also ends the wait). E_CONNECTION, only while something
// is unfinished: the connection broke or nothing, not even a ping, came for silence_ms_max;
// all unfinished requests are then forgotten. E_MALFORMED: the server sent what is no reply.
enum status client_next(struct client *client, const struct reply **out, int timeout_ms,
                        struct error *error) MUST_CHECK;
