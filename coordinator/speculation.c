// SPDX-License-Identifier: Apache-2.0
// speculation.c -- tries the number of drafts that is believed to be best and those beside it for a
// few steps, goes on towards most expected tokens per time, and looks at the others from time to
// time: acceptance changes with the text, and so does the answer.
//
// Tokens: a sequence is believed to go on as it did, a new one as all did; what these beliefs
// promised is held against what came, and their sum corrected by that. A token of a sequence counts
// by the part of a step that it takes there: all work ends soonest when the sum of these parts is
// largest. Plain tokens would hurry those that are quick anyway, and leave the slow ones over.
// Times: only the relations within a cell matter. Those of the numbers that do not run move with
// the one that runs, and a cell that is new believes those of its neighbour. A number that never
// ran is believed to lie on the line through two that did. Rows of a cell are up to twice as many
// as others: times are taken over their root, which is about how they grow on an H200.
// Looking around: a number has its next trial when the last is so long ago that what it loses is a
// small share of all; one that is nearly as good as the best often, one that is far from it seldom.
#include "coordinator/speculation.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    TRIAL_STEPS = 4,       // of one number of drafts; the first still verifies another number
    TRIAL_WEIGHT = 2,      // steps that count of what was known before a trial
    REST_STEPS = 25,       // at least, between trials of a number
    PLAIN_STEPS = 50,      // in a cell until steps without drafts have their first trial
    TIME_WINDOW_STEPS = 8, // a mean over about as many
    USUAL_STEPS = 32,      // of choices, a mean over about as many
    NEIGHBOUR_CELLS = 2,   // as far as a new cell looks for times
    CONTEXT_FIRST = 1024,  // tokens; every further range reaches four times as far
};

static const double FORGET_PER_ROW = 0.0025;    // of the counts of all: the last 400 drafts count,
static const double FORGET_MAX = 0.02;          // and at least the last 50 steps;
static const double IDLE_OFFERED = 10;          // what is not offered any more goes down to this
static const float OWN_FORGET = 1.f / 96;       // of a sequence's: per step that offered it drafts,
static const float OWN_FORGET_IDLE = 1.f / 192; // and per step that did not
static const double OWN_PRIOR = 12;             // weight of what all have shown beside its own
static const double FIRST_TAKEN = 0.7;          // before anything is seen
static const double PRIOR_OFFERED = 6;  // weight of what is assumed without having been seen
static const double TRUSTED = 20;       // drafts in which beliefs about all are taken as right
static const double BETTER = 1.01;      // a change has to promise so much
static const double LOSS_SHARE = 0.006; // of all time may go into trials of numbers that lose
static const double DRAFT_COST = 0.2;   // of a step without, where nothing was measured nearby
static const double OUTLIER = 1.15;     // times the mean; longer counts as that

// ---- expected tokens ----

void speculation_begin(struct speculation_batch *batch, const struct speculation *speculation)
{
    memset(batch, 0, sizeof *batch);
    for (int32_t i = 0; i < SPECULATION_CHOICES - 1; i++) {
        batch->weight[i] = 1 / (speculation->seen.offered[i] + PRIOR_OFFERED);
        batch->prior[i] = speculation->seen.taken[i] * batch->weight[i];
        batch->weight[i] *= PRIOR_OFFERED;
    }
    batch->usual = speculation->usual;
    batch->most = speculation->drafts_max;
}

void speculation_add(struct speculation_batch *batch, struct speculation_counts *counts,
                     int32_t tokens, int32_t most)
{
    double reached = 1, share = FIRST_TAKEN, sum = 1;
    batch->rows++;
    batch->asked = most > batch->asked ? most : batch->asked;
    batch->tokens += tokens;
    for (int32_t i = 0; i < SPECULATION_CHOICES - 1; i++) {
        // A draft that was not offered lately is believed to be as good as the one before it.
        double all = batch->prior[i] + batch->weight[i] * share;
        share = (counts->taken[i] + OWN_PRIOR * all) / (counts->offered[i] + OWN_PRIOR);
        reached = i < most ? reached * share : 0;
        double part = batch->usual - i;
        sum += part >= 1 ? reached : part > 0 ? reached * part : 0;
        counts->believed[i] = (float)reached;
    }
    batch->known += 1 / sum;
    for (int32_t i = 0; i < SPECULATION_CHOICES - 1; i++)
        batch->taken[i] += counts->believed[i] / sum;
}

