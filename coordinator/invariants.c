// SPDX-License-Identifier: Apache-2.0
// invariants.c -- coord_check: what must hold between any two events, each with a name. Walks
// everything; for tests and simulation, not for every step in production.
#include "coordinator/coord.h"

#include <string.h>

static bool has_slot(const struct request *request)
{
    return request->phase == PHASE_RUNNING || request->phase == PHASE_PREEMPTED ||
           request->phase == PHASE_CLOSING;
}

static const char *check_slots(const struct coord *coord, const struct group_state *group)
{
    int32_t used = 0;
    for (int32_t slot = 0; slot < group->slots.slots; slot++) {
        int32_t occupant = group->slots.occupant[slot];
        if (occupant == STATE_SLOT_NONE)
            continue;
        used++;
        const struct request *request = &coord->requests.table[occupant];
        if (!has_slot(request) || request->slot != slot)
            return "a slot belongs to the request that sits in it";
    }
    if (used + group->slots.slots_free != group->slots.slots)
        return "free slots + used slots = all slots";
    return used == group->running.count ? NULL : "every running request has one slot";
}

// Counts who holds each page by what the requests say.
static const char *count_holders(const struct coord *coord, const struct group_state *group)
{
    const struct kv_pages *pages = &group->pages;
    memset(pages->counted, 0, (size_t)pages->pages * sizeof(int32_t));
    for (int32_t i = group->running.first; i != REQUEST_NONE_INDEX;
         i = coord->requests.table[i].next) {
        const struct request *request = &coord->requests.table[i];
        if (request->pages_told < 0 || request->pages_told > request->pages_count ||
            request->pages_count > group->tables_width)
            return "a request was told of pages that it holds";
        for (int32_t k = 0; k < request->pages_count; k++) {
            int32_t page = coord_pages(group, request)[k];
            if (page < 0 || page >= pages->pages)
                return "a request holds pages that exist";
            pages->counted[page]++;
        }
    }
    for (int32_t i = 0; i < group->prefix.nodes_fresh; i++) {
        if (group->prefix.nodes[i].page != KV_PAGE_NONE)
            pages->counted[group->prefix.nodes[i].page]++;
    }
    return NULL;
}

static const char *check_pages(const struct coord *coord, const struct group_state *group)
{
    const struct kv_pages *pages = &group->pages;
    const char *broken = count_holders(coord, group);
    int32_t used = 0, free_count = 0;
    for (int32_t page = 0; page < pages->pages && broken == NULL; page++) {
        if (pages->counted[page] != pages->holders[page])
            return "no page has more or fewer holders than it counts";
        used += pages->holders[page] > 0;
    }
    if (broken != NULL)
        return broken;
    for (int32_t page = pages->free_first; page != KV_PAGE_NONE; page = pages->next[page]) {
        if (pages->holders[page] != 0)
            return "a free page has no holder";
        if (++free_count > pages->pages_free)
            break;
    }
    if (free_count != pages->pages_free)
        return "the free list holds the free pages";
    return used + free_count == pages->pages ? NULL : "free pages + used pages = all pages";
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
        if (request->tokens_in_flight < request->draws_in_flight ||
            request->tokens_in_flight > request->draws_in_flight * STEP_VERIFY_MAX)
            return "a row draws one token or up to its drafts";
        if (request->prompt_tokens + request->outputs > request->tokens_end)
            return "no request outgrows its end";
        if (request->phase != PHASE_RUNNING && request->steps_in_flight == 0)
            return "who gives its slot back waits for a step";
        if (request->prefill_given > request->prefill_end ||
            request->prefill_end > request->tokens.tokens)
            return "what is prefilled is known";
    }
    return named == expected ? NULL : "rows in flight = rows that requests wait for";
}

static const char *check_reserved(const struct coord *coord, const struct group_state *group)
{
    int32_t reserved = 0;
    for (int32_t i = group->running.first; i != REQUEST_NONE_INDEX;
         i = coord->requests.table[i].next) {
        const struct request_prefix *prefix = &coord->requests.table[i].prefix;
        if (prefix->fold == PREFIX_NONE)
            continue;
        reserved++;
        if (group->prefix.checkpoints[prefix->fold].node != PREFIX_RESERVED ||
            prefix->fold_at <= 0 || prefix->fold_at % TOKENS_PER_PAGE != 0)
            return "a request's checkpoint is reserved, for the end of a page";
    }
    return reserved == group->prefix.checkpoints_reserved
               ? NULL
               : "every reserved checkpoint is one request's";
}

static const char *check_order(const struct coord *coord, const struct request_list *list)
{
    const struct request *table = coord->requests.table;
    for (int32_t i = list->first; i != REQUEST_NONE_INDEX; i = table[i].next) {
        if (table[i].next != REQUEST_NONE_INDEX &&
            !request_before(&table[i], &table[table[i].next]))
            return "lists are in the order of seniority";
    }
    return NULL;
}

static const char *check_tokens(const struct coord *coord)
{
    int64_t blocks = 0, prompts = 0;
    for (int32_t i = 0; i < coord->requests.capacity; i++) {
        const struct request *request = &coord->requests.table[i];
        if (request->phase == PHASE_FREE)
            continue;
        if (request->tokens.tokens != request->prompt_tokens + request->outputs)
            return "the pool holds what was told";
        int32_t lists = token_pool_blocks(request->lists.tokens);
        blocks += token_pool_blocks(request->tokens.tokens) + lists;
        prompts += token_pool_blocks(request->prompt_tokens) + lists;
    }
    if (prompts + coord->prompt_blocks_free != token_pool_blocks(coord->options.pool_tokens))
        return "free prompt tokens + held prompt tokens = their share of the pool";
    return blocks + coord->pool.blocks_free == coord->pool.blocks
               ? NULL
               : "free tokens + held tokens = the pool";
}

static const char *check_requests(const struct coord *coord)
{
    int32_t queued = 0, preempted = 0, running = 0, listed = 0;
    const char *broken = check_order(coord, &coord->requests.queued);
    for (int32_t i = 0; i < coord->requests.capacity; i++) {
        const struct request *request = &coord->requests.table[i];
        queued += request->phase == PHASE_QUEUED;
        preempted += request->phase == PHASE_QUEUED && request->ran;
        running += has_slot(request);
    }
    for (int32_t g = 0; g < coord->options.groups; g++) {
        listed += coord->groups[g].running.count;
        broken = broken != NULL ? broken : check_order(coord, &coord->groups[g].running);
    }
    if (broken != NULL)
        return broken;
    if (queued != coord->requests.queued.count || running != listed)
        return "a request is in exactly one list";
    if (preempted != coord->requests.preempted)
        return "those who have run before are counted";
    if (queued - preempted > coord->options.queued_max)
        return "the queue is bounded";
    return check_tokens(coord);
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
            broken = prefix_cache_check(&group->prefix, &group->pages);
        if (broken == NULL)
            broken = check_reserved(coord, group);
        if (broken == NULL)
            broken = check_flights(coord, group);
    }
    return broken;
}
