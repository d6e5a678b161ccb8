// SPDX-License-Identifier: Apache-2.0
// scheduler_test.c -- what is in a plan, what a report may say, and when a slot is free again with
// two steps in flight.
#include "coordinator/core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixtures/coord_rig.h"

static void open_with(struct coord_rig *rig, int ranks, int sequences, int step_tokens)
{
    struct coord_options options;
    coord_rig_options(&options, 1, ranks);
    options.wishes.sequences = sequences;
    options.wishes.step_tokens = step_tokens;
    coord_rig_open(rig, &options);
    coord_rig_start(rig);
    coord_rig_forget(rig);
}

static const struct step_plan *plan_of(struct coord_rig *rig, uint64_t step)
{
    return &coord_rig_sent(rig, 0, step)->plan;
}

static uint64_t steps_sent(const struct coord_rig *rig)
{
    return rig->steps_sent[0];
}

static void expect_row(const struct step_plan_row *row, int32_t slot, int32_t tokens_count,
                       int32_t token_next, int32_t sample)
{
    assert_int_equal(row->slot, slot);
    assert_int_equal(row->kind, STEP_ROW_PREFILL);
    assert_int_equal(row->tokens_count, tokens_count);
    assert_int_equal(row->token_next, token_next);
    assert_int_equal(row->sample, sample);
    assert_int_equal(row->checkpoint, -1);
    assert_int_equal(row->prompt_logprobs, 0);
}

static void submit_with_stop(struct coord_rig *rig, uint64_t request, int32_t prompt_tokens,
                             int32_t max_tokens, int32_t stop_id)
{
    struct coord_sampling sampling = {.max_tokens = max_tokens, .seed = request, .stop_count = 1};
    sampling.stop_ids[0] = stop_id;
    coord_rig_step(rig, (struct coord_event){.type = EVENT_SUBMIT,
                                             .worker = -1,
                                             .submit = {.request = request,
                                                        .prompt = rig->prompt,
                                                        .prompt_tokens = prompt_tokens,
                                                        .sampling = sampling}});
}

// ---- plans ----

static void test_one_request(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_with(&rig, 1, 4, 256);
    struct coord_sampling sampling = {.temperature = 0.5f,
                                      .top_k = 9,
                                      .top_p = 0.9f,
                                      .min_p = 0.1f,
                                      .repetition = 1.1f,
                                      .frequency = 0.2f,
                                      .presence = 0.3f,
                                      .min_tokens = 2,
                                      .seed = 77,
                                      .max_tokens = 120,
                                      .stop_count = 2,
                                      .stop_ids = {5, 6}};
    coord_rig_step(&rig, (struct coord_event){.type = EVENT_SUBMIT,
                                              .worker = -1,
                                              .submit = {.request = 1,
                                                         .prompt = rig.prompt + 3,
                                                         .prompt_tokens = 10,
                                                         .sampling = sampling}});
    assert_int_equal(steps_sent(&rig), 2); // the second before the first has ended
    const struct step_plan *plan = plan_of(&rig, 1);
    assert_int_equal(plan->epoch, 1);
    assert_int_equal(plan->verify, 1);
    assert_int_equal(plan->draft, 0);
    assert_int_equal(plan->opens_count, 1);
    const struct step_open *open = &plan->opens[0];
    assert_int_equal(open->position, 0);
    assert_int_equal(open->prompt_tokens, 10);
    assert_int_equal(open->tokens_end, 130);
    assert_int_equal(open->page_limit, 3);
    assert_int_equal(open->seed, 77);
    assert_true(open->temperature == 0.5f && open->top_k == 9 && open->top_p == 0.9f);
    assert_true(open->min_p == 0.1f && open->repetition == 1.1f && open->frequency == 0.2f);
    assert_true(open->presence == 0.3f);
    assert_int_equal(open->stops_from, 12);
    assert_int_equal(open->stop_count, 2);
    assert_int_equal(open->stop_ids[1], 6);
    assert_int_equal(plan->pages_count, 1);
    assert_int_equal(plan->pages[0].slot, open->slot);
    assert_int_equal(plan->pages[0].first, 0);
    assert_int_equal(plan->pages[0].count, 1); // of what is known; the rest when it is needed
    assert_int_equal(plan->pages[0].ids_first, 0);
    assert_int_equal(plan->rows_count, 1);
    expect_row(&plan->rows[0], open->slot, 10, -1, 1);
    assert_memory_equal(plan->tokens, rig.prompt + 3, 10 * sizeof(int32_t));
    plan = plan_of(&rig, 2);
    assert_int_equal(plan->opens_count, 0);
    assert_int_equal(plan->rows_count, 1);
    assert_int_equal(plan->rows[0].kind, STEP_ROW_DECODE);
    coord_rig_close(&rig);
}