// What the rows get done with every number of drafts.
static void expect(const struct speculation *speculation, const struct speculation_batch *batch,
                   double expected[SPECULATION_CHOICES])
{
    const struct speculation_counts *seen = &speculation->seen;
    double came = 1; // of what was believed
    expected[0] = batch->known;
    for (int32_t i = 0; i < SPECULATION_CHOICES - 1; i++) {
        came = (seen->taken[i] + TRUSTED * came) / (seen->believed[i] + TRUSTED);
        expected[i + 1] = expected[i] + batch->taken[i] * came;
    }
}

void speculation_note_row(struct speculation_step *step, struct speculation_counts *counts,
                          int32_t offered, int32_t taken)
{
    float keep = 1 - (offered > 0 ? OWN_FORGET : OWN_FORGET_IDLE);
    step->drew++;
    for (int32_t i = 0; i < SPECULATION_CHOICES - 1; i++) {
        bool was_offered = i < offered && i <= taken, was_taken = was_offered && i < taken;
        step->offered[i] += was_offered;
        step->taken[i] += was_taken;
        step->believed[i] += i < offered ? counts->believed[i] : 0;
        counts->offered[i] = counts->offered[i] * keep + (float)was_offered;
        counts->taken[i] = counts->taken[i] * keep + (float)was_taken;
    }
}

static void see_acceptance(struct speculation *speculation, const struct speculation_step *step)
{
    struct speculation_counts *seen = &speculation->seen;
    double forget = FORGET_PER_ROW * step->drew;
    float keep = (float)(1 - (forget < FORGET_MAX ? forget : FORGET_MAX));
    for (int32_t i = 0; i < SPECULATION_CHOICES - 1; i++) {
        if (i >= step->drafts && seen->offered[i] <= IDLE_OFFERED)
            continue;
        seen->taken[i] = seen->taken[i] * keep + (float)step->taken[i];
        seen->offered[i] = seen->offered[i] * keep + (float)step->offered[i];
        seen->believed[i] = seen->believed[i] * keep + (float)step->believed[i];
    }
}

// ---- cells ----

// Ranges reach up to first, first * ratio, ...; `now` is kept a little beyond its borders, so that
// a batch which swings around one stays where it is.
static int32_t level_of(int64_t value, int64_t first, int64_t ratio, int32_t levels, int32_t now)
{
    int64_t limit = first, below = 0, now_below = 0, now_limit = 0;
    int32_t level = 0;
    for (int32_t i = 0; i < levels; i++, below = limit, limit *= ratio) {
        if (value > limit && i < levels - 1)
            level = i + 1;
        if (i == now) {
            now_below = below;
            now_limit = limit;
        }
    }
    bool near = value > now_below - now_below / 8 && value <= now_limit + now_limit / 8;
    return near ? now : level;
}

static struct speculation_cell *cell_at(struct speculation *speculation, int32_t cell)
{
    return &speculation->cells[cell / SPECULATION_CONTEXTS][cell % SPECULATION_CONTEXTS];
}

int32_t speculation_cell_now(const struct speculation *speculation)
{
    return speculation->size * SPECULATION_CONTEXTS + speculation->context;
}

// The nearest cell with times, NULL when there is none near.
static const struct speculation_cell *neighbour(const struct speculation *speculation)
{
    const struct speculation_cell *nearest = NULL;
    int32_t best = NEIGHBOUR_CELLS + 1;
    for (int32_t size = 0; size < SPECULATION_SIZES; size++) {
        for (int32_t context = 0; context < SPECULATION_CONTEXTS; context++) {
            const struct speculation_cell *cell = &speculation->cells[size][context];
            int32_t away = abs(size - speculation->size) + abs(context - speculation->context);
            if (away < best && cell->entered && cell->steps[cell->choice] > 0) {
                nearest = cell;
                best = away;
            }
        }
    }
    return nearest;
}

