// SPDX-License-Identifier: Apache-2.0
// scheduler_logprobs_test.c -- what ranks report of log-probabilities reaches the request that
// asked for it, in order and once; what contradicts the request ends the group.
#include "coordinator/scheduler_logprobs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixtures/coord_rig.h"

static struct step_logprob entries[STEP_LOGPROBS_MAX];

static void open_rig(struct coord_rig *rig, int step_tokens)
{
    struct coord_options options;
    coord_rig_options(&options, 1, 1);
    options.wishes.step_tokens = step_tokens;
    coord_rig_open(rig, &options);
    coord_rig_start(rig);
    coord_rig_forget(rig);
}

static void submit(struct coord_rig *rig, int32_t prompt, int32_t logprobs, int32_t prompt_logprobs)
{
    coord_rig_step(
        rig, (struct coord_event){.type = EVENT_SUBMIT,
                                  .worker = -1,
                                  .submit = {.request = 1,
                                             .prompt = rig->prompt,
                                             .prompt_tokens = prompt,
                                             .sampling = {.max_tokens = 4,
                                                          .logprobs = logprobs,
                                                          .prompt_logprobs = prompt_logprobs}}});
}

// Reports a step whose first row tells these numbers; ids of prompt entries count from `id`.
static void report(struct coord_rig *rig, uint64_t step, int32_t prompt_count, int32_t id,
                   int drawn)
{
    struct report report = coord_rig_report_of(rig, 0, 0, step);
    for (int i = 0; i < prompt_count; i++)
        entries[i] = (struct step_logprob){.id = id + i, .logprob = -1};
    for (int i = 0; i < drawn; i++)
        entries[prompt_count + i] = (struct step_logprob){
            .id = report.rows[0].tokens[0], .logprob = -2, .top_count = 1, .top_ids = {7}};
    report.rows[0].prompt_logprobs_count = prompt_count;
    report.rows[0].logprobs_count = drawn;
    report.logprobs = entries;
    report.logprobs_count = prompt_count + drawn;
    coord_rig_say_report(rig, &report);
}

static void told_with_the_tokens_they_are_of(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_rig(&rig, 64);
    submit(&rig, 80, 1 + 1, 1 + 0);
    const struct step_plan *plan = &coord_rig_sent(&rig, 0, 1)->plan;
    assert_int_equal(plan->opens[0].logprobs, 2);
    assert_int_equal(plan->rows[0].prompt_logprobs, 1);
    assert_int_equal(plan->rows[0].tokens_count, 64);
    report(&rig, 1, 64, 1, 0); // tokens 1 .. 64, the last of them of the next chunk
    const struct rig_did *did = coord_rig_about(&rig, ACTION_TOKENS, 1);
    assert_non_null(did);
    assert_int_equal(did->action.tokens_count, 0);
    assert_int_equal(did->action.prompt_logprobs_count, 64);
    assert_int_equal(did->action.prompt_logprobs[0].id, 1);
    coord_rig_forget(&rig);
    report(&rig, 2, 15, 65, 1);
    did = coord_rig_about(&rig, ACTION_TOKENS, 1);
    assert_int_equal(did->action.tokens_count, 1);
    assert_int_equal(did->action.prompt_logprobs_count, 15);
    assert_int_equal(did->action.prompt_logprobs[14].id, 79);
    assert_int_equal(did->action.logprobs[0].id, did->tokens[0]);
    assert_int_equal(did->action.logprobs[0].top_ids[0], 7);
    coord_rig_close(&rig);
}

