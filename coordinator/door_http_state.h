// SPDX-License-Identifier: Apache-2.0
// door_http_state.h -- what is inside struct door_http, for door_http*.c and nobody else. An
// exchange is one HTTP request and its answer; a choice is one answer of it (a prompt has n),
// which the core knows by a number.
#pragma once

#include <pthread.h>

#include "coordinator/answer_text.h"
#include "coordinator/door_http.h"
#include "coordinator/door_metrics.h"
#include "coordinator/door_sampling.h"
#include "coordinator/door_text.h"
#include "coordinator/openai_logprobs.h"
#include "coordinator/openai_reply.h"
#include "coordinator/openai_request.h"

enum {
    HTTP_CONNECTIONS_MAX = 4096,       // open at once; later ones wait to be accepted
    HTTP_CONNECTION_BYTES = 32 << 10,  // request line and headers
    HTTP_BODIES_BYTES_MAX = 256 << 20, // of bodies being received, together
    HTTP_STREAM_BYTES_MAX = 1 << 20,   // unsent to one client; over it its work ends
    HTTP_ANSWER_BYTES_MAX = 256 << 20, // of one whole answer
    HTTP_IDLE_S = 75,                  // without any byte
    HTTP_HEADERS_MS = 15000,           // from a connection's or request's first line on
    HTTP_BODY_MS = 300000,             // from the headers to the body's last byte
    HTTP_BETWEEN_MS = 120000,          // from an answer to the next request's first line
    HTTP_HALF_CLOSED_MS = 1000,        // for what a client sent before it closed its sending half
    HTTP_STATUS_MS = 2000,             // for the core to tell how it is
    HTTP_ID_BYTES_MAX = 40,
    HTTP_GIVEN_ID_BYTES_MAX = 128, // of an X-Request-Id that a client sends
};

struct MHD_Connection;
struct http_exchange;

// A TCP connection. Watched by our own epoll for its client's end: the library does not look at
// suspended connections.
struct http_connection {
    struct http_connection *previous, *next;
    struct http_exchange *exchange; // the request under way, or NULL
    int fd;
    bool is_half_closed;  // the client sends nothing more
    uint64_t deadline_ns; // for what is being received; UINT64_MAX = nothing is
};

struct http_choice {
    struct http_exchange *exchange;
    int32_t index;
    uint64_t number;                     // 0 = the core does not know it (any more)
    struct door_stream *stream;          // NULL: ids only
    struct answer_text text;             // what still comes once it is stopped is dropped
    int32_t stop_ids[STEP_STOP_IDS_MAX]; // [stop_ids_count] whose text is not told
    int32_t stop_ids_count;
    bool accepted, done;
    const char *finish_reason;    // once done
    struct text_buffer content;   // whole answers only, and the prompt that a stream echoes
    struct text_buffer reasoning; // whole answers only
    struct text_buffer calls;     // whole answers only
    int32_t *ids;                 // whole answers with return_token_ids: [ids_count]
    size_t ids_count, ids_capacity;
    struct openai_logprobs logprobs; // of a stream's event, or of the whole answer
    bool tells_prompt, prompt_told;  // the prompt's log-probabilities, once some have been told
    int32_t prompt_first;            // id of the prompt's first token, of an echo
    struct openai_usage usage;
};

enum http_phase {
    HTTP_RECEIVING, // headers and body
    HTTP_WAITING,   // suspended until the core has said something
    HTTP_READY,     // answer and http_code are there
    HTTP_STREAMING, // events go through `answer` as they come
    HTTP_ENDED,     // of a stream: its last event is in `answer`
    HTTP_GONE,      // the client left or was cut off
};

struct http_exchange {
    struct http_exchange *previous, *next;
    struct door_http *door;
    struct MHD_Connection *handle;
    struct http_connection *connection;
    const struct http_route *route;       // NULL: none, the answer is an error
    char own_id[HTTP_ID_BYTES_MAX];       // hexadecimal, of our making, unlike any other
    char id[HTTP_GIVEN_ID_BYTES_MAX + 1]; // for logs and errors: the client's, else own_id
    char answer_id[HTTP_ID_BYTES_MAX + 16];
    enum http_phase phase;
    bool suspended, asks_status, is_oversized;
    bool postponed; // whole, in the list of those that wait for their turn
    struct http_exchange *postponed_before, *postponed_after;
    uint64_t begun_ns;
    struct text_buffer body;
    size_t discarded_bytes; // of a body over the limit
    // The answer.
    int http_code;
    const char *content_type;
    const char *allow;         // 405: the methods that are
    struct text_buffer answer; // a stream: what is not yet sent, from answer_sent on
    size_t answer_sent;
    // Of /v1/completions and /v1/chat/completions.
    bool has_request;
    struct openai_request request;
    struct openai_head head;
    int32_t *lists;              // of every choice: door_lists.h; NULL = none
    struct http_choice *choices; // [choices_count], those of a prompt side by side
    int32_t choices_count, accepted_count, done_count;
};

