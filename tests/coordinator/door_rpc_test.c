// SPDX-License-Identifier: Apache-2.0
// door_rpc_test.c -- the door between a core that the test plays and real clients: thousands of
// streams on one connection, a client that does not read for too long, and many requests at once.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/door_rpc.h"
#include "deploy/client/client.h"
#include "parallel/base/clock.h"

enum { STREAMS = 2000, STEPS = 20, WAIT_MS = 20000, UNREAD_MAX = 1000000, VOCAB = 100 };

static struct link core;
static struct door_rpc *door;
static struct client *client;
static struct error error;
static uint64_t numbers[STREAMS];

static void must(enum status status)
{
    if (status != OK)
        fail_msg("%s", error.text);
}

static int set_up(void **state)
{
    (void)state;
    must(link_open(&core, STREAMS, &error));
    struct door_rpc_options options = {.endpoint = "tcp://127.0.0.1:0",
                                       .link = &core,
                                       .vocab_real = VOCAB,
                                       .model_name = "test",
                                       .requests_max = STREAMS};
    must(door_rpc_open(&door, &options, &error));
    const struct client_options client_options = {.endpoint = door_rpc_endpoint(door)};
    must(client_open(&client, &client_options, &error));
    link_tell(&core, &(struct link_news){.type = NEWS_READY, .context = 1 << 20});
    link_wake_door(&core);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    client_close(client);
    link_tell(&core, &(struct link_news){.type = NEWS_END});
    link_wake_door(&core);
    door_rpc_close(door);
    link_close(&core);
    return 0;
}

static void send_request(int index)
{
    uint8_t packed[8];
    const int32_t id = 5;
    struct generate_request request;
    generate_request_init(&request);
    snprintf(request.id, sizeof request.id, "%d", index);
    must(generate_request_pack_ids(packed, sizeof packed, &request.ids_bytes, &id, 1));
    request.ids = packed;
    request.ids_count = 1;
    must(client_generate(client, &request, &error));
}

static struct link_order next_order(void)
{
    struct link_order order;
    uint64_t end_ns = clock_now_ns() + (uint64_t)WAIT_MS * CLOCK_NS_PER_MS;
    while (!link_next_order(&core, &order)) {
        if (clock_now_ns() > end_ns)
            fail_msg("no order within %d ms", WAIT_MS);
        clock_sleep_ns(CLOCK_NS_PER_MS);
    }
    return order;
}

static uint64_t accept_one(void)
{
    struct link_order order = next_order();
    assert_int_equal(order.type, ORDER_SUBMIT);
    free(order.prompt);
    link_tell(&core, &(struct link_news){.type = NEWS_ACCEPTED, .request = order.request});
    link_wake_door(&core);
    return order.request;
}

static void tell_token(uint64_t number, int32_t token)
{
    struct link_news news = {.type = NEWS_TOKENS, .request = number, .tokens_count = 1};
    news.tokens[0] = token;
    link_tell(&core, &news);
}

static const struct reply *next_reply(void)
{
    const struct reply *reply;
    must(client_next(client, &reply, WAIT_MS, &error));
    return reply;
}

// All at once, as a core does that is 20 steps ahead of a client that was away for a moment.
static void thousands_of_streams_on_one_connection(void **state)
{
    (void)state;
    static int counts[STREAMS];
    int finals = 0;
    memset(counts, 0, sizeof counts);
    for (int i = 0; i < STREAMS; i++)
        send_request(i);
    for (int i = 0; i < STREAMS; i++)
        numbers[i] = accept_one();
    for (int step = 0; step < STEPS; step++) {
        for (int i = 0; i < STREAMS; i++)
            tell_token(numbers[i], step);
        link_wake_door(&core);
    }
    for (int i = 0; i < STREAMS; i++)
        link_tell(&core,
                  &(struct link_news){.type = NEWS_DONE, .request = numbers[i], .reason = "stop"});
    link_wake_door(&core);
    while (finals < STREAMS) {
        const struct reply *reply = next_reply();
        int index = atoi(reply->id);
        assert_in_range(index, 0, STREAMS - 1);
        if (reply->type == REPLY_ERROR)
            fail_msg("request %d: %.*s", index, (int)reply->text_bytes, reply->text);
        if (reply->type == REPLY_DELTA) {
            assert_int_equal(reply->ids_count, 1);
            assert_int_equal(reply->ids[0], counts[index]++); // in order, none missing
        } else if (reply->type == REPLY_FINAL) {
            assert_int_equal(counts[index], STEPS);
            finals++;
        }
    }
    assert_int_equal(client_unfinished(client), 0);
}

