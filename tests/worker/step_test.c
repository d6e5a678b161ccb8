// SPDX-License-Identifier: Apache-2.0
// step_test.c -- plans in, reports out, on two ranks with a real forward pass: plans that a rank
// cannot run are refused by name before anything is queued; a recorded stream of plans gives the
// same reports again, also when streams are delayed at random and staging memory is overwritten
// as soon as its step has ended; a sequence that ended goes inert in the step that was sent ahead.
#include "worker/step.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "parallel/base/clock.h"
#include "tests/fixtures/team.h"
#include "worker/step_engine.h"

enum { RANKS = 2, STEPS_MAX = 64, SEQUENCES = 6, REAL_IDS = 364, EPOCH = 7 };

static const char *const model_dir = SOURCE_DIR "/tests/golden/moe_e8_r2";

// Two ranks with an engine each; reports of every step of both.
struct engines {
    struct team *team;
    struct step_engine *engine[RANKS];
    int notify_fd[RANKS];
    struct report reports[RANKS][STEPS_MAX + 1]; // [step]
    struct step_result rows[RANKS][STEPS_MAX + 1][SEQUENCES];
};

enum launches { PLAIN, PADDED, GRAPHS };

static void open_engines_with(struct engines *e, uint64_t jitter_seed, bool poison,
                              enum launches launches)
{
    struct error error;
    struct team_options options = {.model_dir = model_dir,
                                   .load_format = LOAD_DUMMY,
                                   .ranks = RANKS,
                                   .sequences = SEQUENCES,
                                   .sequence_tokens = 512,
                                   .step_tokens = 256,
                                   .verify_max = 2,
                                   .jitter_seed = jitter_seed};
    memset(e, 0, sizeof *e);
    e->team = (struct team *)calloc(1, sizeof *e->team);
    team_open(e->team, &options);
    for (int r = 0; r < RANKS; r++) {
        e->notify_fd[r] = eventfd(0, EFD_NONBLOCK);
        struct step_options step = {.model = &e->team->ranks[r].model,
                                    .memory = e->team->ranks[r].plan,
                                    .epoch = EPOCH,
                                    .vocab_real = REAL_IDS,
                                    .notify_fd = e->notify_fd[r],
                                    .graphs = launches == GRAPHS,
                                    .padded = launches == PADDED,
                                    .poison = poison};
        assert_int_equal(step_engine_open(&e->engine[r], &step, &error), OK);
    }
}

static void open_engines(struct engines *e, uint64_t jitter_seed, bool poison)
{
    open_engines_with(e, jitter_seed, poison, PLAIN);
}

static void close_engines(struct engines *e)
{
    for (int r = 0; r < RANKS; r++) {
        step_engine_close(e->engine[r]);
        close(e->notify_fd[r]);
    }
    team_close(e->team);
    free(e->team);
}

static void submit(struct engines *e, const struct step_plan *plan)
{
    struct error error = {.text = ""};
    for (int r = 0; r < RANKS; r++) {
        if (step_submit(e->engine[r], plan, &error) != OK)
            fail_msg("rank %d refused step %d: %s", r, (int)plan->step, error.text);
    }
}

// Takes the reports of one step from both ranks, in order.
static void take_reports(struct engines *e, uint64_t step)
{
    struct step_result rows[STEP_ROWS_MAX];
    for (int r = 0; r < RANKS; r++) {
        struct report *report = &e->reports[r][step];
        report->rows = rows;
        uint64_t limit_ns = clock_now_ns() + 60ull * CLOCK_NS_PER_S;
        while (!step_next_report(e->engine[r], report)) {
            assert_true(clock_now_ns() < limit_ns);
            clock_sleep_ns(50 * CLOCK_NS_PER_US);
        }
        assert_int_equal(report->step, step);
        assert_int_equal(report->rank, r);
        assert_int_equal(report->epoch, EPOCH);
        assert_int_equal(report->rows_count > 0, r == 0);
        memcpy(e->rows[r][step], rows, (size_t)report->rows_count * sizeof rows[0]);
    }
    assert_true(e->reports[0][step].hash == e->reports[1][step].hash);
}

// ---- a little scheduler ----

