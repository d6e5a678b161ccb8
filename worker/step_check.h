// SPDX-License-Identifier: Apache-2.0
// step_check.h -- whether a step plan can run on this rank, before anything of it is queued. Pure.
#pragma once

#include <stdint.h>

#include "parallel/memory_plan.h"
#include "parallel/wire/messages.h"

// What this rank holds and where its epoch is.
struct step_check {
    const struct memory_plan *memory;
    uint64_t epoch, step_next;
    int vocab;       // rows of the embedding
    int samples_max; // sampled rows of a step
    int drafts_max;  // drafts of a step
};

// E_MALFORMED names the field, its value and the range: a step out of order, a slot, page or count
// out of range.
enum status step_check(const struct step_check *check, const struct step_plan *plan,
                       struct error *error) MUST_CHECK;
