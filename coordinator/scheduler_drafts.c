// SPDX-License-Identifier: Apache-2.0
// scheduler_drafts.c -- speculation in plans: how many drafts the rows of a step verify (those that
// the step before it was told to make, as far as there is room) and make, and what came of them.
#include "coordinator/scheduler.h"

#include <string.h>

// Most drafts that a request takes at a time.
static int32_t drafts_most(const struct request *request)
{
    int32_t most = request->sampling.drafts;
    return most > 0 ? most - 1 : STEP_VERIFY_MAX - 1;
}

// The rows that may decode; mixed: with a prompt on its way.
static void gather_decoding(struct coord *coord, const struct group_state *group,
                            struct speculation_batch *batch)
{
    speculation_begin(batch, &group->speculation);
    for (int32_t i = group->running.first; i != REQUEST_NONE_INDEX;
         i = request_at(coord, i)->next) {
        struct request *request = request_at(coord, i);
        if (request->phase != PHASE_RUNNING)
            continue;
        if (request->prefill_given == request->prefill_end)
            speculation_add(batch, &request->acceptance, request->tokens.tokens,
                            drafts_most(request));
        else
            batch->mixed = true;
    }
}

void scheduler_plan_drafts(struct coord *coord, int32_t g)
{
    struct group_state *group = &coord->groups[g];
    struct step_plan *plan = &group->plan;
    struct speculation_batch batch;
    gather_decoding(coord, group, &batch);
    // A prompt that waits must find room for a chunk, whatever is verified.
    bool prompts = batch.mixed || coord->requests.queued.count > 0;
    int32_t rows = batch.rows, room = group->memory.step_tokens - (prompts ? TOKENS_PER_PAGE : 0);
    int32_t most = rows > 0 ? room / rows : STEP_VERIFY_MAX;
    most = most < 1 ? 1 : most > STEP_VERIFY_MAX ? STEP_VERIFY_MAX : most;
    batch.most = most - 1 < batch.most ? most - 1 : batch.most;
    // Who draws a first token in this step may take any number, and a fixed one is promised.
    if (prompts && group->speculation.wish != SPECULATION_AUTO)
        batch.asked = SPECULATION_CHOICES - 1;
    int32_t drafts = speculation_choose(&group->speculation, &batch);
    plan->verify = 1 + group->drafts_made < most ? 1 + group->drafts_made : most;
    plan->draft = drafts < most ? drafts : most - 1;
    coord_flight(group, group->step_sent + 1)->speculation_cell =
        speculation_cell_now(&group->speculation);
}

// Drafts that a row verified, into the request's usage and acceptance: no more than it could use
// before its end or a checkpoint's place.
static void count_drafts(struct coord *coord, const struct flight *flight, int32_t row,
                         struct speculation_step *step)
{
    struct request *request = request_at(coord, flight->requests[row]);
    int32_t count = flight->results[row].count;
    int32_t most = drafts_most(request), drafted = flight->verify - 1;
    int32_t left = request->tokens_end - request->prompt_tokens - request->outputs;
    int32_t before = flight->places[row] - (request->tokens.tokens - 1);
    if (before > 0 && drafted > before - 1)
        drafted = before - 1;
    if (drafted > left - 1)
        drafted = left - 1;
    if (drafted > most)
        drafted = most;
    if (drafted < 0)
        drafted = 0;
    speculation_note_row(step, &request->acceptance, drafted, count - 1);
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
    struct speculation_step step = {.cell = flight->speculation_cell, .drafts = flight->verify - 1};
    // Only a step of one kind tells what its kind costs.
    if (flight->decode_rows == flight->rows_count && flight->verify == 1 + flight->drafts)
        step.ns = flight->step_ns;
    for (int32_t row = 0; row < flight->decode_rows; row++) {
        int32_t count = flight->results[row].count;
        if (count >= 1 && count <= flight->verify) // else inert, or refused by whoever applies it
            count_drafts(coord, flight, row, &step);
    }
    speculation_observe(&group->speculation, &step);
}
