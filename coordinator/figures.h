// SPDX-License-Identifier: Apache-2.0
// figures.h -- how long things took and how large they were, of all requests of all doors, as
// histograms under the names that boards made for vLLM know. Fed by the shell with the core's
// actions and the workers' reports. Pure: no clock, no socket.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/core.h"

enum {
    FIGURE_BOUNDS_MAX = 22,
    FIGURE_REASONS = 5,      // stop, length, abort, timeout, error
    FIGURE_STEPS_AT_ONCE = 4 // of a group, reports under way: more than COORD_FLIGHT_MAX
};

enum figure_kind {
    FIGURE_FIRST_TOKEN,   // seconds
    FIGURE_INTER_TOKEN,   // seconds, per token
    FIGURE_END_TO_END,    // seconds
    FIGURE_QUEUE,         // seconds
    FIGURE_PREFILL,       // seconds
    FIGURE_DECODE,        // seconds
    FIGURE_PROMPT_TOKENS, // tokens of a request
    FIGURE_OUTPUT_TOKENS, // tokens of a request
    FIGURE_STEP_TOKENS,   // tokens of a step
    FIGURE_STEP,          // seconds on the device
    FIGURE_SKEW,          // seconds from the first rank's report of a step to the last one's
    FIGURE_KINDS
};

// What a histogram is called and where its buckets end.
struct figure_form {
    const char *name, *help;
    int bounds_count;
    double bounds[FIGURE_BOUNDS_MAX]; // upper, ascending; +Inf comes after
};

struct figure {
    uint64_t counts[FIGURE_BOUNDS_MAX + 1]; // per bucket, not summed; the last is +Inf
    uint64_t count;
    double sum;
};

// A step of which some ranks have reported.
struct figure_step {
    uint64_t epoch, step;
    int32_t reports;
    uint64_t first_ns;
};

struct figures {
    struct figure kinds[FIGURE_KINDS];
    uint64_t ended[FIGURE_REASONS]; // requests by reason
    struct figure_step steps[GROUPS_MAX][FIGURE_STEPS_AT_ONCE];
};

extern const struct figure_form figure_forms[FIGURE_KINDS];
extern const char *const figure_reasons[FIGURE_REASONS];

// Takes a value, `times` times over.
void figures_observe(struct figures *figures, enum figure_kind kind, double value, uint64_t times);

// Takes what an action says about a request (TOKENS, DONE, ERROR) or a step (SEND_PLAN); others
// say nothing.
void figures_action(struct figures *figures, const struct coord_action *action);

// A rank's report has come. The step's time is rank 0's.
void figures_report(struct figures *figures, const struct report *report, int32_t ranks,
                    uint64_t now_ns);
