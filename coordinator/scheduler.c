// SPDX-License-Identifier: Apache-2.0
// scheduler.c -- builds step plans and applies their reports. One step of run-ahead: a plan is
// sent while the one before it runs, so what the last step drew is not known when the next is
// planned. Therefore (1) every row has its pages before it is sent, (2) a sequence that may have
// ended in an unresolved step is planned again and goes inert on the device, (3) a slot and its
// pages are given away only when no unresolved step names them.
//
// Policy: decode rows first, then prompts in order of arrival, cut at absolute multiples of 64;
// a request is admitted when a slot and the pages of its longest possible length are free, so
// nothing running ever has to be thrown out.
#include "coordinator/coord.h"

#include <stdio.h>
#include <string.h>

static struct request *request_at(struct coord *coord, int32_t index)
{
    return &coord->requests.table[index];
}

static struct flight *flight_of(struct group_state *group, uint64_t step)
{
    return &group->flights[step % COORD_FLIGHT_MAX];
}

static void report_usage(struct coord_action *action, const struct request *request)
{
    action->usage = (struct coord_usage){
        .prompt_tokens = request->prompt.tokens,
        .completion_tokens = request->outputs,
        .target_steps = request->target_steps,
    };
}

static void tell_error(struct coord *coord, int32_t index, enum status status, const char *text,
                       struct coord_actions *out)
{
    struct coord_action *action = coord_act(out, ACTION_ERROR);
    action->request = request_at(coord, index)->number;
    action->status = status;
    action->text = text;
    coord->requests_failed++;
}

// Frees slot and pages of a request that no unresolved step names any more.
static void release(struct coord *coord, int32_t index)
{
    struct request *request = request_at(coord, index);
    struct group_state *group = &coord->groups[request->group];
    ASSERT(request->steps_in_flight == 0);
    group->closes[group->closes_count++] = request->slot;
    kv_pages_give_back(&group->pages, request->pages_first);
    state_slots_give_back(&group->slots, request->slot);
    request_list_remove(&group->running, &coord->requests, index);
    token_pool_give_back(&coord->pool, &request->prompt);
    requests_give_back(&coord->requests, index);
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
    kv_pages_give_back(&coord->groups[request->group].pages, request->pages_first);
    request->pages_first = KV_PAGE_NONE;
    request->pages_count = 0;
#endif
    if (request->steps_in_flight == 0)
        release(coord, index);
}

static void drop_queued(struct coord *coord, int32_t index)
{
    struct request *request = request_at(coord, index);
    request_list_remove(&coord->requests.queued, &coord->requests, index);
    token_pool_give_back(&coord->pool, &request->prompt);
    requests_give_back(&coord->requests, index);
}

void scheduler_finish(struct coord *coord, int32_t index, const char *reason,
                      struct coord_actions *out)
{
    struct request *request = request_at(coord, index);
    struct coord_action *action = coord_act(out, ACTION_DONE);
    action->request = request->number;
    action->reason = reason;
    report_usage(action, request);
    coord->requests_done++;
    if (request->phase == PHASE_QUEUED)
        drop_queued(coord, index);
    else
        close_running(coord, index);
}

// ---- building a plan ----

static void add_flight_row(struct coord *coord, struct flight *flight, int32_t index, bool draws)
{
    struct request *request = request_at(coord, index);
    flight->requests[flight->rows_count] = index;
    flight->draws[flight->rows_count] = draws;
    flight->rows_count++;
    request->steps_in_flight++;
    request->draws_in_flight += draws;
}

// A running request decodes when its whole prompt is planned and the tokens known or in flight
// leave room for another.
static bool may_decode(const struct request *request)
{
    int32_t drawn = request->outputs + request->draws_in_flight;
#ifdef PLANT_row_past_end
    drawn = request->outputs;
#endif
    return request->phase == PHASE_RUNNING && request->prompt_planned == request->prompt.tokens &&
           request->prompt.tokens + drawn < request->tokens_end;
}

static void plan_decodes(struct coord *coord, struct group_state *group, struct flight *flight)
{
    struct step_plan *plan = &group->plan;
    for (int32_t i = group->running.first; i != REQUEST_NONE_INDEX;
         i = request_at(coord, i)->next) {
        struct request *request = request_at(coord, i);
        if (!may_decode(request))
            continue;
        plan->rows[plan->rows_count++] = (struct step_plan_row){
            .slot = request->slot, .kind = STEP_ROW_DECODE, .checkpoint = -1};
        add_flight_row(coord, flight, i, true);
    }
}

