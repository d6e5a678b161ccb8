// SPDX-License-Identifier: Apache-2.0
// figures_test.c -- values at the borders of buckets, and what actions and reports say.
#include "coordinator/figures.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct figures figures;

static int set_up(void **state)
{
    (void)state;
    memset(&figures, 0, sizeof figures);
    return 0;
}

static void assert_figure(enum figure_kind kind, uint64_t count, double sum)
{
    assert_int_equal(figures.kinds[kind].count, count);
    double off = figures.kinds[kind].sum - sum;
    assert_true(off < 1e-9 && off > -1e-9);
}

static void forms_are_in_order(void **state)
{
    (void)state;
    for (int kind = 0; kind < FIGURE_KINDS; kind++) {
        const struct figure_form *form = &figure_forms[kind];
        assert_non_null(form->name);
        assert_true(form->bounds_count > 0 && form->bounds_count <= FIGURE_BOUNDS_MAX);
        for (int i = 1; i < form->bounds_count; i++)
            assert_true(form->bounds[i] > form->bounds[i - 1]);
        for (int i = form->bounds_count; i < FIGURE_BOUNDS_MAX; i++)
            assert_true(form->bounds[i] == 0);
        for (int i = 0; i < form->bounds_count; i++) { // a bound belongs to its own bucket
            figures_observe(&figures, (enum figure_kind)kind, form->bounds[i], 1);
            assert_int_equal(figures.kinds[kind].counts[i], 1);
        }
        figures_observe(&figures, (enum figure_kind)kind,
                        form->bounds[form->bounds_count - 1] * 1.001, 5);
        assert_int_equal(figures.kinds[kind].counts[FIGURE_BOUNDS_MAX], 5);
        assert_int_equal(figures.kinds[kind].count, form->bounds_count + 5);
    }
}

static void a_requests_life(void **state)
{
    (void)state;
    struct coord_action action = {
        .type = ACTION_TOKENS, .tokens_count = 1, .is_first = true, .since_ns = 2000000000};
    figures_action(&figures, &action);
    action =
        (struct coord_action){.type = ACTION_TOKENS, .tokens_count = 4, .since_ns = 1000000000};
    figures_action(&figures, &action);
    action = (struct coord_action){.type = ACTION_TOKENS, .tokens_count = 0}; // nothing but extras
    figures_action(&figures, &action);
    assert_figure(FIGURE_FIRST_TOKEN, 1, 2);
    assert_figure(FIGURE_INTER_TOKEN, 4, 1);
    action = (struct coord_action){.type = ACTION_DONE,
                                   .reason = "length",
                                   .usage = {.prompt_tokens = 70,
                                             .completion_tokens = 5,
                                             .cached_tokens = 64,
                                             .drafted = 9,
                                             .accepted = 3},
                                   .times = {.queue_ns = 500000000,
                                             .prefill_ns = 1500000000,
                                             .decode_ns = 1000000000,
                                             .all_ns = 3000000000}};
    figures_action(&figures, &action);
    assert_figure(FIGURE_QUEUE, 1, 0.5);
    assert_figure(FIGURE_PREFILL, 1, 1.5);
    assert_figure(FIGURE_DECODE, 1, 1);
    assert_figure(FIGURE_END_TO_END, 1, 3);
    assert_figure(FIGURE_PROMPT_TOKENS, 1, 70);
    assert_figure(FIGURE_OUTPUT_TOKENS, 1, 5);
    action.reason = "stop";
    figures_action(&figures, &action);
    action.reason = "abort";
    figures_action(&figures, &action);
    action.reason = "timeout";
    figures_action(&figures, &action);
    action = (struct coord_action){.type = ACTION_ERROR, .reason = NULL};
    figures_action(&figures, &action);
    figures_action(&figures, &action);
    const uint64_t ended[FIGURE_REASONS] = {1, 1, 1, 1, 2};
    assert_memory_equal(figures.ended, ended, sizeof ended);
    assert_figure(FIGURE_END_TO_END, 4, 12);
}

static void steps(void **state)
{
    (void)state;
    struct step_plan_row rows[3] = {
        {.kind = STEP_ROW_DECODE}, {.kind = STEP_ROW_DECODE}, {.kind = STEP_ROW_PREFILL}};
    struct step_plan plan = {.verify = 4, .rows_count = 3, .rows = rows, .tokens_count = 64};
    struct coord_action action = {.type = ACTION_SEND_PLAN, .plan = &plan};
    figures_action(&figures, &action);
    assert_figure(FIGURE_STEP_TOKENS, 1, 72);
    struct report report = {.group = 1, .rank = 1, .epoch = 1, .step = 7, .step_ns = 5000000};
    figures_report(&figures, &report, 2, 1000000000);
    assert_figure(FIGURE_STEP, 0, 0); // not rank 0's
    report.step = 8;                  // the next step's first report comes before this one's last
    figures_report(&figures, &report, 2, 1100000000);
    report.step = 7;
    report.rank = 0;
    figures_report(&figures, &report, 2, 1250000000);
    assert_figure(FIGURE_STEP, 1, 0.005);
    assert_figure(FIGURE_SKEW, 1, 0.25);
    report.step = 8;
    figures_report(&figures, &report, 2, 1300000000);
    assert_figure(FIGURE_SKEW, 2, 0.45);
    report.epoch = 2; // another life: its step 8 is another step
    figures_report(&figures, &report, 2, 2000000000);
    assert_figure(FIGURE_SKEW, 2, 0.45);
    report.group = GROUPS_MAX; // not ours: the core drops it, too
    figures_report(&figures, &report, 1, 2000000000);
    assert_figure(FIGURE_STEP, 3, 0.015);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(forms_are_in_order, set_up),
        cmocka_unit_test_setup(a_requests_life, set_up),
        cmocka_unit_test_setup(steps, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
