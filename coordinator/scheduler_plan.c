// SPDX-License-Identifier: Apache-2.0
// scheduler_plan.c -- the rows of the next step: every running sequence decodes, then prompts are
// prefilled within the token budget, cut at absolute multiples of 64; what a preempted request had
// drawn comes behind its prompt in short rows.
//
// Pages: a row has pages for everything that it may write, however the steps in flight turn out. A
// row that finds none free waits, and the most junior requests are preempted until enough are
// coming back.
//
// Prefill: half of the budget goes to the most senior prompt, so that nobody starves; the rest to
// those with the fewest tokens left, so that a short prompt is not stuck behind a long one.
#include "coordinator/scheduler.h"
#include "coordinator/scheduler_logprobs.h"

#include <string.h>

// ---- pages ----

// A running request decodes when all that was known at its start is planned and the tokens known or
// in flight leave room for another.
static bool may_decode(const struct request *request)
{
    int32_t drawn = request->outputs + request->draws_in_flight;
#ifdef PLANT_row_past_end
    drawn = request->outputs;
#endif
    return request->phase == PHASE_RUNNING && request->prefill_given == request->prefill_end &&
           request->prompt_tokens + drawn < request->tokens_end;
}

// Pages that a decode row may touch: all in flight may have been accepted, and the head's keys of
// the drafts lie behind what is verified. The last token of an output is never run.
static int32_t pages_to_decode(const struct request *request, const struct step_plan *plan)
{
    int32_t tokens =
        request->tokens.tokens + request->tokens_in_flight + plan->verify - 1 + plan->draft;
#ifdef PLANT_draft_pages
    tokens -= plan->verify - 1 + plan->draft;
#endif
    return kv_pages_for_tokens(tokens < request->tokens_end ? tokens : request->tokens_end - 1);
}

// Pages that a decode row lacks; all of them are taken when they are free.
static int32_t pages_missing(struct group_state *group, struct request *request,
                             const struct step_plan *plan)
{
    int32_t missing = pages_to_decode(request, plan) - request->pages_count;
    if (missing <= 0)
        return 0;
    if (!scheduler_take_pages(group, missing, coord_pages(group, request) + request->pages_count))
        return missing;
    request->pages_count += missing;
    return 0;
}

// Pages that come back when the steps in flight have been reported.
static int32_t pages_coming(struct coord *coord, const struct group_state *group)
{
    int32_t pages = 0;
    for (int32_t i = group->running.first; i != REQUEST_NONE_INDEX; i = request_at(coord, i)->next)
        pages +=
            request_at(coord, i)->phase == PHASE_RUNNING ? 0 : request_at(coord, i)->pages_count;
    return pages;
}

static int32_t most_junior(struct coord *coord, const struct group_state *group)
{
    int32_t index = group->running.last;
    while (request_at(coord, index)->phase != PHASE_RUNNING)
        index = request_at(coord, index)->previous;
    return index;
}

// Gives pages to those who decode, most senior first; preempts from the other end while fewer are
// coming back than are missing.
static void reserve_pages(struct coord *coord, struct group_state *group,
                          const struct step_plan *plan)
{
    int32_t missing_before = 0; // of more senior rows that wait
    int32_t index = group->running.first;
    while (index != REQUEST_NONE_INDEX) {
        struct request *request = request_at(coord, index);
        int32_t missing = may_decode(request) ? pages_missing(group, request, plan) : 0;
        if (missing > 0 && missing_before + missing > pages_coming(coord, group)) {
            int32_t victim = most_junior(coord, group);
            scheduler_preempt(coord, victim);
            if (victim == index)
                return; // nobody more junior runs
            continue;   // its pages may be free already
        }
        missing_before += missing;
        index = request->next;
    }
}

// ---- rows ----

static void add_flight_row(struct coord *coord, struct flight *flight, int32_t index, int32_t draws)
{
    struct request *request = request_at(coord, index);
    flight->requests[flight->rows_count] = index;
    flight->draws[flight->rows_count] = draws;
    flight->rows_count++;
    request->steps_in_flight++;
    request->draws_in_flight += draws > 0;
    request->tokens_in_flight += draws;
}

// Position of the first token that may be a stop id; 0 when any may.
static int32_t stops_from(const struct request *request)
{
    int64_t from = (int64_t)request->prompt_tokens + request->sampling.min_tokens;
    if (request->sampling.min_tokens <= 0)
        return 0;
    return from < request->tokens_end ? (int32_t)from : request->tokens_end;
}

