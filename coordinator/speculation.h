// SPDX-License-Identifier: Apache-2.0
// speculation.h -- how many tokens a group drafts per sequence and step: a fixed number, or the one
// that measured acceptance and step times say gives most tokens per time; 0 is a choice, too.
// Acceptance is counted per sequence, times per rows, context and drafts. Pure; one per group.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "parallel/wire/messages.h"

enum {
    SPECULATION_AUTO = -1,
    SPECULATION_CHOICES = STEP_VERIFY_MAX, // 0 .. 5 drafts
    SPECULATION_SIZES = 12,                // rows that decode: 1, 2, 3-4, 5-8, .. 1025 and more
    SPECULATION_CONTEXTS = 5, // tokens of a row, the mean: up to 1 Ki, 4 Ki, 16 Ki, 64 Ki, more
};

// Of draft i, offered when all before it were taken: decayed counts. All 0: nothing was seen.
struct speculation_counts {
    float offered[SPECULATION_CHOICES - 1], taken[SPECULATION_CHOICES - 1];
    // Of a sequence: the chance that draft i is taken, as believed when its last step was planned;
    // of a group: the sum of these over the rows that were offered draft i, to hold against taken.
    float believed[SPECULATION_CHOICES - 1];
};

// Steps of one range of rows and context.
struct speculation_cell {
    bool entered;
    double ns[SPECULATION_CHOICES];     // of a step, by its drafts, over the root of its rows
    int32_t steps[SPECULATION_CHOICES]; // that were measured; 0: ns is believed
    uint32_t tried;                     // bit k: k drafts had a trial
    int32_t choice;                     // the best so far
    int32_t settled;                    // steps measured since it is that
    int32_t trial;                      // what is tried now, or was last
    int32_t trial_left;                 // steps that the trial goes on
    int32_t since[SPECULATION_CHOICES]; // steps since the last trial of each
};

struct speculation {
    int32_t drafts_max;             // 0: the group cannot draft
    int32_t wish;                   // SPECULATION_AUTO, or how many
    struct speculation_counts seen; // of all sequences
    struct speculation_cell cells[SPECULATION_SIZES][SPECULATION_CONTEXTS];
    int32_t size, context; // of the last batch: its cell
    double usual;          // number of drafts, mean over the last choices
};

// The sequences that decode in a step, one after the other through speculation_add.
struct speculation_batch {
    int32_t rows;
    int64_t tokens; // that they hold together
    bool mixed;     // prompts run beside them: its time will tell nothing
    int32_t most;   // drafts of a row that the step has room for
    int32_t asked;  // most drafts that any row takes: none are made that all would leave inert
    double usual;   // as in struct speculation; a row that gets on as with so many counts as 1
    double known, taken[SPECULATION_CHOICES - 1]; // sums over rows: a token without drafts, draft i
    double prior[SPECULATION_CHOICES - 1], weight[SPECULATION_CHOICES - 1]; // from `seen`
};

// What came of a step.
struct speculation_step {
    int32_t cell;   // as speculation_cell_now said when it was planned
    int32_t drafts; // verified by every row, and made
    uint64_t ns;    // 0: it was not of one kind, its time tells nothing
    int32_t drew;   // rows that drew anything
    int32_t offered[SPECULATION_CHOICES - 1], taken[SPECULATION_CHOICES - 1];
    double believed[SPECULATION_CHOICES - 1];
};

// wish: SPECULATION_AUTO or 0 .. 5, cut to drafts_max (what the workers can do).
void speculation_init(struct speculation *speculation, int32_t drafts_max, int32_t wish);

// A batch without rows, and one more row of it: what the sequence has shown, the tokens that it
// holds, and the most drafts that it takes.
void speculation_begin(struct speculation_batch *batch, const struct speculation *speculation);
void speculation_add(struct speculation_batch *batch, struct speculation_counts *counts,
                     int32_t tokens, int32_t most);

// Drafts to make in the step in which the batch decodes, for the step after it: no more than some
// row of it takes.
int32_t speculation_choose(struct speculation *speculation, const struct speculation_batch *batch);

// The cell of the last batch that was chosen for.
int32_t speculation_cell_now(const struct speculation *speculation);

// A row of a step drew, was offered so many drafts and took `taken` of them; into the step and the
// sequence's own counts.
void speculation_note_row(struct speculation_step *step, struct speculation_counts *counts,
                          int32_t offered, int32_t taken);

// Takes what a step showed, after its rows were noted.
void speculation_observe(struct speculation *speculation, const struct speculation_step *step);
