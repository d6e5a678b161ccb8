// SPDX-License-Identifier: Apache-2.0
// scheduler_plan_gap_test.c -- steps keep to the gap beside prompts whose tokens cost the more the
// more are before them, one prompt or several at different positions.
#include "coordinator/scheduler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/fixtures/coord_rig.h"

enum { GAP_MS = 20, SLOTS = 8, PROMPT_TOKENS = 3900, LEARNING_STEPS = 12 };

struct machine {
    struct coord_rig rig;
    int32_t positions[SLOTS]; // of what has been planned
    double longest_ms, ms;    // of the steps with a stream and prefill, after the first ones
    int steps, shared;        // such steps, and those with several prompts
};

// 1 ms, 10 us a token, and 15 ns a token and token before it.
static double plan_ms(struct machine *machine, const struct step_plan *plan)
{
    double ms = 1;
    int prompts = 0;
    for (int32_t i = 0; i < plan->opens_count; i++)
        machine->positions[plan->opens[i].slot] = plan->opens[i].position;
    for (int32_t i = 0; i < plan->rows_count; i++) {
        const struct step_plan_row *row = &plan->rows[i];
        if (row->kind != STEP_ROW_PREFILL)
            continue;
        double context = machine->positions[row->slot] + row->tokens_count / 2.0;
        ms += row->tokens_count * (0.01 + context * 15e-6);
        machine->positions[row->slot] += row->tokens_count;
        prompts++;
    }
    if (prompts == 0 || plan->rows[0].kind != STEP_ROW_DECODE)
        return ms;
    machine->steps++;
    machine->shared += prompts > 1;
    if (machine->steps > LEARNING_STEPS) {
        machine->longest_ms = ms > machine->longest_ms ? ms : machine->longest_ms;
        machine->ms += ms;
    }
    return ms;
}

static void open_machine(struct machine *machine)
{
    struct coord_options options;
    coord_rig_options(&options, 1, 1);
    options.wishes.sequences = SLOTS;
    options.wishes.sequence_tokens = 4096;
    options.wishes.step_tokens = 4096;
    options.prefill_gap_ns = GAP_MS * RIG_MS_NS;
    *machine = (struct machine){0};
    coord_rig_open(&machine->rig, &options);
    coord_rig_start(&machine->rig);
    coord_rig_forget(&machine->rig);
    coord_rig_submit(&machine->rig, 1, 10, 1000);
}

// The later ones are shorter, so that they pass the first when they come beside it.
static int32_t prompt_tokens(int index)
{
    return PROMPT_TOKENS - 500 * index;
}

// Steps until all prompts are planned, which `prompts` prompts have come for, one every `apart`
// steps.
static void run(struct machine *machine, int prompts, int apart)
{
    struct coord_rig *rig = &machine->rig;
    int come = 0;
    for (uint64_t step = 1; step < 400; step++) {
        if (come < prompts && step >= (uint64_t)(4 + apart * come)) {
            coord_rig_submit(rig, (uint64_t)(2 + come), prompt_tokens(come), 5);
            come++;
        }
        double ms = plan_ms(machine, &coord_rig_sent(rig, 0, step)->plan);
        struct report report = coord_rig_report_of(rig, 0, 0, step);
        report.step_ns = (uint64_t)(ms * RIG_MS_NS);
        coord_rig_say_report(rig, &report);
    }
    assert_int_equal(coord_rig_count(rig, ACTION_DONE), prompts);
}

static void expect_gap_kept(int prompts, int apart)
{
    struct machine machine;
    open_machine(&machine);
    run(&machine, prompts, apart);
    double mean_ms = machine.ms / (machine.steps - LEARNING_STEPS);
    print_message("%d prompts, one every %d steps: longest %.2f ms, mean %.2f, %d steps, %d with "
                  "several prompts\n",
                  prompts, apart, machine.longest_ms, mean_ms, machine.steps, machine.shared);
    assert_true(machine.steps > 2 * LEARNING_STEPS);
    assert_true(machine.longest_ms < 1.04 * GAP_MS);
    assert_true(mean_ms > 0.82 * GAP_MS); // some 400 tokens on a grid of 64, and last chunks
    assert_true(apart > 30 ? machine.shared == 0 : machine.shared > 8);
    coord_rig_close(&machine.rig);
}

static void test_one_after_the_other(void **state)
{
    (void)state;
    expect_gap_kept(4, 40);
}

// The senior is far in its prompt when others begin theirs.
static void test_several_prompts(void **state)
{
    (void)state;
    expect_gap_kept(6, 1);
    expect_gap_kept(6, 5);
    expect_gap_kept(6, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_after_the_other),
        cmocka_unit_test(test_several_prompts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