static void contradictions_end_the_group(void **state)
{
    (void)state;
    static const struct {
        int32_t logprobs, prompt_logprobs;                 // asked for
        int32_t prompt_count, drawn, id, drawn_id, top_id; // told; the first prompt entry's id
    } wrong[] = {
        {0, 0, 0, 1, 1, 0, 7},                         // not asked for
        {0, 0, 3, 0, 1, 0, 7},  {2, 0, 0, 0, 1, 0, 7}, // missing
        {2, 0, 0, 1, 1, 1, 7},                         // of another token
        {1, 0, 0, 1, 1, 0, 7},                         // more alternatives than asked for
        {2, 0, 0, 1, 1, 0, 96},                        // a padding id
        {0, 1, 3, 0, 94, 0, 7},                        // 94, 95 and the first padding id
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct coord_rig rig;
        open_rig(&rig, 64);
        submit(&rig, 10, wrong[i].logprobs, wrong[i].prompt_logprobs);
        struct report report = coord_rig_report_of(&rig, 0, 0, 1);
        report.rows[0].prompt_logprobs_count = wrong[i].prompt_count;
        report.rows[0].logprobs_count = wrong[i].drawn;
        for (int k = 0; k < wrong[i].prompt_count; k++)
            entries[k] = (struct step_logprob){.id = wrong[i].id + k};
        entries[wrong[i].prompt_count] =
            (struct step_logprob){.id = report.rows[0].tokens[0] + wrong[i].drawn_id,
                                  .top_count = 1,
                                  .top_ids = {wrong[i].top_id}};
        report.logprobs = entries;
        report.logprobs_count = wrong[i].prompt_count + wrong[i].drawn;
        coord_rig_say_report(&rig, &report);
        if (coord_rig_count(&rig, ACTION_GROUP_FAILED) != 1)
            fail_msg("case %zu was believed", i);
        coord_rig_close(&rig);
    }
}

static void prompts_that_tell_share_a_steps_room(void **state)
{
    (void)state;
    struct step_plan_row rows[3] = {
        {.kind = STEP_ROW_DECODE},
        {.kind = STEP_ROW_PREFILL, .tokens_count = 2000, .prompt_logprobs = 1},
        {.kind = STEP_ROW_PREFILL, .tokens_count = 4000}};
    struct step_plan plan = {.rows = rows, .rows_count = 3};
    struct request plain = {0},
                   asking = {.sampling = {.prompt_logprobs = 5}, .prompt_tokens = 9000};
    assert_int_equal(scheduler_logprobs_chunk(&plain, &plan, 5000), 5000);
    assert_int_equal(scheduler_logprobs_chunk(&asking, &plan, 48), 48);
    assert_int_equal(scheduler_logprobs_chunk(&asking, &plan, 5000), 0); // 48 are left, no page
    asking.prefill_given = 20;
    assert_int_equal(scheduler_logprobs_chunk(&asking, &plan, 5000), 44); // up to 64
    asking.prefill_given = 0;
    plan.rows_count = 0;
    assert_int_equal(scheduler_logprobs_chunk(&asking, &plan, 5000), STEP_PROMPT_LOGPROBS_MAX);
}

// A prompt that begins anew (a preempted sequence) tells only what was not told.
static void a_second_run_tells_only_the_rest(void **state)
{
    (void)state;
    static struct flight flight;
    struct coord coord = {.options = {.vocab_real = 96}};
    struct request request = {.sampling = {.prompt_logprobs = 1}, .prompt_tokens = 10};
    static const int32_t runs[][4] = {
        // chunk's first token and count, first entry told and count
        {0, 4, 0, 4}, {0, 3, 0, 0}, // again
        {0, 6, 4, 2}, {6, 4, 0, 3}, // what lies behind the prompt is none of it
        {6, 4, 0, 0},
    };
    flight.logprobs = entries;
    for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
        struct coord_action action = {.type = ACTION_TOKENS};
        flight.positions[0] = runs[i][0];
        flight.results[0] = (struct step_result){.prompt_logprobs_count = runs[i][1]};
        for (int k = 0; k < runs[i][1]; k++)
            entries[k] = (struct step_logprob){.id = runs[i][0] + 1 + k};
        assert_true(scheduler_logprobs_tell(&coord, &request, &flight, 0, &action));
        assert_int_equal(action.prompt_logprobs_count, runs[i][3]);
        if (runs[i][3] > 0)
            assert_int_equal(action.prompt_logprobs[0].id, runs[i][0] + 1 + runs[i][2]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(told_with_the_tokens_they_are_of),
        cmocka_unit_test(contradictions_end_the_group),
        cmocka_unit_test(prompts_that_tell_share_a_steps_room),
        cmocka_unit_test(a_second_run_tells_only_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
