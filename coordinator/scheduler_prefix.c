// SPDX-License-Identifier: Apache-2.0
// scheduler_prefix.c -- what a request takes from its group's prefix cache when it gets a slot, and
// what its prompt leaves there: checkpoints where others are likely to go on. All of it is known
// when a plan is made: prefill runs what the coordinator knows, and steps run in order, so a
// checkpoint can be used by every step after the one that saves it.
#include "coordinator/scheduler.h"
#include "coordinator/scheduler_logprobs.h"

#include <string.h>

enum {
    // A long text leaves a checkpoint at intervals: prompts that part from it anywhere run at most
    // as many tokens again. The operator's interval is doubled until one text takes no more than a
    // quarter of all checkpoints; so the places of a longer text are places of a shorter one, too.
    INTERVAL_SHARE = 4,
    // The end of an early turn is worth a checkpoint when it spares as much: a step of fewer tokens
    // costs no less on a GPU, which reads the weights all the same.
    TURN_TOKENS_MIN = 256,
};

static struct prefix_text text_of(const struct coord *coord, const struct request *request)
{
    return (struct prefix_text){.pool = &coord->pool, .chain = &request->tokens};
}

static int32_t floor_to_page(int32_t tokens)
{
    return tokens / TOKENS_PER_PAGE * TOKENS_PER_PAGE;
}

// The first turn's end stays, since what comes before it is the system's; of the others the last.
void scheduler_find_turns(const struct coord *coord, struct request *request, const int32_t *prompt)
{
    request->turns_count = 0;
    for (int32_t i = 1; i < request->prompt_tokens; i++) {
        if (prompt[i] != coord->options.turn_id)
            continue;
        if (request->turns_count == COORD_TURNS_MAX) {
            memmove(request->turns + 1, request->turns + 2,
                    (COORD_TURNS_MAX - 2) * sizeof *request->turns);
            request->turns_count--;
        }
        request->turns[request->turns_count++] = i;
    }
}

bool scheduler_take_pages(struct group_state *group, int32_t count, int32_t *page_ids)
{
    prefix_cache_make_room(&group->prefix, &group->pages, count);
    return kv_pages_take(&group->pages, count, page_ids);
}

struct prefix_hit scheduler_find_prefix(const struct coord *coord, const struct group_state *group,
                                        const struct request *request)
{
    // Who wants to hear of the prompt's tokens needs the rows of all of them.
    int32_t most = scheduler_logprobs_wanted(request) != 0 ? 0 : request->tokens.tokens - 1;
    return prefix_cache_find(&group->prefix, text_of(coord, request), most, group->step_sent + 1);
}

void scheduler_take_prefix(struct group_state *group, struct request *request,
                           const struct prefix_hit *hit)
{
    prefix_cache_take(&group->prefix, &group->pages, hit, request->tokens.tokens,
                      coord_pages(group, request));
    request->prefix = (struct request_prefix){.node = hit->node,
                                              .checkpoint = hit->checkpoint,
                                              .position = hit->position,
                                              .parts_at = hit->known,
                                              .fold = PREFIX_NONE};
    if (!request->ran)
        request->cached_tokens = hit->position;
}

void scheduler_leave_prefix(struct group_state *group, struct request *request)
{
    struct request_prefix *prefix = &request->prefix;
    if (prefix->checkpoint != PREFIX_NONE)
        prefix_cache_unpin(&group->prefix, prefix->checkpoint, 0);
    if (prefix->fold != PREFIX_NONE)
        prefix_cache_release(&group->prefix, prefix->fold);
    prefix_cache_leave(&group->prefix, &group->pages, prefix->node);
    prefix->node = PREFIX_NONE;
    prefix->checkpoint = prefix->fold = PREFIX_NONE;
}

