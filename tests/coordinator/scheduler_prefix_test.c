// SPDX-License-Identifier: Apache-2.0
// scheduler_prefix_test.c -- what plans say of prefix reuse: where rows leave checkpoints, which
// slots open behind one, with whose pages; what is given back; that short prompts and prompts cut
// short profit, too.
#include "coordinator/core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixtures/coord_rig.h"

enum { TOKENS_MAX = 40000, TURN = 95 };

struct world {
    struct coord_rig rig;
    int32_t text[TOKENS_MAX];
    uint64_t request;
};

static void open_world(struct world *w, int32_t checkpoints, int32_t context)
{
    struct coord_options options;
    memset(w, 0, sizeof *w);
    coord_rig_options(&options, 1, 1);
    options.wishes.checkpoints = checkpoints;
    options.wishes.sequence_tokens = context;
    options.config.max_position_embeddings = context;
    options.wishes.step_tokens = 2048;
    options.turn_id = TURN;
    coord_rig_open(&w->rig, &options);
    coord_rig_start(&w->rig);
    for (int i = 0; i < TOKENS_MAX; i++)
        w->text[i] = (i * 7 + i / 64 * 11) % 95;
}

static uint64_t submit(struct world *w, int32_t prompt_tokens)
{
    struct coord_event event = {.type = EVENT_SUBMIT,
                                .now_ns = w->rig.now_ns,
                                .submit = {.request = ++w->request,
                                           .prompt = w->text,
                                           .prompt_tokens = prompt_tokens,
                                           .sampling = {.max_tokens = 1}}};
    coord_rig_step(&w->rig, event);
    return w->request;
}

static const struct step_plan *plan_of(struct world *w, uint64_t step)
{
    return &coord_rig_sent(&w->rig, 0, step)->plan;
}

static struct coord_status status(const struct world *w)
{
    struct coord_status status;
    coord_status(w->rig.coord, &status);
    return status;
}

// Runs one prompt to its end. Positions where checkpoints are saved go to places; returns how
// many. *start is where its slot opens.
static int run(struct world *w, int32_t prompt_tokens, int32_t *places, int32_t *start)
{
    int count = 0;
    uint64_t done = w->rig.steps_sent[0];
    uint64_t request = submit(w, prompt_tokens);
    int32_t at = 0;
    while (done < w->rig.steps_sent[0]) {
        const struct step_plan *plan = plan_of(w, ++done);
        assert_int_equal(plan->rows_count, 1);
        if (plan->opens_count == 1) {
            at = *start = plan->opens[0].position;
            assert_int_equal(plan->copies_count, at > 0);
            assert_int_equal(plan->opens[0].prompt_tokens, prompt_tokens);
        }
        assert_memory_equal(plan->tokens, w->text + at,
                            (size_t)plan->tokens_count * sizeof(int32_t));
        for (int i = 0; i < plan->rows[0].saves_count; i++)
            places[count++] = at + plan->rows[0].saves[i].tokens;
        at += plan->tokens_count;
        coord_rig_report(&w->rig, 0, done);
    }
    assert_int_equal(at, prompt_tokens);
    const struct rig_did *end = coord_rig_about(&w->rig, ACTION_DONE, request);
    assert_non_null(end);
    assert_int_equal(end->action.usage.cached_tokens, *start);
    coord_rig_forget(&w->rig);
    assert_int_equal(status(w).pages_free, status(w).pages); // what is cached can be had
    assert_int_equal(status(w).slots_free, status(w).slots);
    return count;
}

static void expect(struct world *w, int32_t prompt_tokens, int32_t start_expected, int count, ...)
{
    int32_t places[64], start = -1;
    va_list expected;
    assert_int_equal(run(w, prompt_tokens, places, &start), count);
    assert_int_equal(start, start_expected);
    va_start(expected, count);
    for (int i = 0; i < count; i++)
        assert_int_equal(places[i], va_arg(expected, int32_t));
    va_end(expected);
}

