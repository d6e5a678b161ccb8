// SPDX-License-Identifier: Apache-2.0
// scheduler_pace.c -- a running average of steps without prefill, and the ratio of two sums, in
// which a chunk weighs by its tokens: what a small one takes is mostly noise of the rest. The
// smallest ones of long steps count for the average, so that it follows when every step has
// prefill.
#include "coordinator/scheduler_pace.h"

#include "parallel/memory_plan.h"

enum {
    BASE_WEIGHT = 8,          // a step counts for an eighth of the average
    SMALL_WEIGHT = 2,         // and one with a small chunk, of which there are few, for half
    BASES_MAX = 2,            // a step with prefill may take as long as two without
    TOKENS_REMEMBERED = 8192, // older chunks count half, then a quarter, ..
};

// What a step with a small chunk would have taken without: by the ratio, and half at least.
static int64_t without_chunk(const struct scheduler_pace *pace, int32_t tokens, int64_t ns)
{
    double chunk_ns = (double)pace->ns / (double)pace->tokens * (double)tokens;
    return ns - (chunk_ns < (double)ns / 2 ? (int64_t)chunk_ns : ns / 2);
}

void scheduler_pace_note(struct scheduler_pace *pace, int32_t decode_rows, int32_t prefill_tokens,
                         uint64_t step_ns, uint64_t gap_ns)
{
    int64_t ns = step_ns < INT64_MAX / 1024 ? (int64_t)step_ns : INT64_MAX / 1024;
    if (prefill_tokens == 0) {
        pace->base_ns =
            pace->base_ns == 0 ? ns : pace->base_ns + (ns - pace->base_ns) / BASE_WEIGHT;
        return;
    }
    if (decode_rows > 0) {
        pace->last_tokens = prefill_tokens;
        pace->last_ns = ns;
        int64_t long_ns = (int64_t)(gap_ns < INT64_MAX ? gap_ns / 2 : INT64_MAX);
        if (pace->base_ns > long_ns && pace->base_ns > ns) // it is no more than any step
            pace->base_ns = ns;
        if (prefill_tokens <= TOKENS_PER_PAGE && ns > long_ns && pace->tokens > 0) {
            int64_t base_ns = without_chunk(pace, prefill_tokens, ns);
            pace->base_ns += (base_ns - pace->base_ns) / SMALL_WEIGHT;
            return;
        }
    }
    if (prefill_tokens > pace->tokens_tried)
        pace->tokens_tried = prefill_tokens;
    if (pace->tokens >= TOKENS_REMEMBERED) {
        pace->tokens /= 2;
        pace->ns /= 2;
    }
    pace->tokens += prefill_tokens;
    pace->ns += decode_rows > 0 ? ns - pace->base_ns : ns;
}

int32_t scheduler_pace_tokens(const struct scheduler_pace *pace, uint64_t gap_ns)
{
    int64_t gap = gap_ns < INT64_MAX / (1 << 20) ? (int64_t)gap_ns : INT64_MAX / (1 << 20);
    if (gap < BASES_MAX * pace->base_ns)
        gap = BASES_MAX * pace->base_ns;
    int64_t most = 2 * (int64_t)pace->tokens_tried;
    if (pace->ns > 0) {
        int64_t fits =
            (int64_t)((double)(gap - pace->base_ns) / (double)pace->ns * (double)pace->tokens);
        most = fits < most ? fits : most;
    }
    if (pace->last_ns > gap) {
        int64_t fewer = (int64_t)((double)pace->last_tokens * (double)gap / (double)pace->last_ns);
        most = fewer < most ? fewer : most;
    }
    most = most < STEP_TOKENS_MAX ? most / TOKENS_PER_PAGE * TOKENS_PER_PAGE : STEP_TOKENS_MAX;
    return most > TOKENS_PER_PAGE ? (int32_t)most : TOKENS_PER_PAGE;
}