static void add_open(struct step_plan *plan, int slot, int prompt_tokens, int max_tokens)
{
    plan->opens[plan->opens_count++] = (struct step_open){
        .slot = slot, .prompt_tokens = prompt_tokens, .tokens_end = prompt_tokens + max_tokens};
    plan->pages[plan->pages_count++] = (struct step_pages){
        .slot = slot, .first = 0, .count = 6, .ids_first = plan->page_ids_count};
    for (int i = 0; i < 6; i++) // pages of the sequences interleave
        plan->page_ids[plan->page_ids_count++] = i * SEQUENCES + slot;
}

static void add_prefill(struct step_plan *plan, int slot, int count, bool last)
{
    plan->rows[plan->rows_count++] = (struct step_plan_row){.slot = slot,
                                                            .kind = STEP_ROW_PREFILL,
                                                            .tokens_first = plan->tokens_count,
                                                            .tokens_count = count,
                                                            .token_next = last ? -1 : 9,
                                                            .sample = last,
                                                            .checkpoint = -1};
    for (int i = 0; i < count; i++)
        plan->tokens[plan->tokens_count++] = (slot * 101 + i * 7 + count) % REAL_IDS;
}

static void add_decode(struct step_plan *plan, int slot)
{
    plan->rows[plan->rows_count++] =
        (struct step_plan_row){.slot = slot, .kind = STEP_ROW_DECODE, .checkpoint = -1};
}

static void begin(struct step_plan *plan, uint64_t step)
{
    step_plan_clear(plan);
    plan->step = step;
    plan->epoch = EPOCH;
}

// Three sequences: one greedy that meets a stop id, one greedy to its length, one with a
// temperature; opened at different steps, one prompt in two chunks.
static void make_plan(struct step_plan *plan, uint64_t step, int32_t stop_id)
{
    begin(plan, step);
    if (step == 1) {
        add_open(plan, 0, 30, 40);
        plan->opens[0].stop_count = 1;
        plan->opens[0].stop_ids[0] = stop_id;
        add_prefill(plan, 0, 30, true);
        return;
    }
    add_decode(plan, 0); // goes on after its end, as a coordinator does that runs ahead
    if (step > 5)
        add_decode(plan, 1);
    if (step > 6)
        add_decode(plan, 2);
    if (step == 4) {
        add_open(plan, 1, 100, 20);
        add_prefill(plan, 1, 64, false);
    } else if (step == 5) {
        add_prefill(plan, 1, 36, true);
    } else if (step == 6) {
        add_open(plan, 2, 10, 40);
        plan->opens[0].temperature = 1.5f;
        plan->opens[0].seed = 99;
        plan->opens[0].top_k = 20;
        plan->opens[0].top_p = 0.9f;
        plan->opens[0].min_p = 0.001f;
        add_prefill(plan, 2, 10, true);
    }
}

// Runs `steps` plans with two in flight.
static void run_plans(struct engines *e, int steps, int32_t stop_id)
{
    struct step_plan plan;
    struct error error;
    assert_int_equal(step_plan_open(&plan, &error), OK);
    for (int step = 1; step <= steps; step++) {
        make_plan(&plan, (uint64_t)step, stop_id);
        submit(e, &plan);
        if (step > 1)
            take_reports(e, (uint64_t)step - 1);
    }
    take_reports(e, (uint64_t)steps);
    step_plan_close(&plan);
}

// Tokens of one slot over all steps, from rank 0's rows; returns their count.
static int tokens_of(const struct engines *e, int steps, int slot, int32_t *tokens, int *end)
{
    int count = 0;
    *end = 0;
    for (int step = 1; step <= steps; step++) {
        for (int i = 0; i < e->reports[0][step].rows_count; i++) {
            const struct step_result *row = &e->rows[0][step][i];
            if (row->slot != slot)
                continue;
            if (*end != 0)
                assert_int_equal(row->count, 0); // inert after its end
            for (int t = 0; t < row->count; t++)
                tokens[count++] = row->tokens[t];
            *end = row->end != 0 && *end == 0 ? row->end : *end;
        }
    }
    return count;
}

