// SPDX-License-Identifier: Apache-2.0
// scheduler.c -- how requests get a slot back or lose it, how they end, and when a plan is sent.
// One step of run-ahead: a plan is sent while the one before it runs, so what the last step drew is
// not known when the next is planned. Therefore (1) every row has its pages before it is sent,
// (2) a sequence that may have ended in an unresolved step is planned again and goes inert on the
// device, (3) a slot and its pages are given away only when no unresolved step names them.
//
// Seniority (priority, then arrival) decides everything: who is admitted first, who gets pages
// first, and, from the other end, who is preempted when pages run out. So the most senior request
// always gets on, and all end.
#include "coordinator/scheduler.h"

#include <stdio.h>
#include <string.h>

int32_t *coord_pages(const struct group_state *group, const struct request *request)
{
    return group->block_tables + (size_t)request->slot * (size_t)group->tables_width;
}

static void report_usage(struct coord_action *action, const struct request *request)
{
    action->usage = (struct coord_usage){
        .prompt_tokens = request->prompt_tokens,
        .completion_tokens = request->outputs,
        .cached_tokens = request->cached_tokens,
        .target_steps = request->target_steps,
        .drafted = request->drafted,
        .accepted = request->accepted,
    };
}

void scheduler_tell_error(struct coord *coord, int32_t index, enum status status, const char *text,
                          struct coord_actions *out)
{
    struct coord_action *action = coord_act(out, ACTION_ERROR);
    action->request = request_at(coord, index)->number;
    action->status = status;
    action->text = text;
    coord->requests_failed++;
}

// Forgets a request that is in no list.
static void forget(struct coord *coord, int32_t index)
{
    struct request *request = request_at(coord, index);
    coord->prompt_blocks_free +=
        token_pool_blocks(request->prompt_tokens) + token_pool_blocks(request->lists.tokens);
    token_pool_give_back(&coord->pool, &request->tokens);
    token_pool_give_back(&coord->pool, &request->lists);
    requests_give_back(&coord->requests, index);
}

// Takes slot and pages from a request that no unresolved step names any more.
static void leave_slot(struct coord *coord, int32_t index)
{
    struct request *request = request_at(coord, index);
    struct group_state *group = &coord->groups[request->group];
    ASSERT(request->steps_in_flight == 0);
    if (request->opened)
        group->closes[group->closes_count++] = request->slot;
    kv_pages_give_back(&group->pages, coord_pages(group, request), request->pages_count);
    scheduler_leave_prefix(group, request);
    state_slots_give_back(&group->slots, request->slot);
    request_list_remove(&group->running, &coord->requests, index);
    request->opened = false;
    request->pages_count = 0;
    request->pages_told = 0;
}

static void back_to_queue(struct coord *coord, int32_t index)
{
    leave_slot(coord, index);
    request_at(coord, index)->phase = PHASE_QUEUED;
    if (!request_at(coord, index)->begun)
        request_at(coord, index)->group = -1; // any may have it
    request_list_insert(&coord->requests.queued, &coord->requests, index);
    coord->requests.preempted++;
}

void scheduler_settle(struct coord *coord, int32_t index)
{
    enum request_phase phase = request_at(coord, index)->phase;
    if (phase == PHASE_PREEMPTED) {
        back_to_queue(coord, index);
    } else if (phase == PHASE_CLOSING) {
        leave_slot(coord, index);
        forget(coord, index);
    }
}

void scheduler_preempt(struct coord *coord, int32_t index)
{
    struct request *request = request_at(coord, index);
    ASSERT(request->phase == PHASE_RUNNING);
    request->phase = PHASE_PREEMPTED;
    coord->preemptions++;
#ifdef PLANT_preempted_early
    request->steps_in_flight = 0;
#endif
    if (request->steps_in_flight == 0)
        scheduler_settle(coord, index);
}

// The request's end has been told; what remains of it waits for its steps.
static void close_running(struct coord *coord, int32_t index)
{
    struct request *request = request_at(coord, index);
    request->phase = PHASE_CLOSING;
    requests_forget(&coord->requests, index);
#ifdef PLANT_slot_given_early
    request->steps_in_flight = 0;
#endif
#ifdef PLANT_pages_freed_early
    struct group_state *group = &coord->groups[request->group];
    kv_pages_give_back(&group->pages, coord_pages(group, request), request->pages_count);
    request->pages_count = 0;
#endif
    if (request->steps_in_flight == 0)
        scheduler_settle(coord, index);
}

void scheduler_drop_queued(struct coord *coord, int32_t index)
{
    coord->requests.preempted -= request_at(coord, index)->ran;
    request_list_remove(&coord->requests.queued, &coord->requests, index);
    forget(coord, index);
}

