// SPDX-License-Identifier: Apache-2.0
// door_http_turn_test.c -- whole requests come to their turn in order, one at least in every turn.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/door_http_state.h"
#include "parallel/base/clock.h"

enum { EXCHANGES = 4 };

struct fixture {
    struct door_http door;
    struct http_exchange exchanges[EXCHANGES];
};

static void open_fixture(struct fixture *f, bool time_left)
{
    memset(f, 0, sizeof *f);
    for (int i = 0; i < EXCHANGES; i++)
        f->exchanges[i].door = &f->door;
    f->door.turn_ends_ns = time_left ? UINT64_MAX : 0;
}

// This one's turn comes, and the library hands it over.
static void take(struct fixture *f, int number)
{
    assert_true(door_http_turn_next(&f->door, false) == &f->exchanges[number]);
    assert_true(!door_http_turn_postpone(&f->exchanges[number]));
}

static void test_taken_at_once(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, true);
    assert_true(!door_http_turn_postpone(&f.exchanges[0]));
    assert_true(door_http_turn_next(&f.door, true) == NULL);
    door_http_turn_begin(&f.door);
    assert_true(f.door.turn_ends_ns > clock_now_ns());
}

static void test_in_order(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, false);
    for (int i = 0; i < EXCHANGES; i++)
        assert_true(door_http_turn_postpone(&f.exchanges[i]));
    assert_true(door_http_turn_next(&f.door, false) == NULL); // the turn is over
    assert_true(door_http_turn_next(&f.door, true) == &f.exchanges[0]);
    assert_true(door_http_turn_next(&f.door, true) == NULL); // one at a time
    assert_true(!door_http_turn_postpone(&f.exchanges[0]));  // its turn has come
    assert_true(door_http_turn_postpone(&f.exchanges[0]));   // another request of the same kind
    f.door.turn_ends_ns = UINT64_MAX;
    for (int i = 1; i < EXCHANGES; i++)
        take(&f, i);
    take(&f, 0);
    assert_true(door_http_turn_next(&f.door, false) == NULL);
}

static void test_later_ones_wait_behind(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, false);
    assert_true(door_http_turn_postpone(&f.exchanges[0]));
    f.door.turn_ends_ns = UINT64_MAX; // time is left, but somebody waits
    assert_true(door_http_turn_postpone(&f.exchanges[1]));
    take(&f, 0);
    assert_true(door_http_turn_next(&f.door, false) == &f.exchanges[1]);
    door_http_turn_forget(&f.exchanges[1]); // its client leaves before it is handed over
    assert_true(f.door.in_turn == NULL);
}

static void test_forgotten(void **state)
{
    (void)state;
    static const int orders[][EXCHANGES] = {{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 2, 0, 3}};
    for (size_t n = 0; n < sizeof orders / sizeof *orders; n++) {
        struct fixture f;
        open_fixture(&f, false);
        for (int i = 0; i < EXCHANGES; i++)
            assert_true(door_http_turn_postpone(&f.exchanges[i]));
        for (int i = 0; i < EXCHANGES; i++) {
            struct http_exchange *exchange = &f.exchanges[orders[n][i]];
            door_http_turn_forget(exchange);
            door_http_turn_forget(exchange); // who is not there stays away
            for (struct http_exchange *at = f.door.postponed_first; at != NULL;
                 at = at->postponed_after)
                assert_true(at != exchange && at->postponed);
        }
        assert_true(f.door.postponed_first == NULL && f.door.postponed_last == NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_taken_at_once),
        cmocka_unit_test(test_in_order),
        cmocka_unit_test(test_later_ones_wait_behind),
        cmocka_unit_test(test_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
