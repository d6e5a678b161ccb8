// SPDX-License-Identifier: Apache-2.0
// client_test.c -- the client library against a door that is played by the test itself, over real
// sockets: many in flight, dead, silent and talkative servers.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "deploy/client/client.h"
#include "parallel/base/clock.h"
#include "parallel/wire/socket.h"

enum { WAIT_MS = 10000, SILENCE_MS = 1000 };

static struct socket *door;
static struct client *client;
static struct error error;
static struct socket_peer peer;
static struct generate_request seen; // what the door received last
static char seen_id[REQUEST_ID_BYTES_MAX + 1];

static void open_door(const char *endpoint)
{
    const struct socket_options options = {
        .endpoint = endpoint, .frame_bytes_max = REQUEST_FRAME_BYTES_MAX, .queue_frames_max = 1000};
    if (socket_open_router(&door, &options, &error) != OK)
        fail_msg("%s", error.text);
}

static int set_up(void **state)
{
    (void)state;
    open_door("tcp://127.0.0.1:0");
    const struct client_options options = {.endpoint = socket_endpoint(door),
                                           .silence_ms_max = SILENCE_MS};
    return client_open(&client, &options, &error) != OK;
}

static int tear_down(void **state)
{
    (void)state;
    client_close(client);
    socket_close(door, 0);
    client = NULL;
    door = NULL;
    return 0;
}

// The door receives one request and returns its type.
static enum request_type receive(void)
{
    const void *frame;
    size_t bytes;
    uint64_t end_ns = clock_now_ns() + (uint64_t)WAIT_MS * CLOCK_NS_PER_MS;
    while (socket_receive(door, &peer, &frame, &bytes) != OK) {
        assert_true(clock_now_ns() < end_ns);
        socket_wait(door, -1, 100);
    }
    request_id_of(seen_id, frame, bytes);
    enum request_type type = request_type_of(frame, bytes);
    if (type == REQUEST_GENERATE)
        assert_int_equal(generate_request_decode(&seen, frame, bytes, &error), OK);
    return type;
}

static void answer(const struct reply *reply)
{
    uint8_t frame[4096];
    size_t bytes;
    assert_int_equal(reply_encode(frame, sizeof frame, &bytes, reply), OK);
    assert_int_equal(socket_send(door, &peer, frame, bytes, &error), OK);
}

static void generate(const char *id)
{
    struct generate_request request;
    generate_request_init(&request);
    snprintf(request.id, sizeof request.id, "%s", id);
    request.prompt = "hello";
    request.prompt_bytes = 5;
    request.max_tokens = 3;
    if (client_generate(client, &request, &error) != OK)
        fail_msg("%s", error.text);
}

static struct reply final_of(const char *id)
{
    struct reply reply = {.type = REPLY_FINAL, .finish_reason = "stop"};
    snprintf(reply.id, sizeof reply.id, "%s", id);
    return reply;
}

static const struct reply *next(void)
{
    const struct reply *reply = NULL;
    if (client_next(client, &reply, WAIT_MS, &error) != OK)
        fail_msg("%s", error.text);
    return reply;
}

static void a_request_and_its_replies(void **state)
{
    (void)state;
    generate("one");
    assert_int_equal(client_unfinished(client), 1);
    assert_int_equal(receive(), REQUEST_GENERATE);
    assert_string_equal(seen.id, "one");
    assert_int_equal(seen.max_tokens, 3);
    const int32_t ids[2] = {4, 5};
    answer(&(struct reply){.type = REPLY_ACCEPTED, .id = "one", .seed = 9, .ignored = "foo"});
    answer(&(struct reply){.type = REPLY_PING});
    answer(&(struct reply){.type = REPLY_DELTA,
                           .id = "one",
                           .ids = ids,
                           .ids_count = 2,
                           .text = "hi",
                           .text_bytes = 2});
    struct reply final = final_of("one");
    answer(&final);
    const struct reply *reply = next();
    assert_int_equal(reply->type, REPLY_ACCEPTED);
    assert_string_equal(reply->ignored, "foo");
    reply = next();
    assert_int_equal(reply->type, REPLY_DELTA);
    assert_int_equal(reply->ids[1], 5);
    assert_memory_equal(reply->text, "hi", 2);
    assert_int_equal(client_unfinished(client), 1);
    assert_int_equal(next()->type, REPLY_FINAL);
    assert_int_equal(client_unfinished(client), 0);
    assert_int_equal(client_next(client, &reply, 10, &error), E_TIMEOUT);
}

