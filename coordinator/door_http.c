// SPDX-License-Identifier: Apache-2.0
// door_http.c -- libmicrohttpd without threads of its own, inside one loop over its epoll, the
// link's eventfd and the sockets of clients that wait. Connections that wait for the core are
// suspended; the library does not look at them then, so their hang-ups are watched here.
#include "coordinator/door_http.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "coordinator/door_http_listen.h"
#include "coordinator/door_http_state.h"
#include "coordinator/openai_json.h"
#include "parallel/base/clock.h"
#include "parallel/base/log.h"
#include "parallel/base/thread.h"

#define MS_NS ((uint64_t)CLOCK_NS_PER_MS)

enum {
    POLL_MS = 100,
    EVENTS_AT_ONCE = 256,
    STREAM_BLOCK_BYTES = 8 << 10,
    LAST_WORDS_MS = 1000, // for answers that are under way when the core has ended
    DISCARDED_BYTES_MAX = 64 << 20,
};

static void set_deadline(struct http_connection *connection, uint64_t duration_ms)
{
    if (connection->is_half_closed && duration_ms > HTTP_HALF_CLOSED_MS)
        duration_ms = HTTP_HALF_CLOSED_MS;
    connection->deadline_ns = clock_now_ns() + duration_ms * MS_NS;
}

// ---- connections ----

static void watch(struct door_http *door, struct http_connection *connection)
{
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLONESHOT, .data.ptr = connection};
    if (epoll_ctl(door->epoll_fd, EPOLL_CTL_ADD, connection->fd, &event) != 0)
        log_warning("a client cannot be watched: %s", strerror(errno));
}

static void on_connection(void *argument, struct MHD_Connection *handle, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct door_http *door = (struct door_http *)argument;
    struct http_connection *connection = (struct http_connection *)*context;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        connection = calloc(1, sizeof *connection);
        *context = connection;
        if (connection == NULL)
            return; // its requests will be refused
        connection->fd =
            MHD_get_connection_info(handle, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        watch(door, connection);
        set_deadline(connection, HTTP_HEADERS_MS);
        connection->next = door->connections;
        if (connection->next != NULL)
            connection->next->previous = connection;
        door->connections = connection;
    } else if (connection != NULL) {
        (void)epoll_ctl(door->epoll_fd, EPOLL_CTL_DEL, connection->fd, NULL);
        if (connection->previous != NULL)
            connection->previous->next = connection->next;
        else
            door->connections = connection->next;
        if (connection->next != NULL)
            connection->next->previous = connection->previous;
        free(connection);
        *context = NULL;
    }
}

static struct http_connection *connection_of(struct MHD_Connection *handle)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(handle, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info != NULL ? (struct http_connection *)info->socket_context : NULL;
}

// A request's first line is there: its headers have to follow soon.
static void *on_first_line(void *argument, const char *uri, struct MHD_Connection *handle)
{
    struct http_connection *connection = connection_of(handle);
    (void)argument;
    (void)uri;
    if (connection != NULL)
        set_deadline(connection, HTTP_HEADERS_MS);
    return NULL;
}

// ---- exchanges ----

static struct http_exchange *open_exchange(struct door_http *door, struct MHD_Connection *handle)
{
    struct http_exchange *exchange = calloc(1, sizeof *exchange);
    if (exchange == NULL)
        return NULL;
    exchange->door = door;
    exchange->handle = handle;
    exchange->connection = connection_of(handle);
    if (exchange->connection == NULL) {
        free(exchange);
        return NULL;
    }
    exchange->connection->exchange = exchange;
    exchange->begun_ns = clock_now_ns();
    door_http_routes_name(exchange);
    text_buffer_init(&exchange->body, OPENAI_BODY_BYTES_MAX);
    text_buffer_init(&exchange->answer, HTTP_ANSWER_BYTES_MAX);
    exchange->next = door->exchanges;
    if (exchange->next != NULL)
        exchange->next->previous = exchange;
    door->exchanges = exchange;
    door->metrics.http_requests++;
    return exchange;
}

static void free_body(struct http_exchange *exchange)
{
    exchange->door->bodies_bytes -= exchange->body.capacity;
    text_buffer_fini(&exchange->body);
}

