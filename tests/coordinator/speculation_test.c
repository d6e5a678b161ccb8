// SPDX-License-Identifier: Apache-2.0
// speculation_test.c -- the choice of drafts against a machine whose step times and acceptance are
// known: over a long run it gives at least 98 % of what the best fixed number gives, whatever the
// batch size, also when acceptance collapses or comes back in mid-stream.
#include "coordinator/speculation.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// A step of `rows` sequences with so many drafts, in ns: weights are read once, every verified row
// costs a little, every draft a pass of the head.
struct machine {
    double base_ns, row_ns, pass_ns;
    double acceptance; // of every draft, when those before it were taken
    double noise;      // times vary by so much
    uint64_t random;
};

static double uniform(struct machine *machine)
{
    machine->random = machine->random * 6364136223846793005u + 1442695040888963407u;
    return (double)(machine->random >> 11) * 0x1p-53;
}

static double step_ns(struct machine *machine, int32_t rows, int32_t drafts)
{
    double ns =
        machine->base_ns + machine->row_ns * rows * (1 + drafts) + machine->pass_ns * drafts;
    return ns * (1 + machine->noise * (uniform(machine) - 0.5));
}

static double expected_tokens(const struct machine *machine, int32_t drafts)
{
    double tokens = 1;
    for (int32_t i = 1; i <= drafts; i++)
        tokens += pow(machine->acceptance, i);
    return tokens;
}

static double best_rate(const struct machine *machine, int32_t rows, int32_t *best_drafts)
{
    struct machine quiet = *machine;
    double best = 0;
    quiet.noise = 0;
    for (int32_t drafts = 0; drafts < SPECULATION_CHOICES; drafts++) {
        double rate = expected_tokens(machine, drafts) / step_ns(&quiet, rows, drafts);
        if (rate > best) {
            best = rate;
            *best_drafts = drafts;
        }
    }
    return best * rows;
}

static void draw_acceptance(struct machine *machine, struct speculation_step *step)
{
    step->drew = step->rows;
    memset(step->accepted, 0, sizeof step->accepted);
    for (int32_t row = 0; row < step->rows; row++) {
        for (int32_t i = 0; i < step->drafts && uniform(machine) < machine->acceptance; i++)
            step->accepted[i]++;
    }
}

// Runs steps and returns tokens per ns. As the scheduler does: what a step drafts is verified by
// the next, and what came of a step is known two plans later.
static double run(struct speculation *speculation, struct machine *machine, int32_t rows, int steps)
{
    struct speculation_step flying = {.rows = 0};
    double tokens = 0, ns = 0;
    int32_t before = 0;
    for (int i = 0; i < steps; i++) {
        int32_t drafts = speculation_choose(speculation, rows);
        assert_in_range(drafts, 0, SPECULATION_CHOICES - 1);
        struct speculation_step step = {.rows = rows, .drafts = before};
        draw_acceptance(machine, &step);
        step.ns = (uint64_t)step_ns(machine, rows, before);
        ns += (double)step.ns;
        tokens += rows;
        for (int32_t k = 0; k < step.drafts; k++)
            tokens += step.accepted[k];
        if (flying.rows > 0)
            speculation_observe(speculation, &flying);
        flying = drafts == before ? step : (struct speculation_step){.rows = 0};
        before = drafts;
    }
    return tokens / ns;
}

// An H200 serving 35B-A3B, roughly: 1.4 ms for the weights of one row.
static struct machine machine_of(double acceptance, uint64_t seed)
{
    return (struct machine){.base_ns = 1.4e6,
                            .row_ns = 6e4,
                            .pass_ns = 2.7e5,
                            .acceptance = acceptance,
                            .noise = 0.02,
                            .random = seed};
}

static void auto_is_close_to_the_best_fixed_number(void **state)
{
    static const int32_t sizes[] = {1, 2, 7, 64, 256};
    static const double acceptances[] = {0.02, 0.3, 0.6, 0.8, 0.95};
    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        for (size_t a = 0; a < sizeof acceptances / sizeof acceptances[0]; a++) {
            struct speculation speculation;
            struct machine machine = machine_of(acceptances[a], 7 * s + a);
            int32_t best_drafts = 0;
            double best = best_rate(&machine, sizes[s], &best_drafts);
            speculation_init(&speculation, SPECULATION_CHOICES - 1, SPECULATION_AUTO);
            double rate = run(&speculation, &machine, sizes[s], 5000);
            if (rate < 0.98 * best)
                fail_msg("%d rows, acceptance %.2f: %.4f of the best (%d drafts)", (int)sizes[s],
                         acceptances[a], rate / best, (int)best_drafts);
        }
    }
}

static void acceptance_may_collapse_and_return(void **state)
{
    (void)state;
    struct speculation speculation;
    struct machine machine = machine_of(0.9, 11);
    int32_t drafts = 0;
    speculation_init(&speculation, SPECULATION_CHOICES - 1, SPECULATION_AUTO);
    run(&speculation, &machine, 64, 2000);
    machine.acceptance = 0.01;
    run(&speculation, &machine, 64, 600); // takes notice
    double best = best_rate(&machine, 64, &drafts);
    assert_int_equal(drafts, 0);
    assert_true(run(&speculation, &machine, 64, 4000) > 0.98 * best);
    machine.acceptance = 0.9;
    run(&speculation, &machine, 64, 5000);
    best = best_rate(&machine, 64, &drafts);
    assert_true(drafts > 0);
    assert_true(run(&speculation, &machine, 64, 4000) > 0.97 * best);
}

static void a_fixed_number_is_kept(void **state)
{
    (void)state;
    struct speculation speculation;
    speculation_init(&speculation, 3, 2);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(speculation_choose(&speculation, 1 + i), 2);
    speculation_init(&speculation, 3, 5); // more than the workers can do
    assert_int_equal(speculation_choose(&speculation, 1), 3);
    speculation_init(&speculation, 0, SPECULATION_AUTO);
    assert_int_equal(speculation_choose(&speculation, 1), 0);
}

// Nothing measured: seven of ten; then what is seen.
static void tokens_follow_what_was_seen(void **state)
{
    (void)state;
    struct speculation speculation;
    speculation_init(&speculation, 5, SPECULATION_AUTO);
    assert_true(fabs(speculation_tokens(&speculation, 2) - (1 + 0.7 + 0.49)) < 1e-9);
    for (int i = 0; i < 1000; i++) {
        speculation_observe(
            &speculation,
            &(struct speculation_step){
                .rows = 100, .drew = 100, .drafts = 2, .accepted = {80, 20}, .ns = 1000000});
    }
    assert_true(fabs(speculation_tokens(&speculation, 1) - 1.8) < 1e-2);
    assert_true(fabs(speculation_tokens(&speculation, 2) - 2.0) < 1e-2);
    assert_true(fabs(speculation_tokens(&speculation, 0) - 1.0) < 1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(auto_is_close_to_the_best_fixed_number),
        cmocka_unit_test(acceptance_may_collapse_and_return),
        cmocka_unit_test(a_fixed_number_is_kept),
        cmocka_unit_test(tokens_follow_what_was_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
