// SPDX-License-Identifier: Apache-2.0
// socket.c -- options, endpoints and the monitor of a ZeroMQ socket.
#include "parallel/wire/socket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zmq.h>

#include "parallel/wire/socket_curve.h"

struct socket {
    void *context, *handle, *monitor;
    bool is_router, is_connected, message_is_held;
    zmq_msg_t message; // the frame lent to the caller
    size_t frame_bytes_max;
    struct socket_curve curve;
    bool is_curve;
    struct socket_counts counts;
    uint64_t disconnections_due; // of failed handshakes, which come as a second event
    char endpoint[SOCKET_ENDPOINT_BYTES_MAX];
};

// ---- Endpoints ----

static bool is_loopback(const char *host, size_t bytes)
{
    static const char *const names[] = {"localhost", "[::1]"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strlen(names[i]) == bytes && memcmp(names[i], host, bytes) == 0)
            return true;
    }
    int end = 0;
    unsigned a, b, c, d;
    return sscanf(host, "%3u.%3u.%3u.%3u%n", &a, &b, &c, &d, &end) == 4 && (size_t)end == bytes &&
           a == 127 && b <= 255 && c <= 255 && d <= 255;
}

enum status socket_check_endpoint(const char *endpoint, bool is_protected, struct error *error)
{
    if (strlen(endpoint) >= SOCKET_ENDPOINT_BYTES_MAX - 16)
        return error_set(error, E_USAGE, "endpoint '%.40s...' is longer than %d bytes", endpoint,
                         SOCKET_ENDPOINT_BYTES_MAX - 17);
    if (strncmp(endpoint, "ipc://", 6) == 0 && endpoint[6] != '\0')
        return OK;
    const char *host = endpoint + 6;
    const char *colon = strrchr(endpoint, ':');
    if (strncmp(endpoint, "tcp://", 6) != 0 || colon <= host)
        return error_set(error, E_USAGE, "endpoint '%s' is not tcp://HOST:PORT or ipc://PATH",
                         endpoint);
    char *end;
    unsigned long port = strtoul(colon + 1, &end, 10);
    if (colon[1] < '0' || colon[1] > '9' || *end != '\0' || port > 65535)
        return error_set(error, E_USAGE, "endpoint '%s': the port is no number in 0 .. 65535",
                         endpoint);
    if (!is_protected && !is_loopback(host, (size_t)(colon - host)))
        return error_set(error, E_UNSUPPORTED,
                         "endpoint '%s' is not on the loopback: give --curve-dir DIR with keys "
                         "(`deltamesh keys` makes them), or --insecure for neither encryption nor "
                         "passwords",
                         endpoint);
    return OK;
}

// ---- Opening and closing ----

static void set_int(struct socket *socket, int option, int value)
{
    int failed = zmq_setsockopt(socket->handle, option, &value, sizeof value);
    ASSERT(failed == 0);
}

static void set_options(struct socket *socket, const struct socket_options *options)
{
    int64_t bytes_max = 2 * (int64_t)options->frame_bytes_max;
    int failed = zmq_setsockopt(socket->handle, ZMQ_MAXMSGSIZE, &bytes_max, sizeof bytes_max);
    ASSERT(failed == 0);
    set_int(socket, ZMQ_SNDHWM, options->queue_frames_max);
    // libzmq 4.3 aborts the process when a ping is due on a connection that broke while its
    // receive queue was full (stream_engine_base.cpp: timer_event writes without asking _io_error).
    // A client must not be able to do that to a server: a router, read at all times, has no limit.
    set_int(socket, ZMQ_RCVHWM, socket->is_router ? 0 : options->queue_frames_max);
    set_int(socket, ZMQ_LINGER, 0);
    set_int(socket, ZMQ_HEARTBEAT_IVL, SOCKET_HEARTBEAT_INTERVAL_MS);
    set_int(socket, ZMQ_HEARTBEAT_TIMEOUT, SOCKET_SILENCE_MS_MAX - SOCKET_HEARTBEAT_INTERVAL_MS);
    set_int(socket, ZMQ_HEARTBEAT_TTL, SOCKET_SILENCE_MS_MAX - SOCKET_HEARTBEAT_INTERVAL_MS);
    set_int(socket, ZMQ_HANDSHAKE_IVL, SOCKET_HANDSHAKE_MS_MAX);
    set_int(socket, ZMQ_IPV6, strchr(options->endpoint, '[') != NULL);
    if (socket->is_router) {
        set_int(socket, ZMQ_ROUTER_MANDATORY, 1); // a full or absent peer is told, not dropped
    } else {
        // Not ZMQ_IMMEDIATE: it drops what has arrived and is unread when the connection ends.
        set_int(socket, ZMQ_RECONNECT_IVL, 50);
        set_int(socket, ZMQ_RECONNECT_IVL_MAX, 1000);
    }
}