static void close_exchange(struct http_exchange *exchange)
{
    struct door_http *door = exchange->door;
    struct http_connection *connection = exchange->connection;
    connection->exchange = NULL;
    door_http_turn_forget(exchange);
    set_deadline(connection, HTTP_BETWEEN_MS);
    door_http_generate_end(exchange);
    free_body(exchange);
    text_buffer_fini(&exchange->answer);
    if (exchange->previous != NULL)
        exchange->previous->next = exchange->next;
    else
        door->exchanges = exchange->next;
    if (exchange->next != NULL)
        exchange->next->previous = exchange->previous;
    free(exchange);
}

static void on_completed(void *argument, struct MHD_Connection *handle, void **context,
                         enum MHD_RequestTerminationCode code)
{
    struct http_exchange *exchange = (struct http_exchange *)*context;
    (void)argument;
    (void)handle;
    (void)code;
    if (exchange != NULL)
        close_exchange(exchange);
    *context = NULL;
}

void door_http_wake(struct http_exchange *exchange)
{
    if (!exchange->suspended)
        return;
    exchange->suspended = false;
    MHD_resume_connection(exchange->handle);
}

static void suspend(struct http_exchange *exchange)
{
    exchange->suspended = true;
    MHD_suspend_connection(exchange->handle);
}

// ---- answers ----

// Gives the library what a stream has; the end once all is told.
static ssize_t on_read(void *argument, uint64_t position, char *buffer, size_t bytes_max)
{
    struct http_exchange *exchange = (struct http_exchange *)argument;
    struct text_buffer *answer = &exchange->answer;
    size_t count = answer->count - exchange->answer_sent;
    (void)position;
    if (exchange->phase == HTTP_GONE)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (count == 0) {
        if (exchange->phase == HTTP_ENDED)
            return MHD_CONTENT_READER_END_OF_STREAM;
        suspend(exchange);
        return 0;
    }
    count = count < bytes_max ? count : bytes_max;
    memcpy(buffer, answer->bytes + exchange->answer_sent, count);
    exchange->answer_sent += count;
    if (exchange->answer_sent == answer->count)
        answer->count = exchange->answer_sent = 0;
    return (ssize_t)count;
}

static void add_headers(const struct http_exchange *exchange, struct MHD_Response *response)
{
    static const char *const retry[] = {"1", "5"}; // seconds: full, or not there
    int code = exchange->http_code;
    (void)MHD_add_response_header(response, "Content-Type", exchange->content_type);
    (void)MHD_add_response_header(response, "X-Request-Id", exchange->id);
    if (code == 401)
        (void)MHD_add_response_header(response, "WWW-Authenticate", "Bearer");
    if (code == 429 || code == 503)
        (void)MHD_add_response_header(response, "Retry-After", retry[code == 503]);
    if (code == 405)
        (void)MHD_add_response_header(response, "Allow", exchange->allow);
    if (exchange->phase != HTTP_READY)
        (void)MHD_add_response_header(response, "Cache-Control", "no-cache");
    if (exchange->has_request && exchange->request.ignored[0] != '\0')
        (void)MHD_add_response_header(response, "X-Ignored-Fields", exchange->request.ignored);
}

static enum MHD_Result respond(struct http_exchange *exchange)
{
    struct MHD_Response *response;
    if (exchange->phase == HTTP_GONE)
        return MHD_NO; // closes the connection
    if (exchange->phase == HTTP_READY) {
        response = MHD_create_response_from_buffer(exchange->answer.count, exchange->answer.bytes,
                                                   MHD_RESPMEM_PERSISTENT);
    } else {
        response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES, on_read,
                                                     exchange, NULL);
    }
    if (response == NULL)
        return MHD_NO;
    add_headers(exchange, response);
    enum MHD_Result queued =
        MHD_queue_response(exchange->handle, (unsigned)exchange->http_code, response);
    MHD_destroy_response(response);
    return queued;
}

static enum MHD_Result refuse(struct http_exchange *exchange, enum status status,
                              struct openai_error *error)
{
    error->error.status = status;
    door_http_routes_fail(exchange, error);
    return respond(exchange);
}

// ---- requests ----

// Compares all of both, so that the time tells nothing about where they differ.
static bool same_secret(const char *a, const char *b)
{
    size_t count = strlen(b), different = strlen(a) ^ count;
    for (size_t i = 0; i < count; i++)
        different |= (size_t)(a[i < strlen(a) ? i : 0] ^ b[i]);
    return different == 0;
}

