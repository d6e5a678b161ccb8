// SPDX-License-Identifier: Apache-2.0
// speculation.c -- tries every number of drafts for a few steps per batch size, keeps the one with
// most expected tokens per time, and looks at its neighbours again from time to time: acceptance
// changes with the text, and so does the answer.
#include "coordinator/speculation.h"

#include <string.h>

enum {
    TRIAL_STEPS = 4,       // of one number of drafts; the first is in flight when it is chosen
    REST_STEPS = 250,      // between trials; twice as many after a trial that changed nothing,
    REST_STEPS_MAX = 1000, // up to so many
    TIME_WINDOW_STEPS = 8, // a mean over about as many
};

static const double FORGET_PER_ROW = 0.0025; // of the counts: the last 400 drafts count,
static const double FORGET_MAX = 0.02;       // and at least the last 50 steps
static const double FIRST_TAKEN = 0.7;       // before anything is seen
static const double PRIOR_OFFERED = 2;       // weight of what is assumed without having been seen
static const double BETTER = 1.02;           // a change has to promise so much

static int32_t size_of(int32_t rows)
{
    int32_t size = 0;
    while (size < SPECULATION_SIZES - 1 && (1 << size) < rows)
        size++;
    return size;
}

void speculation_init(struct speculation *speculation, int32_t drafts_max, int32_t wish)
{
    memset(speculation, 0, sizeof *speculation);
    speculation->drafts_max = drafts_max;
    speculation->wish = wish > drafts_max ? drafts_max : wish;
    for (int32_t size = 0; size < SPECULATION_SIZES; size++) {
        speculation->trial_left[size] = TRIAL_STEPS;
        speculation->rest[size] = REST_STEPS;
    }
}

double speculation_tokens(const struct speculation *speculation, int32_t drafts)
{
    double tokens = 1, reached = 1, share = FIRST_TAKEN;
    for (int32_t i = 0; i < drafts; i++) {
        // A draft that was not offered lately is believed to be as good as the one before it.
        share = (speculation->taken[i] + PRIOR_OFFERED * share) /
                (speculation->offered[i] + PRIOR_OFFERED);
        reached *= share;
        tokens += reached;
    }
    return tokens;
}

// Tokens per ns of a row; 0 for what was never measured.
static double rate_of(const struct speculation *speculation, int32_t size, int32_t drafts)
{
    const struct speculation_time *time = &speculation->times[size][drafts];
    return time->steps > 0 ? speculation_tokens(speculation, drafts) / time->ns : 0;
}

static int32_t best_of(const struct speculation *speculation, int32_t size)
{
    int32_t best = speculation->choice[size];
    double rate = rate_of(speculation, size, best) * BETTER;
    for (int32_t drafts = 0; drafts <= speculation->drafts_max; drafts++) {
        double other = rate_of(speculation, size, drafts);
        if (other > rate) {
            rate = other;
            best = drafts;
        }
    }
    return best;
}

// The next number worth a trial: one that was never measured, else a neighbour of the choice by
// turns; the choice itself when there is none.
static int32_t next_trial(const struct speculation *speculation, int32_t size)
{
    int32_t choice = speculation->choice[size], last = speculation->trial[size];
    for (int32_t drafts = 0; drafts <= speculation->drafts_max; drafts++) {
        if (speculation->times[size][drafts].steps == 0)
            return drafts;
    }
    int32_t other = last == choice + 1 ? choice - 1 : choice + 1;
    if (other < 0)
        other = choice + 1;
    return other > speculation->drafts_max ? choice - (choice > 0) : other;
}

int32_t speculation_choose(struct speculation *speculation, int32_t decode_rows)
{
    if (speculation->drafts_max == 0)
        return 0;
    if (speculation->wish != SPECULATION_AUTO)
        return speculation->wish;
    int32_t size = size_of(decode_rows);
    if (speculation->trial_left[size] > 0) {
        speculation->trial_left[size]--;
        return speculation->trial[size];
    }
    int32_t best = best_of(speculation, size);
    if (best != speculation->choice[size])
        speculation->rest[size] = REST_STEPS;
    speculation->choice[size] = best;
    int32_t trial = next_trial(speculation, size);
    bool known = speculation->times[size][trial].steps > 0;
    if (known && speculation->since[size]++ < speculation->rest[size])
        return speculation->choice[size];
    speculation->since[size] = 0;
    if (known && speculation->rest[size] < REST_STEPS_MAX)
        speculation->rest[size] *= 2;
    speculation->trial[size] = trial;
    speculation->trial_left[size] = TRIAL_STEPS - 1;
    return trial;
}

void speculation_observe(struct speculation *speculation, const struct speculation_step *step)
{
    int32_t offered = step->drew;
    if (step->drew == 0 || step->drafts > speculation->drafts_max)
        return;
    double forget = FORGET_PER_ROW * step->drew;
    double keep = 1 - (forget < FORGET_MAX ? forget : FORGET_MAX);
    for (int32_t i = 0; i < SPECULATION_CHOICES - 1; i++) {
        bool was_offered = i < step->drafts;
        speculation->taken[i] =
            speculation->taken[i] * keep + (was_offered ? step->accepted[i] : 0);
        speculation->offered[i] = speculation->offered[i] * keep + (was_offered ? offered : 0);
        offered = step->accepted[i];
    }
    struct speculation_time *time = &speculation->times[size_of(step->rows)][step->drafts];
    double ns = (double)step->ns;
    // The first steps of a kind may be slow for reasons of their own: the second forgets the first.
    int32_t window = time->steps < TIME_WINDOW_STEPS ? time->steps : TIME_WINDOW_STEPS;
    time->ns = time->steps <= 1 ? ns : time->ns + (ns - time->ns) / window;
    time->steps += time->steps < INT32_MAX;
}
