// SPDX-License-Identifier: Apache-2.0
// scheduler_plan_test.c -- pages come with the rows that need them; who is preempted when they run
// out, when its slot is free, and how it comes back; how prompts share a step; priorities and time.
#include "coordinator/core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixtures/coord_rig.h"

enum { PAGES = 8 };

static void open_pages(struct coord_rig *rig, int sequences, int32_t pages)
{
    struct coord_options options;
    coord_rig_options(&options, 1, 1);
    options.wishes.sequences = sequences;
    options.wishes.sequence_tokens = 512;
    options.wishes.pages = pages;
    coord_rig_open(rig, &options);
    coord_rig_start(rig);
    coord_rig_forget(rig);
}

static const struct step_plan *plan_of(struct coord_rig *rig, uint64_t step)
{
    return &coord_rig_sent(rig, 0, step)->plan;
}

static uint64_t preemptions(const struct coord_rig *rig)
{
    struct coord_status status;
    coord_status(rig->coord, &status);
    return status.preemptions;
}

static int tokens_of(const struct coord_rig *rig, uint64_t request)
{
    int tokens = 0;
    for (int i = 0; i < rig->did_count; i++) {
        const struct coord_action *action = &rig->did[i].action;
        if (action->type == ACTION_TOKENS && action->request == request)
            tokens += action->tokens_count;
    }
    return tokens;
}

// The row of a slot in a plan, NULL when it has none.
static const struct step_plan_row *row_of(const struct step_plan *plan, int32_t slot)
{
    for (int i = 0; i < plan->rows_count; i++) {
        if (plan->rows[i].slot == slot)
            return &plan->rows[i];
    }
    return NULL;
}

static void expect_all_free(const struct coord_rig *rig)
{
    struct coord_status status;
    coord_status(rig->coord, &status);
    assert_int_equal(status.slots_free, status.slots);
    assert_int_equal(status.pages_free, status.pages);
    assert_int_equal(status.pool_tokens_free, status.pool_tokens);
    assert_int_equal(status.queued, 0);
    assert_int_equal(status.preempted, 0);
}

// Token 64 is written by the fifth decode row after a prompt of 60: its page comes in that plan.
static void test_pages_on_demand(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_pages(&rig, 2, PAGES);
    coord_rig_submit(&rig, 1, 60, 20);
    assert_int_equal(plan_of(&rig, 1)->pages[0].count, 1);
    assert_int_equal(plan_of(&rig, 1)->opens[0].page_limit, 2);
    for (uint64_t step = 2; step <= 8; step++) {
        const struct step_plan *plan = plan_of(&rig, step);
        assert_int_equal(plan->pages_count, step == 6);
        if (step == 6) {
            assert_int_equal(plan->pages[0].slot, 0);
            assert_int_equal(plan->pages[0].first, 1);
            assert_int_equal(plan->pages[0].count, 1);
            assert_int_not_equal(plan->page_ids[plan->pages[0].ids_first],
                                 plan_of(&rig, 3)->page_ids[0]);
        }
        coord_rig_report(&rig, 0, step - 1);
    }
    coord_rig_close(&rig);
}

// A prompt that fills its page has the page of the token after it from the beginning; one whose
// only token is never run needs none.
static void test_pages_at_the_border(void **state)
{
    (void)state;
    const int32_t prompts[] = {63, 64, 64, 65}, outputs[] = {5, 5, 1, 5}, pages[] = {1, 2, 1, 2};
    for (int i = 0; i < 4; i++) {
        struct coord_rig rig;
        open_pages(&rig, 2, PAGES);
        coord_rig_submit(&rig, 1, prompts[i], outputs[i]);
        assert_int_equal(plan_of(&rig, 1)->pages[0].count, pages[i]);
        coord_rig_close(&rig);
    }
}