// How many tokens of the prompt to run now: the rest, or up to the last multiple of 64 within the
// budget. Chunks begin and end at absolute multiples of 64, so a cut never changes bits.
static int32_t chunk_tokens(const struct request *request, int32_t budget)
{
    int32_t rest = request->prompt.tokens - request->prompt_planned;
    if (rest <= budget)
        return rest;
    int32_t end = (request->prompt_planned + budget) / TOKENS_PER_PAGE * TOKENS_PER_PAGE;
#ifdef PLANT_chunk_off_grid
    end = request->prompt_planned + budget;
#endif
    return end > request->prompt_planned ? end - request->prompt_planned : 0;
}

static int32_t plan_chunk(struct coord *coord, struct group_state *group, struct flight *flight,
                          int32_t index, int32_t budget)
{
    struct request *request = request_at(coord, index);
    struct step_plan *plan = &group->plan;
    int32_t count = chunk_tokens(request, budget);
    if (count == 0)
        return 0;
    int32_t end = request->prompt_planned + count;
    bool last = end == request->prompt.tokens;
    struct step_plan_row *row = &plan->rows[plan->rows_count++];
    *row = (struct step_plan_row){
        .slot = request->slot,
        .kind = STEP_ROW_PREFILL,
        .tokens_first = plan->tokens_count,
        .tokens_count = count,
        .token_next = -1,
        .sample = last,
        .checkpoint = -1,
    };
    token_pool_read(&coord->pool, &request->prompt, request->prompt_planned, count,
                    plan->tokens + plan->tokens_count);
    if (!last)
        token_pool_read(&coord->pool, &request->prompt, end, 1, &row->token_next);
    plan->tokens_count += count;
    request->prompt_planned = end;
    add_flight_row(coord, flight, index, last);
    return count;
}

static int32_t plan_running_prompts(struct coord *coord, struct group_state *group,
                                    struct flight *flight, int32_t budget)
{
    for (int32_t i = group->running.first; i != REQUEST_NONE_INDEX && budget > 0;
         i = request_at(coord, i)->next) {
        struct request *request = request_at(coord, i);
        if (request->phase == PHASE_RUNNING && request->prompt_planned < request->prompt.tokens)
            budget -= plan_chunk(coord, group, flight, i, budget);
    }
    return budget;
}

// Position of the first token that may be a stop id; 0 when any may.
static int32_t stops_from(const struct request *request)
{
    int64_t from = (int64_t)request->prompt.tokens + request->sampling.min_tokens;
    if (request->sampling.min_tokens <= 0)
        return 0;
    return from < request->tokens_end ? (int32_t)from : request->tokens_end;
}

static void plan_open(struct step_plan *plan, const struct request *request)
{
    struct step_open *open = &plan->opens[plan->opens_count++];
    *open = (struct step_open){
        .slot = request->slot,
        .position = 0,
        .prompt_tokens = request->prompt.tokens,
        .tokens_end = request->tokens_end,
        .page_limit = request->pages_count,
        .seed = request->sampling.seed,
        .temperature = request->sampling.temperature,
        .top_k = request->sampling.top_k,
        .top_p = request->sampling.top_p,
        .min_p = request->sampling.min_p,
        .repetition = request->sampling.repetition,
        .frequency = request->sampling.frequency,
        .presence = request->sampling.presence,
        .stops_from = stops_from(request),
        .stop_count = request->sampling.stop_count,
    };
    memcpy(open->stop_ids, request->sampling.stop_ids, sizeof open->stop_ids);
    plan->pages[plan->pages_count++] =
        (struct step_pages){.slot = request->slot,
                            .first = 0,
                            .count = request->pages_count,
                            .ids_first = plan->page_ids_count - request->pages_count};
}

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
    if (request->prompt.tokens < limit) {
        request->tokens_end = request->tokens_end < limit ? request->tokens_end : limit;
        return true;
    }
    if (any_group_holds(coord, request->prompt.tokens))
        return false;
    snprintf(group->refusal, sizeof group->refusal,
             "the prompt has %d tokens, accepted is 1 to %d with the memory of this server",
             request->prompt.tokens, limit - 1);
    tell_error(coord, index, E_INPUT, group->refusal, out);
    drop_queued(coord, index);
    out->more = true; // the next in the queue may fit; the list borrows the text
    return false;
}

