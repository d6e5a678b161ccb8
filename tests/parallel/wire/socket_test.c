// SPDX-License-Identifier: Apache-2.0
// socket_test.c -- real sockets on the loopback: limits, absent and stalled peers, foreign bytes.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <zmq.h>

#include "parallel/base/clock.h"
#include "parallel/wire/socket.h"

enum { LIMIT_BYTES = 1000, WAIT_MS = 10000 };

static struct error error;

static struct socket_options options_of(const char *endpoint)
{
    return (struct socket_options){
        .endpoint = endpoint, .frame_bytes_max = LIMIT_BYTES, .queue_frames_max = 10};
}

static struct socket *router_of(const char *endpoint)
{
    struct socket *router = NULL;
    struct socket_options options = options_of(endpoint);
    if (socket_open_router(&router, &options, &error) != OK)
        fail_msg("%s", error.text);
    return router;
}

static struct socket *dealer_to(const struct socket *router)
{
    struct socket *dealer = NULL;
    struct socket_options options = options_of(socket_endpoint(router));
    if (socket_open_dealer(&dealer, &options, &error) != OK)
        fail_msg("%s", error.text);
    uint64_t end_ns = clock_now_ns() + (uint64_t)WAIT_MS * CLOCK_NS_PER_MS;
    while (!socket_is_connected(dealer) && clock_now_ns() < end_ns)
        socket_wait(dealer, -1, 100);
    assert_true(socket_is_connected(dealer));
    return dealer;
}

// Receives the next message within WAIT_MS.
static enum status receive(struct socket *socket, struct socket_peer *peer, const void **frame,
                           size_t *bytes)
{
    uint64_t end_ns = clock_now_ns() + (uint64_t)WAIT_MS * CLOCK_NS_PER_MS;
    enum status status;
    while ((status = socket_receive(socket, peer, frame, bytes)) == E_TIMEOUT &&
           clock_now_ns() < end_ns)
        socket_wait(socket, -1, 100);
    return status;
}

// Waits until a member of the router's counts is at least `least`.
#define WAIT_FOR_COUNT(router, member, least)                                                      \
    do {                                                                                           \
        uint64_t end_ns_ = clock_now_ns() + (uint64_t)WAIT_MS * CLOCK_NS_PER_MS;                   \
        while (socket_counts(router).member < (least) && clock_now_ns() < end_ns_)                 \
            socket_wait(router, -1, 100);                                                          \
        assert_true(socket_counts(router).member >= (least));                                      \
    } while (0)

static int port_of(const struct socket *router)
{
    return atoi(strrchr(socket_endpoint(router), ':') + 1);
}

static void messages_travel_both_ways(void **state)
{
    (void)state;
    struct socket *router = router_of("tcp://localhost:0");
    assert_memory_equal(socket_endpoint(router), "tcp://127.0.0.1:", 16);
    assert_true(port_of(router) > 0);
    struct socket *one = dealer_to(router), *two = dealer_to(router);
    assert_int_equal(socket_send(one, NULL, "one", 3, &error), OK);
    struct socket_peer peer_one, peer_two;
    const void *frame;
    size_t bytes;
    assert_int_equal(receive(router, &peer_one, &frame, &bytes), OK);
    assert_int_equal(bytes, 3);
    assert_memory_equal(frame, "one", 3);
    assert_int_equal(socket_send(two, NULL, "two", 3, &error), OK);
    assert_int_equal(receive(router, &peer_two, &frame, &bytes), OK);
    assert_memory_equal(frame, "two", 3);
    assert_int_equal(socket_send(router, &peer_one, "to one", 6, &error), OK);
    assert_int_equal(socket_send(router, &peer_two, "", 0, &error), OK);
    assert_int_equal(receive(one, NULL, &frame, &bytes), OK);
    assert_memory_equal(frame, "to one", 6);
    assert_int_equal(receive(two, NULL, &frame, &bytes), OK);
    assert_int_equal(bytes, 0);
    assert_int_equal(socket_receive(two, NULL, &frame, &bytes), E_TIMEOUT);
    assert_int_equal(socket_counts(router).connected, 2);
    socket_close(one, 0);
    socket_close(two, 0);
    socket_close(router, 0);
}

static void a_port_in_use_is_named(void **state)
{
    (void)state;
    struct socket *router = router_of("tcp://127.0.0.1:0");
    struct socket *second = NULL;
    struct socket_options options = options_of(socket_endpoint(router));
    assert_int_equal(socket_open_router(&second, &options, &error), E_SYSTEM);
    assert_null(second);
    assert_non_null(strstr(error.text, socket_endpoint(router)));
    assert_non_null(strstr(error.text, "Address already in use"));
    socket_close(router, 0);
}