static void recorded_plans_give_the_same_reports(void **state)
{
    enum { STEPS = 32 };
    struct engines *first = (struct engines *)calloc(1, sizeof *first);
    struct engines *again = (struct engines *)calloc(1, sizeof *again);
    int32_t tokens[SEQUENCES][STEPS_MAX];
    int end, count;
    (void)state;
    open_engines(first, 0, false);
    run_plans(first, STEPS, -1);
    count = tokens_of(first, STEPS, 0, tokens[0], &end);
    assert_int_equal(count, STEPS);
    close_engines(first);

    // The eighth token becomes a stop id: the same tokens up to it, nothing after it.
    open_engines(first, 0, false);
    run_plans(first, STEPS, tokens[0][7]);
    count = tokens_of(first, STEPS, 0, tokens[1], &end);
    int until = 0;
    while (tokens[0][until] != tokens[0][7])
        until++;
    assert_int_equal(count, until + 1);
    assert_int_equal(end, SLOT_STOP);
    assert_memory_equal(tokens[0], tokens[1], (size_t)count * sizeof(int32_t));
    assert_int_equal(tokens_of(first, STEPS, 1, tokens[2], &end), 20);
    assert_int_equal(end, SLOT_LENGTH);

    open_engines(again, 4242, true);
    run_plans(again, STEPS, tokens[0][7]);
    for (int step = 1; step <= STEPS; step++) {
        assert_true(first->reports[0][step].hash == again->reports[0][step].hash);
        assert_memory_equal(first->rows[0][step], again->rows[0][step],
                            sizeof first->rows[0][step]);
    }
    close_engines(first);
    close_engines(again);
    free(first);
    free(again);
}

// One sequence of 20 tokens; `wish` gives the sampling fields.
static void draw_alone(int32_t *tokens, const struct step_open *wish)
{
    enum { STEPS = 20 };
    struct engines *e = (struct engines *)calloc(1, sizeof *e);
    struct step_plan plan;
    struct error error;
    int end;
    open_engines(e, 0, false);
    assert_int_equal(step_plan_open(&plan, &error), OK);
    for (uint64_t step = 1; step <= STEPS; step++) {
        begin(&plan, step);
        if (step == 1) {
            add_open(&plan, 0, 30, STEPS);
            plan.opens[0].temperature = wish->temperature;
            plan.opens[0].top_k = wish->top_k;
            plan.opens[0].top_p = wish->top_p;
            plan.opens[0].presence = wish->presence;
            plan.opens[0].frequency = wish->frequency;
            plan.opens[0].seed = 5;
            add_prefill(&plan, 0, 30, true);
        } else {
            add_decode(&plan, 0);
        }
        submit(e, &plan);
        take_reports(e, step);
    }
    assert_int_equal(tokens_of(e, STEPS, 0, tokens, &end), STEPS);
    step_plan_close(&plan);
    close_engines(e);
    free(e);
}

// Filters that leave one token make sampling greedy; those that leave all change nothing.
static void filters_meet_their_limits(void **state)
{
    int32_t greedy[20], first[20], tiny_mass[20], sampled[20], unfiltered[20];
    (void)state;
    draw_alone(greedy, &(struct step_open){.temperature = 0});
    draw_alone(first, &(struct step_open){.temperature = 2, .top_k = 1});
    draw_alone(tiny_mass, &(struct step_open){.temperature = 2, .top_p = 1e-6f});
    draw_alone(sampled, &(struct step_open){.temperature = 2});
    draw_alone(unfiltered, &(struct step_open){.temperature = 2, .top_k = REAL_IDS, .top_p = 1});
    assert_memory_equal(greedy, first, sizeof greedy);
    assert_memory_equal(greedy, tiny_mass, sizeof greedy);
    assert_memory_equal(sampled, unfiltered, sizeof sampled);
    assert_memory_not_equal(greedy, sampled, sizeof greedy);
}

static int repetitions(const int32_t tokens[20])
{
    int count = 0;
    for (int i = 0; i < 20; i++) {
        for (int before = 0; before < i; before++)
            count += tokens[i] == tokens[before];
    }
    return count;
}

