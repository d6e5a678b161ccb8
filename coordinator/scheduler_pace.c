// SPDX-License-Identifier: Apache-2.0
// scheduler_pace.c -- a running average of steps without prefill, and beside it the time of a chunk
// of n tokens with x before each: fixed + n (a + b x). The three are followed by a Kalman filter
// (Kalman 1960, with a state that drifts): what chunks do not tell apart stays as it was and in
// doubt, so that tiny ones teach the fixed part only, and alike contexts say nothing of others.
#include "coordinator/scheduler_pace.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "parallel/memory_plan.h"

enum {
    BASE_WEIGHT = 8,  // a step counts for an eighth of the average
    SMALL_WEIGHT = 2, // and one with a small chunk, of which there are few, for half
    BASES_MAX = 2,    // a step with prefill may take as long as two without
    TIMES_MAX = 2,    // a step teaches no more than if it had taken twice what it was to
};

#define UNIT_TOKENS    1024.0  // of PACE_TOKENS
#define UNIT_CONTEXT   65536.0 // of PACE_CONTEXTS
#define FIXED_FIRST    0.5     // of a small chunk's time: its fixed part may be so much
#define CONTEXT_FIRST  2.0     // of a token's time: what UNIT_CONTEXT may add to it
#define SURPRISE       3.0     // standard deviations that chance does not explain
#define NOISE          0.03    // of a step's time, standard deviation
#define DRIFT          0.02    // of a part's time from step to step
#define NS_MAX         1e18    // no part takes longer
#define DOUBT_ACCEPTED 0.05    // of the gap: a step may be off by as much

// What a chunk has of each part.
struct weights {
    double of[PACE_PARTS];
};

static struct weights weights_of(double tokens, double context)
{
    double units = tokens / UNIT_TOKENS;
    return (struct weights){{1, units, units * context / UNIT_CONTEXT}};
}

static double sum_of(const double parts[PACE_PARTS], const struct weights *weights)
{
    double sum = 0;
    for (int i = 0; i < PACE_PARTS; i++)
        sum += parts[i] * weights->of[i];
    return sum;
}

static double variance_of(const struct scheduler_pace *pace, const struct weights *weights)
{
    double sum = 0;
    for (int i = 0; i < PACE_PARTS; i++)
        sum += weights->of[i] * sum_of(pace->doubt[i], weights);
    return sum;
}

static bool knows(const struct scheduler_pace *pace)
{
    return pace->parts[PACE_TOKENS] > 0;
}

// Reports that contradict one another beyond all measure have left no estimate: it begins again.
static void forget_nonsense(struct scheduler_pace *pace)
{
    bool sound = true;
    for (int i = 0; i < PACE_PARTS; i++)
        sound = sound && pace->parts[i] < NS_MAX && pace->doubt[i][i] >= 0;
    if (sound)
        return;
    memset(pace->parts, 0, sizeof pace->parts);
    pace->tokens_tried = 0;
}

// Moves the parts so that what a chunk was to take changes by `miss_ns`, each by how doubtful it
// is, and takes the doubt away that the chunk has cleared. `noise_ns`: how far off its time may be.
static void correct(struct scheduler_pace *pace, const struct weights *weights, double miss_ns,
                    double noise_ns)
{
    double shares[PACE_PARTS];
    for (int i = 0; i < PACE_PARTS; i++)
        shares[i] = sum_of(pace->doubt[i], weights);
    double variance = fmax(sum_of(shares, weights), 0) + noise_ns * noise_ns;
    for (int i = 0; i < PACE_PARTS; i++) {
        pace->parts[i] += shares[i] / variance * miss_ns;
        for (int j = 0; j < PACE_PARTS; j++)
            pace->doubt[i][j] -= shares[i] / variance * shares[j];
    }
}

// No part is less than nothing: what one has less than that is taken from those it was mixed up
// with. Time per token comes last, as it is never nothing.
static void bound_parts(struct scheduler_pace *pace)
{
    const int order[PACE_PARTS] = {PACE_CHUNK, PACE_CONTEXTS, PACE_TOKENS};
    for (int k = 0; k < PACE_PARTS; k++) {
        int part = order[k];
        double missing = -pace->parts[part];
        for (int i = 0; i < PACE_PARTS && missing > 0 && pace->doubt[part][part] > 0; i++)
            pace->parts[i] += missing * pace->doubt[i][part] / pace->doubt[part][part];
    }
    for (int i = 0; i < PACE_PARTS; i++)
        pace->parts[i] = fmax(pace->parts[i], i == PACE_TOKENS ? 1 : 0);
}