static void endpoints_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *endpoint;
        enum status plain, insecure;
    } cases[] = {
        {"tcp://127.0.0.1:5570", OK, OK},
        {"tcp://127.9.8.7:0", OK, OK},
        {"tcp://localhost:1", OK, OK},
        {"tcp://[::1]:65535", OK, OK},
        {"ipc:///tmp/x", OK, OK},
        {"tcp://0.0.0.0:5570", E_UNSUPPORTED, OK},
        {"tcp://*:5570", E_UNSUPPORTED, OK},
        {"tcp://10.0.0.1:5570", E_UNSUPPORTED, OK},
        {"tcp://127.0.0.1.example.org:5570", E_UNSUPPORTED, OK},
        {"tcp://localhost.example.org:5570", E_UNSUPPORTED, OK},
        {"tcp://[::]:5570", E_UNSUPPORTED, OK},
        {"tcp://127.0.0.1", E_USAGE, E_USAGE},
        {"tcp://:5570", E_USAGE, E_USAGE},
        {"tcp://127.0.0.1:", E_USAGE, E_USAGE},
        {"tcp://127.0.0.1:65536", E_USAGE, E_USAGE},
        {"tcp://127.0.0.1:-1", E_USAGE, E_USAGE},
        {"tcp://127.0.0.1:80x", E_USAGE, E_USAGE},
        {"udp://127.0.0.1:80", E_USAGE, E_USAGE},
        {"127.0.0.1:80", E_USAGE, E_USAGE},
        {"ipc://", E_USAGE, E_USAGE},
        {"", E_USAGE, E_USAGE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (socket_check_endpoint(cases[i].endpoint, false, &error) != cases[i].plain)
            fail_msg("'%s'", cases[i].endpoint);
        if (cases[i].plain != OK)
            assert_non_null(strstr(error.text, cases[i].endpoint));
        if (socket_check_endpoint(cases[i].endpoint, true, &error) != cases[i].insecure)
            fail_msg("'%s' with --insecure", cases[i].endpoint);
    }
    char longest[400];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(socket_check_endpoint(longest, true, &error), E_USAGE);
}

static void oversized_frames_are_named_dropped_and_counted(void **state)
{
    (void)state;
    struct socket *router = router_of("tcp://127.0.0.1:0");
    struct socket *dealer = dealer_to(router);
    static char big[4 * LIMIT_BYTES];
    assert_int_equal(socket_send(dealer, NULL, big, LIMIT_BYTES + 1, &error), E_LIMIT);
    assert_string_equal(error.text, "a message of 1001 bytes, the limit is 1000");
    assert_int_equal(socket_send(dealer, NULL, big, LIMIT_BYTES, &error), OK);
    struct socket_peer peer;
    const void *frame;
    size_t bytes;
    assert_int_equal(receive(router, &peer, &frame, &bytes), OK);
    assert_int_equal(bytes, LIMIT_BYTES);
    assert_int_equal(socket_send(router, &peer, big, LIMIT_BYTES + 1, &error), E_LIMIT);

    // A foreign peer knows no limit.
    void *context = zmq_ctx_new();
    void *foreign = zmq_socket(context, ZMQ_DEALER);
    int no_linger = 0;
    zmq_setsockopt(foreign, ZMQ_LINGER, &no_linger, sizeof no_linger);
    assert_int_equal(zmq_connect(foreign, socket_endpoint(router)), 0);
    assert_int_equal(zmq_send(foreign, big, LIMIT_BYTES + 1, 0), LIMIT_BYTES + 1);
    assert_int_equal(receive(router, &peer, &frame, &bytes), E_LIMIT);
    assert_null(frame);
    assert_int_equal(socket_counts(router).frames_oversized, 1);
    assert_int_equal(socket_send(router, &peer, "too big", 7, &error), OK); // it can be told
    assert_int_equal(zmq_recv(foreign, big, sizeof big, 0), 7);
    assert_int_equal(zmq_send(foreign, "two", 3, ZMQ_SNDMORE), 3);
    assert_int_equal(zmq_send(foreign, "parts", 5, 0), 5);
    assert_int_equal(receive(router, &peer, &frame, &bytes), E_MALFORMED);
    assert_int_equal(socket_counts(router).frames_multipart, 1);
    // Above twice the limit ZeroMQ itself ends the connection; others go on.
    uint64_t before = socket_counts(router).disconnected;
    assert_int_equal(zmq_send(foreign, big, 2 * LIMIT_BYTES + 1, 0), 2 * LIMIT_BYTES + 1);
    WAIT_FOR_COUNT(router, disconnected, before + 1);
    assert_int_equal(socket_receive(router, &peer, &frame, &bytes), E_TIMEOUT);
    assert_int_equal(socket_send(dealer, NULL, "alive", 5, &error), OK);
    assert_int_equal(receive(router, &peer, &frame, &bytes), OK);
    assert_memory_equal(frame, "alive", 5);
    zmq_close(foreign);
    zmq_ctx_term(context);
    socket_close(dealer, 0);
    socket_close(router, 0);
}

