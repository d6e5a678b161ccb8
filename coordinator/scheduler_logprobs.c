// SPDX-License-Identifier: Apache-2.0
// scheduler_logprobs.c -- log-probabilities on their way from a report to a request. Pure.
#include "coordinator/scheduler_logprobs.h"

#include <string.h>

// Also a prompt that begins anew tells nothing once all of it has been told.
int32_t scheduler_logprobs_wanted(const struct request *request)
{
    bool rest = request->prompt_logprobs_told + 1 < request->prompt_tokens;
    return rest ? request->sampling.prompt_logprobs : 0;
}

int32_t scheduler_logprobs_chunk(const struct request *request, const struct step_plan *plan,
                                 int32_t chunk)
{
    int32_t room = STEP_PROMPT_LOGPROBS_MAX;
    if (scheduler_logprobs_wanted(request) == 0)
        return chunk;
    for (int32_t i = 0; i < plan->rows_count; i++) {
        if (plan->rows[i].kind == STEP_ROW_PREFILL && plan->rows[i].prompt_logprobs != 0)
            room -= plan->rows[i].tokens_count;
    }
    if (chunk <= room)
        return chunk;
    int32_t end = (request->prefill_given + room) / TOKENS_PER_PAGE * TOKENS_PER_PAGE;
    return end > request->prefill_given ? end - request->prefill_given : 0;
}

void scheduler_logprobs_keep(struct flight *flight, const struct report *report)
{
    if (report->logprobs_count > 0)
        memcpy(flight->logprobs, report->logprobs,
               (size_t)report->logprobs_count * sizeof *flight->logprobs);
}

static bool are_real(const struct coord *coord, const struct step_logprob *entries, int32_t count,
                     int32_t wanted)
{
    for (int32_t i = 0; i < count; i++) {
        const struct step_logprob *entry = &entries[i];
        if (entry->id >= coord->options.vocab_real || entry->top_count > wanted)
            return false;
        for (int32_t k = 0; k < entry->top_count; k++) {
            if (entry->top_ids[k] >= coord->options.vocab_real)
                return false;
        }
    }
    return true;
}

// The prompt's entries that have not been told: those of positions that come next.
static void tell_prompt(struct request *request, const struct step_logprob *entries, int32_t count,
                        int32_t position, struct coord_action *action)
{
    int32_t end = position + count;
    int32_t first = 1 + request->prompt_logprobs_told;
    end = end < request->prompt_tokens ? end : request->prompt_tokens;
    if (first < position || first >= end)
        return;
    action->prompt_logprobs = entries + (first - position);
    action->prompt_logprobs_count = end - first;
    request->prompt_logprobs_told = end - 1;
}

bool scheduler_logprobs_tell(const struct coord *coord, struct request *request,
                             const struct flight *flight, int32_t row, struct coord_action *action)
{
    const struct step_result *result = &flight->results[row];
    const struct step_logprob *entries = flight->logprobs + result->logprobs_first;
    const struct step_logprob *drawn = entries + result->prompt_logprobs_count;
    int32_t wanted = request->sampling.logprobs != 0 ? result->count : 0;
    if (result->logprobs_count != wanted ||
        (result->prompt_logprobs_count > 0 && request->sampling.prompt_logprobs == 0) ||
        !are_real(coord, entries, result->prompt_logprobs_count,
                  request->sampling.prompt_logprobs - 1) ||
        !are_real(coord, drawn, wanted, request->sampling.logprobs - 1))
        return false;
    for (int32_t i = 0; i < wanted; i++) {
        if (drawn[i].id != result->tokens[i])
            return false;
    }
    action->logprobs = wanted > 0 ? drawn : NULL;
    tell_prompt(request, entries, result->prompt_logprobs_count, flight->positions[row] + 1,
                action);
    return true;
}