static enum status open_monitor(struct socket *socket, struct error *error)
{
    const int events = ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                       ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |
                       ZMQ_EVENT_DISCONNECTED;
    static const char address[] = "inproc://monitor"; // of this socket's own context
    socket->monitor = zmq_socket(socket->context, ZMQ_PAIR);
    if (socket->monitor == NULL || zmq_socket_monitor(socket->handle, address, events) != 0 ||
        zmq_connect(socket->monitor, address) != 0)
        return error_set(error, E_SYSTEM, "cannot watch %s: %s", socket->endpoint,
                         zmq_strerror(zmq_errno()));
    return OK;
}

static enum status set_curve(struct socket *socket, const struct socket_options *options,
                             struct error *error)
{
    struct curve_keys keys = {.is_server = false};
    if (options->curve_dir == NULL)
        return OK;
    socket->is_curve = true;
    TRY(socket->is_router
            ? curve_load_server(&keys, options->curve_dir, options->curve_who, error)
            : curve_load_client(&keys, options->curve_dir, options->curve_who, error));
    enum status status =
        socket_curve_init(&socket->curve, socket->context, socket->handle, &keys, error);
    curve_fini(&keys);
    return status;
}

// ZeroMQ binds to numbers and interfaces only, so that localhost becomes 127.0.0.1.
static void copy_endpoint(char *out, const char *endpoint, bool is_router)
{
    static const char localhost[] = "tcp://localhost:";
    if (is_router && strncmp(endpoint, localhost, sizeof localhost - 1) == 0)
        snprintf(out, SOCKET_ENDPOINT_BYTES_MAX, "tcp://127.0.0.1:%s",
                 endpoint + sizeof localhost - 1);
    else
        snprintf(out, SOCKET_ENDPOINT_BYTES_MAX, "%s", endpoint);
}

static enum status bind_or_connect(struct socket *socket, struct error *error)
{
    if (!socket->is_router) {
        if (zmq_connect(socket->handle, socket->endpoint) != 0)
            return error_set(error, E_USAGE, "cannot connect to '%s': %s", socket->endpoint,
                             zmq_strerror(zmq_errno()));
        return OK;
    }
    if (zmq_bind(socket->handle, socket->endpoint) != 0) {
        const char *hint = zmq_errno() == EADDRINUSE
                               ? " (another program has this port; choose another, or 0 for any)"
                               : "";
        return error_set(error, E_SYSTEM, "cannot listen at %s: %s%s", socket->endpoint,
                         zmq_strerror(zmq_errno()), hint);
    }
    size_t bytes = sizeof socket->endpoint;
    int failed = zmq_getsockopt(socket->handle, ZMQ_LAST_ENDPOINT, socket->endpoint, &bytes);
    ASSERT(failed == 0);
    return OK;
}