static void a_peer_that_left_is_told(void **state)
{
    (void)state;
    struct socket *router = router_of("tcp://127.0.0.1:0");
    struct socket *dealer = dealer_to(router);
    assert_int_equal(socket_send(dealer, NULL, "hello", 5, &error), OK);
    struct socket_peer peer;
    const void *frame;
    size_t bytes;
    assert_int_equal(receive(router, &peer, &frame, &bytes), OK);
    socket_close(dealer, 0);
    WAIT_FOR_COUNT(router, disconnected, 1);
    // The monitor may tell before the socket has taken the pipe down.
    uint64_t limit_ns = clock_now_ns() + 5ull * CLOCK_NS_PER_S;
    while (socket_send(router, &peer, "still there?", 12, &error) != E_CONNECTION) {
        assert_true(clock_now_ns() < limit_ns);
        clock_sleep_ns(CLOCK_NS_PER_MS);
    }
    struct socket_peer nobody = {.bytes_count = 3, .bytes = "abc"};
    assert_int_equal(socket_send(router, &nobody, "x", 1, &error), E_CONNECTION);
    socket_close(router, 0);
}

static void a_server_that_left_is_told(void **state)
{
    (void)state;
    struct socket *router = router_of("tcp://127.0.0.1:0");
    struct socket *dealer = dealer_to(router);
    socket_close(router, 0);
    WAIT_FOR_COUNT(dealer, disconnected, 1);
    assert_false(socket_is_connected(dealer));
    assert_int_equal(socket_send(dealer, NULL, "x", 1, &error), E_CONNECTION);
    assert_non_null(strstr(error.text, socket_endpoint(dealer)));
    socket_close(dealer, 0);
}

// The peer reads nothing: sends are refused once the queues are full; none is dropped silently.
static void a_stalled_peer_fills_its_queue_only(void **state)
{
    (void)state;
    struct socket *router = router_of("tcp://127.0.0.1:0");
    struct socket *stalled = dealer_to(router), *other = dealer_to(router);
    struct socket_peer stalled_peer, other_peer;
    const void *frame;
    size_t bytes;
    assert_int_equal(socket_send(stalled, NULL, "s", 1, &error), OK);
    assert_int_equal(receive(router, &stalled_peer, &frame, &bytes), OK);
    assert_int_equal(socket_send(other, NULL, "o", 1, &error), OK);
    assert_int_equal(receive(router, &other_peer, &frame, &bytes), OK);
    uint32_t sent = 0;
    char message[LIMIT_BYTES] = {0};
    enum status status = OK;
    while (status == OK && sent < 10000000) {
        memcpy(message, &sent, sizeof sent);
        status = socket_send(router, &stalled_peer, message, sizeof message, &error);
        sent += status == OK;
    }
    assert_int_equal(status, E_OVERLOADED);
    assert_int_equal(socket_send(router, &other_peer, "go on", 5, &error), OK);
    assert_int_equal(receive(other, NULL, &frame, &bytes), OK);
    for (uint32_t i = 0; i < sent; i++) {
        assert_int_equal(receive(stalled, NULL, &frame, &bytes), OK);
        assert_memory_equal(frame, &i, sizeof i);
    }
    socket_close(stalled, 0);
    socket_close(other, 0);
    socket_close(router, 0);
}

static void foreign_bytes_are_a_failed_handshake(void **state)
{
    (void)state;
    struct socket *router = router_of("tcp://127.0.0.1:0");
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port_of(router))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    static const char request[] = "GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n"
                                  "and a few more bytes, so that any greeting is complete ......";
    assert_int_equal(write(fd, request, sizeof request), sizeof request);
    WAIT_FOR_COUNT(router, handshakes_failed, 1);
    // The same connection's end is not counted again: nobody had connected.
    struct socket *dealer = dealer_to(router);
    socket_close(dealer, 0);
    WAIT_FOR_COUNT(router, disconnected, 1);
    struct socket_counts counts = socket_counts(router);
    assert_int_equal(counts.handshakes_failed, 1);
    assert_int_equal(counts.connected, 1);
    assert_int_equal(counts.disconnected, 1);
    close(fd);
    socket_close(router, 0);
}

static void *close_with_linger(void *dealer)
{
    socket_close(dealer, WAIT_MS);
    return NULL;
}

