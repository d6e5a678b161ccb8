// SPDX-License-Identifier: Apache-2.0
// invariants.h -- what must hold at every moment of a run, besides the core's own coord_check:
// bounds, the order of steps, the rules of run-ahead seen from outside, ends and progress.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/core.h"
#include "tests/sim/scenario.h"

struct sim;

enum { INVARIANTS_STEPS_BACK = 4, INVARIANTS_SLOTS_MAX = 128 };

// A group as it can be known from messages alone.
struct watched_group {
    bool ready, failed;
    uint64_t epoch;       // of the last PLACE
    int32_t context;      // of the last PLACE: longest sequence
    uint32_t ranks_ready; // bit r: READY of rank r has reached the core
    uint64_t failed_ns;
    uint64_t must_fail_by_ns; // a fault was done to it that has to be seen by then; 0 = none
    const char *must_fail_because;
    uint64_t lie_step; // a rank lied about this step: it fails when it is complete; 0 = none
    struct memory_plan memory;
    uint64_t sent, resolved;                   // last step sent; last step that every rank reported
    uint32_t reported[INVARIANTS_STEPS_BACK];  // of step s in [s % INVARIANTS_STEPS_BACK]
    uint64_t slot_named[INVARIANTS_SLOTS_MAX]; // last step that has a row of the slot
    bool slot_open[INVARIANTS_SLOTS_MAX];
    struct step_open opening[INVARIANTS_SLOTS_MAX]; // of the slot, when it is open
    int32_t prefill_at[INVARIANTS_SLOTS_MAX];       // tokens given to steps as prefill
    int32_t prefill_end[INVARIANTS_SLOTS_MAX];      // that were known when the slot was opened
    int32_t *tables;                                // [slots, pages_per_sequence] page ids
    int32_t pages_count[INVARIANTS_SLOTS_MAX];
    uint64_t *page_named;       // [pages] last step that has a row of a slot with the page
    uint64_t *checkpoint_named; // [checkpoints] last step that copies or may save it
    int32_t *checkpoint_slot;   // [checkpoints] whose decode row that was, -1 = none
    uint64_t senior_seed;       // whose prompt was the most senior at the last step
    int32_t senior_passed;      // steps with room for it since its last row
};

struct invariants {
    struct watched_group groups[SIM_GROUPS_MAX];
    uint64_t moved_ns;           // when a step was last sent or reported, or a request ended
    uint64_t steps, paced_steps; // paced: whose length was held against the operator's bound
    struct coord_status status;  // at the end
};

// Frees what it holds.
void invariants_close(struct sim *sim);

// READY or a report of a rank is about to reach the core.
void invariants_ready(struct sim *sim, const struct ready *ready);
void invariants_report(struct sim *sim, const struct report *report);

// A step of so many decode rows and prompt tokens begins on every rank and will take duration_ns.
void invariants_step_takes(struct sim *sim, int32_t decode_rows, int32_t prefill_tokens,
                           uint64_t duration_ns);

// The core acts about groups and workers.
void invariants_action(struct sim *sim, const struct coord_action *action);

// After every call of coord_step.
void invariants_after_step(struct sim *sim, const struct coord_event *event);

// After each event: does everything move that can?
void invariants_progress(struct sim *sim);

// A fault that has to end the group of this process within limit_ns.
void invariants_expect_failure(struct sim *sim, int32_t process, uint64_t limit_ns,
                               const char *because);

// A rank lies in its report of this step: the group has to fail when the step is complete.
void invariants_expect_lie_seen(struct sim *sim, int32_t process, uint64_t step,
                                const char *because);

// At the end of a run: everything given back, everybody gone.
void invariants_final(struct sim *sim);
