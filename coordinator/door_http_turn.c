// SPDX-License-Identifier: Apache-2.0
// door_http_turn.c -- whole requests that wait for their turn: reading a long prompt takes
// milliseconds, and a thousand that come at once must not hold the streams of others up. A turn of
// the loop takes them for LINK_TURN_MS, but always one; the others' connections are suspended, in
// the order in which they were whole.
#include <microhttpd.h>

#include "coordinator/door_http_state.h"
#include "parallel/base/clock.h"

void door_http_turn_begin(struct door_http *door)
{
    door->turn_ends_ns = clock_now_ns() + (uint64_t)LINK_TURN_MS * CLOCK_NS_PER_MS;
}

bool door_http_turn_postpone(struct http_exchange *exchange)
{
    struct door_http *door = exchange->door;
    if (door->in_turn == exchange) {
        door->in_turn = NULL;
        return false;
    }
    if (door->postponed_first == NULL && clock_now_ns() < door->turn_ends_ns)
        return false;
#ifdef PLANT_http_no_turns
    return false; // a burst is read in one go
#endif
    exchange->postponed = true;
    exchange->postponed_before = door->postponed_last;
    if (door->postponed_last != NULL)
        door->postponed_last->postponed_after = exchange;
    else
        door->postponed_first = exchange;
    door->postponed_last = exchange;
    return true;
}

void door_http_turn_forget(struct http_exchange *exchange)
{
    struct door_http *door = exchange->door;
    if (door->in_turn == exchange)
        door->in_turn = NULL;
    if (!exchange->postponed)
        return;
    if (exchange->postponed_before != NULL)
        exchange->postponed_before->postponed_after = exchange->postponed_after;
    else
        door->postponed_first = exchange->postponed_after;
    if (exchange->postponed_after != NULL)
        exchange->postponed_after->postponed_before = exchange->postponed_before;
    else
        door->postponed_last = exchange->postponed_before;
    exchange->postponed_before = exchange->postponed_after = NULL;
    exchange->postponed = false;
}

struct http_exchange *door_http_turn_next(struct door_http *door, bool is_first)
{
    struct http_exchange *exchange = door->postponed_first;
    if (exchange == NULL || door->in_turn != NULL ||
        (!is_first && clock_now_ns() >= door->turn_ends_ns))
        return NULL;
    door_http_turn_forget(exchange);
    door->in_turn = exchange;
    return exchange;
}

void door_http_turn_take(struct door_http *door)
{
    struct http_exchange *exchange;
    for (bool first = true; (exchange = door_http_turn_next(door, first)) != NULL; first = false) {
        door_http_wake(exchange);
        (void)MHD_run(door->daemon);
    }
}