static void many_in_flight_end_in_any_order(void **state)
{
    (void)state;
    enum { COUNT = 1500 }; // beyond the server's queue of 1000
    for (int i = 0; i < COUNT; i++) {
        char id[16];
        snprintf(id, sizeof id, "r%d", i);
        generate(id);
    }
    assert_int_equal(client_unfinished(client), COUNT);
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(receive(), REQUEST_GENERATE);
        char id[16];
        snprintf(id, sizeof id, "r%d", i);
        assert_string_equal(seen.id, id);
    }
    for (int i = 0; i < COUNT; i++) {
        char id[16];
        snprintf(id, sizeof id, "r%d", (i * 7) % COUNT);
        struct reply final = final_of(id);
        answer(&final);
        const struct reply *reply = next();
        assert_string_equal(reply->id, id);
        assert_int_equal(client_unfinished(client), COUNT - 1 - i);
    }
}

static void errors_status_and_drain_finish_too(void **state)
{
    (void)state;
    assert_int_equal(client_status(client, "s", &error), OK);
    assert_int_equal(client_drain(client, "d", &error), OK);
    generate("g");
    assert_int_equal(receive(), REQUEST_STATUS);
    assert_int_equal(receive(), REQUEST_DRAIN);
    assert_int_equal(receive(), REQUEST_GENERATE);
    answer(&(struct reply){.type = REPLY_STATUS, .id = "s", .text = "{}", .text_bytes = 2});
    answer(&(struct reply){.type = REPLY_DRAINING, .id = "d"});
    answer(&(struct reply){
        .type = REPLY_ERROR, .id = "g", .error = "overloaded", .text = "full", .text_bytes = 4});
    assert_int_equal(next()->type, REPLY_STATUS);
    assert_int_equal(next()->type, REPLY_DRAINING);
    assert_int_equal(client_unfinished(client), 1);
    assert_string_equal(next()->error, "overloaded");
    assert_int_equal(client_unfinished(client), 0);
    // An error without an id finishes nothing.
    generate("h");
    assert_int_equal(receive(), REQUEST_GENERATE);
    answer(
        &(struct reply){.type = REPLY_ERROR, .error = "malformed", .text = "?", .text_bytes = 1});
    assert_int_equal(next()->type, REPLY_ERROR);
    assert_int_equal(client_unfinished(client), 1);
}

static void abort_speaks_of_a_request(void **state)
{
    (void)state;
    generate("a");
    assert_int_equal(client_abort(client, "a", &error), OK);
    assert_int_equal(client_unfinished(client), 1);
    assert_int_equal(receive(), REQUEST_GENERATE);
    assert_int_equal(receive(), REQUEST_ABORT);
    assert_string_equal(seen_id, "a");
}

static void bad_requests_are_refused_here(void **state)
{
    (void)state;
    generate("same");
    struct generate_request request;
    generate_request_init(&request);
    memcpy(request.id, "same", 5);
    request.prompt = "x";
    request.prompt_bytes = 1;
    assert_int_equal(client_generate(client, &request, &error), E_INPUT);
    assert_string_equal(error.text, "request 'same' is still unfinished");
    request.id[0] = '\0';
    assert_int_equal(client_generate(client, &request, &error), E_INPUT);
    assert_int_equal(client_unfinished(client), 1);
    static uint8_t large[REQUEST_FRAME_BYTES_MAX + 1];
    memcpy(large,
           "\x82\xa2id\xa3"
           "big\xa1x\xc6\x00\xff\xff\xf0",
           15);
    assert_int_equal(client_send(client, large, sizeof large, &error), E_LIMIT);
    assert_string_equal(error.text, "a message of 16777217 bytes, the limit is 16777216");
    assert_int_equal(client_unfinished(client), 1);
}

