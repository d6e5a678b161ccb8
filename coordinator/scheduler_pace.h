// SPDX-License-Identifier: Apache-2.0
// scheduler_pace.h -- how many prompt tokens a step may carry beside running streams so that it
// ends within a given time: learned from what steps took. Pure: the reports are its only clock.
#pragma once

#include <stdint.h>

struct scheduler_pace {
    int64_t base_ns;      // of a step with next to no prefill, running average; 0 = none seen
    int64_t tokens, ns;   // prefilled in the steps of late, and what that took beside their base
    int32_t tokens_tried; // most of one step so far
    int32_t last_tokens;  // prefilled in the last step that had running streams, too
    int64_t last_ns;      // what that took
};

// A step with so many decode rows and prompt tokens took step_ns, where gap_ns is the aim.
void scheduler_pace_note(struct scheduler_pace *pace, int32_t decode_rows, int32_t prefill_tokens,
                         uint64_t step_ns, uint64_t gap_ns);

// Prompt tokens of a step that is to take gap_ns at most, or twice as long as one without prefill
// where that is longer: where streams fill the gap alone, a queue of prompts would not drain
// otherwise. A multiple of 64, at least 64, and at most twice of what was tried before, so that a
// step is never much longer than those that the estimate rests on. After a step that took longer
// than it was to, it is less in proportion, whatever the estimate: streams may have become more.
int32_t scheduler_pace_tokens(const struct scheduler_pace *pace, uint64_t gap_ns);
