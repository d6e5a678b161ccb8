// SPDX-License-Identifier: Apache-2.0
// scheduler_drafts.c -- speculation in plans: how many drafts the rows of a step verify (those that
// the step before it was told to make, as far as there is room) and make, and what came of them.
#include "coordinator/scheduler.h"

#include <string.h>

// Rows that may decode, and whether a prompt is on its way or may come.
static int32_t count_decoding(struct coord *coord, const struct group_state *group, bool *prompts)
{
    int32_t rows = 0;
    *prompts = coord->requests.queued.count > 0;
    for (int32_t i = group->running.first; i != REQUEST_NONE_INDEX;
         i = request_at(coord, i)->next) {
        const struct request *request = request_at(coord, i);
        bool decodes =
            request->phase == PHASE_RUNNING && request->prefill_given == request->prefill_end;
        rows += decodes;
        *prompts |= request->phase == PHASE_RUNNING && !decodes;
    }
    return rows;
}

void scheduler_plan_drafts(struct coord *coord, int32_t g)
{
    struct group_state *group = &coord->groups[g];
    struct step_plan *plan = &group->plan;
    bool prompts;
    int32_t rows = count_decoding(coord, group, &prompts);
    // A prompt that waits must find room for a chunk, whatever is verified.
    int32_t room = group->memory.step_tokens - (prompts ? TOKENS_PER_PAGE : 0);
    int32_t most = rows > 0 ? room / rows : STEP_VERIFY_MAX;
    most = most < 1 ? 1 : most > STEP_VERIFY_MAX ? STEP_VERIFY_MAX : most;
    int32_t drafts = speculation_choose(&group->speculation, rows > 0 ? rows : 1);
    plan->verify = 1 + group->drafts_made < most ? 1 + group->drafts_made : most;
    plan->draft = drafts < most ? drafts : most - 1;
}

// Drafts that a row verified which drew `count` tokens, into the request's usage: no more than it
// could use before its end or a checkpoint's place.
static void count_drafts(struct coord *coord, const struct flight *flight, int32_t row)
{
    struct request *request = request_at(coord, flight->requests[row]);
    int32_t count = flight->results[row].count;
    int32_t most = request->sampling.drafts, drafted = flight->verify - 1;
    int32_t left = request->tokens_end - request->prompt_tokens - request->outputs;
    int32_t before = flight->places[row] - (request->tokens.tokens - 1);
    if (before > 0 && drafted > before - 1)
        drafted = before - 1;
    if (drafted > left - 1)
        drafted = left - 1;
    if (most > 0 && drafted > most - 1)
        drafted = most - 1;
    request->drafted += drafted;
    request->accepted += count - 1;
    coord->drafts.rows += drafted > 0;
    coord->drafts.drafted += (uint64_t)drafted;
    for (int32_t i = 0; i < count - 1; i++)
        coord->drafts.accepted[i]++;
}

void scheduler_note_drafts(struct coord *coord, int32_t g, const struct flight *flight)
{
    struct group_state *group = &coord->groups[g];
    struct speculation_step step = {
        .rows = flight->decode_rows, .drafts = flight->verify - 1, .ns = flight->step_ns};
    for (int32_t row = 0; row < flight->decode_rows; row++) {
        int32_t count = flight->results[row].count;
        if (count < 1 || count > flight->verify)
            continue; // inert, or refused by whoever applies it
        step.drew++;
        for (int32_t i = 0; i < count - 1; i++)
            step.accepted[i]++;
        if (flight->verify > 1)
            count_drafts(coord, flight, row);
    }
    // Only a step of one kind tells what its kind costs.
    if (flight->decode_rows == flight->rows_count && flight->verify == 1 + flight->drafts)
        speculation_observe(&group->speculation, &step);
}