// The same prompt again starts at its last whole page, a longer one where the shorter one ended;
// the last token is always run.
static void prompts_start_where_others_ended(void **state)
{
    struct world *w = malloc(sizeof *w);
    (void)state;
    open_world(w, 8, 1024);
    expect(w, 1, 0, 0);
    expect(w, 64, 0, 0);
    expect(w, 65, 0, 1, 64);
    expect(w, 65, 64, 0);
    expect(w, 64, 0, 0); // its only page ends with its last token
    expect(w, 300, 64, 1, 256);
    expect(w, 300, 256, 0);
    expect(w, 527, 256, 1, 512); // far below the 528 tokens where others begin to cache
    expect(w, 513, 512, 0);
    expect(w, 512, 256, 1, 448);
    assert_int_equal(status(w).prefix_queries, 1 + 64 + 65 + 65 + 64 + 300 + 300 + 527 + 513 + 512);
    assert_int_equal(status(w).prefix_hits, 64 + 64 + 256 + 256 + 512 + 256);
    assert_int_equal(status(w).checkpoints, 8);
    assert_int_equal(status(w).checkpoints_free, 8 - 4);
    assert_int_equal(status(w).pages_cached, 8);
    coord_rig_close(&w->rig);
    free(w);
}

// The second prompt that shares a beginning leaves a checkpoint where they part; the third starts
// there. A shift by 100 tokens shares nothing and finds nothing.
static void a_checkpoint_where_prompts_part(void **state)
{
    struct world *w = malloc(sizeof *w);
    (void)state;
    open_world(w, 8, 2048);
    expect(w, 700, 0, 1, 640);
    w->text[500] ^= 1;
    expect(w, 700, 0, 2, 448, 640);
    w->text[460] ^= 1;
    expect(w, 700, 448, 1, 640);
    memmove(w->text + 100, w->text, 1000 * sizeof(int32_t));
    w->text[0] = 94;
    expect(w, 800, 0, 1, 768);
    coord_rig_close(&w->rig);
    free(w);
}

static void checkpoints_at_turns_and_intervals(void **state)
{
    struct world *w = malloc(sizeof *w);
    (void)state;
    open_world(w, 400, 32768);
    // Early turns that spare little are no place; a last turn stands for the prompt's end.
    w->text[0] = w->text[200] = w->text[400] = w->text[990] = TURN;
    expect(w, 1000, 0, 2, 384, 960);
    expect(w, 1030, 960, 0); // its end is close to the turn's, which is known
    expect(w, 1100, 960, 1, 1088);
    w->text[1] = 90; // of many turns the first and the last three
    for (int i = 0; i < 20; i++)
        w->text[300 * (i + 1)] = TURN;
    w->text[200] = w->text[400] = w->text[990] = 1;
    expect(w, 4000, 0, 5, 256, 3264, 3584, 3840, 3968);
    w->text[2] = 90;
    for (int i = 0; i < 21; i++)
        w->text[300 * i] = 1;
    expect(w, 9000, 0, 3, 4096, 8192, 8960);
    coord_rig_close(&w->rig);
    open_world(w, 16, 32768); // a quarter of 16 for one prompt: every 8 x 1024
    expect(w, 30000, 0, 4, 8192, 16384, 24576, 29952);
    coord_rig_close(&w->rig);
    free(w);
}

// A prompt takes the steps that it would take without checkpoints, unless a row would leave more of
// them than one can.
static void checkpoints_cost_no_step(void **state)
{
    struct world *w = malloc(sizeof *w);
    (void)state;
    open_world(w, 400, 4096);
    expect(w, 2000, 0, 1, 1984);
    assert_int_equal(w->rig.steps_sent[0], 1);
    w->text[0] = 90;
    w->text[300] = w->text[1200] = w->text[1500] = TURN;
    expect(w, 2000, 0, 4, 256, 1152, 1472, 1984);
    assert_int_equal(w->rig.steps_sent[0], 2);
    w->text[0] = 91;
    w->text[1800] = TURN;
    expect(w, 2000, 0, 5, 256, 1152, 1472, 1792, 1984);
    assert_int_equal(w->rig.steps_sent[0], 4);
    assert_int_equal(plan_of(w, 3)->tokens_count, 1792);
    expect(w, 4000, 1984, 1, 3968);
    assert_int_equal(w->rig.steps_sent[0], 5);
    coord_rig_close(&w->rig);
    free(w);
}