// Nothing is known of `ns` of a chunk's time but that its parts make it up.
static void add_doubt(struct scheduler_pace *pace, const struct weights *weights, double ns)
{
    double units = weights->of[PACE_TOKENS], token_ns = ns / units;
    const double doubts[PACE_PARTS] = {FIXED_FIRST * ns / (1 + units), token_ns,
                                       CONTEXT_FIRST * token_ns};
    for (int i = 0; i < PACE_PARTS; i++)
        pace->doubt[i][i] += doubts[i] * doubts[i];
}

// The first chunk: what it took is its tokens' time, and that of 64 more is fixed, as far as one
// can tell.
static void begin(struct scheduler_pace *pace, const struct weights *weights, double ns)
{
    double page_units = TOKENS_PER_PAGE / UNIT_TOKENS;
    pace->parts[PACE_TOKENS] = ns / (weights->of[PACE_TOKENS] + page_units);
    pace->parts[PACE_CHUNK] = pace->parts[PACE_TOKENS] * page_units;
    pace->parts[PACE_CONTEXTS] = 0;
    memset(pace->doubt, 0, sizeof pace->doubt);
    add_doubt(pace, weights, ns);
}

// A chunk took `ns`, as far as one can tell in a step of step_ns. A surprise moves the estimate
// little by itself, as it may be a hiccup; but the next chunk is believed.
static void learn(struct scheduler_pace *pace, const struct weights *weights, double ns,
                  double step_ns)
{
    if (!knows(pace) && ns <= 0)
        return;
    if (!knows(pace))
        begin(pace, weights, ns);
    double expected_ns = sum_of(pace->parts, weights);
    double miss_ns = fmin(ns - expected_ns, step_ns / TIMES_MAX), noise_ns = NOISE * step_ns + 1;
    double likely_ns = sqrt(fmax(variance_of(pace, weights), 0) + noise_ns * noise_ns);
    correct(pace, weights, miss_ns, noise_ns);
    bound_parts(pace);
    for (int i = 0; i < PACE_PARTS; i++) {
        double drift = DRIFT * fmax(pace->parts[i], pace->parts[PACE_TOKENS] / 8);
        pace->doubt[i][i] += drift * drift;
    }
    bool small = weights->of[PACE_TOKENS] * UNIT_TOKENS <= TOKENS_PER_PAGE;
    if (!small && fabs(miss_ns) > SURPRISE * likely_ns)
        add_doubt(pace, weights, fabs(miss_ns));
    forget_nonsense(pace);
}

// A small chunk of a long step: what it does not take by the estimate, and half at least, is the
// base. What the base gains, the fixed part of a chunk lends: their sum is what such steps take.
static void note_small(struct scheduler_pace *pace, const struct weights *weights, int64_t ns)
{
    double chunk_ns = sum_of(pace->parts, weights) - pace->parts[PACE_CHUNK];
    chunk_ns = fmin(chunk_ns, (double)ns / 2);
    int64_t more_ns = (ns - (int64_t)chunk_ns - pace->base_ns) / SMALL_WEIGHT;
    double lent_ns = fmin((double)more_ns, pace->parts[PACE_CHUNK]);
    pace->base_ns += more_ns;
    pace->parts[PACE_CHUNK] -= lent_ns;
    pace->lent_ns = fmax(pace->lent_ns + lent_ns, 0);
}

static bool base_is_old(const struct scheduler_pace *pace)
{
    return pace->since_base > BASE_WEIGHT;
}

// A step without prefill: where its base had grown by what chunks lent, they get it back.
static void note_base(struct scheduler_pace *pace, int64_t ns)
{
    double back_ns = fmax(fmin((double)(pace->base_ns - ns), pace->lent_ns), 0);
    pace->parts[PACE_CHUNK] += back_ns;
    pace->base_ns -= (int64_t)back_ns;
    pace->lent_ns = 0;
    pace->since_base = 0;
    pace->base_ns = pace->base_ns == 0 ? ns : pace->base_ns + (ns - pace->base_ns) / BASE_WEIGHT;
}

