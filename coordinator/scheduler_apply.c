// SPDX-License-Identifier: Apache-2.0
// scheduler_apply.c -- takes the ranks' reports and applies a step when all of them agree: tokens
// go out and are kept, requests end, slots and pages come back.
#include "coordinator/scheduler.h"
#include "coordinator/scheduler_logprobs.h"

#include <string.h>

// Why the request ends with its newest token, by the same rules as the device; NULL = it runs on.
static const char *end_reason(const struct request *request, int32_t token)
{
    for (int32_t i = 0; i < request->sampling.stop_count; i++) {
        if (request->sampling.stop_ids[i] == token)
            return "stop";
    }
    return request->prompt_tokens + request->outputs >= request->tokens_end ? "length" : NULL;
}

// False when the device's row contradicts what this side knows.
static bool apply_tokens(struct coord *coord, int32_t index, const struct flight *flight,
                         int32_t row, struct coord_actions *out)
{
    static const char *const device_reasons[] = {NULL, "stop", "length"};
    const struct step_result *result = &flight->results[row];
    struct request *request = request_at(coord, index);
    const char *reason = NULL;
    for (int32_t i = 0; i < result->count; i++) {
        if (reason != NULL || result->tokens[i] < 0 ||
            result->tokens[i] >= coord->options.vocab_real)
            return false;
        request->outputs++;
        reason = end_reason(request, result->tokens[i]);
    }
    bool broken = result->end == STEP_END_BROKEN;
    if (result->end < 0 || result->end > STEP_END_BROKEN ||
        (reason == NULL) != (result->end == 0 || broken) ||
        (reason != NULL && strcmp(reason, device_reasons[result->end]) != 0))
        return false;
    if (broken && result->count == 0) {
        scheduler_break(coord, index, out);
        return true;
    }
    // Sized so that it never fails: core.c, pool_tokens_all.
    bool kept = token_pool_append(&coord->pool, &request->tokens, result->tokens, result->count);
    ASSERT(kept);
    coord->tokens_out += (uint64_t)result->count;
    struct coord_action *action = coord_act(out, ACTION_TOKENS);
    action->request = request->number;
    action->tokens = result->tokens;
    action->tokens_count = result->count;
    request_times_tell(&request->times, action, coord->now_ns);
    if (!scheduler_logprobs_tell(coord, request, flight, row, action))
        return false;
    if (reason != NULL)
        scheduler_finish(coord, index, reason, out);
    if (broken)
        scheduler_break(coord, index, out);
    return true;
}

// What a chunk of a prompt tells that draws nothing.
static bool apply_prompt(const struct coord *coord, struct request *request,
                         const struct flight *flight, int32_t row, struct coord_actions *out)
{
    struct coord_action told = {
        .type = ACTION_TOKENS, .request = request->number, .tokens = flight->results[row].tokens};
    if (!scheduler_logprobs_tell(coord, request, flight, row, &told))
        return false;
    if (told.prompt_logprobs_count > 0)
        *coord_act(out, ACTION_TOKENS) = told;
    return true;
}

static bool apply_row(struct coord *coord, const struct flight *flight, int32_t row,
                      struct coord_actions *out)
{
    int32_t index = flight->requests[row];
    const struct step_result *result = &flight->results[row];
    struct request *request = request_at(coord, index);
    int32_t draws = flight->draws[row];
    if (result->slot != request->slot || result->count < 0 || result->count > draws)
        return false;
    request->steps_in_flight--;
    request->draws_in_flight -= draws > 0;
    request->tokens_in_flight -= draws;
    request->target_steps++;
    // A sequence that runs and was to draw has drawn: its pages were there, it met no stop before.
    bool lives = request->phase != PHASE_CLOSING;
    if (lives && row < flight->decode_rows && !scheduler_fold_apply(coord, request, flight, row))
        return false;
    bool drew = result->end == STEP_END_BROKEN ? result->count < draws : result->count > 0;
    if (lives && draws > 0 && (!drew || !apply_tokens(coord, index, flight, row, out)))
        return false;
    if (lives && draws == 0 && !apply_prompt(coord, request, flight, row, out))
        return false;
    if (!lives || request->phase == PHASE_PREEMPTED) {
        if (request->steps_in_flight == 0)
            scheduler_settle(coord, index);
    }
    return true;
}

static void apply(struct coord *coord, int32_t g, struct coord_actions *out)
{
    struct group_state *group = &coord->groups[g];
    struct flight *flight = coord_flight(group, group->step_done + 1);
    group->step_done = flight->step;
    group->flights_count--;
    if (group->flights_count > 0)
        coord_flight(group, group->step_done + 1)->begun_ns = coord->now_ns;
    scheduler_pace_note(&group->pace, flight->decode_rows, flight->prefill_tokens, flight->step_ns,
                        coord->options.prefill_gap_ns);
    scheduler_note_drafts(coord, g, flight);
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
        scheduler_logprobs_keep(flight, report);
    }
    if (flight->reported == 0 || report->step_ns < flight->step_ns)
        flight->step_ns = report->step_ns;
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
    take_report(coord, g, coord_flight(group, report->step), report, out);
}

void scheduler_apply(struct coord *coord, int32_t g, struct coord_actions *out)
{
    struct group_state *group = &coord->groups[g];
    uint32_t all = (1u << coord->options.ranks) - 1;
    if (group->phase != GROUP_READY || group->flights_count == 0)
        return;
    const struct flight *oldest = coord_flight(group, group->step_done + 1);
    if (oldest->reported != all || !coord_room(out, 2 * oldest->rows_count))
        return;
    apply(coord, g, out);
    out->more = true; // reports may have overtaken each other: the next step may be complete too
}