static void test_chunks_lie_on_the_grid(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_with(&rig, 1, 4, 128);
    coord_rig_submit(&rig, 1, 300, 5);
    expect_row(&plan_of(&rig, 1)->rows[0], 0, 128, 128 % 96, 0);
    expect_row(&plan_of(&rig, 2)->rows[0], 0, 128, 256 % 96, 0);
    coord_rig_submit(&rig, 2, 100, 5);
    coord_rig_report(&rig, 0, 1);
    // 44 tokens end the first prompt; 84 are left, of which the second takes a multiple of 64.
    const struct step_plan *plan = plan_of(&rig, 3);
    assert_int_equal(plan->rows_count, 2);
    expect_row(&plan->rows[0], 0, 44, -1, 1);
    expect_row(&plan->rows[1], 1, 64, 64, 0);
    assert_int_equal(plan->rows[1].tokens_first, 44);
    assert_int_equal(plan->tokens[43], 299 % 96);
    assert_int_equal(plan->tokens[44], 0);
    coord_rig_report(&rig, 0, 2);
    plan = plan_of(&rig, 4); // decode first, then the rest of the prompt
    assert_int_equal(plan->rows_count, 2);
    assert_int_equal(plan->rows[0].kind, STEP_ROW_DECODE);
    assert_int_equal(plan->rows[0].slot, 0);
    expect_row(&plan->rows[1], 1, 36, -1, 1);
    coord_rig_close(&rig);
}

// A prompt that ends on the grid has no empty chunk after it.
static void test_prompt_of_exactly_the_step(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_with(&rig, 1, 4, 128);
    coord_rig_submit(&rig, 1, 128, 1);
    expect_row(&plan_of(&rig, 1)->rows[0], 0, 128, -1, 1);
    assert_int_equal(steps_sent(&rig), 1); // its only token is in flight: nothing to run ahead
    coord_rig_report(&rig, 0, 1);
    assert_string_equal(coord_rig_about(&rig, ACTION_DONE, 1)->action.reason, "length");
    assert_int_equal(steps_sent(&rig), 1);
    coord_rig_close(&rig);
}

static void test_first_come_first_served(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_with(&rig, 1, 2, 256);
    for (uint64_t i = 1; i <= 4; i++)
        coord_rig_submit(&rig, i, 10, 2);
    coord_rig_report(&rig, 0, 1);
    const struct step_plan *plan = plan_of(&rig, 3); // the second request; one slot is left for it
    assert_int_equal(plan->opens_count, 1);
    assert_int_equal(plan->opens[0].seed, 2);
    while (coord_rig_count(&rig, ACTION_DONE) < 4)
        coord_rig_run(&rig, 0);
    uint64_t order = 0;
    for (int i = 0; i < rig.did_count; i++) {
        if (rig.did[i].action.type == ACTION_DONE)
            assert_int_equal(rig.did[i].action.request, ++order);
    }
    coord_rig_close(&rig);
}