void scheduler_finish(struct coord *coord, int32_t index, const char *reason,
                      struct coord_actions *out)
{
    struct request *request = request_at(coord, index);
    struct coord_action *action = coord_act(out, ACTION_DONE);
    action->request = request->number;
    action->reason = reason;
    report_usage(action, request);
    request_times_end(&request->times, action, coord->now_ns);
    coord->requests_done++;
    if (request->phase == PHASE_QUEUED)
        scheduler_drop_queued(coord, index);
    else
        close_running(coord, index);
}

void scheduler_break(struct coord *coord, int32_t index, struct coord_actions *out)
{
    scheduler_tell_error(
        coord, index, E_FAILED,
        "no token could be drawn: no logit was finite. allowed_token_ids, bad_words "
        "or logit_bias leave none, or the model's weights or state hold NaN",
        out);
    close_running(coord, index);
}

void scheduler_check_deadlines(struct coord *coord, struct coord_actions *out)
{
    uint64_t next_ns = UINT64_MAX;
    if (coord->now_ns < coord->deadline_next_ns)
        return;
    for (int32_t i = 0; i < coord->requests.capacity; i++) {
        const struct request *request = request_at(coord, i);
        if (request->phase == PHASE_FREE || request->phase == PHASE_CLOSING ||
            request->deadline_ns == 0)
            continue;
        if (request->deadline_ns > coord->now_ns) {
            next_ns = request->deadline_ns < next_ns ? request->deadline_ns : next_ns;
            continue;
        }
        if (!coord_room(out, 1))
            return; // the next call goes on
        scheduler_finish(coord, i, "timeout", out);
        coord->timeouts++;
    }
    coord->deadline_next_ns = next_ns;
}

// ---- when a plan is sent ----

void scheduler_pump(struct coord *coord, int32_t g, struct coord_actions *out)
{
    struct group_state *group = &coord->groups[g];
    // One plan an event: the action borrows group->plan until the next call.
    if (group->phase != GROUP_READY || group->flights_count >= COORD_FLIGHT_MAX ||
        !coord_room(out, 2) || !scheduler_build(coord, g, out))
        return;
    group->step_sent = group->plan.step;
    group->flights_count++;
    coord->steps++;
    struct coord_action *action = coord_act(out, ACTION_SEND_PLAN);
    action->group = g;
    action->plan = &group->plan;
    if (group->flights_count < COORD_FLIGHT_MAX)
        out->more = true; // the step after this one can be planned at once
}

// ---- the end of a group ----

static bool any_group_left(const struct coord *coord)
{
    for (int32_t g = 0; g < coord->options.groups; g++) {
        enum group_phase phase = coord->groups[g].phase;
        if (phase == GROUP_FORMING || phase == GROUP_LOADING || phase == GROUP_READY)
            return true;
    }
    return false;
}

// Those who wait and have run in this group: nobody else can go on with what they have told.
static bool tell_preempted(struct coord *coord, int32_t g, struct coord_actions *out)
{
    int32_t next;
    for (int32_t i = coord->requests.queued.first; i != REQUEST_NONE_INDEX; i = next) {
        next = request_at(coord, i)->next;
        if (request_at(coord, i)->group != g)
            continue;
        if (!coord_room(out, 1))
            return false;
        scheduler_tell_error(coord, i, E_FAILED, coord->groups[g].failure, out);
        scheduler_drop_queued(coord, i);
    }
    return true;
}

static bool tell_group(struct coord *coord, int32_t g, struct coord_actions *out)
{
    struct group_state *group = &coord->groups[g];
    while (group->running.first != REQUEST_NONE_INDEX) {
        int32_t index = group->running.first;
        struct request *request = request_at(coord, index);
        if (!coord_room(out, 1))
            return false;
        if (!request->begun && request->phase == PHASE_RUNNING) {
            back_to_queue(coord, index);
            continue;
        }
        if (request->phase != PHASE_CLOSING)
            scheduler_tell_error(coord, index, E_FAILED, group->failure, out);
        request->steps_in_flight = 0; // the epoch is over: nothing of it will be reported
        request->phase = PHASE_CLOSING;
        scheduler_settle(coord, index);
        group->closes_count = 0;
    }
    group->flights_count = 0;
    return tell_preempted(coord, g, out);
}

void scheduler_tell_failure(struct coord *coord, struct coord_actions *out)
{
    const char *failure = "no group of workers is left";
    for (int32_t g = 0; g < coord->options.groups; g++) {
        struct group_state *group = &coord->groups[g];
        if (group->phase != GROUP_FAILED)
            continue;
        failure = group->failure;
        if (group->failure_told)
            continue;
        if (!tell_group(coord, g, out))
            return;
        group->failure_told = true;
    }
    if (any_group_left(coord))
        return;
    while (coord->requests.queued.first != REQUEST_NONE_INDEX && coord_room(out, 1)) {
        int32_t index = coord->requests.queued.first;
        scheduler_tell_error(coord, index, E_FAILED, failure, out);
        scheduler_drop_queued(coord, index);
    }
}