// Moves the head of the queue into a slot of this group. False when something is short.
static bool admit(struct coord *coord, int32_t g, struct coord_actions *out)
{
    struct group_state *group = &coord->groups[g];
    struct step_plan *plan = &group->plan;
    int32_t index = coord->requests.queued.first;
    struct request *request = request_at(coord, index);
    if (!fit(coord, g, index, out))
        return false;
    int32_t pages = kv_pages_for_tokens(request->tokens_end);
    if (group->slots.slots_free == 0 || pages > group->pages.pages_free ||
        pages > STEP_PAGE_IDS_MAX - plan->page_ids_count)
        return false;
    int32_t slot = state_slots_take(&group->slots, index);
    request->pages_first =
        kv_pages_take(&group->pages, slot, pages, plan->page_ids + plan->page_ids_count);
    plan->page_ids_count += pages;
    request->pages_count = pages;
    request->group = g;
    request->slot = slot;
    request->phase = PHASE_RUNNING;
    request_list_remove(&coord->requests.queued, &coord->requests, index);
    request_list_append(&group->running, &coord->requests, index);
    plan_open(plan, request);
    return true;
}

static void plan_admissions(struct coord *coord, int32_t g, struct flight *flight, int32_t budget,
                            struct coord_actions *out)
{
    struct group_state *group = &coord->groups[g];
    while (coord->requests.queued.first != REQUEST_NONE_INDEX && budget > 0) {
        int32_t index = coord->requests.queued.first;
        if (chunk_tokens(request_at(coord, index), budget) == 0 || !admit(coord, g, out))
            return;
        budget -= plan_chunk(coord, group, flight, index, budget);
    }
}

// Slots that ended since the last plan are closed by the next, before it opens any.
static void plan_closes(struct group_state *group)
{
    memcpy(group->plan.closes, group->closes, (size_t)group->closes_count * sizeof(int32_t));
    group->plan.closes_count = group->closes_count;
    group->closes_count = 0;
}

// Fills group->plan; false when there is nothing to run.
static bool build(struct coord *coord, int32_t g, struct coord_actions *out)
{
    struct group_state *group = &coord->groups[g];
    struct step_plan *plan = &group->plan;
    struct flight *flight = flight_of(group, group->step_sent + 1);
    step_plan_clear(plan);
    memset(flight, 0, offsetof(struct flight, requests));
    plan_decodes(coord, group, flight);
    int32_t budget = group->memory.step_tokens - plan->rows_count;
    budget = plan_running_prompts(coord, group, flight, budget);
    plan_admissions(coord, g, flight, budget, out);
    if (plan->rows_count == 0)
        return false;
    plan_closes(group);
    plan->group = g;
    plan->step = group->step_sent + 1;
    plan->epoch = group->epoch;
    flight->step = plan->step;
    flight->sent_ns = coord->now_ns;
    return true;
}

