// SPDX-License-Identifier: Apache-2.0
// speculation_cliff_test.c -- steps whose time jumps below the number that is believed to be best
// before anything is measured: what lies before the jump has to be found, although all that is
// measured first lies behind it.
#include "coordinator/speculation.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "parallel/base/mix.h"

enum { ROWS = 8, SEEDS = 10, TOKENS = 500 };

struct cliff {
    double ms[SPECULATION_CHOICES]; // of a step with so many drafts
    double acceptance;
    int steps;
    double least; // share of what the best fixed number reaches
};

static double dice(uint64_t *random)
{
    return (double)(mix_at(17, ++*random) >> 11) * 0x1p-53;
}

// Tokens per ms of a fixed number of drafts.
static double rate_of(const struct cliff *cliff, int drafts)
{
    double tokens = 1, reached = 1;
    for (int i = 0; i < drafts; i++) {
        reached *= cliff->acceptance;
        tokens += reached;
    }
    return ROWS * tokens / cliff->ms[drafts];
}

struct run {
    struct speculation speculation;
    struct speculation_counts counts[ROWS];
    uint64_t random;
    int32_t made; // drafts, by the step before
    double ms, tokens;
};

// One step: verifies what the step before drafted.
static void step(struct run *run, const struct cliff *cliff)
{
    struct speculation_batch batch;
    speculation_begin(&batch, &run->speculation);
    for (int row = 0; row < ROWS; row++)
        speculation_add(&batch, &run->counts[row], TOKENS, SPECULATION_CHOICES - 1);
    int32_t drafts = speculation_choose(&run->speculation, &batch), offered = run->made;
    struct speculation_step seen = {.cell = speculation_cell_now(&run->speculation),
                                    .drafts = offered};
    double ms = cliff->ms[offered] * (0.99 + 0.02 * dice(&run->random));
    if (drafts == offered)
        seen.ns = (uint64_t)(ms * 1e6);
    for (int row = 0; row < ROWS; row++) {
        int32_t taken = 0;
        while (taken < offered && dice(&run->random) < cliff->acceptance)
            taken++;
        run->tokens += 1 + taken;
        speculation_note_row(&seen, &run->counts[row], offered, taken);
    }
    speculation_observe(&run->speculation, &seen);
    run->ms += ms;
    run->made = drafts;
}

static double share_of(const struct cliff *cliff)
{
    double best = 0, sum = 0;
    for (int drafts = 0; drafts < SPECULATION_CHOICES; drafts++)
        best = rate_of(cliff, drafts) > best ? rate_of(cliff, drafts) : best;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct run run = {.random = seed << 32};
        speculation_init(&run.speculation, SPECULATION_CHOICES - 1, SPECULATION_AUTO);
        for (int i = 0; i < cliff->steps; i++)
            step(&run, cliff);
        sum += run.tokens / run.ms / best;
    }
    return sum / SEEDS;
}

static void what_lies_before_a_jump_is_found(void **state)
{
    static const struct cliff cliffs[] = {
        {{1, 1.1, 1.2, 2.6, 2.7, 2.8}, 0.9, 1000, 0.92},
        {{1, 1.1, 1.2, 2.6, 2.7, 2.8}, 0.9, 2000, 0.95},
        {{1, 1.1, 2.2, 2.3, 2.4, 2.5}, 0.5, 300, 0.90},
        {{1, 1.9, 1.95, 2.0, 2.05, 2.1}, 0.5, 2000, 0.97},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cliffs / sizeof *cliffs; i++) {
        double share = share_of(&cliffs[i]);
        print_message("cliff %zu, %d steps: %.3f of the best\n", i, cliffs[i].steps, share);
        if (share < cliffs[i].least)
            fail_msg("cliff %zu: %.3f of the best, at least %.2f", i, share, cliffs[i].least);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_lies_before_a_jump_is_found)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
