// SPDX-License-Identifier: Apache-2.0
// scheduler_logprobs.h -- log-probabilities on their way from a report to a request, for the pure
// files of the core and nobody else.
#pragma once

#include "coordinator/coord.h"

// How many tokens a prefill row of this request may have, of `chunk`, given the rows that the plan
// has already; 0: none in this step. A cut lies at a multiple of 64.
int32_t scheduler_logprobs_chunk(const struct request *request, const struct step_plan *plan,
                                 int32_t chunk);

// What a prefill row of this request is to tell of its prompt (step_plan_row.prompt_logprobs).
int32_t scheduler_logprobs_wanted(const struct request *request);

// Keeps rank 0's until every rank has reported. results have been copied.
void scheduler_logprobs_keep(struct flight *flight, const struct report *report);

// Fills in what a row's ACTION_TOKENS tells of them; false when they contradict the request. A
// prompt that runs a second time is not told again.
bool scheduler_logprobs_tell(const struct coord *coord, struct request *request,
                             const struct flight *flight, int32_t row,
                             struct coord_action *action) MUST_CHECK;
