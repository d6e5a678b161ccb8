// SPDX-License-Identifier: Apache-2.0
// invariants.c -- coord_check: what must hold between any two events, each with a name. Walks
// everything; for tests and simulation, not for every step in production.
#include "coordinator/coord.h"

static const char *check_slots(const struct coord *coord, const struct group_state *group)
{
    int32_t used = 0;
    for (int32_t slot = 0; slot < group->slots.slots; slot++) {
        int32_t occupant = group->slots.occupant[slot];
        if (occupant == STATE_SLOT_NONE)
            continue;
        used++;
        const struct request *request = &coord->requests.table[occupant];
        if ((request->phase != PHASE_RUNNING && request->phase != PHASE_CLOSING) ||
            request->slot != slot)
            return "a slot belongs to the request that sits in it";
    }
    if (used + group->slots.slots_free != group->slots.slots)
        return "free slots + used slots = all slots";
    return used == group->running.count ? NULL : "every running request has one slot";
}

static const char *check_pages(const struct coord *coord, const struct group_state *group)
{
    int32_t used = 0, free_count = 0;
    for (int32_t i = group->running.first; i != REQUEST_NONE_INDEX;
         i = coord->requests.table[i].next) {
        const struct request *request = &coord->requests.table[i];
        int32_t held = 0;
        for (int32_t page = request->pages_first; page != KV_PAGE_NONE;
             page = group->pages.next[page]) {
            if (group->pages.owner[page] != request->slot)
                return "no page has two owners";
            held++;
        }
        if (held != request->pages_count)
            return "a request holds the pages it was given";
        used += held;
    }
    for (int32_t page = group->pages.free_first; page != KV_PAGE_NONE;
         page = group->pages.next[page]) {
        if (group->pages.owner[page] != KV_PAGE_NONE)
            return "a free page has no owner";
        free_count++;
    }
    if (free_count != group->pages.pages_free)
        return "the free list holds the free pages";
    return used + free_count == group->pages.pages ? NULL : "free pages + used pages = all pages";
}

static const char *check_flights(const struct coord *coord, const struct group_state *group)
{
    int32_t named = 0, expected = 0;
    if (group->phase == GROUP_FAILED)
        return NULL; // its epoch is over, what was in flight is void
    if (group->flights_count < 0 || group->flights_count > COORD_FLIGHT_MAX)
        return "steps in flight are bounded";
    if (group->phase == GROUP_READY &&
        group->step_sent - group->step_done != (uint64_t)group->flights_count)
        return "sent steps - done steps = steps in flight";
    for (int32_t k = 0; k < group->flights_count; k++)
        named += group->flights[(group->step_done + 1 + (uint64_t)k) % COORD_FLIGHT_MAX].rows_count;
    for (int32_t i = group->running.first; i != REQUEST_NONE_INDEX;
         i = coord->requests.table[i].next) {
        const struct request *request = &coord->requests.table[i];
        expected += request->steps_in_flight;
        if (request->draws_in_flight > request->steps_in_flight)
            return "a row draws at most once";
        if (request->prompt.tokens + request->outputs > request->tokens_end)
            return "no request outgrows its end";
        if (request->phase == PHASE_CLOSING && request->steps_in_flight == 0)
            return "a closing request waits for a step";
    }
    return named == expected ? NULL : "rows in flight = rows that requests wait for";
}

static const char *check_requests(const struct coord *coord)
{
    int32_t queued = 0, running = 0, listed = 0;
    int64_t blocks = 0;
    for (int32_t i = 0; i < coord->requests.capacity; i++) {
        const struct request *request = &coord->requests.table[i];
        queued += request->phase == PHASE_QUEUED;
        running += request->phase == PHASE_RUNNING || request->phase == PHASE_CLOSING;
        if (request->phase != PHASE_FREE)
            blocks += (request->prompt.tokens + TOKEN_BLOCK_TOKENS - 1) / TOKEN_BLOCK_TOKENS;
    }
    for (int32_t g = 0; g < coord->options.groups; g++)
        listed += coord->groups[g].running.count;
    if (queued != coord->requests.queued.count || running != listed)
        return "a request is in exactly one list";
    if (queued > coord->options.queued_max)
        return "the queue is bounded";
    return blocks + coord->pool.blocks_free == coord->pool.blocks
               ? NULL
               : "free tokens + held tokens = the pool";
}

const char *coord_check(const struct coord *coord)
{
    const char *broken = check_requests(coord);
    for (int32_t g = 0; g < coord->options.groups && broken == NULL; g++) {
        const struct group_state *group = &coord->groups[g];
        if (group->slots.slots == 0)
            continue; // not placed yet
        broken = check_slots(coord, group);
        if (broken == NULL)
            broken = check_pages(coord, group);
        if (broken == NULL)
            broken = check_flights(coord, group);
    }
    return broken;
}