// A request that does not fit yet keeps its turn: the small one behind it does not overtake.
static void test_nobody_overtakes_for_pages(void **state)
{
    (void)state;
    struct coord_rig rig;
    struct coord_options options;
    coord_rig_options(&options, 1, 1);
    coord_rig_open(&rig, &options);
    struct hello hello = coord_rig_hello(&rig);
    snprintf(hello.backend, sizeof hello.backend, "cpu"); // no recorded steps
    hello.bytes_free = 5600 << 10;                        // few pages
    coord_rig_say_hello(&rig, 0, &hello);
    coord_rig_say_ready(&rig, 0, 0);
    int32_t context = coord_rig_find(&rig, ACTION_SEND_PLACE)->place.sequence_tokens;
    assert_int_equal(coord_rig_find(&rig, ACTION_SEND_PLACE)->place.pages, context / 64);
    coord_rig_submit(&rig, 1, 10, 5);
    coord_rig_submit(&rig, 2, context - 10, 10); // all pages
    coord_rig_submit(&rig, 3, 10, 5);
    coord_rig_forget(&rig);
    while (coord_rig_count(&rig, ACTION_DONE) < 3)
        coord_rig_run(&rig, 0);
    int at = 0;
    const uint64_t order[] = {1, 2, 3};
    for (int i = 0; i < rig.did_count; i++) {
        if (rig.did[i].action.type == ACTION_DONE)
            assert_int_equal(rig.did[i].action.request, order[at++]);
    }
    coord_rig_close(&rig);
}

// ---- ends, with two steps in flight ----

static void test_stop_in_the_first_of_two_steps(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_with(&rig, 1, 1, 256);
    submit_with_stop(&rig, 1, 10, 50, RIG_TOKEN); // the first token stops
    coord_rig_submit(&rig, 2, 10, 50);            // waits for the only slot
    assert_int_equal(steps_sent(&rig), 2);
    assert_int_equal(coord_rig_sent(&rig, 0, 2)->results[0].count, 0); // inert
    coord_rig_report(&rig, 0, 1);
    assert_string_equal(coord_rig_about(&rig, ACTION_DONE, 1)->action.reason, "stop");
    assert_int_equal(coord_rig_about(&rig, ACTION_DONE, 1)->action.usage.completion_tokens, 1);
    assert_int_equal(coord_rig_about(&rig, ACTION_DONE, 1)->action.usage.prompt_tokens, 10);
    assert_int_equal(coord_rig_about(&rig, ACTION_DONE, 1)->action.usage.target_steps, 1);
    assert_int_equal(steps_sent(&rig), 2); // step 2 still names the slot
    coord_rig_report(&rig, 0, 2);
    const struct step_plan *plan = plan_of(&rig, 3);
    assert_int_equal(plan->closes_count, 1);
    assert_int_equal(plan->closes[0], 0);
    assert_int_equal(plan->opens_count, 1);
    assert_int_equal(plan->opens[0].seed, 2);
    assert_int_equal(coord_rig_count(&rig, ACTION_TOKENS), 1);
    coord_rig_close(&rig);
}

// The device could draw no token: the request has an error, the others go on.
static void test_no_finite_logit(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_with(&rig, 1, 2, 256);
    coord_rig_submit(&rig, 1, 10, 50);
    coord_rig_submit(&rig, 2, 10, 50);
    struct step_result *row = &coord_rig_sent(&rig, 0, 2)->results[0];
    coord_rig_report(&rig, 0, 1);
    assert_int_equal(row->slot, 0);
    row->count = 0;
    row->end = 3;
    coord_rig_forget(&rig);
    coord_rig_report(&rig, 0, 2);
    assert_int_equal(coord_rig_about(&rig, ACTION_ERROR, 1)->action.status, E_FAILED);
    assert_non_null(strstr(coord_rig_about(&rig, ACTION_ERROR, 1)->action.text, "finite"));
    assert_int_equal(coord_rig_count(&rig, ACTION_ERROR), 1);
    assert_int_equal(coord_rig_count(&rig, ACTION_GROUP_FAILED), 0);
    coord_rig_report(&rig, 0, 3);
    assert_non_null(coord_rig_about(&rig, ACTION_TOKENS, 2));
    coord_rig_close(&rig);
}

