// SPDX-License-Identifier: Apache-2.0
// scheduler_fold.c -- checkpoints in what a request draws, at the same intervals as in its prompt:
// for the next turn, which brings the answer back as a prompt, and for one that was preempted. When
// a step is planned nobody knows how far the steps before it have come, nor what they draw. So a
// checkpoint is reserved before any row can pass the place; every row that may begin there, or pass
// it, names both, and the device lets one begin exactly there (kernels/slots.h). The report tells
// which it was; by then the text up to the place is known, too.
#include "coordinator/scheduler.h"

// Where the request's next row begins: behind one token at least of each row in flight, and behind
// all that these may draw at most.
static int32_t begins_first(const struct request *request)
{
    return request->tokens.tokens - 1 + request->draws_in_flight;
}

static int32_t begins_last(const struct request *request)
{
    return request->tokens.tokens - 1 + request->tokens_in_flight;
}

// A place that rows in flight may have passed already is not taken: they did not name it.
static void reserve(const struct coord *coord, struct group_state *group, struct request *request)
{
    int32_t last = begins_last(request);
    int32_t interval = scheduler_interval(coord, group, last);
    int32_t place = (last + interval - 1) / interval * interval;
    // No row begins at the last token, which is never run.
    if (place >= last + group->plan.verify || place > request->tokens_end - 2)
        return;
    request->prefix.fold = prefix_cache_reserve(&group->prefix, &group->pages, group->step_done);
    request->prefix.fold_at = place;
}

void scheduler_fold_row(const struct coord *coord, struct group_state *group,
                        struct request *request, struct step_plan_row *row)
{
    struct request_prefix *prefix = &request->prefix;
    if (prefix->fold == PREFIX_NONE)
        reserve(coord, group, request);
    if (prefix->fold == PREFIX_NONE || begins_first(request) > prefix->fold_at)
        return;
    row->checkpoint = prefix->fold;
    row->checkpoint_at = prefix->fold_at;
    prefix_cache_name(&group->prefix, prefix->fold, group->step_sent + 1);
}

bool scheduler_fold_apply(struct coord *coord, struct request *request, const struct flight *flight,
                          int32_t row)
{
    struct group_state *group = &coord->groups[request->group];
    struct request_prefix *prefix = &request->prefix;
    const struct step_result *result = &flight->results[row];
    int32_t begins = request->tokens.tokens - 1, place = flight->places[row];
    if (begins < place && begins + result->count > place)
        return false;
    // What a sequence carries that drew nothing finite is not for others.
    if (begins != place || result->count == 0 || result->end == STEP_END_BROKEN)
        return true;
    const struct prefix_save save = {.text = {.pool = &coord->pool, .chain = &request->tokens},
                                     .node = prefix->node,
                                     .position = place,
                                     .page_ids = coord_pages(group, request),
                                     .step = flight->step};
    if (!prefix_cache_fill(&group->prefix, &group->pages, &save, prefix->fold, &prefix->node))
        prefix_cache_release(&group->prefix, prefix->fold);
    prefix->fold = PREFIX_NONE;
    return true;
}