void scheduler_copy_prefix(struct group_state *group, struct request *request)
{
    struct request_prefix *prefix = &request->prefix;
    struct step_plan *plan = &group->plan;
    if (prefix->checkpoint == PREFIX_NONE)
        return;
    plan->copies[plan->copies_count++] =
        (struct step_copy){.checkpoint = prefix->checkpoint, .slot = request->slot};
    prefix_cache_unpin(&group->prefix, prefix->checkpoint, group->step_sent + 1);
    prefix->checkpoint = PREFIX_NONE;
}

// ---- where checkpoints are made ----

int32_t scheduler_interval(const struct coord *coord, const struct group_state *group,
                           int32_t tokens)
{
    int64_t interval = coord->options.checkpoint_interval, most = group->prefix.checkpoints_max;
    if (interval == 0)
        interval = CHECKPOINT_INTERVAL;
    while (most > 0 && interval * most < (int64_t)tokens * INTERVAL_SHARE)
        interval *= 2;
    return (int32_t)interval;
}

// The nearest place after `after` where one would be of use, 0 = none: where this prompt parts from
// another's, at intervals, at the end of turns and of the prompt; not of both where they are close,
// since the next turn may go on from the turn's end, and not from the answer's first words. The
// last token is never part of it: it has to be run.
static int32_t next_place(const struct coord *coord, const struct group_state *group,
                          const struct request *request, int32_t after)
{
    int32_t last = floor_to_page(request->prefill_end - 1), nearest = 0, count = 0;
    int32_t interval = scheduler_interval(coord, group, request->prefill_end);
    int32_t places[COORD_TURNS_MAX + 3];
    bool ends_with_turn = false;
    for (int32_t i = 0; i < request->turns_count; i++) {
        int32_t place = floor_to_page(request->turns[i]);
        bool is_end = place <= last && last - place <= TOKENS_PER_PAGE;
        if (is_end || place >= request->prefix.position + TURN_TOKENS_MIN)
            places[count++] = place;
        ends_with_turn |= is_end;
    }
    places[count++] = request->prefix.parts_at;
    places[count++] = (after / interval + 1) * interval;
    if (!ends_with_turn)
        places[count++] = last;
    for (int32_t i = 0; i < count; i++) {
        if (places[i] > after && places[i] <= last && (nearest == 0 || places[i] < nearest))
            nearest = places[i];
    }
    return nearest;
}

// The nearest place in (after, end] that has no checkpoint yet, 0 = none or none can be had.
static int32_t place_to_save(const struct coord *coord, const struct group_state *group,
                             const struct request *request, int32_t after, int32_t end)
{
    int32_t place = next_place(coord, group, request, after);
    if (!prefix_cache_can_save(&group->prefix, group->step_done))
        return 0;
    while (place != 0 && place <= end) {
        if (!prefix_cache_has(&group->prefix, text_of(coord, request), request->prefix.node, place))
            return place;
        place = next_place(coord, group, request, place);
    }
    return 0;
}

static int32_t save_prefix(struct coord *coord, struct group_state *group, struct request *request,
                           int32_t position)
{
    const struct prefix_save save = {.text = text_of(coord, request),
                                     .node = request->prefix.node,
                                     .position = position,
                                     .page_ids = coord_pages(group, request),
                                     .step = group->step_sent + 1,
                                     .step_done = group->step_done};
    return prefix_cache_save(&group->prefix, &group->pages, &save, &request->prefix.node);
}

int32_t scheduler_save_prefixes(struct coord *coord, struct group_state *group,
                                struct request *request, struct step_plan_row *row)
{
    int32_t given = request->prefill_given, end = given + request->chunk;
    int32_t place = place_to_save(coord, group, request, given, end);
    while (place != 0) {
        if (row->saves_count == STEP_SAVES_MAX)
            return given + row->saves[STEP_SAVES_MAX - 1].tokens; // the next step's row goes on
        int32_t checkpoint = save_prefix(coord, group, request, place);
        if (checkpoint != PREFIX_NONE)
            row->saves[row->saves_count++] =
                (struct step_save){.checkpoint = checkpoint, .tokens = place - given};
        place = place_to_save(coord, group, request, place, end);
    }
    return end;
}