static enum status open_socket(struct socket **out, const struct socket_options *options,
                               bool is_router, struct error *error)
{
    TRY(socket_check_endpoint(options->endpoint, options->insecure || options->curve_dir != NULL,
                              error));
    ASSERT(options->queue_frames_max > 0 && options->frame_bytes_max > 0);
    struct socket *socket = calloc(1, sizeof *socket);
    if (socket == NULL)
        return error_set(error, E_SYSTEM, "no memory for a socket");
    socket->is_router = is_router;
    socket->frame_bytes_max = options->frame_bytes_max;
    copy_endpoint(socket->endpoint, options->endpoint, is_router);
    socket->context = zmq_ctx_new();
    if (socket->context != NULL)
        socket->handle = zmq_socket(socket->context, is_router ? ZMQ_ROUTER : ZMQ_DEALER);
    enum status status = OK;
    if (socket->handle == NULL)
        status = error_set(error, E_SYSTEM, "cannot make a socket for %s: %s", socket->endpoint,
                           zmq_strerror(zmq_errno()));
    if (status == OK) {
        set_options(socket, options);
        status = set_curve(socket, options, error);
    }
    if (status == OK)
        status = open_monitor(socket, error);
    if (status == OK)
        status = bind_or_connect(socket, error);
    if (status != OK) {
        socket_close(socket, 0);
        return status;
    }
    *out = socket;
    return OK;
}

enum status socket_open_router(struct socket **out, const struct socket_options *options,
                               struct error *error)
{
    return open_socket(out, options, true, error);
}

enum status socket_open_dealer(struct socket **out, const struct socket_options *options,
                               struct error *error)
{
    return open_socket(out, options, false, error);
}

void socket_close(struct socket *socket, int linger_ms)
{
    if (socket == NULL)
        return;
    if (socket->message_is_held)
        zmq_msg_close(&socket->message);
    if (socket->handle != NULL) {
        zmq_socket_monitor(socket->handle, NULL, 0);
        set_int(socket, ZMQ_LINGER, linger_ms);
        zmq_close(socket->handle);
    }
    if (socket->monitor != NULL)
        zmq_close(socket->monitor);
    socket_curve_fini(&socket->curve);
    while (socket->context != NULL && zmq_ctx_term(socket->context) != 0 && zmq_errno() == EINTR)
        continue;
    free(socket);
}

// ---- What the monitor tells ----

static void read_monitor(struct socket *socket)
{
    zmq_msg_t event, address;
    for (;;) {
        zmq_msg_init(&event);
        if (zmq_msg_recv(&event, socket->monitor, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&event);
            if (zmq_errno() == EINTR)
                continue;
            return;
        }
        uint16_t kind = 0;
        if (zmq_msg_size(&event) >= sizeof kind)
            memcpy(&kind, zmq_msg_data(&event), sizeof kind);
        zmq_msg_close(&event);
        zmq_msg_init(&address); // the second frame comes with the first
        zmq_msg_recv(&address, socket->monitor, ZMQ_DONTWAIT);
        zmq_msg_close(&address);
        if (kind == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
            socket->counts.connected++;
            socket->is_connected = true;
        } else if (kind == ZMQ_EVENT_DISCONNECTED && socket->disconnections_due > 0) {
            socket->disconnections_due--;
        } else if (kind == ZMQ_EVENT_DISCONNECTED) {
            socket->counts.disconnected++;
            socket->is_connected = false;
        } else {
            socket->counts.handshakes_failed++;
            socket->disconnections_due++;
        }
    }
}

const char *socket_endpoint(const struct socket *socket)
{
    return socket->endpoint;
}

bool socket_is_connected(struct socket *socket)
{
    read_monitor(socket);
    return socket->is_connected;
}

const char *socket_refusal(struct socket *socket)
{
    read_monitor(socket);
    if (socket->counts.handshakes_failed == 0)
        return "";
    return socket->is_curve
               ? "; it refuses the handshake: it knows neither these keys nor CURVE, or is another "
                 "server than server.public says"
               : "; it refuses the handshake: it wants CURVE keys (--curve-dir DIR), or is no "
                 "deltamesh";
}

struct socket_counts socket_counts(struct socket *socket)
{
    read_monitor(socket);
    return socket->counts;
}

// ---- Messages ----

int socket_fd(const struct socket *socket)
{
    int fd = -1;
    size_t bytes = sizeof fd;
    int failed = zmq_getsockopt(socket->handle, ZMQ_FD, &fd, &bytes);
    ASSERT(failed == 0);
    return fd;
}