// The plan that opens the second request again: its prompt comes as when it first ran. Its slot.
static int32_t expect_return(const struct coord_rig *rig, const struct step_plan *plan)
{
    assert_int_equal(plan->opens_count, 1);
    assert_int_equal(plan->opens[0].seed, 2);
    assert_int_equal(plan->opens[0].prompt_tokens, 70);
    assert_int_equal(plan->opens[0].tokens_end, 370);
    assert_int_equal(plan->opens[0].position, 0);
    const struct step_plan_row *row = row_of(plan, plan->opens[0].slot);
    assert_non_null(row);
    assert_int_equal(row->kind, STEP_ROW_PREFILL);
    assert_int_equal(row->tokens_count, 70);
    assert_int_equal(row->sample, 0);
    assert_int_equal(row->token_next, RIG_TOKEN);
    assert_memory_equal(plan->tokens + row->tokens_first, rig->prompt, 70 * sizeof(int32_t));
    return row->slot;
}

// A plan after it: of the tokens from `at` to `end`, which it was told, those up to the next
// multiple of 16; the last of these rows draws. Returns where the row ends.
static int expect_replay(const struct step_plan *plan, int32_t slot, int at, int end)
{
    const struct step_plan_row *row = row_of(plan, slot);
    int next = at / 16 * 16 + 16 < end ? at / 16 * 16 + 16 : end;
    assert_non_null(row);
    assert_int_equal(row->kind, STEP_ROW_PREFILL);
    assert_int_equal(row->tokens_count, next - at);
    assert_int_equal(row->sample, next == end);
    assert_int_equal(row->token_next, next == end ? -1 : RIG_TOKEN);
    for (int i = 0; i < row->tokens_count; i++)
        assert_int_equal(plan->tokens[row->tokens_first + i], RIG_TOKEN);
    return next;
}

// Two run until the pages are used up: the younger is preempted, its rows stop at once, its slot is
// closed after its last step, and it comes back when the older has ended.
static void test_the_younger_is_preempted(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_pages(&rig, 2, PAGES);
    coord_rig_submit(&rig, 1, 100, 300); // seven pages
    coord_rig_submit(&rig, 2, 70, 300);
    uint64_t seen = 2, reported = 0, last_row = 0, closed = 0, returned = 0;
    int told = 0, at = 70;
    int32_t slot = -1;
    while (coord_rig_count(&rig, ACTION_DONE) < 2) {
        coord_rig_report(&rig, 0, ++reported);
        while (seen < rig.steps_sent[0]) {
            const struct step_plan *plan = plan_of(&rig, ++seen);
            if (closed == 0 && row_of(plan, 1) != NULL) {
                last_row = seen;
                assert_int_equal(plan->closes_count, 0);
            } else if (closed == 0 && plan->closes_count > 0) {
                closed = seen;
                assert_int_equal(plan->closes[0], 1);
                assert_true(reported >= last_row);
                told = tokens_of(&rig, 2);
            } else if (plan->opens_count > 0) {
                returned = seen;
                assert_non_null(coord_rig_about(&rig, ACTION_DONE, 1));
                slot = expect_return(&rig, plan);
            } else if (returned > 0 && at < 70 + told) {
                at = expect_replay(plan, slot, at, 70 + told);
            }
        }
    }
    assert_true(closed > last_row && returned > closed && told > 32 && at == 70 + told);
    assert_int_equal(preemptions(&rig), 1);
    assert_int_equal(tokens_of(&rig, 1), 300);
    assert_int_equal(tokens_of(&rig, 2), 300);
    const struct coord_action *done = &coord_rig_about(&rig, ACTION_DONE, 2)->action;
    assert_string_equal(done->reason, "length");
    assert_int_equal(done->usage.prompt_tokens, 70);
    assert_int_equal(done->usage.completion_tokens, 300);
    expect_all_free(&rig);
    coord_rig_close(&rig);
}

// Runs until the second request has been preempted: with a step in flight that names it, or, when
// it is to wait in the queue, without.
static void run_until_preempted(struct coord_rig *rig, bool waits)
{
    struct coord_status status;
    open_pages(rig, 2, PAGES);
    coord_rig_submit(rig, 1, 100, 300);
    coord_rig_submit(rig, 2, 70, 300);
    uint64_t step = 1;
    for (; preemptions(rig) == 0; step++)
        coord_rig_report(rig, 0, step);
    coord_status(rig->coord, &status);
    assert_int_equal(status.preempted, 0);
    while (waits && status.preempted == 0) {
        coord_rig_report(rig, 0, step++);
        coord_status(rig->coord, &status);
    }
}

