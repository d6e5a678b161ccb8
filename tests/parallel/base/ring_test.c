// SPDX-License-Identifier: Apache-2.0
// ring_test.c -- first in, first out; full, empty, wrap; one writer and one reader at once.
#include "parallel/base/ring.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>

#include <cmocka.h>

#include "parallel/base/clock.h"

static void is_full_and_empty_at_its_bounds(void **state)
{
    (void)state;
    uint32_t items[3];
    struct ring ring;
    ring_init(&ring, items, sizeof items[0], 3);
    assert_null(ring_read_begin(&ring));
    for (uint32_t round = 0; round < 10; round++) {
        for (uint32_t i = 0; i < 3; i++) {
            uint32_t *place = ring_write_begin(&ring);
            assert_non_null(place);
            assert_ptr_equal(ring_write_begin(&ring), place); // nothing handed over yet
            *place = round * 3 + i;
            ring_write_end(&ring);
        }
        assert_null(ring_write_begin(&ring));
        assert_int_equal(ring_written(&ring), round * 3 + 3);
        for (uint32_t i = 0; i < 3; i++) {
            const uint32_t *item = ring_read_begin(&ring);
            assert_non_null(item);
            assert_int_equal(*item, round * 3 + i);
            // The place is the reader's until it gives it back.
            assert_true((ring_write_begin(&ring) == NULL) == (i == 0));
            ring_read_end(&ring);
        }
        assert_null(ring_read_begin(&ring));
        assert_int_equal(ring_read(&ring), round * 3 + 3);
    }
}

enum { STREAMED = 200000, WAIT_S = 60 };

// A ring that loses an item would make both wait for ever.
static bool in_time(uint64_t begun_ns)
{
    return clock_now_ns() - begun_ns < (uint64_t)WAIT_S * CLOCK_NS_PER_S;
}

struct item { // no power of two
    uint64_t number, square, check;
};

static void *write_items(void *argument)
{
    struct ring *ring = argument;
    uint64_t begun_ns = clock_now_ns();
    for (uint64_t i = 0; i < STREAMED && in_time(begun_ns);) {
        struct item *item = ring_write_begin(ring);
        if (item == NULL) {
            sched_yield();
            continue;
        }
        *item = (struct item){.number = i, .square = i * i, .check = ~i};
        ring_write_end(ring);
        i++;
    }
    return NULL;
}

static void check_streaming(uint64_t items_max)
{
    struct item items[64];
    struct ring ring;
    ring_init(&ring, items, sizeof items[0], items_max);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, write_items, &ring), 0);
    uint64_t wrong = 0, i = 0, begun_ns = clock_now_ns();
    while (i < STREAMED && in_time(begun_ns)) {
        const struct item *item = ring_read_begin(&ring);
        if (item == NULL) {
            sched_yield();
            continue;
        }
        wrong += item->number != i || item->square != i * i || item->check != ~i;
        ring_read_end(&ring);
        i++;
    }
    pthread_join(thread, NULL);
    assert_int_equal(i, STREAMED);
    assert_int_equal(wrong, 0);
    assert_null(ring_read_begin(&ring));
}

static void streams_between_threads(void **state)
{
    (void)state;
    check_streaming(1);
    check_streaming(7);
    check_streaming(64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_full_and_empty_at_its_bounds),
        cmocka_unit_test(streams_between_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