static void a_silent_server_is_given_up(void **state)
{
    (void)state;
    const struct reply *reply;
    // Nothing unfinished: silence is fine.
    assert_int_equal(client_next(client, &reply, 2 * SILENCE_MS, &error), E_TIMEOUT);
    generate("one");
    uint64_t start_ns = clock_now_ns();
    assert_int_equal(client_next(client, &reply, WAIT_MS, &error), E_CONNECTION);
    uint64_t waited_ms = (clock_now_ns() - start_ns) / CLOCK_NS_PER_MS;
    assert_true(waited_ms >= SILENCE_MS - 50);
    assert_non_null(strstr(error.text, "was silent for 1000 ms, 1 requests were unfinished"));
    assert_int_equal(client_unfinished(client), 0);
}

static void pings_keep_it_alive(void **state)
{
    (void)state;
    const struct reply *reply;
    generate("one");
    assert_int_equal(receive(), REQUEST_GENERATE);
    for (int i = 0; i < 8; i++) { // twice the silence in all
        answer(&(struct reply){.type = REPLY_PING});
        assert_int_equal(client_next(client, &reply, SILENCE_MS / 4, &error), E_TIMEOUT);
    }
    assert_int_equal(client_unfinished(client), 1);
}

static void a_dead_server_is_noticed_at_once(void **state)
{
    (void)state;
    const struct reply *reply;
    generate("one");
    assert_int_equal(receive(), REQUEST_GENERATE);
    char endpoint[256];
    snprintf(endpoint, sizeof endpoint, "%s", socket_endpoint(door));
    struct reply delta = {.type = REPLY_DELTA, .id = "one", .text = "last", .text_bytes = 4};
    answer(&delta);
    assert_int_equal(next()->type, REPLY_DELTA);
    socket_close(door, 0);
    assert_int_equal(client_next(client, &reply, WAIT_MS, &error), E_CONNECTION);
    assert_non_null(strstr(error.text, "broke, 1 requests were unfinished"));
    assert_int_equal(client_unfinished(client), 0);
    // A new server at the same place knows nothing of the old request; new ones work.
    open_door(endpoint);
    struct generate_request request;
    generate_request_init(&request);
    memcpy(request.id, "two", 4);
    request.prompt = "x";
    request.prompt_bytes = 1;
    uint64_t end_ns = clock_now_ns() + (uint64_t)WAIT_MS * CLOCK_NS_PER_MS;
    enum status status;
    while ((status = client_generate(client, &request, &error)) == E_CONNECTION &&
           clock_now_ns() < end_ns)
        assert_int_not_equal(client_next(client, &reply, 50, &error), OK);
    assert_int_equal(status, OK);
    assert_int_equal(receive(), REQUEST_GENERATE);
    assert_string_equal(seen.id, "two");
}

static void no_server_is_told_in_time(void **state)
{
    (void)state;
    char endpoint[256];
    snprintf(endpoint, sizeof endpoint, "%s", socket_endpoint(door));
    socket_close(door, 0); // the port is free again, and nobody listens
    door = NULL;
    struct client *none = NULL;
    struct client_options options = {.endpoint = endpoint, .connect_ms_max = 300};
    uint64_t start_ns = clock_now_ns();
    assert_int_equal(client_open(&none, &options, &error), E_CONNECTION);
    assert_null(none);
    assert_true(clock_now_ns() - start_ns >= 300u * CLOCK_NS_PER_MS);
    assert_non_null(strstr(error.text, endpoint));
    options.endpoint = "tcp://10.0.0.1:1";
    assert_int_equal(client_open(&none, &options, &error), E_UNSUPPORTED);
    options.endpoint = "nonsense";
    assert_int_equal(client_open(&none, &options, &error), E_USAGE);
    client_close(NULL);
}

static void garbage_from_the_server_is_told(void **state)
{
    (void)state;
    const struct reply *reply;
    generate("one");
    assert_int_equal(receive(), REQUEST_GENERATE);
    assert_int_equal(socket_send(door, &peer, "garbage", 7, &error), OK);
    assert_int_equal(client_next(client, &reply, WAIT_MS, &error), E_MALFORMED);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_request_and_its_replies),
        TEST(many_in_flight_end_in_any_order),
        TEST(errors_status_and_drain_finish_too),
        TEST(abort_speaks_of_a_request),
        TEST(bad_requests_are_refused_here),
        TEST(a_silent_server_is_given_up),
        TEST(pings_keep_it_alive),
        TEST(a_dead_server_is_noticed_at_once),
        TEST(no_server_is_told_in_time),
        TEST(garbage_from_the_server_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