// The peer begins to read only when the sender already closes with full queues.
static void linger_lets_everything_leave(void **state)
{
    (void)state;
    struct socket *router = router_of("tcp://127.0.0.1:0");
    struct socket *dealer = dealer_to(router);
    char message[LIMIT_BYTES] = {0};
    uint32_t sent = 0;
    while (sent < 10000000) {
        memcpy(message, &sent, sizeof sent);
        if (socket_send(dealer, NULL, message, sizeof message, &error) != OK)
            break;
        sent++;
    }
    pthread_t closer;
    assert_int_equal(pthread_create(&closer, NULL, close_with_linger, dealer), 0);
    for (uint32_t i = 0; i < sent; i++) {
        struct socket_peer peer;
        const void *frame;
        size_t bytes;
        assert_int_equal(receive(router, &peer, &frame, &bytes), OK);
        assert_memory_equal(frame, &i, sizeof i);
    }
    assert_int_equal(pthread_join(closer, NULL), 0);
    socket_close(router, 0);
}

// What had arrived before the server left can still be read after its going was noticed.
static void last_words_survive_the_connection(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        struct socket *router = router_of("tcp://127.0.0.1:0");
        struct socket *dealer = dealer_to(router);
        struct socket_peer peer;
        const void *frame;
        size_t bytes;
        assert_int_equal(socket_send(dealer, NULL, "hello", 5, &error), OK);
        assert_int_equal(receive(router, &peer, &frame, &bytes), OK);
        assert_int_equal(socket_send(router, &peer, "last", 4, &error), OK);
        assert_int_equal(socket_send(router, &peer, "words", 5, &error), OK);
        socket_close(router, 2000);
        WAIT_FOR_COUNT(dealer, disconnected, 1);
        assert_int_equal(receive(dealer, NULL, &frame, &bytes), OK);
        assert_memory_equal(frame, "last", 4);
        assert_int_equal(receive(dealer, NULL, &frame, &bytes), OK);
        assert_memory_equal(frame, "words", 5);
        socket_close(dealer, 0);
    }
}

enum { FLOOD = 100, NAP_US = 1800000 }; // three heartbeats of a peer that is not read

// libzmq 4.3 aborts the process when a heartbeat is due on a connection that broke while its
// receive queue was full.
static void a_flood_that_ends_in_death_is_survived(void **state)
{
    (void)state;
    struct socket *router = router_of("tcp://127.0.0.1:0");
    struct socket *dealer = dealer_to(router);
    struct socket_peer peer;
    const void *frame;
    size_t bytes;
    uint64_t end_ns = clock_now_ns() + (uint64_t)WAIT_MS * CLOCK_NS_PER_MS;
    for (int i = 0; i < FLOOD; i++) {
        enum status status;
        while ((status = socket_send(dealer, NULL, "x", 1, &error)) == E_OVERLOADED &&
               clock_now_ns() < end_ns)
            usleep(1000);
        assert_int_equal(status, OK);
    }
    socket_close(dealer, 1000);
    usleep(NAP_US);
    for (int i = 0; i < FLOOD; i++)
        assert_int_equal(receive(router, &peer, &frame, &bytes), OK);
    socket_close(router, 0);
}

static void wait_watches_another_descriptor(void **state)
{
    (void)state;
    struct socket *router = router_of("tcp://127.0.0.1:0");
    int pipe_fds[2];
    assert_int_equal(pipe(pipe_fds), 0);
    assert_int_equal(write(pipe_fds[1], "x", 1), 1);
    uint64_t before_ns = clock_now_ns();
    assert_false(socket_wait(router, pipe_fds[0], WAIT_MS));
    assert_true(clock_now_ns() - before_ns < (uint64_t)WAIT_MS * CLOCK_NS_PER_MS / 2);
    assert_true(socket_fd(router) >= 0);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    socket_close(router, 0);
    socket_close(NULL, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_travel_both_ways),
        cmocka_unit_test(a_port_in_use_is_named),
        cmocka_unit_test(endpoints_are_checked),
        cmocka_unit_test(oversized_frames_are_named_dropped_and_counted),
        cmocka_unit_test(a_peer_that_left_is_told),
        cmocka_unit_test(a_server_that_left_is_told),
        cmocka_unit_test(a_stalled_peer_fills_its_queue_only),
        cmocka_unit_test(foreign_bytes_are_a_failed_handshake),
        cmocka_unit_test(linger_lets_everything_leave),
        cmocka_unit_test(last_words_survive_the_connection),
        cmocka_unit_test(a_flood_that_ends_in_death_is_survived),
        cmocka_unit_test(wait_watches_another_descriptor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