// Two at once: both run all of it, neither reads what the other writes in the same step; pages are
// shared from the next step on.
static void what_a_step_writes_it_does_not_read(void **state)
{
    struct world *w = malloc(sizeof *w);
    (void)state;
    open_world(w, 8, 1024);
    coord_rig_submit(&w->rig, 100, 3, 2); // keeps the device busy
    submit(w, 300);
    submit(w, 300);
    coord_rig_report(&w->rig, 0, 1);
    coord_rig_run(&w->rig, 0);
    assert_int_equal(coord_rig_about(&w->rig, ACTION_DONE, 2)->action.usage.cached_tokens, 0);
    expect(w, 300, 256, 0);
    coord_rig_close(&w->rig);
    free(w);
}

// Given up in mid-prefill: what was planned is of use once the steps in flight have ended.
static void an_aborted_prompt_leaves_what_it_ran(void **state)
{
    struct world *w = malloc(sizeof *w);
    (void)state;
    open_world(w, 8, 8192);
    uint64_t request = submit(w, 6000); // steps of 2048 to the checkpoint at 4096
    assert_int_equal(w->rig.steps_sent[0], 2);
    coord_rig_finish(&w->rig, request, "abort");
    coord_rig_run(&w->rig, 0);
    assert_int_equal(w->rig.steps_sent[0], 2);
    coord_rig_forget(&w->rig);
    expect(w, 6000, 4096, 1, 5952);
    coord_rig_close(&w->rig);
    free(w);
}

// Fewer pages than prompts: the cache gives way, most of it the least recently used.
static void the_cache_gives_way_to_requests(void **state)
{
    struct world *w = malloc(sizeof *w);
    (void)state;
    open_world(w, 3, 1024); // 4 sequences and 3 checkpoints of 16 pages
    assert_int_equal(status(w).pages, 7 * 16);
    for (int i = 0; i < 12; i++) {
        w->text[0] = i;
        expect(w, 1000, 0, 1, 960);
        expect(w, 1000, 960, 0);
    }
    assert_int_equal(status(w).prefix_checkpoints_evicted, 9);
    assert_int_equal(status(w).pages_cached, 3 * 15);
    w->text[0] = 9; // the oldest of three
    expect(w, 1000, 960, 0);
    w->text[0] = 50;
    expect(w, 1000, 0, 1, 960);
    w->text[0] = 10;
    expect(w, 1000, 0, 1, 960);
    coord_rig_close(&w->rig);
    free(w);
}

// Without checkpoints nothing is looked up, cut or kept.
static void no_prefix_cache(void **state)
{
    struct world *w = malloc(sizeof *w);
    (void)state;
    open_world(w, -1, 1024);
    expect(w, 300, 0, 0);
    expect(w, 300, 0, 0);
    assert_int_equal(status(w).checkpoints, 0);
    assert_int_equal(status(w).pages_cached, 0);
    assert_int_equal(status(w).prefix_hits, 0);
    coord_rig_close(&w->rig);
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_start_where_others_ended),
        cmocka_unit_test(a_checkpoint_where_prompts_part),
        cmocka_unit_test(checkpoints_at_turns_and_intervals),
        cmocka_unit_test(checkpoints_cost_no_step),
        cmocka_unit_test(what_a_step_writes_it_does_not_read),
        cmocka_unit_test(an_aborted_prompt_leaves_what_it_ran),
        cmocka_unit_test(the_cache_gives_way_to_requests),
        cmocka_unit_test(no_prefix_cache),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
