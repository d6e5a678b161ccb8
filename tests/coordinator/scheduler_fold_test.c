// SPDX-License-Identifier: Apache-2.0
// scheduler_fold_test.c -- checkpoints in what requests draw: which rows name a place, with and
// without drafts; that the answer, as the next turn's prompt, and a preempted request start there;
// what becomes of a checkpoint whose place is never come to.
#include "coordinator/core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixtures/coord_rig.h"

enum { INTERVAL = 128, PROMPT = 100, TEXT_MAX = 4096 };

struct world {
    struct coord_rig rig;
    int32_t text[TEXT_MAX];
    uint64_t request, reported;
};

// `drafts` a step, of which `accepts` prove right; `pages` 0: plenty.
static void open_world(struct world *w, int32_t checkpoints, int drafts, int accepts, int pages)
{
    struct coord_options options;
    memset(w, 0, sizeof *w);
    coord_rig_options(&options, 1, 1);
    options.wishes.checkpoints = checkpoints;
    options.wishes.sequence_tokens = options.config.max_position_embeddings = 1024;
    options.wishes.pages = pages;
    options.checkpoint_interval = INTERVAL;
    options.speculative_tokens = drafts;
    options.config.mtp_layers = drafts > 0;
    coord_rig_open(&w->rig, &options);
    w->rig.accepts = accepts;
    struct hello hello = coord_rig_hello(&w->rig);
    hello.has_mtp = drafts > 0;
    coord_rig_say_hello(&w->rig, 0, &hello);
    coord_rig_say_ready(&w->rig, 0, 0);
    for (int i = 0; i < TEXT_MAX; i++)
        w->text[i] = i < PROMPT ? i % 90 : RIG_TOKEN;
}

static struct coord_status status(const struct world *w)
{
    struct coord_status status;
    coord_status(w->rig.coord, &status);
    return status;
}

static void close_world(struct world *w)
{
    assert_int_equal(status(w).pages_free, status(w).pages);
    assert_int_equal(status(w).slots_free, status(w).slots);
    coord_rig_close(&w->rig);
    free(w);
}

static uint64_t submit(struct world *w, int32_t prompt_tokens, int32_t max_tokens)
{
    struct coord_event event = {.type = EVENT_SUBMIT,
                                .now_ns = w->rig.now_ns,
                                .submit = {.request = ++w->request,
                                           .prompt = w->text,
                                           .prompt_tokens = prompt_tokens,
                                           .sampling = {.max_tokens = max_tokens}}};
    coord_rig_step(&w->rig, event);
    return w->request;
}

// The next step that was sent, not yet reported; NULL when there is none.
static const struct step_plan *next(const struct world *w)
{
    struct coord_rig *rig = (struct coord_rig *)(uintptr_t)&w->rig;
    return w->reported < rig->steps_sent[0] ? &coord_rig_sent(rig, 0, w->reported + 1)->plan : NULL;
}

static void report(struct world *w)
{
    coord_rig_report(&w->rig, 0, ++w->reported);
}

static void run_all(struct world *w)
{
    while (next(w) != NULL)
        report(w);
}

static int32_t cached(struct world *w, int32_t prompt_tokens)
{
    uint64_t request = submit(w, prompt_tokens, 1);
    run_all(w);
    const struct rig_did *end = coord_rig_about(&w->rig, ACTION_DONE, request);
    assert_non_null(end);
    int32_t tokens = end->action.usage.cached_tokens;
    coord_rig_forget(&w->rig);
    return tokens;
}

// A request alone in its group that draws up to position `end`: every row that begins at a place
// names it, and no row that names it crosses it. Returns how many rows named one.
static int draw_to(struct world *w, int32_t end)
{
    int named = 0;
    int32_t begins = -1;
    submit(w, PROMPT, end - PROMPT);
    while (next(w) != NULL) {
        const struct step_plan_row *row = &next(w)->rows[0];
        int32_t count = coord_rig_sent(&w->rig, 0, w->reported + 1)->results[0].count;
        if (row->kind == STEP_ROW_DECODE && row->checkpoint >= 0) {
            assert_int_equal(row->checkpoint_at % INTERVAL, 0);
            assert_true(begins >= row->checkpoint_at || begins + count <= row->checkpoint_at);
            named++;
        }
        if (begins > 0 && begins % INTERVAL == 0 && count > 0)
            assert_int_equal(row->checkpoint_at, begins);
        if (row->kind == STEP_ROW_DECODE)
            begins += count;
        else if (row->sample != 0)
            begins = PROMPT;
        report(w);
    }
    coord_rig_forget(&w->rig);
    return named;
}