// The logits' spread is about 1: a reward of 2 and more for what was drawn makes it come again
// and again, a penalty of as much lets nothing come twice.
static void penalties_reach_the_draw(void **state)
{
    int32_t rewarded[20], penalised[20];
    (void)state;
    draw_alone(rewarded,
               &(struct step_open){.temperature = 0.02f, .frequency = -2, .presence = -2});
    draw_alone(penalised, &(struct step_open){.temperature = 0.02f, .frequency = 2, .presence = 2});
    assert_true(repetitions(rewarded) > 100); // of 190 pairs
    assert_int_equal(repetitions(penalised), 0);
}

// ---- plans that are refused ----

static void break_step(struct step_plan *p)
{
    p->step = 2;
}
static void break_epoch(struct step_plan *p)
{
    p->epoch = EPOCH + 1;
}
static void break_verify(struct step_plan *p)
{
    p->verify = 3;
}
static void break_draft(struct step_plan *p)
{
    p->draft = 1;
}
static void break_slot(struct step_plan *p)
{
    p->rows[0].slot = SEQUENCES;
}
static void break_open(struct step_plan *p)
{
    p->opens[0].slot = -1;
}
static void break_close(struct step_plan *p)
{
    p->closes[p->closes_count++] = SEQUENCES;
}
static void break_copy(struct step_plan *p)
{
    p->copies[p->copies_count++] = (struct step_copy){0, 0};
}
static void break_page(struct step_plan *p)
{
    p->page_ids[3] = 1 << 20;
}
static void break_pages(struct step_plan *p)
{
    p->pages[0].count = 9;
}
static void break_token(struct step_plan *p)
{
    p->tokens[5] = 384;
}
static void break_tokens(struct step_plan *p)
{
    p->rows[0].tokens_count = p->tokens_count + 1;
}
static void break_size(struct step_plan *p)
{
    for (int i = 0; i < 10; i++)
        add_prefill(p, 1, 30, false);
}
static void break_order(struct step_plan *p)
{
    add_decode(p, 1);
}

static void plans_that_do_not_fit_are_refused_by_name(void **state)
{
    static const struct {
        void (*spoil)(struct step_plan *plan);
        const char *named;
    } cases[] = {
        {break_step, "step"},
        {break_epoch, "epoch"},
        {break_verify, "verify"},
        {break_draft, "draft"},
        {break_slot, "rows.slot"},
        {break_open, "opens.slot"},
        {break_close, "closes"},
        {break_copy, "copies"},
        {break_page, "pages.ids"},
        {break_pages, "pages.count"},
        {break_token, "rows.tokens"},
        {break_tokens, "rows.tokens_count"},
        {break_size, "tokens of all rows"},
        {break_order, "decodes after a prefill"},
    };
    struct engines *e = (struct engines *)calloc(1, sizeof *e);
    struct step_plan plan;
    struct error error;
    (void)state;
    open_engines(e, 0, false);
    assert_int_equal(step_plan_open(&plan, &error), OK);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        make_plan(&plan, 1, -1);
        cases[i].spoil(&plan);
        assert_int_equal(step_submit(e->engine[0], &plan, &error), E_MALFORMED);
        assert_non_null(strstr(error.text, cases[i].named));
        assert_int_equal(step_begun(e->engine[0]), 0);
    }
    make_plan(&plan, 1, -1); // and the unspoilt one runs
    submit(e, &plan);
    take_reports(e, 1);
    assert_int_equal(step_done(e->engine[0]), 1);
    step_plan_close(&plan);
    close_engines(e);
    free(e);
}

// Five sequences, of which one is sampled with a temperature and one ends early; one more, with
// penalties and cuts, opens beside them at step 8, when the decode rows are not alone.
static void make_crowd(struct step_plan *plan, uint64_t step, int32_t stop_id)
{
    begin(plan, step);
    for (int slot = 0; slot < 5 && step > 1; slot++)
        add_decode(plan, slot);
    if (step > 8)
        add_decode(plan, 5);
    for (int slot = 0; slot < 5 && step == 1; slot++) {
        add_open(plan, slot, 10 + slot, 40);
        add_prefill(plan, slot, 10 + slot, true);
    }
    if (step == 1) {
        plan->opens[1].temperature = 0.8f;
        plan->opens[1].seed = 17;
        plan->opens[3].stop_count = 1;
        plan->opens[3].stop_ids[0] = stop_id;
    }
    if (step == 8) {
        add_open(plan, 5, 20, 40);
        plan->opens[0].temperature = 1.5f;
        plan->opens[0].top_k = 20;
        plan->opens[0].top_p = 0.9f;
        plan->opens[0].presence = 1.5f;
        add_prefill(plan, 5, 20, true);
    }
}