// What was drawn last before the slot's first token, newest first: where there are banned words.
static void tell_recent(const struct coord *coord, struct step_open *open,
                        const struct request *request)
{
    int32_t drawn = open->position - request->prompt_tokens;
    if (open->words_count == 0 || drawn <= 0)
        return;
    open->recent_count = drawn < STEP_RECENT_MAX ? drawn : STEP_RECENT_MAX;
    for (int32_t i = 0; i < open->recent_count; i++)
        token_pool_read(&coord->pool, &request->tokens, open->position - 1 - i, 1,
                        &open->recent[i]);
}

static void tell_lists(const struct coord *coord, struct step_plan *plan, struct step_open *open,
                       const struct request *request)
{
    int32_t count = coord_sampling_lists(&request->sampling);
    open->lists_first = plan->lists_count;
    open->bias_count = request->sampling.bias_count;
    open->allowed_count = request->sampling.allowed_count;
    open->words_count = request->sampling.words_count;
    token_pool_read(&coord->pool, &request->lists, 0, count, plan->lists + plan->lists_count);
    plan->lists_count += count;
    tell_recent(coord, open, request);
}

static void tell_open(const struct coord *coord, struct step_plan *plan, struct request *request)
{
    struct step_open *open = &plan->opens[plan->opens_count++];
    *open = (struct step_open){
        .slot = request->slot,
        .position = request->prefix.position,
        .prompt_tokens = request->prompt_tokens,
        .tokens_end = request->tokens_end,
        .page_limit = kv_pages_for_tokens(request->tokens_end),
        .seed = request->sampling.seed,
        .temperature = request->sampling.temperature,
        .top_k = request->sampling.top_k,
        .top_p = request->sampling.top_p,
        .min_p = request->sampling.min_p,
        .repetition = request->sampling.repetition,
        .frequency = request->sampling.frequency,
        .presence = request->sampling.presence,
        .stops_from = stops_from(request),
        .logprobs = request->sampling.logprobs,
        .drafts = request->sampling.drafts,
        .stop_count = request->sampling.stop_count,
    };
    memcpy(open->stop_ids, request->sampling.stop_ids, sizeof open->stop_ids);
    tell_lists(coord, plan, open, request);
    request->opened = true;
    request->begun = true;
}

// Tells the workers what a row of this request rests on and they do not know yet: its slot, pages.
// False, and nothing told, when the plan has no room for page ids or lists.
static bool tell_slot(const struct coord *coord, struct group_state *group, struct request *request)
{
    struct step_plan *plan = &group->plan;
    int32_t count = request->pages_count - request->pages_told;
    if (count > STEP_PAGE_IDS_MAX - plan->page_ids_count ||
        (!request->opened && request->lists.tokens > STEP_LISTS_MAX - plan->lists_count))
        return false;
    if (!request->opened) {
        scheduler_copy_prefix(group, request);
        tell_open(coord, plan, request);
    }
    if (count == 0)
        return true;
    plan->pages[plan->pages_count++] = (struct step_pages){.slot = request->slot,
                                                           .first = request->pages_told,
                                                           .count = count,
                                                           .ids_first = plan->page_ids_count};
    memcpy(plan->page_ids + plan->page_ids_count, coord_pages(group, request) + request->pages_told,
           (size_t)count * sizeof(int32_t));
    plan->page_ids_count += count;
    request->pages_told = request->pages_count;
    return true;
}

// Returns the rows that decode, those included that wait for pages: they will be back, and then
// they need their tokens of the step.
static int32_t plan_decodes(struct coord *coord, struct group_state *group, struct flight *flight)
{
    struct step_plan *plan = &group->plan;
    int32_t rows = 0;
    for (int32_t i = group->running.first; i != REQUEST_NONE_INDEX;
         i = request_at(coord, i)->next) {
        struct request *request = request_at(coord, i);
        if (!may_decode(request))
            continue;
        rows++;
        if (pages_to_decode(request, plan) > request->pages_count ||
            !tell_slot(coord, group, request))
            continue;
        struct step_plan_row *row = &plan->rows[plan->rows_count++];
        *row = (struct step_plan_row){
            .slot = request->slot, .kind = STEP_ROW_DECODE, .checkpoint = -1};
        scheduler_fold_row(coord, group, request, row);
        flight->places[flight->rows_count] = row->checkpoint_at;
        add_flight_row(coord, flight, i, plan->verify);
    }
    return rows;
}

// ---- prefill ----

static bool has_prefill(const struct request *request)
{
    return request->phase == PHASE_RUNNING && request->prefill_given < request->prefill_end;
}

