// SPDX-License-Identifier: Apache-2.0
// scheduler_drafts_test.c -- what came of drafts is counted where it belongs: per request, no more
// than the request takes or can still use, in every step; times only of steps of one kind. (That
// plans with drafts give the right tokens is for the simulation and for tests/worker.)
#include "coordinator/coord.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "tests/fixtures/coord_rig.h"

static void open_with(struct coord_rig *rig, int speculative_tokens, int step_tokens)
{
    struct coord_options options;
    coord_rig_options(&options, 1, 1);
    options.speculative_tokens = speculative_tokens;
    options.wishes.sequences = 4;
    options.wishes.step_tokens = step_tokens;
    coord_rig_open(rig, &options);
    struct hello hello = coord_rig_hello(rig);
    hello.has_mtp = 1;
    coord_rig_say_hello(rig, 0, &hello);
    coord_rig_say_ready(rig, 0, 0);
}

// drafts: as in coord_sampling.
static void submit(struct coord_rig *rig, uint64_t request, int32_t drafts, int32_t max_tokens)
{
    struct coord_event event = {.type = EVENT_SUBMIT, .worker = -1};
    event.submit.request = request;
    event.submit.prompt = rig->prompt;
    event.submit.prompt_tokens = 10;
    event.submit.sampling.max_tokens = max_tokens;
    event.submit.sampling.drafts = drafts;
    coord_rig_step(rig, event);
}

static struct request *request_of(struct coord_rig *rig, uint64_t request)
{
    int32_t index = requests_find(&rig->coord->requests, request);
    assert_true(index >= 0);
    return &rig->coord->requests.table[index];
}

// Reports the oldest step in flight; the request's row has drawn `count` tokens.
static void report_next(struct coord_rig *rig, uint64_t request, int32_t count)
{
    uint64_t step = rig->coord->groups[0].step_done + 1;
    struct rig_step *sent = coord_rig_sent(rig, 0, step);
    int32_t slot = request_of(rig, request)->slot;
    for (int32_t row = 0; row < sent->plan.rows_count; row++) {
        struct step_result *result = &sent->results[row];
        if (result->slot != slot || sent->plan.rows[row].kind != STEP_ROW_DECODE)
            continue;
        result->count = count < sent->plan.verify ? count : sent->plan.verify;
        for (int32_t i = 0; i < result->count; i++)
            result->tokens[i] = RIG_TOKEN;
    }
    coord_rig_report(rig, 0, step);
}

static void expect_counts(const float *counts, float first, float second, float third)
{
    const float wanted[3] = {first, second, third};
    for (int i = 0; i < 3; i++)
        assert_true(counts[i] >= 0.8f * wanted[i] && counts[i] <= wanted[i]); // they decay
}

static void test_acceptance_is_each_requests_own(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_with(&rig, 3, 1024);
    submit(&rig, 1, 1 + 0, 100); // no drafts
    submit(&rig, 2, 1 + 1, 100); // one at a time
    submit(&rig, 3, 0, 100);
    submit(&rig, 4, 0, 3); // ends soon
    for (int i = 0; i < 4; i++)
        report_next(&rig, 3, 3);
    const struct request *third = request_of(&rig, 3), *fourth = request_of(&rig, 4);
    expect_counts(request_of(&rig, 1)->acceptance.offered, 0, 0, 0);
    expect_counts(request_of(&rig, 2)->acceptance.offered, 1, 0, 0);
    expect_counts(request_of(&rig, 2)->acceptance.taken, 0, 0, 0);
    expect_counts(third->acceptance.offered, 1, 1, 1);
    expect_counts(third->acceptance.taken, 1, 1, 0);
    assert_int_equal(third->drafted, 3);
    assert_int_equal(third->accepted, 2);
    assert_int_equal(fourth->drafted, 1); // two tokens were left
    struct speculation_counts seen = rig.coord->groups[0].speculation.seen;
    expect_counts(seen.offered, 3, 1, 1);
    expect_counts(seen.taken, 1, 1, 0);
    coord_rig_close(&rig);
}

static int times_measured(const struct coord_rig *rig)
{
    const struct speculation *speculation = &rig->coord->groups[0].speculation;
    int steps = 0;
    for (int32_t size = 0; size < SPECULATION_SIZES; size++) {
        for (int32_t drafts = 0; drafts < SPECULATION_CHOICES; drafts++)
            steps += speculation->cells[size][0].steps[drafts];
    }
    return steps;
}

static void test_only_steps_of_one_kind_are_timed(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_with(&rig, SPECULATION_AUTO, 128);
    submit(&rig, 1, 0, 200);
    report_next(&rig, 1, 1); // the prompt
    assert_int_equal(times_measured(&rig), 0);
    for (int i = 0; i < 8; i++)
        report_next(&rig, 1, 1);
    int measured = times_measured(&rig);
    assert_in_range(measured, 1, 8);
    coord_rig_submit(&rig, 2, 900, 9);
    report_next(&rig, 1, 1); // planned before
    report_next(&rig, 1, 1);
    measured = times_measured(&rig);
    while (request_of(&rig, 2)->prefill_given < 900) {
        float offered = rig.coord->groups[0].speculation.seen.offered[0];
        bool drafts = coord_rig_sent(&rig, 0, rig.coord->groups[0].step_done + 1)->plan.verify > 1;
        report_next(&rig, 1, 1);
        assert_int_equal(times_measured(&rig), measured);
        assert_true(!drafts || rig.coord->groups[0].speculation.seen.offered[0] > offered);
    }
    coord_rig_close(&rig);
}

// A request that wants no drafts, alone: none are made or verified, whatever the server's own
// number is; one that wants them gets them when it comes.
static void test_no_request_wants_drafts(void **state)
{
    (void)state;
    static const int wishes[] = {SPECULATION_AUTO, 3};
    for (int i = 0; i < 2; i++) {
        struct coord_rig rig;
        open_with(&rig, wishes[i], 1024);
        submit(&rig, 1, 1 + 0, 2000);
        report_next(&rig, 1, 1);
        report_next(&rig, 1, 1);
        for (int step = 0; step < 500; step++) {
            const struct coord *coord = rig.coord;
            struct rig_step *sent = coord_rig_sent(&rig, 0, coord->groups[0].step_done + 1);
            assert_int_equal(sent->plan.draft, 0);
            assert_true(sent->plan.verify == 1 || step == 0); // of what the prompt's step made
            report_next(&rig, 1, 1);
        }
        submit(&rig, 2, 0, 2000);
        rig.accepts = STEP_VERIFY_MAX - 1;
        for (int step = 0; step < 100; step++)
            coord_rig_report(&rig, 0, rig.coord->groups[0].step_done + 1);
        assert_true(request_of(&rig, 2)->accepted > 200);
        coord_rig_close(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_acceptance_is_each_requests_own),
        cmocka_unit_test(test_only_steps_of_one_kind_are_timed),
        cmocka_unit_test(test_no_request_wants_drafts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