// The door ends a preempted request: while its steps are in flight, or while it waits.
static void test_preempted_is_ended(void **state)
{
    (void)state;
    for (int waits = 0; waits < 2; waits++) {
        struct coord_rig rig;
        run_until_preempted(&rig, waits);
        int told = tokens_of(&rig, 2);
        coord_rig_finish(&rig, 2, "abort");
        assert_int_equal(coord_rig_about(&rig, ACTION_DONE, 2)->action.usage.completion_tokens,
                         told);
        while (coord_rig_count(&rig, ACTION_DONE) < 2)
            coord_rig_run(&rig, 0);
        assert_int_equal(tokens_of(&rig, 2), told);
        assert_int_equal(tokens_of(&rig, 1), 300);
        expect_all_free(&rig);
        coord_rig_close(&rig);
    }
}

// A preempted request whose group fails is lost with it, whether it waits or not; one that has
// never run goes to another group.
static void test_preempted_group_fails(void **state)
{
    (void)state;
    for (int waits = 0; waits < 2; waits++) {
        struct coord_rig rig;
        run_until_preempted(&rig, waits);
        coord_rig_forget(&rig);
        coord_rig_step(&rig, (struct coord_event){.type = EVENT_WORKER_GONE, .worker = 0});
        assert_int_equal(coord_rig_count(&rig, ACTION_ERROR), 2);
        assert_int_equal(coord_rig_about(&rig, ACTION_ERROR, 2)->action.status, E_FAILED);
        coord_rig_close(&rig);
    }
}

// However few pages there are: everybody ends with all tokens, the oldest first.
static void test_many_with_few_pages(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_pages(&rig, 4, PAGES);
    for (uint64_t i = 1; i <= 12; i++)
        coord_rig_submit(&rig, i, (int32_t)(10 + 11 * i), (int32_t)(400 - 20 * i));
    while (coord_rig_count(&rig, ACTION_DONE) < 12) {
        coord_rig_run(&rig, 0);
        assert_true(rig.did_count < RIG_DID_MAX - 64);
    }
    for (uint64_t i = 1; i <= 12; i++)
        assert_int_equal(tokens_of(&rig, i), 400 - 20 * i);
    assert_true(preemptions(&rig) > 3);
    expect_all_free(&rig);
    coord_rig_close(&rig);
}

// ---- prefill ----

static void open_steps(struct coord_rig *rig, int32_t step_tokens, uint64_t gap_ms)
{
    struct coord_options options;
    coord_rig_options(&options, 1, 1);
    options.wishes.sequences = 8;
    options.wishes.sequence_tokens = 4096;
    options.wishes.step_tokens = step_tokens;
    options.prefill_gap_ns = gap_ms * RIG_MS_NS;
    coord_rig_open(rig, &options);
    coord_rig_start(rig);
    coord_rig_forget(rig);
}

static int32_t row_tokens(const struct step_plan *plan, int32_t slot)
{
    const struct step_plan_row *row = row_of(plan, slot);
    return row == NULL ? 0 : row->tokens_count;
}

// A short prompt is not stuck behind a long one: half of each step is the long one's.
static void test_short_prompts_pass(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_steps(&rig, 512, 0);
    coord_rig_submit(&rig, 1, 3000, 5); // slot 0, alone in steps 1 and 2
    assert_int_equal(row_tokens(plan_of(&rig, 1), 0), 512);
    assert_int_equal(row_tokens(plan_of(&rig, 2), 0), 512);
    coord_rig_submit(&rig, 2, 300, 5); // slot 1
    coord_rig_submit(&rig, 3, 100, 5); // slot 2
    coord_rig_report(&rig, 0, 1);
    const struct step_plan *plan = plan_of(&rig, 3);
    assert_int_equal(row_tokens(plan, 0), 256);
    assert_int_equal(row_tokens(plan, 2), 100); // the shortest whole
    assert_int_equal(row_tokens(plan, 1), 128); // of 156, on the grid
    coord_rig_report(&rig, 0, 2);
    plan = plan_of(&rig, 4);
    assert_int_equal(row_tokens(plan, 1), 172);
    assert_int_equal(row_tokens(plan, 0), 320); // of 511 - 172, half of it its own
    assert_int_equal(plan->rows[0].kind, STEP_ROW_DECODE);
    coord_rig_close(&rig);
}