// Where the request's next row of known tokens may end at most. The prompt ends where it did when
// the request first ran; what it had drawn comes in rows so short that the recurrence takes them
// token by token, as it took the verify rows in which they were drawn.
static int32_t row_end(const struct request *request)
{
    int32_t end = request->prefill_end, given = request->prefill_given;
    if (given < request->prompt_tokens)
        return end < request->prompt_tokens ? end : request->prompt_tokens;
#ifdef PLANT_replay_by_chunks
    return end;
#endif
    int32_t cut = (given / STEP_REPLAY_TOKENS_MAX + 1) * STEP_REPLAY_TOKENS_MAX;
    return cut < end ? cut : end;
}

// Lets a prompt have up to `budget` more tokens of this step: its rest, or up to the last multiple
// of 64. Chunks of a prompt begin and end at absolute multiples of 64, so a cut never changes bits.
static int32_t grant(struct request *request, int32_t budget)
{
    int32_t at = request->prefill_given + request->chunk;
    int32_t end = row_end(request);
    if (end - at > budget) {
        end = (at + budget) / TOKENS_PER_PAGE * TOKENS_PER_PAGE;
#ifdef PLANT_chunk_off_grid
        end = at + budget;
#endif
    }
    int32_t count = end > at ? end - at : 0;
    request->chunk += count;
    return count;
}

static int32_t prefill_left(const struct request *request)
{
    return request->prefill_end - request->prefill_given - request->chunk;
}

// Whether its row of this step may have more.
static bool goes_on(const struct request *request)
{
    return has_prefill(request) && request->prefill_given + request->chunk < row_end(request);
}

static bool replays(const struct request *request)
{
    return request->prefill_given >= request->prompt_tokens;
}

// The prompt that may have more of this step: the most senior, or the one with the fewest tokens
// left and of several the most senior.
static int32_t next_prompt(struct coord *coord, const struct group_state *group, bool shortest)
{
    int32_t best = REQUEST_NONE_INDEX;
    for (int32_t i = group->running.first; i != REQUEST_NONE_INDEX;
         i = request_at(coord, i)->next) {
        const struct request *request = request_at(coord, i);
        if (goes_on(request) && (best == REQUEST_NONE_INDEX ||
                                 prefill_left(request) < prefill_left(request_at(coord, best))))
            best = i;
        if (best != REQUEST_NONE_INDEX && !shortest)
            break;
    }
    return best;
}

// Gives what is left of the budget to the shortest prompts. `passing`: tokens that may go to others
// than the most senior: each of them may be a sequence that decodes from the next step on, and a
// chunk of the most senior has to fit beside all of these.
static void share_rest(struct coord *coord, struct group_state *group, int32_t budget,
                       int32_t passing)
{
    while (budget > 0) {
        int32_t first = next_prompt(coord, group, false), count = 0;
        int32_t shortest = next_prompt(coord, group, true);
        if (first == REQUEST_NONE_INDEX)
            return;
        if (shortest != first) {
            count = grant(request_at(coord, shortest), passing < budget ? passing : budget);
            passing -= count;
        }
        if (count == 0)
            count = grant(request_at(coord, first), budget);
        if (count == 0)
            return;
        budget -= count;
    }
}

// Half of the budget belongs to the most senior prompt, or all of it every second time when half is
// no chunk; a replay has its short row beside it. While it cannot get on, nobody takes the room
// that it waits for. `room`: tokens of a step beside those who decode, whatever the pace.
static void share_prefill(struct coord *coord, struct group_state *group, int32_t budget,
                          int32_t room)
{
    for (int32_t i = group->running.first; i != REQUEST_NONE_INDEX; i = request_at(coord, i)->next)
        request_at(coord, i)->chunk = 0;
    int32_t first = next_prompt(coord, group, false);
    int32_t passing = (room - TOKENS_PER_PAGE) / group->plan.verify;
    bool small = budget < 2 * TOKENS_PER_PAGE;
    if (first == REQUEST_NONE_INDEX || budget <= 0)
        return;
    struct request *senior = request_at(coord, first);
    int32_t count = grant(senior, small ? budget : budget / 2);
    if (count == 0)
        return;
    if (replays(senior)) { // few tokens: they come on top, so that others get whole chunks
        share_rest(coord, group, budget < room - count ? budget : room - count, passing);
        return;
    }
    group->senior_passed = small && passing > 0 && !group->senior_passed;
    if (group->senior_passed) {
        senior->chunk = 0;
        count = 0;
    }
    share_rest(coord, group, budget - count, passing);
}

