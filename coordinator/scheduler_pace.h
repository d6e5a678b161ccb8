// SPDX-License-Identifier: Apache-2.0
// scheduler_pace.h -- how many prompt tokens a step may carry beside running streams so that it
// ends within a given time: learned from what steps took. Pure: the reports are its only clock.
#pragma once

#include <stdint.h>

enum {
    PACE_CHUNK,    // of any chunk, ns: most of it is experts that are read whatever the tokens
    PACE_TOKENS,   // of 1,024 tokens, ns
    PACE_CONTEXTS, // of 1,024 tokens with 65,536 before each, which attention reads, ns
    PACE_PARTS
};

struct scheduler_pace {
    int64_t base_ns;                      // of a step with next to no prefill, running average
    double parts[PACE_PARTS];             // what a chunk takes beside the base; 0 = none seen
    double doubt[PACE_PARTS][PACE_PARTS]; // covariances of what `parts` may be off, ns^2
    int32_t since_base;                   // steps with prefill since one without, to a bound
    double lent_ns;                       // of the base, since then: from parts[PACE_CHUNK]
    int32_t tokens_tried;                 // most of one step so far
    int32_t last_tokens, last_context;    // of the last step that had running streams, too
    int64_t last_ns;                      // what that took
};

// A step with so many decode rows and prompt tokens took step_ns, where gap_ns is the aim. The
// prompt tokens had `context` tokens before them on average.
void scheduler_pace_note(struct scheduler_pace *pace, int32_t decode_rows, int32_t prefill_tokens,
                         int32_t context, uint64_t step_ns, uint64_t gap_ns);

// Prompt tokens of a step that is to take gap_ns at most, or twice as long as one without prefill
// where that is longer: where streams fill the gap alone, a queue of prompts would not drain
// otherwise. `context`: tokens before the first of them. A multiple of 64, at least 64, and at most
// twice of what was tried before, so that a step is never much longer than those that the estimate
// rests on; less, too, where the estimate may be far off, as at contexts far beyond those seen.
// After a step that took longer than it was to, it is less in proportion, whatever the estimate:
// streams may have become more.
int32_t scheduler_pace_tokens(const struct scheduler_pace *pace, int32_t context, uint64_t gap_ns);
