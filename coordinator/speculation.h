// SPDX-License-Identifier: Apache-2.0
// speculation.h -- how many tokens a group drafts per sequence and step: a fixed number, or the one
// that measured acceptance and step times say gives most tokens per time; 0 is a choice, too.
// Pure; one per group.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "parallel/wire/messages.h"

enum {
    SPECULATION_AUTO = -1,
    SPECULATION_CHOICES = STEP_VERIFY_MAX, // 0 .. 5 drafts
    SPECULATION_SIZES = 12,                // rows that decode: 1, 2, 3-4, 5-8, .. 1025 and more
};

// A step of this many rows with this many drafts takes so long; rounded over the last steps.
struct speculation_time {
    double ns;
    int32_t steps; // measured, 0 = never
};

struct speculation {
    int32_t drafts_max; // 0: the group cannot draft
    int32_t wish;       // SPECULATION_AUTO, or how many
    // Of draft i, offered when all before it were taken: decayed counts.
    double offered[SPECULATION_CHOICES - 1], taken[SPECULATION_CHOICES - 1];
    struct speculation_time times[SPECULATION_SIZES][SPECULATION_CHOICES];
    int32_t choice[SPECULATION_SIZES];     // the best so far
    int32_t trial[SPECULATION_SIZES];      // what is tried now, or the choice
    int32_t trial_left[SPECULATION_SIZES]; // steps that the trial goes on
    int32_t since[SPECULATION_SIZES];      // steps since the last trial ended
    int32_t rest[SPECULATION_SIZES];       // steps until the next: longer after each that lost
};

// What came of a step whose rows all decoded, each with `drafts` drafts to verify, and which made
// as many. accepted[i]: rows that took at least i + 1 drafts; drew: rows that drew anything.
struct speculation_step {
    int32_t rows, drew, drafts;
    int32_t accepted[SPECULATION_CHOICES - 1];
    uint64_t ns;
};

// wish: SPECULATION_AUTO or 0 .. 5, cut to drafts_max (what the workers can do).
void speculation_init(struct speculation *speculation, int32_t drafts_max, int32_t wish);

// Drafts to make in the next step, in which so many rows decode, for the step after it.
int32_t speculation_choose(struct speculation *speculation, int32_t decode_rows);

// Takes what a step showed.
void speculation_observe(struct speculation *speculation, const struct speculation_step *step);

// Expected tokens per row and step with so many drafts, by the acceptance seen so far: 1 and more.
double speculation_tokens(const struct speculation *speculation, int32_t drafts);