// Without drafts it is known where each row begins: one row a place. The last token is never run,
// so a place there is none.
static void the_next_turn_starts_in_the_answer(void **state)
{
    struct world *w = malloc(sizeof *w);
    (void)state;
    open_world(w, 8, 0, 0, 0);
    assert_int_equal(draw_to(w, 300), 2);
    assert_int_equal(status(w).prefix_checkpoints_saved, 1 + 2); // of the prompt: 64
    assert_int_equal(status(w).checkpoints_free, 8 - 3);
    assert_int_equal(cached(w, 320), 256);
    assert_int_equal(cached(w, 256), 128); // its last token has to be run
    assert_int_equal(cached(w, 400), 256);
    close_world(w);
}

// A place is one only where a row can begin: not at the output's end.
static void the_last_token_is_no_place(void **state)
{
    (void)state;
    for (int32_t end = 128; end <= 131; end++) {
        struct world *w = malloc(sizeof *w);
        open_world(w, 8, 3, 3, 0);
        draw_to(w, end);
        assert_int_equal(status(w).prefix_checkpoints_saved, 1 + (end >= 130));
        assert_int_equal(status(w).checkpoints_free, 8 - 1 - (end >= 130));
        close_world(w);
    }
}

static void drafts_meet_the_place(void **state)
{
    (void)state;
    for (int accepts = 0; accepts <= 3; accepts++) {
        struct world *w = malloc(sizeof *w);
        open_world(w, 8, 3, accepts, 0);
        assert_in_range(draw_to(w, 300), 2, 40);
        assert_int_equal(status(w).prefix_checkpoints_saved, 1 + 2);
        assert_int_equal(cached(w, 320), 256);
        close_world(w);
    }
}

// Runs a request to where two steps in flight name its checkpoint.
static uint64_t run_to_place(struct world *w)
{
    uint64_t request = submit(w, 122, 100);
    while (next(w)->rows[0].checkpoint_at == 0)
        report(w);
    assert_int_equal(w->rig.steps_sent[0] - w->reported, 2);
    assert_int_equal(status(w).checkpoints_free, 2); // of four; one is the prompt's
    return request;
}

// Who ends before the place gives the checkpoint back, after the steps that name it; so does a
// group that fails.
static void what_is_not_used_goes_back(void **state)
{
    struct world *w = malloc(sizeof *w);
    (void)state;
    open_world(w, 4, 3, 0, 0);
    uint64_t request = run_to_place(w);
    coord_rig_finish(&w->rig, request, "abort");
    report(w);
    assert_int_equal(status(w).checkpoints_free, 2); // another step in flight names it
    report(w);
    assert_int_equal(status(w).checkpoints_free, 3);
    assert_int_equal(status(w).prefix_checkpoints_saved, 1);
    run_to_place(w);
    coord_rig_step(&w->rig, (struct coord_event){.type = EVENT_WORKER_GONE, .worker = 0});
    assert_int_equal(coord_rig_count(&w->rig, ACTION_GROUP_FAILED), 1);
    assert_int_equal(status(w).checkpoints_free, 3);
    close_world(w);
}

// One text may not take more than a quarter of all: the interval grows, here beyond the text.
static void few_checkpoints_are_for_others(void **state)
{
    struct world *w = malloc(sizeof *w);
    (void)state;
    open_world(w, 1, 3, 3, 0);
    submit(w, PROMPT, 200);
    run_all(w);
    coord_rig_forget(&w->rig);
    assert_int_equal(status(w).prefix_checkpoints_saved, 1); // the prompt's
    assert_int_equal(cached(w, 320), 64);
    close_world(w);
}