void scheduler_pump(struct coord *coord, int32_t g, struct coord_actions *out)
{
    struct group_state *group = &coord->groups[g];
    // One plan an event: the action borrows group->plan until the next call.
    if (group->phase != GROUP_READY || group->flights_count >= COORD_FLIGHT_MAX ||
        !coord_room(out, 2) || !build(coord, g, out))
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

// ---- applying a report ----

// Why the request ends with its newest token, by the same rules as the device; NULL = it runs on.
static const char *end_reason(const struct request *request, int32_t token)
{
    for (int32_t i = 0; i < request->sampling.stop_count; i++) {
        if (request->sampling.stop_ids[i] == token)
            return "stop";
    }
    return request->prompt.tokens + request->outputs >= request->tokens_end ? "length" : NULL;
}

// False when the device's row contradicts what this side knows.
static bool apply_tokens(struct coord *coord, int32_t index, const struct step_result *result,
                         struct coord_actions *out)
{
    static const char *const device_reasons[] = {NULL, "stop", "length"};
    struct request *request = request_at(coord, index);
    const char *reason = NULL;
    for (int32_t i = 0; i < result->count; i++) {
        if (reason != NULL || result->tokens[i] < 0 ||
            result->tokens[i] >= coord->options.vocab_real)
            return false;
        request->outputs++;
        reason = end_reason(request, result->tokens[i]);
    }
    if (result->end < 0 || result->end > 2 || (reason == NULL) != (result->end == 0) ||
        (reason != NULL && strcmp(reason, device_reasons[result->end]) != 0))
        return false;
    coord->tokens_out += (uint64_t)result->count;
    struct coord_action *action = coord_act(out, ACTION_TOKENS);
    action->request = request->number;
    action->tokens = result->tokens;
    action->tokens_count = result->count;
    if (reason != NULL)
        scheduler_finish(coord, index, reason, out);
    return true;
}

static bool apply_row(struct coord *coord, const struct flight *flight, int32_t row,
                      struct coord_actions *out)
{
    int32_t index = flight->requests[row];
    const struct step_result *result = &flight->results[row];
    struct request *request = request_at(coord, index);
    bool draws = flight->draws[row];
    if (result->slot != request->slot || result->count < 0 || result->count > (draws ? 1 : 0))
        return false;
    request->steps_in_flight--;
    request->draws_in_flight -= draws;
    request->target_steps++;
    if (request->phase == PHASE_CLOSING) {
        if (request->steps_in_flight == 0)
            release(coord, index);
        return true;
    }
    if (!draws)
        return true;
    // A running sequence that was to draw has drawn: pages were reserved, no stop was met before.
    return result->count >= 1 && apply_tokens(coord, index, result, out);
}

static void apply(struct coord *coord, int32_t g, struct coord_actions *out)
{
    struct group_state *group = &coord->groups[g];
    struct flight *flight = flight_of(group, group->step_done + 1);
    group->step_done = flight->step;
    group->flights_count--;
    for (int32_t row = 0; row < flight->rows_count; row++) {
        if (!apply_row(coord, flight, row, out)) {
            members_fail_group(coord, g, out,
                               "group %d: step %llu row %d contradicts its plan (slot %d, %d "
                               "tokens, end %d)",
                               g, (unsigned long long)flight->step, row, flight->results[row].slot,
                               flight->results[row].count, flight->results[row].end);
            return;
        }
    }
}

// Stores a rank's report in its flight; ends the epoch when it contradicts the plan or a rank.
static void take_report(struct coord *coord, int32_t g, struct flight *flight,
                        const struct report *report, struct coord_actions *out)
{
    uint32_t bit = 1u << report->rank;
    if ((flight->reported & bit) != 0)
        return; // a duplicate changes nothing
#ifndef PLANT_hash_ignored
    if (flight->reported != 0 && flight->hash != report->hash) {
        members_fail_group(coord, g, out,
                           "group %d: step %llu: rank %d drew other tokens than the ranks before "
                           "it (hash %016llx, theirs %016llx)",
                           g, (unsigned long long)report->step, report->rank,
                           (unsigned long long)report->hash, (unsigned long long)flight->hash);
        return;
    }
#endif
    if (report->rank == 0) {
        if (report->rows_count != flight->rows_count) {
            members_fail_group(coord, g, out, "group %d: step %llu: %d rows reported, %d planned",
                               g, (unsigned long long)report->step, report->rows_count,
                               flight->rows_count);
            return;
        }
        memcpy(flight->results, report->rows,
               (size_t)report->rows_count * sizeof(struct step_result));
    }
    flight->hash = report->hash;
    flight->reported |= bit;
}

void scheduler_report(struct coord *coord, int32_t g, const struct report *report,
                      struct coord_actions *out)
{
    struct group_state *group = &coord->groups[g];
#ifndef PLANT_report_twice
    if (report->step <= group->step_done)
        return; // a late duplicate
#endif
    if (report->step > group->step_sent) {
        members_fail_group(coord, g, out, "group %d: rank %d reports step %llu, %llu were sent", g,
                           report->rank, (unsigned long long)report->step,
                           (unsigned long long)group->step_sent);
        return;
    }
    take_report(coord, g, flight_of(group, report->step), report, out);
}

void scheduler_apply(struct coord *coord, int32_t g, struct coord_actions *out)
{
    struct group_state *group = &coord->groups[g];
    uint32_t all = (1u << coord->options.ranks) - 1;
    if (group->phase != GROUP_READY || group->flights_count == 0)
        return;
    const struct flight *oldest = flight_of(group, group->step_done + 1);
    if (oldest->reported != all || !coord_room(out, 2 * oldest->rows_count))
        return;
    apply(coord, g, out);
    out->more = true; // reports may have overtaken each other: the next step may be complete too
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

static bool tell_group(struct coord *coord, int32_t g, struct coord_actions *out)
{
    struct group_state *group = &coord->groups[g];
    while (group->running.first != REQUEST_NONE_INDEX) {
        int32_t index = group->running.first;
        struct request *request = request_at(coord, index);
        if (!coord_room(out, 1))
            return false;
        if (request->phase == PHASE_RUNNING)
            tell_error(coord, index, E_FAILED, group->failure, out);
        request->steps_in_flight = 0; // the epoch is over: nothing of it will be reported
        release(coord, index);
        group->closes_count = 0;
    }
    group->flights_count = 0;
    return true;
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
        tell_error(coord, index, E_FAILED, failure, out);
        drop_queued(coord, index);
    }
}