void scheduler_pace_note(struct scheduler_pace *pace, int32_t decode_rows, int32_t prefill_tokens,
                         int32_t context, uint64_t step_ns, uint64_t gap_ns)
{
    int64_t ns = step_ns < INT64_MAX / 1024 ? (int64_t)step_ns : INT64_MAX / 1024;
    if (prefill_tokens == 0) {
        note_base(pace, ns);
        return;
    }
    struct weights weights = weights_of(prefill_tokens, context);
    if (decode_rows > 0) {
        pace->last_tokens = prefill_tokens;
        pace->last_context = context;
        pace->last_ns = ns;
        int64_t long_ns = (int64_t)(gap_ns < INT64_MAX ? gap_ns / 2 : INT64_MAX);
        if (pace->base_ns > long_ns && pace->base_ns > ns) // it is no more than any step
            pace->base_ns = ns;
        pace->since_base += !base_is_old(pace);
        if (prefill_tokens <= TOKENS_PER_PAGE && ns > long_ns && knows(pace) && base_is_old(pace))
            note_small(pace, &weights, ns);
    }
    if (prefill_tokens > pace->tokens_tried)
        pace->tokens_tried = prefill_tokens;
    learn(pace, &weights, (double)(decode_rows > 0 ? ns - pace->base_ns : ns), (double)ns);
}

// What 1,024 tokens take with so many before each.
static double tokens_ns(const struct scheduler_pace *pace, double context)
{
    return pace->parts[PACE_TOKENS] + pace->parts[PACE_CONTEXTS] * context / UNIT_CONTEXT;
}

// Tokens with `context` before the first of them that take `ns` beside the fixed part: the parts of
// tokens and contexts are a quadratic in their number.
static double tokens_in(const struct scheduler_pace *pace, int32_t context, double ns)
{
    double linear = tokens_ns(pace, context);
    double square = pace->parts[PACE_CONTEXTS] * UNIT_TOKENS / 2 / UNIT_CONTEXT;
    return 2 * ns / (linear + sqrt(linear * linear + 4 * square * ns)) * UNIT_TOKENS;
}

// Of the tokens that fit by the estimate those that fit if it is off by as much as it may be.
static double tokens_surely(const struct scheduler_pace *pace, int32_t context, double gap_ns)
{
    double ns = gap_ns - (double)pace->base_ns - pace->parts[PACE_CHUNK];
    if (ns <= 0)
        return 0;
    double tokens = tokens_in(pace, context, ns);
    struct weights weights = weights_of(tokens, context + tokens / 2);
    double off_ns = sqrt(fmax(variance_of(pace, &weights), 0)) - DOUBT_ACCEPTED * gap_ns;
    double surely = tokens * ns / (ns + fmax(off_ns, 0));
    return fmax(surely, fmin(tokens, 2 * TOKENS_PER_PAGE));
}

// After a step that took longer than the gap: what would have been in proportion, there or, by the
// estimate, here.
static double tokens_fewer(const struct scheduler_pace *pace, int32_t context, double gap_ns)
{
    double tokens = pace->last_tokens * gap_ns / (double)pace->last_ns;
    if (!knows(pace))
        return tokens;
    return tokens * tokens_ns(pace, pace->last_context) / tokens_ns(pace, context + tokens / 2);
}

int32_t scheduler_pace_tokens(const struct scheduler_pace *pace, int32_t context, uint64_t gap_ns)
{
    double gap = fmax((double)gap_ns, BASES_MAX * (double)pace->base_ns);
    double most = 2.0 * pace->tokens_tried;
    if (knows(pace))
        most = fmin(most, tokens_surely(pace, context, gap));
    if ((double)pace->last_ns > gap)
        most = fmin(most, tokens_fewer(pace, context, gap));
    most = fmax(fmin(most, STEP_TOKENS_MAX), TOKENS_PER_PAGE);
    return (int32_t)most / TOKENS_PER_PAGE * TOKENS_PER_PAGE;
}