static enum status check_key(const struct http_exchange *exchange, struct openai_error *error)
{
    static const char bearer[] = "Bearer ";
    const char *key = exchange->door->options.api_key;
    const char *given = MHD_lookup_connection_value(exchange->handle, MHD_HEADER_KIND,
                                                    MHD_HTTP_HEADER_AUTHORIZATION);
    if (key == NULL || key[0] == '\0' || exchange->route->is_open)
        return OK;
    if (given != NULL && strncasecmp(given, bearer, sizeof bearer - 1) == 0 &&
        same_secret(given + sizeof bearer - 1, key))
        return OK;
    error->http_code = 401;
    return error_set(&error->error, E_INPUT,
                     given == NULL ? "an API key is needed: Authorization: Bearer KEY"
                                   : "the API key is wrong");
}

// A body that is too long is refused at once where the client waits for a word before it sends, or
// where it is far too long; others read no answer before they have sent everything, so it is thrown
// away and refused at its end.
static enum status check_length(struct http_exchange *exchange, struct openai_error *error)
{
    struct MHD_Connection *handle = exchange->handle;
    const char *length =
        MHD_lookup_connection_value(handle, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    const char *expect =
        MHD_lookup_connection_value(handle, MHD_HEADER_KIND, MHD_HTTP_HEADER_EXPECT);
    uint64_t bytes = length != NULL ? strtoull(length, NULL, 10) : 0;
    exchange->is_oversized = bytes > OPENAI_BODY_BYTES_MAX;
    if (!exchange->is_oversized || (expect == NULL && bytes <= DISCARDED_BYTES_MAX))
        return OK;
    error->http_code = 413;
    return error_set(&error->error, E_LIMIT, "the body has %.20s bytes, accepted is up to %d",
                     length, OPENAI_BODY_BYTES_MAX);
}

// The headers are there.
static enum MHD_Result on_headers(struct http_exchange *exchange, const char *method,
                                  const char *path)
{
    struct openai_error error = {.error = {.status = OK}};
    enum status status = door_http_routes_find(exchange, method, path, &error);
    if (status == OK)
        status = check_key(exchange, &error);
    if (status == OK)
        status = check_length(exchange, &error);
    set_deadline(exchange->connection, HTTP_BODY_MS);
    return status == OK ? MHD_YES : refuse(exchange, status, &error);
}

// A part of the body. What is over a limit is thrown away; the answer has to wait for its end.
static enum MHD_Result on_body(struct http_exchange *exchange, const char *bytes, size_t count)
{
    struct door_http *door = exchange->door;
    size_t before = exchange->body.capacity;
    bool fits = exchange->discarded_bytes == 0 && !exchange->is_oversized &&
                door->bodies_bytes + count <= HTTP_BODIES_BYTES_MAX &&
                text_buffer_append(&exchange->body, bytes, count, NULL) == OK;
    door->bodies_bytes += exchange->body.capacity - before;
    if (!fits)
        exchange->discarded_bytes += count;
    return exchange->discarded_bytes > DISCARDED_BYTES_MAX ? MHD_NO : MHD_YES;
}

static enum MHD_Result refuse_body(struct http_exchange *exchange)
{
    struct openai_error error = {.error = {.status = OK}};
    size_t bytes = exchange->body.count + exchange->discarded_bytes;
    if (bytes > OPENAI_BODY_BYTES_MAX) {
        error.http_code = 413;
        return refuse(exchange,
                      error_set(&error.error, E_LIMIT,
                                "the body has %zu bytes, accepted is up to %d", bytes,
                                OPENAI_BODY_BYTES_MAX),
                      &error);
    }
    return refuse(exchange,
                  error_set(&error.error, E_OVERLOADED,
                            "bodies of %d MiB are being received already; try again",
                            HTTP_BODIES_BYTES_MAX >> 20),
                  &error);
}

// Everything is there.
static enum MHD_Result on_whole(struct http_exchange *exchange)
{
    exchange->connection->deadline_ns = UINT64_MAX;
    if (exchange->discarded_bytes > 0)
        return refuse_body(exchange);
    if (exchange->route->is_post && door_http_turn_postpone(exchange)) {
        suspend(exchange);
        return MHD_YES;
    }
    exchange->route->handle(exchange);
    free_body(exchange);
    if (exchange->phase != HTTP_WAITING)
        return respond(exchange);
    if (exchange->connection->is_half_closed) {
        door_http_generate_cut_off(exchange, "its client left");
        return MHD_NO;
    }
    suspend(exchange);
    return MHD_YES;
}

// The library calls this for the headers, for each part of the body, at its end, and again when a
// suspended connection goes on.
static enum MHD_Result on_request(void *argument, struct MHD_Connection *handle, const char *path,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_bytes, void **context)
{
    struct door_http *door = (struct door_http *)argument;
    struct http_exchange *exchange = (struct http_exchange *)*context;
    (void)version;
    if (exchange == NULL) {
        exchange = open_exchange(door, handle);
        *context = exchange;
        return exchange != NULL ? on_headers(exchange, method, path) : MHD_NO;
    }
    if (*upload_bytes > 0) {
        size_t count = *upload_bytes;
        *upload_bytes = 0;
        return on_body(exchange, upload, count);
    }
    return exchange->phase == HTTP_RECEIVING ? on_whole(exchange) : respond(exchange);
}

// ---- the loop ----

static void on_news(void *argument, const struct link_news *news)
{
    struct door_http *door = (struct door_http *)argument;
    switch (news->type) {
    case NEWS_READY: door->context = news->context; break;
    case NEWS_DRAINING: door->draining = true; break;
    case NEWS_STATUS:
        door_http_routes_status(door, news->overview);
        free(news->overview);
        break;
    case NEWS_END:
        door->ended = true;
        door->ended_ns = clock_now_ns();
        door_http_routes_status(door, NULL);
        door_http_generate_ended(door);
        break;
    default: door_http_generate_news(door, news); break;
    }
}

// Nothing more will come from a client. When its request is whole, it has left. Else what it sent
// last may still have to be read; the library misses the end when it comes together with the last
// bytes, so we end the connection soon.
static void on_left(struct http_connection *connection)
{
    struct http_exchange *exchange = connection->exchange;
    connection->is_half_closed = true;
    if (exchange != NULL &&
        (exchange->phase == HTTP_WAITING || exchange->phase == HTTP_STREAMING)) {
        exchange->door->metrics.clients_left++;
        door_http_generate_cut_off(exchange, "its client left");
    } else if (exchange == NULL || exchange->phase == HTTP_RECEIVING) {
        set_deadline(connection, HTTP_HALF_CLOSED_MS);
    }
}

static void wait_events(struct door_http *door)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    MHD_UNSIGNED_LONG_LONG wait_ms = POLL_MS;
    if (MHD_get_timeout(door->daemon, &wait_ms) == MHD_NO || wait_ms > POLL_MS)
        wait_ms = POLL_MS;
    if (door->postponed_first != NULL)
        wait_ms = 0;
    int count = epoll_wait(door->epoll_fd, events, EVENTS_AT_ONCE, (int)wait_ms);
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr != NULL) // else the library's or the link's
            on_left((struct http_connection *)events[i].data.ptr);
    }
}