static void plan_chunk(struct coord *coord, struct group_state *group, struct flight *flight,
                       int32_t index)
{
    struct request *request = request_at(coord, index);
    struct step_plan *plan = &group->plan;
    request->chunk = scheduler_logprobs_chunk(request, plan, request->chunk);
    if (request->chunk == 0 || !tell_slot(coord, group, request))
        return;
    struct step_plan_row *row = &plan->rows[plan->rows_count++];
    *row = (struct step_plan_row){
        .slot = request->slot,
        .kind = STEP_ROW_PREFILL,
        .tokens_first = plan->tokens_count,
        .token_next = -1,
        .prompt_logprobs = scheduler_logprobs_wanted(request),
        .checkpoint = -1,
    };
    int32_t end = scheduler_save_prefixes(coord, group, request, row);
    bool last = end == request->prefill_end;
    request->chunk = end - request->prefill_given;
    row->tokens_count = request->chunk;
    row->sample = last;
    flight->positions[flight->rows_count] = request->prefill_given;
    token_pool_read(&coord->pool, &request->tokens, request->prefill_given, request->chunk,
                    plan->tokens + plan->tokens_count);
    if (!last)
        token_pool_read(&coord->pool, &request->tokens, end, 1, &row->token_next);
    plan->tokens_count += request->chunk;
    request->prefill_given = end;
    request_times_prefill(&request->times, coord->now_ns);
    add_flight_row(coord, flight, index, last);
}

// How long streams may wait for a step's prompts. Where many prompts come at once, steps of the
// operator's gap would keep the last ones waiting for seconds, and all streams would end later: by
// a tenth for 512 prompts of 1,024 tokens, as a model of an H200's step times has it; nobody has
// measured it. A long prompt whose chunks run waits for nobody and lengthens nothing.
static uint64_t prefill_gap_ns(struct coord *coord, const struct group_state *group)
{
    uint64_t longest_ns = 0;
    for (int32_t i = group->running.first; i != REQUEST_NONE_INDEX;
         i = request_at(coord, i)->next) {
        uint64_t waited_ns = request_times_waited_ns(&request_at(coord, i)->times, coord->now_ns);
        longest_ns = waited_ns > longest_ns ? waited_ns : longest_ns;
    }
    uint64_t gap_ns = coord->options.prefill_gap_ns;
    return longest_ns / COORD_WAIT_GAPS > gap_ns ? longest_ns / COORD_WAIT_GAPS : gap_ns;
}

// `decoding`: rows that decode in this step or wait for pages.
static void plan_prefills(struct coord *coord, struct group_state *group, struct flight *flight,
                          int32_t decoding)
{
    int32_t room = group->memory.step_tokens - decoding * group->plan.verify, budget = room;
    if (decoding > 0 && coord->options.prefill_gap_ns > 0) {
        int32_t paced = scheduler_pace_tokens(&group->pace, prefill_gap_ns(coord, group));
#ifdef PLANT_pace_ignored
        paced = budget;
#endif
        budget = paced < budget ? paced : budget;
    }
    share_prefill(coord, group, budget, room);
    for (int32_t i = group->running.first; i != REQUEST_NONE_INDEX;
         i = request_at(coord, i)->next) {
        if (has_prefill(request_at(coord, i)) && request_at(coord, i)->chunk > 0)
            plan_chunk(coord, group, flight, i);
    }
}

// Slots that ended since the last plan are closed by the next, before it opens any.
static void plan_closes(struct group_state *group)
{
    memcpy(group->plan.closes, group->closes, (size_t)group->closes_count * sizeof(int32_t));
    group->plan.closes_count = group->closes_count;
    group->closes_count = 0;
}

bool scheduler_build(struct coord *coord, int32_t g, struct coord_actions *out)
{
    struct group_state *group = &coord->groups[g];
    struct step_plan *plan = &group->plan;
    struct flight *flight = coord_flight(group, group->step_sent + 1);
    step_plan_clear(plan);
    memset(flight, 0, offsetof(struct flight, requests));
    scheduler_plan_drafts(coord, g);
    reserve_pages(coord, group, plan);
    scheduler_admit(coord, g, out);
    int32_t decoding = plan_decodes(coord, group, flight);
    flight->decode_rows = plan->rows_count;
    plan_prefills(coord, group, flight, decoding);
    flight->prefill_tokens = plan->tokens_count;
    if (plan->rows_count == 0)
        return false;
    plan_closes(group);
    plan->group = g;
    plan->step = group->step_sent + 1;
    plan->epoch = group->epoch;
    flight->step = plan->step;
    flight->begun_ns = coord->now_ns;
    flight->verify = plan->verify;
    flight->drafts = plan->draft;
    group->drafts_made = plan->draft;
    return true;
}