static void test_abort_in_decode(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_with(&rig, 1, 1, 256);
    coord_rig_submit(&rig, 1, 10, 50);
    coord_rig_report(&rig, 0, 1);
    coord_rig_submit(&rig, 2, 10, 50);
    coord_rig_forget(&rig);
    coord_rig_finish(&rig, 1, "abort"); // steps 2 and 3 are in flight
    assert_int_equal(rig.did_count, 1);
    assert_string_equal(rig.did[0].action.reason, "abort");
    assert_int_equal(rig.did[0].action.usage.completion_tokens, 1);
    coord_rig_finish(&rig, 1, "abort"); // twice is once
    assert_int_equal(rig.did_count, 1);
    coord_rig_report(&rig, 0, 2);
    assert_int_equal(coord_rig_count(&rig, ACTION_SEND_PLAN), 0);
    coord_rig_report(&rig, 0, 3);
    assert_int_equal(coord_rig_count(&rig, ACTION_TOKENS), 0); // of neither step
    assert_int_equal(plan_of(&rig, 4)->closes_count, 1);
    assert_int_equal(plan_of(&rig, 4)->opens[0].seed, 2);
    coord_rig_close(&rig);
}

static void test_abort_in_prefill(void **state)
{
    (void)state;
    struct coord_rig rig;
    struct coord_status status;
    open_with(&rig, 1, 1, 128);
    coord_rig_submit(&rig, 1, 1000, 5);
    coord_rig_submit(&rig, 2, 10, 5);
    coord_rig_forget(&rig);
    coord_rig_finish(&rig, 1, "gone");
    assert_int_equal(rig.did[0].action.usage.completion_tokens, 0);
    coord_rig_report(&rig, 0, 1);
    assert_int_equal(steps_sent(&rig), 2); // no further chunk for a request that has ended
    coord_rig_report(&rig, 0, 2);
    assert_int_equal(plan_of(&rig, 3)->opens[0].seed, 2);
    coord_rig_run(&rig, 0);
    assert_string_equal(coord_rig_about(&rig, ACTION_DONE, 2)->action.reason, "length");
    coord_status(rig.coord, &status);
    assert_int_equal(status.pages_free, status.pages);
    assert_int_equal(status.pool_tokens_free, status.pool_tokens);
    coord_rig_close(&rig);
}

static void test_abort_while_queued(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_with(&rig, 1, 1, 256);
    for (uint64_t i = 1; i <= 3; i++)
        coord_rig_submit(&rig, i, 10, 2);
    coord_rig_forget(&rig);
    coord_rig_finish(&rig, 2, "abort");
    assert_non_null(coord_rig_about(&rig, ACTION_DONE, 2));
    coord_rig_finish(&rig, 99, "abort"); // nobody knows it
    assert_int_equal(rig.did_count, 1);
    while (coord_rig_count(&rig, ACTION_DONE) < 3)
        coord_rig_run(&rig, 0);
    assert_null(coord_rig_about(&rig, ACTION_TOKENS, 2));
    coord_rig_close(&rig);
}

// A number may be used again as soon as DONE was said, while the old request still closes.
static void test_number_is_used_again(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_with(&rig, 1, 2, 256);
    coord_rig_submit(&rig, 1, 10, 50);
    coord_rig_finish(&rig, 1, "abort");
    coord_rig_submit(&rig, 1, 20, 1);
    assert_int_equal(coord_rig_count(&rig, ACTION_ACCEPTED), 2);
    coord_rig_forget(&rig);
    coord_rig_run(&rig, 0);
    assert_int_equal(coord_rig_count(&rig, ACTION_TOKENS), 1);
    assert_int_equal(coord_rig_about(&rig, ACTION_DONE, 1)->action.usage.prompt_tokens, 20);
    coord_rig_close(&rig);
}

static void test_slots_and_pages_come_back(void **state)
{
    (void)state;
    struct coord_rig rig;
    struct coord_status status;
    open_with(&rig, 2, 3, 128);
    for (uint64_t i = 1; i <= 60; i++)
        coord_rig_submit(&rig, i, (int32_t)(i * 16), (int32_t)(i % 7) + 1);
    while (coord_rig_count(&rig, ACTION_DONE) < 60)
        coord_rig_run(&rig, 0);
    coord_status(rig.coord, &status);
    assert_int_equal(status.slots_free, 3);
    assert_int_equal(status.pages_free, status.pages);
    assert_int_equal(status.pool_tokens_free, status.pool_tokens);
    int64_t outputs = 0;
    for (int i = 1; i <= 60; i++)
        outputs += i % 7 + 1;
    assert_int_equal(coord_rig_count(&rig, ACTION_TOKENS), outputs);
    coord_rig_close(&rig);
}