// Ten times a second: what has been received for too long, and a core that does not answer.
static void check_time(struct door_http *door)
{
    uint64_t now_ns = clock_now_ns();
    if (now_ns - door->checked_ns < POLL_MS * MS_NS)
        return;
    door->checked_ns = now_ns;
    for (struct http_connection *connection = door->connections; connection != NULL;
         connection = connection->next) {
        if (now_ns < connection->deadline_ns)
            continue;
        connection->deadline_ns = UINT64_MAX;
        (void)shutdown(connection->fd, SHUT_RDWR); // the library sees its end and closes it
    }
    for (struct http_exchange *exchange = door->exchanges; exchange != NULL;
         exchange = exchange->next) {
        if (exchange->asks_status && now_ns - exchange->begun_ns > HTTP_STATUS_MS * MS_NS) {
            door_http_routes_status(door, NULL);
            return;
        }
    }
}

static bool has_last_words(const struct door_http *door)
{
    if (clock_now_ns() - door->ended_ns > LAST_WORDS_MS * MS_NS)
        return false;
    for (const struct http_exchange *exchange = door->exchanges; exchange != NULL;
         exchange = exchange->next) {
        if (exchange->phase != HTTP_RECEIVING)
            return true;
    }
    return false;
}

static void *run(void *argument)
{
    struct door_http *door = (struct door_http *)argument;
    while (!door->ended || has_last_words(door)) {
        wait_events(door);
        link_take_news(door->options.link, on_news, door);
        door_http_turn_begin(door);
        (void)MHD_run(door->daemon);
        door_http_turn_take(door);
        check_time(door);
    }
    for (struct http_exchange *exchange = door->exchanges; exchange != NULL;
         exchange = exchange->next)
        door_http_generate_cut_off(exchange, "the server ends");
    (void)MHD_run(door->daemon); // none may be suspended when the library is told to stop
    return NULL;
}