bool socket_wait(struct socket *socket, int other_fd, int timeout_ms)
{
    zmq_pollitem_t items[4] = {{.socket = socket->handle, .events = ZMQ_POLLIN},
                               {.socket = socket->monitor, .events = ZMQ_POLLIN}};
    int count = 2;
    if (other_fd >= 0)
        items[count++] = (zmq_pollitem_t){.fd = other_fd, .events = ZMQ_POLLIN};
    if (socket->curve.zap != NULL)
        items[count++] = (zmq_pollitem_t){.socket = socket->curve.zap, .events = ZMQ_POLLIN};
    int ready = zmq_poll(items, count, timeout_ms);
    socket_curve_answer(&socket->curve);
    if (ready > 0 && (items[1].revents & ZMQ_POLLIN) != 0)
        read_monitor(socket);
    return ready > 0 && (items[0].revents & ZMQ_POLLIN) != 0;
}

enum status socket_send(struct socket *socket, const struct socket_peer *peer, const void *frame,
                        size_t frame_bytes, struct error *error)
{
    if (frame_bytes > socket->frame_bytes_max)
        return error_set(error, E_LIMIT, "a message of %zu bytes, the limit is %zu", frame_bytes,
                         socket->frame_bytes_max);
    if (!socket->is_router && !socket_is_connected(socket)) // or it would wait for another server
        return error_set(error, E_CONNECTION, "no connection to %s", socket->endpoint);
    int sent = 0;
    if (socket->is_router) {
        do
            sent = zmq_send(socket->handle, peer->bytes, peer->bytes_count,
                            ZMQ_SNDMORE | ZMQ_DONTWAIT);
        while (sent < 0 && zmq_errno() == EINTR);
        if (sent < 0 && zmq_errno() == EHOSTUNREACH)
            return error_set(error, E_CONNECTION, "the peer is gone");
    }
    if (!socket->is_router || sent >= 0) {
        do
            sent = zmq_send(socket->handle, frame, frame_bytes, ZMQ_DONTWAIT);
        while (sent < 0 && zmq_errno() == EINTR);
    }
    if (sent >= 0)
        return OK;
    if (zmq_errno() != EAGAIN)
        DIE("zmq_send at %s: %s", socket->endpoint, zmq_strerror(zmq_errno()));
    return error_set(error, E_OVERLOADED, "the queue to the peer is full");
}

// Receives one part into socket->message; false when none is there.
static bool receive_part(struct socket *socket)
{
    if (socket->message_is_held)
        zmq_msg_close(&socket->message);
    zmq_msg_init(&socket->message);
    socket->message_is_held = true;
    int bytes;
    do
        bytes = zmq_msg_recv(&socket->message, socket->handle, ZMQ_DONTWAIT);
    while (bytes < 0 && zmq_errno() == EINTR);
    if (bytes < 0 && zmq_errno() != EAGAIN)
        DIE("zmq_msg_recv at %s: %s", socket->endpoint, zmq_strerror(zmq_errno()));
    return bytes >= 0;
}

enum status socket_receive(struct socket *socket, struct socket_peer *peer, const void **frame,
                           size_t *frame_bytes)
{
    *frame = NULL;
    *frame_bytes = 0;
    read_monitor(socket);
    socket_curve_answer(&socket->curve);
    if (!receive_part(socket))
        return E_TIMEOUT;
    if (socket->is_router) {
        size_t bytes = zmq_msg_size(&socket->message);
        ASSERT(bytes <= sizeof peer->bytes); // a routing id is at most 255 bytes
        peer->bytes_count = (uint8_t)bytes;
        memcpy(peer->bytes, zmq_msg_data(&socket->message), bytes);
        if (!zmq_msg_more(&socket->message) || !receive_part(socket)) {
            socket->counts.frames_multipart++;
            return E_MALFORMED; // an id without a frame
        }
    }
    if (zmq_msg_more(&socket->message)) {
        while (zmq_msg_more(&socket->message) && receive_part(socket))
            continue;
        socket->counts.frames_multipart++;
        return E_MALFORMED;
    }
    if (zmq_msg_size(&socket->message) > socket->frame_bytes_max) {
        socket->counts.frames_oversized++;
        return E_LIMIT;
    }
    *frame = zmq_msg_data(&socket->message);
    *frame_bytes = zmq_msg_size(&socket->message);
    return OK;
}