// ---- reports ----

static void test_tokens_wait_for_every_rank(void **state)
{
    (void)state;
    struct coord_rig rig;
    struct report report;
    open_with(&rig, 4, 4, 256);
    coord_rig_submit(&rig, 1, 10, 50);
    coord_rig_forget(&rig);
    const int32_t order[] = {2, 0, 3};
    for (int i = 0; i < 3; i++) {
        report = coord_rig_report_of(&rig, 0, order[i], 1);
        coord_rig_say_report(&rig, &report);
        report.hash++;
        coord_rig_say_report(&rig, &report); // a second one changes nothing, whatever it says
        assert_int_equal(rig.did_count, 0);
    }
    report = coord_rig_report_of(&rig, 0, 1, 1);
    coord_rig_say_report(&rig, &report);
    assert_int_equal(coord_rig_count(&rig, ACTION_TOKENS), 1);
    assert_int_equal(coord_rig_find(&rig, ACTION_TOKENS)->tokens[0], RIG_TOKEN);
    coord_rig_forget(&rig);
    coord_rig_say_report(&rig, &report); // late
    report = coord_rig_report_of(&rig, 0, 0, 1);
    coord_rig_say_report(&rig, &report);
    assert_int_equal(rig.did_count, 0);
    coord_rig_close(&rig);
}

// The reports of the second step come first: its tokens wait for the first's.
static void test_reports_overtake(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_with(&rig, 2, 4, 256);
    coord_rig_submit(&rig, 1, 10, 50);
    rig.token = 31;
    coord_rig_forget(&rig);
    coord_rig_report(&rig, 0, 2);
    assert_int_equal(rig.did_count, 0);
    coord_rig_report(&rig, 0, 1);
    assert_int_equal(coord_rig_count(&rig, ACTION_TOKENS), 2);
    assert_int_equal(steps_sent(&rig), 4); // both places in flight are used again at once
    coord_rig_close(&rig);
}

static void expect_failure(struct coord_rig *rig, const struct report *report, const char *words)
{
    coord_rig_forget(rig);
    coord_rig_say_report(rig, report);
    const struct rig_did *failed = coord_rig_find(rig, ACTION_GROUP_FAILED);
    assert_non_null(failed);
    if (strstr(failed->text, words) == NULL)
        fail_msg("'%s' does not say '%s'", failed->text, words);
    assert_int_equal(coord_rig_count(rig, ACTION_TOKENS), 0);
    assert_int_equal(coord_rig_count(rig, ACTION_SEND_PLAN), 0);
    assert_int_equal(coord_rig_count(rig, ACTION_ERROR), 1);
    assert_int_equal(coord_rig_about(rig, ACTION_ERROR, 1)->action.status, E_FAILED);
    assert_string_equal(coord_rig_about(rig, ACTION_ERROR, 1)->text, failed->text);
    coord_rig_close(rig);
}

// Whoever has had DONE gets no ERROR when the group fails before its last step has ended.
static void test_closing_requests_are_not_told_again(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_with(&rig, 1, 4, 256);
    coord_rig_submit(&rig, 1, 10, 50);
    coord_rig_submit(&rig, 2, 10, 50);
    coord_rig_finish(&rig, 1, "abort");
    coord_rig_forget(&rig);
    coord_rig_step(&rig, (struct coord_event){.type = EVENT_WORKER_GONE, .worker = 0});
    assert_int_equal(coord_rig_count(&rig, ACTION_ERROR), 1);
    assert_non_null(coord_rig_about(&rig, ACTION_ERROR, 2));
    coord_rig_close(&rig);
}