// A place in the table from numbers to choices.
struct http_number {
    uint32_t generation;
    struct http_choice *choice; // NULL = free
};

struct door_http {
    struct door_http_options options;
    struct MHD_Daemon *daemon;
    int listen_fd, epoll_fd;
    struct door_text *text;
    struct door_seeds seeds;
    struct http_number *numbers; // [options.requests_max]
    int32_t *numbers_free;       // [numbers_free_count]
    int32_t numbers_free_count;
    struct http_exchange *exchanges; // all, a list
    struct http_connection *connections;
    struct http_exchange *postponed_first, *postponed_last; // a list, the oldest first
    struct http_exchange *in_turn; // out of it, and the library has yet to hand it over
    uint64_t turn_ends_ns;
    size_t bodies_bytes;
    struct text_buffer content, reasoning, calls; // of one event
    struct door_metrics metrics;
    bool status_asked;
    uint64_t checked_ns;
    int64_t started_s; // Unix time
    int32_t context;   // longest sequence, 0 until a group is ready
    bool draining, ended;
    uint64_t ended_ns;
    pthread_t thread;
    char url[300];
};

// ---- door_http.c ----

// Something has come for an exchange that may be suspended: the library goes on with it.
void door_http_wake(struct http_exchange *exchange);

// ---- door_http_turn.c ----

// A turn of the loop begins.
void door_http_turn_begin(struct door_http *door);

// Whether a whole request has to wait: it is in the list then, and the caller suspends it.
bool door_http_turn_postpone(struct http_exchange *exchange);

// The request that has waited longest; it is out of the list, and will not be postponed again.
// NULL: none waits, the one before has yet to be handed over, or the turn is over and this is not
// the first one that it takes.
struct http_exchange *door_http_turn_next(struct door_http *door, bool is_first);

// Lets the library go on with those that wait, one by one while the turn lasts.
void door_http_turn_take(struct door_http *door);

// It waits no more: out of the list, if it is there.
void door_http_turn_forget(struct http_exchange *exchange);

// ---- door_http_routes.c ----

struct http_route {
    const char *path;
    bool is_post, is_open; // open: needs no API key
    // Answers, or sets the phase to HTTP_WAITING. The body is whole.
    void (*handle)(struct http_exchange *exchange);
};

// Sets exchange->route by method and path. Else E_NOT_FOUND, or E_UNSUPPORTED with *error's 405.
enum status door_http_routes_find(struct http_exchange *exchange, const char *method,
                                  const char *path, struct openai_error *error) MUST_CHECK;

// Fills in what the client calls the request, so that its log and ours can be read side by side:
// its X-Request-Id; own_id when it sends none, or one that no log line should have.
void door_http_routes_name(struct http_exchange *exchange);

// Makes an error, or what is in exchange->answer, the answer.
void door_http_routes_fail(struct http_exchange *exchange, const struct openai_error *error);
void door_http_routes_answer(struct http_exchange *exchange, int http_code,
                             const char *content_type);

// The core's word has come: who asked for it is answered. NULL: it did not come in time.
void door_http_routes_status(struct door_http *door, const struct overview *overview);

// ---- door_http_submit.c ----

// Reads the body, and gives the prompt of every choice to the core. What has been given is stopped
// by the caller when this fails.
enum status door_http_submit(struct http_exchange *exchange, enum openai_kind kind,
                             struct openai_error *error) MUST_CHECK;

// ---- door_http_generate.c ----

// The number by which the core knows a choice; false when all are taken.
bool door_http_take_number(struct door_http *door, struct http_choice *choice);
void door_http_give_back_number(struct door_http *door, struct http_choice *choice);

// Handlers of the routes.
void door_http_generate_completion(struct http_exchange *exchange);
void door_http_generate_chat(struct http_exchange *exchange);

// Takes news about a request into its choice and exchange. Also frees news->text.
void door_http_generate_news(struct door_http *door, const struct link_news *news);

// The core has ended: who still waits for it, since it had not read of them, is answered.
void door_http_generate_ended(struct door_http *door);

// The exchange is over, in whatever way: unfinished work is stopped and everything freed.
void door_http_generate_end(struct http_exchange *exchange);

// The client left or does not read: its work is stopped, the connection will be closed.
void door_http_generate_cut_off(struct http_exchange *exchange, const char *why);
