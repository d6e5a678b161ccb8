// SPDX-License-Identifier: Apache-2.0
// scheduler_admit.c -- the queue's way into slots. A request is admitted with the pages of all its
// tokens that are known and one more, so that its prompt never waits for pages half-way; pages for
// what it draws come as they are needed (scheduler_plan.c).
#include "coordinator/scheduler.h"

#include <stdio.h>

// Whether a group that serves or soon will can hold a prompt of so many tokens and an output.
static bool any_group_holds(const struct coord *coord, int32_t tokens)
{
    for (int32_t g = 0; g < coord->options.groups; g++) {
        const struct group_state *group = &coord->groups[g];
        if ((group->phase == GROUP_LOADING || group->phase == GROUP_READY) &&
            tokens < group->memory.sequence_tokens)
            return true;
    }
    return false;
}

// A request that was accepted before this group's memory plan was known may be too long for it: its
// end is cut to the context that became true; a prompt that is too long waits for another group, or
// is refused when there is none. False when it cannot run here.
static bool fit(struct coord *coord, int32_t g, int32_t index, struct coord_actions *out)
{
    struct group_state *group = &coord->groups[g];
    struct request *request = request_at(coord, index);
    int32_t limit = group->memory.sequence_tokens;
    if (request->prompt_tokens < limit) {
        request->tokens_end = request->tokens_end < limit ? request->tokens_end : limit;
        return true;
    }
    if (any_group_holds(coord, request->prompt_tokens))
        return false;
    snprintf(group->refusal, sizeof group->refusal,
             "the prompt has %d tokens, accepted is 1 to %d with the memory of this server",
             request->prompt_tokens, limit - 1);
    scheduler_tell_error(coord, index, E_INPUT, group->refusal, out);
    scheduler_drop_queued(coord, index);
    out->more = true; // the next in the queue may fit; the list borrows the text
    return false;
}

// Pages of what is known and of the token after it, whose last one is never run.
static int32_t pages_at_first(const struct request *request)
{
    int32_t tokens = request->tokens.tokens + 1;
    return kv_pages_for_tokens(tokens < request->tokens_end ? tokens : request->tokens_end - 1);
}

// Pages that stay free for those who run: one each. Otherwise whoever comes in would be thrown out
// again, and its prefill lost, as soon as anybody's page is full.
static int32_t pages_spare(const struct group_state *group)
{
    return group->running.count;
}

// The most senior request in the queue that may run in this group. While too many wait that have
// run before, that is one of them: a new one, however urgent, must not stand in their way.
static int32_t first_for(struct coord *coord, int32_t g)
{
    int32_t index = coord->requests.queued.first;
    bool takes_new = coord->requests.preempted < COORD_PREEMPTED_MAX;
    while (index != REQUEST_NONE_INDEX) {
        const struct request *request = request_at(coord, index);
        if ((request->group == -1 || request->group == g) && (takes_new || request->ran))
            break;
        index = request->next;
    }
    return index;
}

// Gives a queued request a slot and its first pages. False when something is short.
static bool admit(struct coord *coord, int32_t g, int32_t index)
{
    struct group_state *group = &coord->groups[g];
    struct request *request = request_at(coord, index);
    int32_t pages = pages_at_first(request);
    if (group->slots.slots_free == 0)
        return false;
    struct prefix_hit hit = scheduler_find_prefix(coord, group, request);
    int32_t shared = hit.position / TOKENS_PER_PAGE;
    if (pages - shared + pages_spare(group) >
        group->pages.pages_free + prefix_cache_evictable(&group->prefix, hit.node))
        return false;
    request->slot = state_slots_take(&group->slots, index);
    request->group = g;
    request_times_admit(&request->times, coord->now_ns);
    request->phase = PHASE_RUNNING;
    request->prefill_end = request->tokens.tokens;
    request->prefill_given = hit.position;
    scheduler_take_prefix(group, request, &hit);
    bool taken = scheduler_take_pages(group, pages - shared, coord_pages(group, request) + shared);
    ASSERT(taken);
    request->pages_count = pages;
    request_list_remove(&coord->requests.queued, &coord->requests, index);
    coord->requests.preempted -= request->ran;
    request->ran = true;
    request_list_insert(&group->running, &coord->requests, index);
    return true;
}

void scheduler_admit(struct coord *coord, int32_t g, struct coord_actions *out)
{
    int32_t index = first_for(coord, g);
    while (index != REQUEST_NONE_INDEX && fit(coord, g, index, out) && admit(coord, g, index))
        index = first_for(coord, g);
}