// Two draw the same text side by side: one has the place, the other's checkpoint goes back.
static void two_draw_the_same(void **state)
{
    struct world *w = malloc(sizeof *w);
    (void)state;
    open_world(w, 8, 3, 1, 0);
    submit(w, PROMPT, 100);
    submit(w, PROMPT, 100);
    run_all(w);
    coord_rig_forget(&w->rig);
    assert_int_equal(status(w).prefix_checkpoints_saved, 2);
    assert_int_equal(status(w).checkpoints_free, 8 - 2);
    assert_int_equal(cached(w, 180), 128);
    close_world(w);
}

// What was told so far comes back as a prompt: a place in it is where it goes on.
static void a_preempted_request_goes_on_from_its_place(void **state)
{
    struct world *w = malloc(sizeof *w);
    int32_t opened_at = 0;
    (void)state;
    open_world(w, 8, 3, 2, 16);
    submit(w, PROMPT, 540);
    w->text[0] = 90; // another text
    submit(w, PROMPT, 540);
    for (const struct step_plan *plan = next(w); plan != NULL; plan = next(w)) {
        for (int i = 0; i < plan->opens_count; i++)
            opened_at = plan->opens[i].position;
        report(w);
    }
    assert_true(status(w).preemptions > 0);
    assert_true(opened_at > PROMPT && opened_at % INTERVAL == 0);
    assert_int_equal(coord_rig_count(&w->rig, ACTION_DONE), 2);
    close_world(w);
}

// A device that crosses a place it was told of has not kept to its plan.
static void a_row_that_crosses_ends_the_group(void **state)
{
    struct world *w = malloc(sizeof *w);
    (void)state;
    open_world(w, 8, 3, 0, 0);
    submit(w, 124, 100); // begins at 124, 125, ..; four tokens from 125 on cross 128
    while (next(w)->rows[0].kind == STEP_ROW_PREFILL || w->reported < 3)
        report(w);
    struct rig_step *step = coord_rig_sent(&w->rig, 0, w->reported + 1);
    assert_int_equal(step->plan.rows[0].checkpoint_at, 128);
    step->results[0].count = 4;
    for (int i = 0; i < 4; i++)
        step->results[0].tokens[i] = RIG_TOKEN;
    report(w);
    assert_non_null(strstr(coord_rig_find(&w->rig, ACTION_GROUP_FAILED)->text, "contradicts"));
    coord_rig_close(&w->rig);
    free(w);
}

// A sequence whose logits are not finite leaves nothing to others.
static void what_is_broken_is_not_kept(void **state)
{
    struct world *w = malloc(sizeof *w);
    (void)state;
    open_world(w, 8, 0, 0, 0);
    submit(w, 127, 100);
    while (next(w)->rows[0].checkpoint_at == 0)
        report(w);
    struct step_result *result = &coord_rig_sent(&w->rig, 0, w->reported + 1)->results[0];
    *result = (struct step_result){.slot = result->slot, .end = 3};
    report(w);
    coord_rig_sent(&w->rig, 0, w->reported + 1)->results[0].count = 0; // inert
    run_all(w);
    assert_int_equal(status(w).prefix_checkpoints_saved, 1);
    assert_int_equal(status(w).checkpoints_free, 7);
    close_world(w);
}

static void intervals_that_are_refused(void **state)
{
    struct coord_options options;
    struct coord *coord = NULL;
    struct error error;
    (void)state;
    coord_rig_options(&options, 1, 1);
    void *memory = calloc(1, coord_bytes(&options));
    options.checkpoint_interval = 100;
    assert_int_equal(coord_init(&coord, memory, &options, &error), E_INPUT);
    assert_non_null(strstr(error.text, "checkpoint-interval is 100 tokens"));
    options.checkpoint_interval = -64;
    assert_int_equal(coord_init(&coord, memory, &options, &error), E_INPUT);
    free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_next_turn_starts_in_the_answer),
        cmocka_unit_test(drafts_meet_the_place),
        cmocka_unit_test(the_last_token_is_no_place),
        cmocka_unit_test(what_is_not_used_goes_back),
        cmocka_unit_test(few_checkpoints_are_for_others),
        cmocka_unit_test(two_draw_the_same),
        cmocka_unit_test(a_preempted_request_goes_on_from_its_place),
        cmocka_unit_test(a_row_that_crosses_ends_the_group),
        cmocka_unit_test(what_is_broken_is_not_kept),
        cmocka_unit_test(intervals_that_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