// Runs the crowd; returns how many steps of rank 0 came from graphs.
static uint64_t run_crowd(struct engines *e, uint64_t steps, int32_t stop_id)
{
    struct step_plan plan;
    struct error error;
    assert_int_equal(step_plan_open(&plan, &error), OK);
    for (uint64_t step = 1; step <= steps; step++) {
        make_crowd(&plan, step, stop_id);
        submit(e, &plan);
        if (step > 1)
            take_reports(e, step - 1);
    }
    take_reports(e, steps);
    step_plan_close(&plan);
    return e->engine[0]->graphs.launched;
}

// Runs the crowd with `launches`; what is reported must be what plain launches report.
static void compare_crowd(const struct engines *plain, enum launches launches, uint64_t steps,
                          int32_t stop_id)
{
    struct engines *e = (struct engines *)calloc(1, sizeof *e);
    open_engines_with(e, 77, true, launches);
    uint64_t launched = run_crowd(e, steps, stop_id);
    assert_int_equal(launched, launches == GRAPHS ? steps - 2 : 0); // all but steps 1 and 8
    for (uint64_t step = 1; step <= steps; step++) {
        assert_true(plain->reports[0][step].hash == e->reports[0][step].hash);
        assert_int_equal(plain->reports[0][step].rows_count, e->reports[0][step].rows_count);
        assert_memory_equal(plain->rows[0][step], e->rows[0][step], sizeof plain->rows[0][step]);
    }
    close_engines(e);
    free(e);
}

// A step launched from a graph, filled up to its size or not, is the step of plain launches, and so
// is one that is filled up alone: the same rows and hashes, also with delays and spoilt staging.
static void a_step_from_a_graph_is_the_step(void **state)
{
    enum { STEPS = 20 };
    struct engines *plain = (struct engines *)calloc(1, sizeof *plain);
    int32_t tokens[STEPS_MAX];
    int end;
    (void)state;
    open_engines(plain, 0, false);
    assert_int_equal(run_crowd(plain, STEPS, -1), 0);
    assert_int_equal(tokens_of(plain, STEPS, 3, tokens, &end), STEPS);
    close_engines(plain);
    int32_t stop_id = tokens[5];
    open_engines(plain, 0, false);
    assert_int_equal(run_crowd(plain, STEPS, stop_id), 0);
    assert_true(tokens_of(plain, STEPS, 3, tokens, &end) <= 6);
    compare_crowd(plain, GRAPHS, STEPS, stop_id);
    compare_crowd(plain, PADDED, STEPS, stop_id);
    close_engines(plain);
    free(plain);
}

// A fifth step is refused while four are in flight, and may come when one has been reported.
static void steps_in_flight_are_bounded(void **state)
{
    struct engines *e = (struct engines *)calloc(1, sizeof *e);
    struct step_plan plan;
    struct error error;
    (void)state;
    open_engines(e, 0, false);
    assert_int_equal(step_plan_open(&plan, &error), OK);
    for (uint64_t step = 1; step <= STEP_STAGING; step++) {
        make_plan(&plan, step, -1);
        submit(e, &plan);
    }
    make_plan(&plan, STEP_STAGING + 1, -1);
    assert_int_equal(step_submit(e->engine[0], &plan, &error), E_OVERLOADED);
    take_reports(e, 1);
    submit(e, &plan);
    for (uint64_t step = 2; step <= STEP_STAGING + 1; step++)
        take_reports(e, step);
    step_plan_close(&plan);
    close_engines(e);
    free(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recorded_plans_give_the_same_reports),
        cmocka_unit_test(a_step_from_a_graph_is_the_step),
        cmocka_unit_test(filters_meet_their_limits),
        cmocka_unit_test(penalties_reach_the_draw),
        cmocka_unit_test(plans_that_do_not_fit_are_refused_by_name),
        cmocka_unit_test(steps_in_flight_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