// What a cell believes when a batch is in it for the first time.
static void enter(const struct speculation *speculation, struct speculation_cell *cell)
{
    const struct speculation_cell *from = neighbour(speculation);
    cell->entered = true;
    for (int32_t drafts = 0; drafts < SPECULATION_CHOICES; drafts++)
        cell->ns[drafts] = from != NULL ? from->ns[drafts] : 1 + DRAFT_COST * drafts;
    if (from == NULL)
        return;
    cell->choice = from->choice;
}

void speculation_init(struct speculation *speculation, int32_t drafts_max, int32_t wish)
{
    memset(speculation, 0, sizeof *speculation);
    speculation->drafts_max = drafts_max;
    speculation->wish = wish > drafts_max ? drafts_max : wish;
}

// ---- the choice ----

static void choose_best(struct speculation_cell *cell, const double *expected, int32_t most)
{
    int32_t best = cell->choice < most ? cell->choice : most;
    double rate = expected[best] / cell->ns[best] * BETTER;
    for (int32_t drafts = 0; drafts <= most; drafts++) {
        double other = expected[drafts] / cell->ns[drafts];
        if (other > rate) {
            rate = other;
            best = drafts;
        }
    }
    if (best == cell->choice)
        return;
    // What is remembered of it may be old.
    if (cell->steps[best] > TRIAL_WEIGHT)
        cell->steps[best] = TRIAL_WEIGHT;
    cell->choice = best;
    cell->settled = 0;
}

// Whether a number of drafts is due for another trial, by what it is believed to lose, counted in
// steps of the choice. Its first one may take the whole share: that comes once.
static bool is_due(const struct speculation_cell *cell, const double *expected, int32_t drafts,
                   int32_t most)
{
    bool was_tried = cell->tried >> drafts & 1;
    double share = was_tried ? LOSS_SHARE / most : LOSS_SHARE; // of each of the others
    double time = cell->ns[drafts] / cell->ns[cell->choice];
    double tokens = expected[drafts] / expected[cell->choice];
    double loss = TRIAL_STEPS * (time - tokens);
    return cell->since[drafts] >= REST_STEPS && loss <= share * cell->since[drafts];
}

// The next number worth a trial: the choice or one beside it that had none, so that the choice
// climbs; or one that is due; -1 = none. What was never measured is believed by what was, and that
// may all lie behind a step in times: so plain steps are measured in any case, and the numbers
// between them and the choice are believed to lie between these two.
static int32_t next_trial(const struct speculation_cell *cell, const double *expected, int32_t most)
{
    static const int32_t BESIDE[] = {0, -1, 1};
    for (int32_t i = 0; i < 3; i++) {
        int32_t drafts = cell->choice + BESIDE[i];
        if (drafts >= 0 && drafts <= most && (cell->tried >> drafts & 1) == 0)
            return drafts;
    }
    if ((cell->tried & 1) == 0 && cell->since[0] >= PLAIN_STEPS)
        return 0;
    for (int32_t drafts = 0; drafts <= most; drafts++) {
        if (drafts != cell->choice && is_due(cell, expected, drafts, most))
            return drafts;
    }
    return -1;
}

static void begin_trial(struct speculation_cell *cell, int32_t drafts)
{
    cell->since[drafts] = 0;
    cell->tried |= 1u << drafts;
    cell->trial = drafts;
    cell->trial_left = TRIAL_STEPS - 1;
    if (cell->steps[drafts] > TRIAL_WEIGHT)
        cell->steps[drafts] = TRIAL_WEIGHT;
}

static struct speculation_cell *find_cell(struct speculation *speculation,
                                          const struct speculation_batch *batch)
{
    if (batch->rows > 0) {
        speculation->size = level_of(batch->rows, 1, 2, SPECULATION_SIZES, speculation->size);
        speculation->context = level_of(batch->tokens / batch->rows, CONTEXT_FIRST, 4,
                                        SPECULATION_CONTEXTS, speculation->context);
    }
    struct speculation_cell *cell = cell_at(speculation, speculation_cell_now(speculation));
    if (!cell->entered)
        enter(speculation, cell);
    return cell;
}