// Every step takes 1 ms and 0.1 ms a token.
static void report_slow(struct coord_rig *rig, uint64_t step)
{
    struct report report = coord_rig_report_of(rig, 0, 0, step);
    report.step_ns = RIG_MS_NS + (uint64_t)plan_of(rig, step)->tokens_count * RIG_MS_NS / 10;
    coord_rig_say_report(rig, &report);
}

// With time for one chunk only, every second one is the most senior's.
static void test_every_second_chunk(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_steps(&rig, 512, 8);
    coord_rig_submit(&rig, 1, 10, 100);
    coord_rig_submit(&rig, 2, 1000, 5); // slot 1
    coord_rig_submit(&rig, 3, 500, 5);  // slot 2
    int chunks[3] = {0}, twice = 0;
    int32_t last = -1;
    for (uint64_t step = 1; step <= 12; step++) {
        report_slow(&rig, step);
        const struct step_plan *plan = plan_of(&rig, rig.steps_sent[0]);
        int32_t slot = row_of(plan, 1) != NULL ? 1 : 2;
        assert_int_equal(plan->rows_count, 2);
        assert_int_equal(row_tokens(plan, slot), 64);
        chunks[slot]++;
        twice += slot == last;
        last = slot;
    }
    assert_int_equal(chunks[1], 6);
    assert_int_equal(chunks[2], 6);
    assert_int_equal(twice, 0);
    coord_rig_close(&rig);
}

// With little room beside those who decode, only so much passes the most senior that its chunk
// still fits when all that passed decode.
static void test_passing_leaves_room(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_steps(&rig, 128, 0);
    coord_rig_submit(&rig, 1, 10, 100); // decodes: 127 tokens are left
    coord_rig_submit(&rig, 2, 300, 5);  // slot 1
    coord_rig_submit(&rig, 3, 40, 5);   // slot 2
    uint64_t step = 1;
    int steps = 0;
    for (; row_of(plan_of(&rig, rig.steps_sent[0]), 1) == NULL; step++)
        coord_rig_report(&rig, 0, step);
    for (; row_of(plan_of(&rig, rig.steps_sent[0]), 2) == NULL; step++) {
        assert_int_equal(row_tokens(plan_of(&rig, rig.steps_sent[0]), 1), 64);
        coord_rig_report(&rig, 0, step);
        steps++;
    }
    assert_in_range(steps, 0, 1); // 63 tokens may pass: the 40 do, beside a chunk
    coord_rig_close(&rig);
}

// Beside a running stream, a step of 20 ms is the aim.
static void test_steps_keep_the_gap(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_steps(&rig, 2048, 20);
    coord_rig_submit(&rig, 1, 10, 1000);
    coord_rig_submit(&rig, 2, 4000, 5);
    int32_t largest = 0;
    for (uint64_t step = 1; step <= 60 && step <= rig.steps_sent[0]; step++) {
        const struct step_plan *plan = plan_of(&rig, step);
        int32_t chunk = row_tokens(plan, 1);
        if (plan->rows[0].kind == STEP_ROW_DECODE && chunk > 0) {
            largest = chunk > largest ? chunk : largest;
            assert_true(chunk <= 192);
        }
        report_slow(&rig, step);
    }
    assert_int_equal(largest, 128); // of 190, on the grid
    assert_true(tokens_of(&rig, 1) > 20);
    coord_rig_close(&rig);
}

static int32_t prefill_tokens(const struct step_plan *plan)
{
    int32_t tokens = 0;
    for (int32_t i = 0; i < plan->rows_count; i++) {
        if (plan->rows[i].kind == STEP_ROW_PREFILL)
            tokens += plan->rows[i].tokens_count;
    }
    return tokens;
}

