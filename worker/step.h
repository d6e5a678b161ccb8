// SPDX-License-Identifier: Apache-2.0
// step.h -- a step plan becomes work on the stream, and the stream's results become a report. The
// host runs ahead: up to STEP_STAGING - 1 steps may be queued while one runs. Knows plans and
// ops; no sockets, no clock but the step's duration.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "parallel/memory_plan.h"
#include "parallel/wire/messages.h"
#include "worker/model.h"

enum { STEP_STAGING = 4 }; // the coordinator keeps at most two steps in flight

struct step_engine; // opaque

struct step_options {
    const struct model *model; // borrowed
    struct memory_plan memory;
    uint64_t epoch;
    int vocab_real;  // ids from here on are padding and never drawn
    int drafts_max;  // drafts that a step may be asked for; 0: the model's MTP head is never run
    int draft_vocab; // drafts are ids below this one, 0: any; lm_head runs over as many rows
    double synthetic_length; // mean tokens of a verify row by chance (benchmarks), 0: the model's
    int notify_fd;           // eventfd that gets 1 for every step that has ended
    bool graphs; // record decode steps at start and launch them: where launches cost time
    bool padded; // without graphs, fill decode steps up as the recorded ones are: kernels are
                 // chosen by a step's size, so only then are the bytes the same
    bool warm;   // and run them once before: where first use costs time
    bool poison; // test hook: fill host staging with 0xA5 as soon as its step has ended
};

// Takes all memory of its steps. E_LIMIT names the bytes when they do not fit.
enum status step_engine_open(struct step_engine **out, const struct step_options *options,
                             struct error *error) MUST_CHECK;
void step_engine_close(struct step_engine *engine); // waits for queued steps

// Checks the plan against what this rank holds and queues it; the plan may be reused at once.
// E_MALFORMED names the field, its value and the range: a step out of order, a slot, page or count
// out of range. E_OVERLOADED when STEP_STAGING steps are in flight. Nothing was queued then.
enum status step_submit(struct step_engine *engine, const struct step_plan *plan,
                        struct error *error) MUST_CHECK;

// Takes the oldest step that has ended: fills everything of report but `rows` and `logprobs`, which
// the caller has set to arrays of STEP_ROWS_MAX and STEP_LOGPROBS_MAX (filled on rank 0; other
// ranks report counts of 0). False when none has ended.
bool step_next_report(struct step_engine *engine, struct report *report);

// Device memory that the recorded steps took, as the device tells it, to hold against the plan's; 0
// without graphs. On the CPU it is the host's, and says little.
uint64_t step_recorded_bytes(const struct step_engine *engine);

// Steps given to the device, and steps that have ended. Any thread.
uint64_t step_begun(const struct step_engine *engine);
uint64_t step_done(const struct step_engine *engine);