int32_t speculation_choose(struct speculation *speculation, const struct speculation_batch *batch)
{
    if (speculation->drafts_max == 0)
        return 0;
    int32_t most = batch->most < batch->asked ? batch->most : batch->asked;
    if (speculation->wish != SPECULATION_AUTO)
        return batch->rows == 0 || speculation->wish < batch->asked ? speculation->wish
                                                                    : batch->asked;
    struct speculation_cell *cell = find_cell(speculation, batch);
    if (batch->rows == 0)
        return cell->choice;
    if (cell->trial > most)
        cell->trial_left = 0;
    if (cell->trial_left > 0 && !batch->mixed) {
        cell->trial_left--;
        return cell->trial;
    }
    double expected[SPECULATION_CHOICES];
    expect(speculation, batch, expected);
    choose_best(cell, expected, most);
    speculation->usual += (cell->choice - speculation->usual) / USUAL_STEPS;
    if (batch->mixed)
        return cell->choice;
    for (int32_t drafts = 0; drafts <= speculation->drafts_max; drafts++) {
        cell->since[drafts] += cell->since[drafts] < INT32_MAX;
        if (drafts == cell->choice)
            cell->since[drafts] = 0;
    }
    int32_t trial = next_trial(cell, expected, most);
    if (trial < 0)
        return cell->choice;
    begin_trial(cell, trial);
    return trial;
}

// A number that was not measured, on the line through the two nearest that were, or moving with
// the only one; no better than if every token cost as much as those of the nearest.
static void believe_time(struct speculation_cell *cell, int32_t drafts, double moved)
{
    int32_t near[2] = {-1, -1};
    for (int32_t away = 1; away < SPECULATION_CHOICES; away++) {
        for (int32_t k = drafts - away; k <= drafts + away; k += 2 * away) {
            if (k >= 0 && k < SPECULATION_CHOICES && cell->steps[k] > 0 && near[1] < 0)
                near[near[0] >= 0] = k;
        }
    }
    if (near[1] < 0) {
        cell->ns[drafts] *= moved;
        return;
    }
    double nearest = cell->ns[near[0]], slope = (cell->ns[near[1]] - nearest) / (near[1] - near[0]);
    double least = drafts < near[0] ? nearest * (1 + drafts) / (1 + near[0]) : nearest;
    double line = nearest + slope * (drafts - near[0]);
    cell->ns[drafts] = line > least ? line : least;
}

static void see_time(struct speculation_cell *cell, int32_t drafts, double ns)
{
    int32_t steps = cell->steps[drafts];
    double before = cell->ns[drafts];
    // The first step of a kind may be slow for reasons of its own.
    if (steps == 0 || (steps == 1 && ns < before)) {
        cell->ns[drafts] = ns;
    } else {
        int32_t window = steps < TIME_WINDOW_STEPS ? steps : TIME_WINDOW_STEPS;
        ns = ns < OUTLIER * before ? ns : OUTLIER * before;
        cell->ns[drafts] += (ns - before) / window;
    }
    cell->steps[drafts] += steps < INT32_MAX;
    bool settled = drafts == cell->choice && cell->settled >= TIME_WINDOW_STEPS;
    cell->settled += drafts == cell->choice && !settled;
    for (int32_t other = 0; other < SPECULATION_CHOICES; other++) {
        double moved = cell->ns[drafts] / before;
        if (other != drafts && cell->steps[other] == 0)
            believe_time(cell, other, moved);
        else if (other != drafts && settled)
            cell->ns[other] *= moved;
    }
}

void speculation_observe(struct speculation *speculation, const struct speculation_step *step)
{
    if (step->drew == 0)
        return;
    see_acceptance(speculation, step);
    struct speculation_cell *cell = cell_at(speculation, step->cell);
    if (step->ns > 0 && cell->entered && step->drafts <= speculation->drafts_max)
        see_time(cell, step->drafts, (double)step->ns / sqrt(step->drew));
}
