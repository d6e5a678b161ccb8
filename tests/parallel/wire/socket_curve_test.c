// SPDX-License-Identifier: Apache-2.0
// socket_curve_test.c -- a socket with keys: who has one of the list gets in, everybody else is
// turned away and hears of it.
#include "parallel/wire/socket_curve.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "parallel/base/clock.h"
#include "parallel/wire/socket.h"

enum { WAIT_MS = 10000 };

static char ours[64], others[64];
static struct socket *router;
static struct error error;

static void must(enum status status)
{
    if (status != OK)
        fail_msg("%s", error.text);
}

static struct socket_options options_of(const char *endpoint, const char *dir, const char *who)
{
    return (struct socket_options){.endpoint = endpoint,
                                   .frame_bytes_max = 1000,
                                   .queue_frames_max = 10,
                                   .curve_dir = dir,
                                   .curve_who = who};
}

static int set_up(void **state)
{
    int made;
    (void)state;
    strcpy(ours, "/tmp/deltamesh-curve-XXXXXX");
    strcpy(others, "/tmp/deltamesh-curve-XXXXXX");
    assert_non_null(mkdtemp(ours));
    assert_non_null(mkdtemp(others));
    must(curve_make(ours, &made, &error));
    must(curve_make(others, &made, &error));
    struct socket_options options = options_of("tcp://0.0.0.0:0", ours, "client");
    must(socket_open_router(&router, &options, &error));
    return 0;
}

static int tear_down(void **state)
{
    char command[256];
    (void)state;
    socket_close(router, 0);
    snprintf(command, sizeof command, "rm -r '%s' '%s'", ours, others);
    assert_int_equal(system(command), 0);
    return 0;
}

static uint64_t failed_before; // the router's count of failed handshakes when dial was called

static struct socket *dial(const char *dir, const char *who)
{
    char endpoint[64];
    struct socket *dealer;
    failed_before = socket_counts(router).handshakes_failed;
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%s",
             strrchr(socket_endpoint(router), ':') + 1);
    struct socket_options options = options_of(endpoint, dir, who);
    must(socket_open_dealer(&dealer, &options, &error));
    return dealer;
}

// Whether the dealer gets in; false once it has been turned away, with the router's count of it.
// The count is compared with the one before the dial: a handshake can fail before this is called,
// and a dealer told of a protocol error does not come again.
static bool gets_in(struct socket *dealer)
{
    uint64_t end_ns = clock_now_ns() + (uint64_t)WAIT_MS * CLOCK_NS_PER_MS;
    while (clock_now_ns() < end_ns) {
        socket_wait(router, -1, 10);
        if (socket_is_connected(dealer))
            return true;
        if (socket_refusal(dealer)[0] != '\0' &&
            socket_counts(router).handshakes_failed > failed_before)
            return false;
    }
    fail_msg("neither in nor turned away within %d ms", WAIT_MS);
    return false;
}

static void a_known_key_gets_in(void **state)
{
    (void)state;
    struct socket_peer peer;
    const void *frame;
    size_t bytes;
    struct socket *dealer = dial(ours, "client");
    assert_true(gets_in(dealer));
    assert_string_equal(socket_refusal(dealer), "");
    must(socket_send(dealer, NULL, "hello", 5, &error));
    for (int i = 0; i < 1000 && socket_receive(router, &peer, &frame, &bytes) != OK; i++)
        socket_wait(router, -1, 10);
    assert_int_equal(bytes, 5);
    assert_memory_equal(frame, "hello", 5);
    socket_close(dealer, 0);
}

static void everybody_else_does_not(void **state)
{
    (void)state;
    const struct {
        const char *dir, *who, *text;
    } cases[] = {
        {NULL, NULL, "--curve-dir"},       // no keys
        {ours, "worker", "neither these"}, // a key of the deployment, but not of this list
        {others, "client", "server.public"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct socket *dealer = dial(cases[i].dir, cases[i].who);
        assert_false(gets_in(dealer));
        assert_non_null(strstr(socket_refusal(dealer), cases[i].text));
        assert_int_equal(socket_send(dealer, NULL, "x", 1, &error), E_CONNECTION);
        socket_close(dealer, 0);
    }
    // The right server's key, and a pair that nobody let in.
    char path[128], command[256];
    snprintf(command, sizeof command, "cp '%s/server.public' '%s/'", ours, others);
    assert_int_equal(system(command), 0);
    struct socket *dealer = dial(others, "client");
    assert_false(gets_in(dealer));
    socket_close(dealer, 0);
    snprintf(path, sizeof path, "%s/none", others);
    struct socket_options options = options_of("tcp://127.0.0.1:0", path, "client");
    assert_int_equal(socket_open_router(&dealer, &options, &error), E_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_known_key_gets_in, set_up, tear_down),
        cmocka_unit_test_setup_teardown(everybody_else_does_not, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
