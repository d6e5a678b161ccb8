// SPDX-License-Identifier: Apache-2.0
// link_test.c -- orders and news arrive whole, in order and once, from one thread to another; a
// full ring refuses the door and makes the core wait; news take turns; a wake is seen by poll.
#include "coordinator/link.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "parallel/base/clock.h"

enum { FINISHES = 100 }; // as many unfinished requests, at most

static void open_link(struct link *link)
{
    struct error error = {.status = OK};
    assert_int_equal(link_open(link, FINISHES, &error), OK);
}

static bool awake(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    return poll(&poll_fd, 1, 0) == 1;
}

static void test_orders(void **state)
{
    (void)state;
    struct link link;
    struct link_order order = {.type = ORDER_SUBMIT, .request = 3}, got;
    open_link(&link);
    assert_false(link_next_order(&link, &got));
    order.prompt = malloc(sizeof *order.prompt);
    order.prompt[0] = 77;
    order.prompt_tokens = 1;
    order.sampling.stop_ids[15] = 5;
    assert_true(link_order(&link, &order));
    assert_true(link_finish(&link, 4, "abort"));
    assert_true(link_next_order(&link, &got));
    assert_int_equal(got.type, ORDER_SUBMIT);
    assert_int_equal(got.request, 3);
    assert_int_equal(got.prompt[0], 77);
    assert_int_equal(got.sampling.stop_ids[15], 5);
    free(got.prompt);
    assert_true(link_next_order(&link, &got));
    assert_int_equal(got.type, ORDER_FINISH);
    assert_string_equal(got.reason, "abort");
    assert_false(link_next_order(&link, &got));
    link_close(&link);
    assert_int_equal(link.core_fd, -1);
    link_close(&link); // twice is once
}

static void test_full(void **state)
{
    (void)state;
    struct link link;
    struct link_order order = {.type = ORDER_STATUS}, got;
    open_link(&link);
    for (order.request = 0; order.request < LINK_TO_CORE_MAX; order.request++)
        assert_true(link_order(&link, &order));
    assert_false(link_order(&link, &order)); // the door answers `overloaded`
    assert_true(link_next_order(&link, &got));
    assert_int_equal(got.request, 0);
    assert_true(link_order(&link, &order));
    assert_false(link_order(&link, &order));
    for (int i = 0; i < 2 * FINISHES; i++) // whoever leaves is heard all the same
        assert_true(link_finish(&link, ++order.request, "abort"));
    for (uint64_t i = 1; i <= LINK_TO_CORE_MAX + 2 * FINISHES; i++) {
        assert_true(link_next_order(&link, &got));
        assert_int_equal(got.request, i);
        assert_int_equal(got.type, i <= LINK_TO_CORE_MAX ? ORDER_STATUS : ORDER_FINISH);
    }
    assert_false(link_next_order(&link, &got));
    link_close(&link);
}

static void test_wakes(void **state)
{
    (void)state;
    struct link link;
    open_link(&link);
    assert_false(awake(link.core_fd));
    assert_false(awake(link.door_fd));
    link_wake_core(&link);
    link_wake_core(&link);
    assert_true(awake(link.core_fd));
    assert_false(awake(link.door_fd));
    link_clear(link.core_fd);
    assert_false(awake(link.core_fd));
    link_clear(link.core_fd); // nothing to clear: does not block
    link_wake_door(&link);
    assert_true(awake(link.door_fd));
    link_clear(link.door_fd);
    assert_false(awake(link.door_fd));
    link_close(&link);
}

enum { NEWS = 3 * LINK_FROM_CORE_MAX };

// The core tells more than the ring holds: it must wait for this door, and lose nothing.
static void *tell_news(void *argument)
{
    struct link *link = argument;
    for (uint64_t i = 0; i < NEWS; i++) {
        struct link_news news = {.type = NEWS_TOKENS, .request = i, .tokens_count = 1};
        news.tokens[0] = (int32_t)(i * 7);
        link_tell(link, &news);
    }
    link_tell(link, &(struct link_news){.type = NEWS_END});
    link_wake_door(link);
    return NULL;
}

static void test_news_across_threads(void **state)
{
    (void)state;
    struct link link;
    struct link_news news = {.type = NEWS_STATUS};
    pthread_t core;
    uint64_t seen = 0;
    open_link(&link);
    assert_false(link_next_news(&link, &news));
    assert_int_equal(pthread_create(&core, NULL, tell_news, &link), 0);
    while (news.type != NEWS_END) {
        struct pollfd poll_fd = {.fd = link.door_fd, .events = POLLIN};
        assert_int_equal(poll(&poll_fd, 1, 60000), 1); // told to wake, also when the ring is full
        link_clear(link.door_fd);
        while (link_next_news(&link, &news) && news.type != NEWS_END) {
            assert_int_equal(news.request, seen);
            assert_int_equal(news.tokens[0], (int32_t)(seen * 7));
            seen++;
        }
    }
    assert_int_equal(seen, NEWS);
    assert_int_equal(pthread_join(core, NULL), 0);
    link_close(&link);
}

static void count_slowly(void *door, const struct link_news *news)
{
    uint64_t *seen = door;
    assert_int_equal(news->request, (*seen)++);
    clock_sleep_ns(CLOCK_NS_PER_MS);
}

// News that take long to be told come in several turns, and the door is awake until the last.
static void test_news_take_turns(void **state)
{
    (void)state;
    enum { MANY = 40 };
    struct link link;
    uint64_t seen = 0;
    int turns = 0;
    open_link(&link);
    for (uint64_t i = 0; i < MANY; i++)
        link_tell(&link, &(struct link_news){.type = NEWS_TOKENS, .request = i});
    link_wake_door(&link);
    for (; awake(link.door_fd); turns++)
        link_take_news(&link, count_slowly, &seen);
    assert_int_equal(seen, MANY);
    assert_true(turns > 1);
    link_close(&link);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_orders),          cmocka_unit_test(test_full),
        cmocka_unit_test(test_wakes),           cmocka_unit_test(test_news_across_threads),
        cmocka_unit_test(test_news_take_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