// Six prompts come at once beside a stream: the steps keep to 20 ms at first, grow with the time
// that the last of them wait for their first chunk, and keep to 20 ms again when all have begun.
static void test_streams_wait_for_those_who_waited(void **state)
{
    (void)state;
    enum { PROMPTS = 6, PROMPT_TOKENS = 1500, STEP_MS = 20 };
    struct coord_rig rig;
    open_steps(&rig, 2048, STEP_MS);
    coord_rig_submit(&rig, 1, 10, 1000);
    uint64_t step = 1;
    for (; step <= 4; step++)
        report_slow(&rig, step);
    for (int i = 0; i < PROMPTS; i++)
        coord_rig_submit(&rig, (uint64_t)(2 + i), PROMPT_TOKENS, 5);
    int32_t given = 0, early = 0, late = 0, last = 0;
    for (int waited_ms = 0; given < PROMPTS * PROMPT_TOKENS; waited_ms += STEP_MS, step++) {
        const struct step_plan *plan = plan_of(&rig, step);
        int32_t tokens = prefill_tokens(plan);
        bool begun = row_of(plan, PROMPTS) != NULL; // the last one, if this is no step before
        given += tokens;
        if (waited_ms < (COORD_WAIT_GAPS - 2) * STEP_MS)
            early = tokens > early ? tokens : early;
        else if (!begun)
            late = tokens > late ? tokens : late;
        else
            last = tokens;
        rig.now_ns += STEP_MS * RIG_MS_NS;
        report_slow(&rig, step);
    }
    print_message("tokens of a step: %d, %d, %d\n", (int)early, (int)late, (int)last);
    assert_in_range(early, 64, 192);
    assert_in_range(late, 320, 1024);
    assert_in_range(last, 1, 192);
    coord_rig_close(&rig);
}

// ---- priorities and time ----

static void submit(struct coord_rig *rig, uint64_t request, int32_t priority, uint64_t timeout_ms)
{
    coord_rig_step(
        rig, (struct coord_event){.type = EVENT_SUBMIT,
                                  .worker = -1,
                                  .submit = {.request = request,
                                             .prompt = rig->prompt,
                                             .prompt_tokens = 70,
                                             .priority = priority,
                                             .timeout_ns = timeout_ms * RIG_MS_NS,
                                             .sampling = {.seed = request, .max_tokens = 40}}});
}

// One slot: the waiting run by priority, of the same in order of arrival; nobody is thrown out.
static void test_priorities(void **state)
{
    (void)state;
    struct coord_rig rig;
    const int32_t priorities[] = {0, 5, 0, -3, 5, INT32_MAX, INT32_MIN};
    const uint64_t order[] = {1, 7, 4, 3, 2, 5, 6};
    int done = 0;
    open_pages(&rig, 1, PAGES);
    for (uint64_t i = 1; i <= 7; i++)
        submit(&rig, i, priorities[i - 1], 0);
    while (coord_rig_count(&rig, ACTION_DONE) < 7)
        coord_rig_run(&rig, 0);
    for (int i = 0; i < rig.did_count; i++) {
        if (rig.did[i].action.type == ACTION_DONE)
            assert_int_equal(rig.did[i].action.request, order[done++]);
    }
    assert_int_equal(preemptions(&rig), 0);
    coord_rig_close(&rig);
}

// The less urgent is preempted although it came first.
static void test_the_less_urgent_is_preempted(void **state)
{
    (void)state;
    struct coord_rig rig;
    struct coord_sampling sampling = {.max_tokens = 400, .seed = 1};
    open_pages(&rig, 2, PAGES);
    for (uint64_t i = 1; i <= 2; i++) {
        sampling.seed = i;
        coord_rig_step(&rig, (struct coord_event){.type = EVENT_SUBMIT,
                                                  .worker = -1,
                                                  .submit = {.request = i,
                                                             .prompt = rig.prompt,
                                                             .prompt_tokens = 70,
                                                             .priority = i == 1,
                                                             .sampling = sampling}});
    }
    while (coord_rig_count(&rig, ACTION_DONE) < 2)
        coord_rig_run(&rig, 0);
    assert_true(preemptions(&rig) > 0);
    for (int i = 0, done = 0; i < rig.did_count; i++) {
        if (rig.did[i].action.type == ACTION_DONE)
            assert_int_equal(rig.did[i].action.request, done++ == 0 ? 2 : 1);
    }
    expect_all_free(&rig);
    coord_rig_close(&rig);
}