// ---- start and end ----

static bool add_to_epoll(struct door_http *door, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    return epoll_ctl(door->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

static enum status start_daemon(struct door_http *door, struct error *error)
{
    door->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_request, door,
        MHD_OPTION_LISTEN_SOCKET, door->listen_fd, MHD_OPTION_CONNECTION_LIMIT,
        door_http_listen_connections(HTTP_CONNECTIONS_MAX), MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)HTTP_CONNECTION_BYTES, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)HTTP_IDLE_S,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, door, MHD_OPTION_NOTIFY_COMPLETED,
        on_completed, door, MHD_OPTION_URI_LOG_CALLBACK, on_first_line, door, MHD_OPTION_END);
    if (door->daemon == NULL)
        return error_set(error, E_SYSTEM, "http: libmicrohttpd does not start");
    door->listen_fd = -1; // the library's now
    int fd = MHD_get_daemon_info(door->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    if (!add_to_epoll(door, fd) || !add_to_epoll(door, door->options.link->door_fd))
        return error_set(error, E_SYSTEM, "http: epoll_ctl: %s", strerror(errno));
    return OK;
}

static enum status open_tables(struct door_http *door, struct error *error)
{
    int32_t count = door->options.requests_max;
    door->numbers = calloc((size_t)count, sizeof *door->numbers);
    door->numbers_free = calloc((size_t)count, sizeof *door->numbers_free);
    door->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (door->numbers == NULL || door->numbers_free == NULL || door->epoll_fd < 0)
        return error_set(error, E_SYSTEM, "http: no memory or file descriptor");
    for (int32_t i = count - 1; i >= 0; i--)
        door->numbers_free[door->numbers_free_count++] = i;
    text_buffer_init(&door->content, HTTP_ANSWER_BYTES_MAX);
    text_buffer_init(&door->reasoning, HTTP_ANSWER_BYTES_MAX);
    text_buffer_init(&door->calls, HTTP_ANSWER_BYTES_MAX);
    door->seeds = (struct door_seeds){.has_seed = door->options.has_seed,
                                      .seed = door->options.seed,
                                      .link_index = door->options.link_index};
    door->started_s = (int64_t)time(NULL);
    return door_text_open(&door->text, door->options.tokenizer, door->options.vocab_real, error);
}

static void free_door(struct door_http *door)
{
    if (door->daemon != NULL)
        MHD_stop_daemon(door->daemon);
    if (door->listen_fd >= 0)
        close(door->listen_fd);
    if (door->epoll_fd >= 0)
        close(door->epoll_fd);
    door_text_close(door->text);
    text_buffer_fini(&door->content);
    text_buffer_fini(&door->reasoning);
    text_buffer_fini(&door->calls);
    free(door->numbers);
    free(door->numbers_free);
    free(door);
}

enum status door_http_open(struct door_http **out, const struct door_http_options *options,
                           struct error *error)
{
    struct door_http *door = calloc(1, sizeof *door);
    if (door == NULL)
        return error_set(error, E_SYSTEM, "no memory for the HTTP door");
    door->options = *options;
    door->listen_fd = door->epoll_fd = -1;
    bool open = options->insecure || (options->api_key != NULL && options->api_key[0] != '\0');
    enum status status = door_http_listen(&door->listen_fd, door->url, sizeof door->url,
                                          options->address, open, error);
    if (status == OK)
        status = open_tables(door, error);
    if (status == OK)
        status = start_daemon(door, error);
    if (status == OK && thread_start(&door->thread, "door-http", run, door) != 0)
        status = error_set(error, E_SYSTEM, "no thread for the HTTP door");
    if (status != OK) {
        free_door(door);
        return status;
    }
    *out = door;
    return OK;
}

const char *door_http_url(const struct door_http *door)
{
    return door->url;
}

void door_http_close(struct door_http *door)
{
    pthread_join(door->thread, NULL);
    free_door(door);
}