static void test_ranks_disagree(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_with(&rig, 2, 4, 256);
    coord_rig_submit(&rig, 1, 10, 50);
    struct report report = coord_rig_report_of(&rig, 0, 0, 1);
    coord_rig_say_report(&rig, &report);
    report = coord_rig_report_of(&rig, 0, 1, 1);
    report.hash = 0xabc;
    expect_failure(&rig, &report,
                   "group 0: step 1: rank 1 drew other tokens than the ranks before it (hash "
                   "0000000000000abc, theirs 00000000000003e8)");
}

static void test_step_that_was_never_sent(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_with(&rig, 2, 4, 256);
    coord_rig_submit(&rig, 1, 10, 50);
    struct report report = coord_rig_report_of(&rig, 0, 1, 1);
    report.step = 3;
    expect_failure(&rig, &report, "group 0: rank 1 reports step 3, 2 were sent");
}

static void test_wrong_count_of_rows(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_with(&rig, 1, 4, 256);
    coord_rig_submit(&rig, 1, 10, 50);
    struct report report = coord_rig_report_of(&rig, 0, 0, 1);
    report.rows_count = 0;
    expect_failure(&rig, &report, "group 0: step 1: 0 rows reported, 1 planned");
}

// Each of these rows contradicts a plan in which slot 0 draws its first token of 50.
static void test_rows_that_contradict_their_plan(void **state)
{
    (void)state;
    const struct step_result wrong[] = {
        {.slot = 1, .count = 1, .tokens = {5}},
        {.slot = 0, .count = 0},
        {.slot = 0, .count = -1},
        {.slot = 0, .count = 2, .tokens = {5, 6}},
        {.slot = 0, .count = 1, .tokens = {-1}},
        {.slot = 0, .count = 1, .tokens = {96}}, // the first padding row
        {.slot = 0, .count = 1, .end = 1, .tokens = {5}},
        {.slot = 0, .count = 1, .end = 2, .tokens = {5}},
        {.slot = 0, .count = 1, .end = 3, .tokens = {5}},
        {.slot = 0, .count = 1, .end = 0, .tokens = {8}}, // 8 stops
        {.slot = 0, .count = 1, .end = 2, .tokens = {8}},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct coord_rig rig;
        struct step_result row = wrong[i];
        open_with(&rig, 1, 4, 256);
        submit_with_stop(&rig, 1, 10, 50, 8);
        struct report report = coord_rig_report_of(&rig, 0, 0, 1);
        report.rows = &row;
        expect_failure(&rig, &report, "group 0: step 1 row 0 contradicts its plan");
    }
}

static void test_row_that_does_not_draw(void **state)
{
    (void)state;
    struct coord_rig rig;
    struct step_result row = {.slot = 0, .count = 1, .tokens = {5}};
    open_with(&rig, 1, 4, 64);
    coord_rig_submit(&rig, 1, 100, 50); // the first chunk draws nothing
    struct report report = coord_rig_report_of(&rig, 0, 0, 1);
    report.rows = &row;
    expect_failure(&rig, &report, "step 1 row 0 contradicts its plan (slot 0, 1 tokens, end 0)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_request),
        cmocka_unit_test(test_chunks_lie_on_the_grid),
        cmocka_unit_test(test_prompt_of_exactly_the_step),
        cmocka_unit_test(test_first_come_first_served),
        cmocka_unit_test(test_nobody_overtakes_for_pages),
        cmocka_unit_test(test_stop_in_the_first_of_two_steps),
        cmocka_unit_test(test_no_finite_logit),
        cmocka_unit_test(test_abort_in_decode),
        cmocka_unit_test(test_abort_in_prefill),
        cmocka_unit_test(test_abort_while_queued),
        cmocka_unit_test(test_number_is_used_again),
        cmocka_unit_test(test_slots_and_pages_come_back),
        cmocka_unit_test(test_tokens_wait_for_every_rank),
        cmocka_unit_test(test_reports_overtake),
        cmocka_unit_test(test_closing_requests_are_not_told_again),
        cmocka_unit_test(test_ranks_disagree),
        cmocka_unit_test(test_step_that_was_never_sent),
        cmocka_unit_test(test_wrong_count_of_rows),
        cmocka_unit_test(test_rows_that_contradict_their_plan),
        cmocka_unit_test(test_row_that_does_not_draw),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