// The client reads nothing until its work has been stopped: it is told, and others are served.
static void who_does_not_read_is_cut_off_and_told(void **state)
{
    (void)state;
    struct link_order order;
    int32_t seen = 0, told = 0;
    bool stopped = false;
    send_request(7);
    numbers[0] = accept_one();
    while (!stopped && told < UNREAD_MAX) {
        tell_token(numbers[0], told++ % VOCAB);
        if (told % 1000 == 0)
            link_wake_door(&core);
        stopped = link_next_order(&core, &order);
    }
    assert_true(stopped); // the queue is bounded
    assert_int_equal(order.type, ORDER_FINISH);
    assert_true(order.request == numbers[0]);
    link_tell(&core,
              &(struct link_news){.type = NEWS_DONE, .request = numbers[0], .reason = "abort"});
    link_wake_door(&core);
    const struct reply *reply = next_reply();
    for (; reply->type != REPLY_ERROR; reply = next_reply()) {
        assert_int_not_equal(reply->type, REPLY_FINAL);
        if (reply->type == REPLY_DELTA)
            assert_int_equal(reply->ids[0], seen++ % VOCAB); // nothing is missing before the end
    }
    assert_string_equal(reply->error, status_name(E_OVERLOADED));
    assert_string_equal(reply->id, "7");
    assert_true(seen > 0 && seen < told);
    assert_int_equal(client_unfinished(client), 0);
    send_request(7); // its id is free again
    numbers[0] = accept_one();
    link_tell(&core,
              &(struct link_news){.type = NEWS_DONE, .request = numbers[0], .reason = "stop"});
    link_wake_door(&core);
    while ((reply = next_reply())->type != REPLY_FINAL)
        assert_int_equal(reply->type, REPLY_ACCEPTED);
}

// A prompt that takes the door some time to read, and is refused for its last id.
static void send_wrong_request(int index)
{
    enum { IDS = 20000 };
    static int32_t ids[IDS];
    static uint8_t packed[5 * IDS];
    struct generate_request request;
    generate_request_init(&request);
    ids[IDS - 1] = VOCAB;
    snprintf(request.id, sizeof request.id, "%d", index);
    must(generate_request_pack_ids(packed, sizeof packed, &request.ids_bytes, ids, IDS));
    request.ids = packed;
    request.ids_count = IDS;
    must(client_generate(client, &request, &error));
}

// So many requests come at once that to read them takes a while: a stream's token does not wait for
// the end of that.
static void many_requests_do_not_hold_up_streams(void **state)
{
    (void)state;
    enum { MANY = 2000, TOLD_AT = MANY / 4 };
    const struct reply *reply;
    int refused = 0;
    send_request(0);
    numbers[0] = accept_one();
    for (int i = 1; i <= MANY; i++) {
        send_wrong_request(i);
        if (i == TOLD_AT) {
            tell_token(numbers[0], 1);
            link_wake_door(&core);
        }
    }
    while ((reply = next_reply())->type != REPLY_DELTA)
        refused += reply->type == REPLY_ERROR;
    assert_in_range(refused, 0, MANY / 2);
}

// The core ends before it has read an order, as where its group dies: nothing else would tell who
// waits for it.
static void the_end_is_told_to_those_the_core_does_not_know(void **state)
{
    (void)state;
    send_request(0);
    send_request(1);
    accept_one();
    struct link_order order = next_order();
    free(order.prompt);
    link_tell(&core, &(struct link_news){.type = NEWS_END});
    link_wake_door(&core);
    int told = 0;
    while (told < 2) {
        const struct reply *reply = next_reply();
        if (reply->type == REPLY_ACCEPTED)
            continue;
        assert_int_equal(reply->type, REPLY_ERROR);
        assert_string_equal(reply->error, status_name(E_FAILED));
        told++;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(thousands_of_streams_on_one_connection, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_does_not_read_is_cut_off_and_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_end_is_told_to_those_the_core_does_not_know, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(many_requests_do_not_hold_up_streams, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