// Time ends a request that runs, one that is preempted or closing, one that waits; others go on.
static void test_deadlines(void **state)
{
    (void)state;
    struct coord_rig rig;
    struct coord_status status;
    open_pages(&rig, 1, PAGES);
    submit(&rig, 1, 0, 50); // runs
    submit(&rig, 2, 0, 20); // waits
    submit(&rig, 3, 0, 0);
    coord_rig_report(&rig, 0, 1);
    coord_rig_wait(&rig, 19);
    assert_int_equal(coord_rig_count(&rig, ACTION_DONE), 0);
    coord_rig_wait(&rig, 1);
    assert_string_equal(coord_rig_about(&rig, ACTION_DONE, 2)->action.reason, "timeout");
    assert_int_equal(coord_rig_about(&rig, ACTION_DONE, 2)->action.usage.completion_tokens, 0);
    coord_rig_wait(&rig, 30);
    assert_string_equal(coord_rig_about(&rig, ACTION_DONE, 1)->action.reason, "timeout");
    assert_int_equal(coord_rig_about(&rig, ACTION_DONE, 1)->action.usage.completion_tokens, 1);
    assert_int_equal(rig.steps_sent[0], 3); // two in flight name the slot: nobody else gets it
    coord_rig_report(&rig, 0, 2);
    assert_int_equal(rig.steps_sent[0], 3);
    coord_rig_report(&rig, 0, 3);
    assert_int_equal(plan_of(&rig, 4)->opens[0].seed, 3);
    coord_rig_wait(&rig, 1000);
    while (coord_rig_count(&rig, ACTION_DONE) < 3)
        coord_rig_run(&rig, 0);
    assert_string_equal(coord_rig_about(&rig, ACTION_DONE, 3)->action.reason, "length");
    coord_status(rig.coord, &status);
    assert_int_equal(status.timeouts, 2);
    assert_int_equal(status.requests_done, 3);
    expect_all_free(&rig);
    coord_rig_close(&rig);
}

// So many have been preempted that nobody new is let in: those who have run go on all the same when
// a new one is more urgent, and so stands before them.
static void test_an_urgent_one_does_not_lock_out_the_preempted(void **state)
{
    (void)state;
    enum { REQUESTS = 512, PREEMPTED = 256, STEPS_MAX = 20000 };
    struct coord_options options;
    struct coord_rig rig;
    struct coord_status status;
    coord_rig_options(&options, 1, 1);
    options.wishes.sequences = REQUESTS;
    options.wishes.sequence_tokens = 512;
    options.wishes.step_tokens = 4096;
    options.wishes.pages = 2 * REQUESTS;
    options.queued_max = REQUESTS;
    coord_rig_open(&rig, &options);
    coord_rig_start(&rig);
    for (uint64_t request = 1; request <= REQUESTS; request++)
        coord_rig_submit(&rig, request, 60, 400);
    bool asked = false;
    int done = 0;
    for (int step = 0; step < STEPS_MAX && done <= REQUESTS; step++) {
        coord_status(rig.coord, &status);
        if (!asked && status.preempted >= PREEMPTED) {
            submit(&rig, REQUESTS + 1, -1, 0);
            asked = true;
        }
        coord_rig_forget(&rig);
        if (status.running == 0)
            break;
        coord_rig_report(&rig, 0, (uint64_t)step + 1);
        done += coord_rig_count(&rig, ACTION_DONE);
    }
    assert_true(asked);
    assert_int_equal(done, REQUESTS + 1);
    expect_all_free(&rig);
    coord_rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages_on_demand),
        cmocka_unit_test(test_pages_at_the_border),
        cmocka_unit_test(test_the_younger_is_preempted),
        cmocka_unit_test(test_preempted_is_ended),
        cmocka_unit_test(test_preempted_group_fails),
        cmocka_unit_test(test_many_with_few_pages),
        cmocka_unit_test(test_short_prompts_pass),
        cmocka_unit_test(test_every_second_chunk),
        cmocka_unit_test(test_passing_leaves_room),
        cmocka_unit_test(test_steps_keep_the_gap),
        cmocka_unit_test(test_streams_wait_for_those_who_waited),
        cmocka_unit_test(test_priorities),
        cmocka_unit_test(test_the_less_urgent_is_preempted),
        cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_an_urgent_one_does_not_lock_out_the_preempted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
