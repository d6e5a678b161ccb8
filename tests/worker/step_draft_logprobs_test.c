// SPDX-License-Identifier: Apache-2.0
// step_draft_logprobs_test.c -- speculation changes no log-probability: two models with a head, on
// one rank and on two, with a fixed and with a changing number of drafts that are left alone, made
// right, made wrong, or mixed, against the same sequences without drafts. What is told of every
// token, drawn or of a prompt, is the same bit for bit: under penalties, biases, banned words,
// min_tokens, with stops inside accepted runs, in chunks and beside rows that ask for nothing.
#include "worker/step.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "parallel/base/clock.h"
#include "tests/fixtures/team.h"

enum {
    SEQUENCES = 6,
    OUTPUT = 24,
    PAGES = 3,
    PROMPT_MAX = 130,
    REAL_IDS = 364,
    DRAFTS_MAX = STEP_VERIFY_MAX - 1,
    CHANGING = -1, // another number of drafts in every step
    BORDER = 64,   // where prompts are cut
};

// Who is who. PLAIN_ONES draw from the model's own logits.
enum { ALONE, PENALISED, BIASED, LATE_STOP, STOPPED, SILENT };
enum { EVERYONE = (1 << SEQUENCES) - 1, PLAIN_ONES = 1 << ALONE | 1 << STOPPED | 1 << SILENT };

static const int prompts[SEQUENCES] = {100, 9, 33, 64, PROMPT_MAX, 20};
static const int prompt_tops[SEQUENCES] = {1 + 2, 0, 1, 0, 1 + STEP_LOGPROBS_TOP_MAX, 0};
static const int drawn_tops[SEQUENCES] = {1 + 3, 1 + STEP_LOGPROBS_TOP_MAX, 1, 1 + 5, 1 + 1, 0};

// What was told of a sequence, and where it ended.
struct told {
    struct step_logprob prompt[PROMPT_MAX], drawn[OUTPUT];
    int prompt_count, drawn_count;
    int32_t tokens[OUTPUT];
    int count, end;
};

struct run {
    struct team *team;
    struct team_engines at;
    const char *model;
    int ranks, who; // bit s: sequence s runs
    int32_t stops[SEQUENCES];
    uint32_t dice;
    struct step_plan plan;
    struct step_result rows[STEP_ROWS_MAX];
    struct step_logprob logprobs[STEP_LOGPROBS_MAX];
    struct told told[SEQUENCES];
    int accepted, rejected, stops_inside; // rows that verified
};

static int below(struct run *run, int limit)
{
    run->dice = run->dice * 1664525u + 1013904223u;
    return (int)((run->dice >> 16) % (uint32_t)limit);
}

static void open_run(struct run *run, int drafts_max)
{
    struct error error = {.text = ""};
    char path[640];
    snprintf(path, sizeof path, "%s/tests/golden/%s", SOURCE_DIR, run->model);
    run->team = (struct team *)calloc(1, sizeof *run->team);
    team_open(run->team, &(struct team_options){.model_dir = path,
                                                .load_format = LOAD_DUMMY,
                                                .ranks = run->ranks,
                                                .sequences = SEQUENCES,
                                                .sequence_tokens = PAGES * 64,
                                                .step_tokens = 256});
    team_open_engines(&run->at, run->team,
                      &(struct step_options){.epoch = 1,
                                             .vocab_real = REAL_IDS,
                                             .drafts_max = drafts_max,
                                             .graphs = drafts_max > 0,
                                             .poison = true});
    assert_int_equal(step_plan_open(&run->plan, &error), OK);
}

static void close_run(struct run *run)
{
    step_plan_close(&run->plan);
    team_close_engines(&run->at, run->team);
    team_close(run->team);
    free(run->team);
}

// ---- plans ----

static int32_t prompt_token(int s, int i)
{
    return (s * 101 + i * 17 + i * i % 13) % REAL_IDS;
}

static void add_number(struct step_plan *plan, int32_t number)
{
    plan->lists[plan->lists_count++] = number;
}

// Five ids that are likelier or less likely, and two sequences that must not come, of which one
// looks back at a token that may be a draft of the same row.
static void add_lists(struct step_plan *plan, struct step_open *open)
{
    static const float biases[] = {1.5f, -3, 2, 0.25f, -100};
    open->lists_first = plan->lists_count;
    for (int i = 0; i < 5; i++)
        add_number(plan, 40 + 7 * i);
    for (int i = 0; i < 5; i++) {
        int32_t bits;
        memcpy(&bits, &biases[i], sizeof bits);
        add_number(plan, bits);
    }
    int32_t words[] = {1, 54, 2, 40, 40};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        add_number(plan, words[i]);
    open->bias_count = 5;
    open->words_count = sizeof words / sizeof *words;
}

static void add_open(struct run *run, int s)
{
    struct step_plan *plan = &run->plan;
    struct step_open *open = &plan->opens[plan->opens_count++];
    *open = (struct step_open){.slot = s,
                               .prompt_tokens = prompts[s],
                               .tokens_end = prompts[s] + OUTPUT,
                               .seed = 7 + (uint64_t)s,
                               .logprobs = drawn_tops[s]};
    if (s == PENALISED || s == BIASED)
        open->temperature = 1.1f;
    if (s == PENALISED) {
        open->top_k = 50;
        open->repetition = 1.8f;
        open->frequency = 0.5f;
        open->presence = 2;
    }
    if (s == BIASED)
        add_lists(plan, open);
    if (s == LATE_STOP)
        open->stops_from = prompts[s] + OUTPUT / 2;
    if (s == STOPPED)
        open->drafts = 1 + 4; // fewer than some steps make
    if (s == SILENT)
        open->frequency = 1;
    if (run->stops[s] >= 0) {
        open->stop_count = 1;
        open->stop_ids[0] = run->stops[s];
    }
    plan->pages[plan->pages_count++] =
        (struct step_pages){.slot = s, .count = PAGES, .ids_first = plan->page_ids_count};
    for (int i = 0; i < PAGES; i++)
        plan->page_ids[plan->page_ids_count++] = i * SEQUENCES + s;
}

static void add_chunk(struct run *run, int s, int first, int count)
{
    struct step_plan *plan = &run->plan;
    bool last = first + count == prompts[s];
    plan->rows[plan->rows_count++] =
        (struct step_plan_row){.slot = s,
                               .kind = STEP_ROW_PREFILL,
                               .tokens_first = plan->tokens_count,
                               .tokens_count = count,
                               .token_next = last ? -1 : prompt_token(s, first + count),
                               .sample = last,
                               .prompt_logprobs = prompt_tops[s],
                               .checkpoint = -1};
    for (int i = first; i < first + count; i++)
        plan->tokens[plan->tokens_count++] = prompt_token(s, i);
}

// Sequence s begins in step 1 + s; longer prompts go on behind a border in the next.
static void make_plan(struct run *run, int step, int verify, int draft)
{
    struct step_plan *plan = &run->plan;
    step_plan_clear(plan);
    plan->step = (uint64_t)step;
    plan->epoch = 1;
    plan->verify = verify;
    plan->draft = draft;
    for (int s = 0; s < SEQUENCES; s++) {
        if (run->told[s].count > 0)
            plan->rows[plan->rows_count++] =
                (struct step_plan_row){.slot = s, .kind = STEP_ROW_DECODE, .checkpoint = -1};
    }
    for (int s = 0; s < SEQUENCES; s++) {
        int rest = prompts[s] - BORDER;
        if ((run->who >> s & 1) == 0)
            continue;
        if (step == 1 + s) {
            add_open(run, s);
            add_chunk(run, s, 0, rest > 0 ? BORDER : prompts[s]);
        } else if (step == 2 + s && rest > 0) {
            add_chunk(run, s, BORDER, rest);
        }
    }
}

// ---- a run ----

static void take_row(struct run *run, const struct step_result *row)
{
    struct told *told = &run->told[row->slot];
    const struct step_logprob *at = run->logprobs + row->logprobs_first;
    bool verified = told->count > 0 && run->plan.verify > 1 && row->count > 0;
    assert_int_equal(row->logprobs_count, drawn_tops[row->slot] > 0 ? row->count : 0);
    for (int i = 0; i < row->prompt_logprobs_count; i++)
        told->prompt[told->prompt_count++] = *at++;
    for (int i = 0; i < row->logprobs_count; i++)
        told->drawn[told->drawn_count++] = *at++;
    for (int i = 0; i < row->count; i++)
        told->tokens[told->count++] = row->tokens[i];
    assert_in_range(told->count, 0, OUTPUT);
    run->accepted += verified && row->count > 1;
    run->rejected += verified && row->count == 1 && row->end == 0;
    run->stops_inside += verified && row->end == SLOT_STOP && row->count < run->plan.verify;
    told->end = told->end != 0 ? told->end : row->end;
}

static void run_plan(struct run *run)
{
    struct error error = {.text = ""};
    for (int r = 0; r < run->ranks; r++) {
        if (step_submit(run->at.engines[r], &run->plan, &error) != OK)
            fail_msg("rank %d: %s", r, error.text);
    }
    for (int r = 0; r < run->ranks; r++) {
        struct report report = {.rows = run->rows, .logprobs = run->logprobs};
        uint64_t limit_ns = clock_now_ns() + 60ull * CLOCK_NS_PER_S;
        while (!step_next_report(run->at.engines[r], &report)) {
            assert_true(clock_now_ns() < limit_ns);
            clock_sleep_ns(20 * CLOCK_NS_PER_US);
        }
        for (int i = 0; i < report.rows_count; i++)
            take_row(run, &run->rows[i]);
    }
}

// Leaves a slot's drafts as the head made them, or makes them right, wrong, or some of both.
static void deal_drafts(struct run *run, const struct told *plain, int s)
{
    int32_t drafts[DRAFTS_MAX];
    const struct told *told = &run->told[s];
    int way = below(run, 4);
    if (way == 0 || told->count == 0 || told->end != 0)
        return;
    memcpy(drafts, run->team->ranks[0].state.slots.slots[s].drafts, sizeof drafts);
    for (int i = 0; i < DRAFTS_MAX && drafts[i] >= 0; i++) {
        int at = told->count + i;
        int32_t right = at < plain[s].count ? plain[s].tokens[at] : 5;
        bool wrong = way == 1 || (way == 2 && below(run, 3) == 0);
        drafts[i] = wrong ? (right + 1) % REAL_IDS : right;
    }
    team_set_drafts(run->team, s, drafts, DRAFTS_MAX);
}

static bool all_ended(const struct run *run)
{
    for (int s = 0; s < SEQUENCES; s++) {
        if ((run->who >> s & 1) != 0 && run->told[s].end == 0)
            return false;
    }
    return true;
}

// plain: what the sequences draw without drafts; NULL, with drafts 0, where that is to be found.
static void run_all(struct run *run, int drafts, const struct told *plain)
{
    int verify = 1;
    memset(run->told, 0, sizeof run->told);
    run->accepted = run->rejected = run->stops_inside = 0;
    run->dice = 4711;
    open_run(run, drafts == 0 ? 0 : DRAFTS_MAX);
    for (int step = 1; !all_ended(run); step++) {
        assert_true(step < 100);
        int made = drafts == CHANGING ? below(run, 1 + DRAFTS_MAX) : drafts;
        make_plan(run, step, verify, made);
        run_plan(run);
        for (int s = 0; s < SEQUENCES && plain != NULL; s++)
            deal_drafts(run, plain, s);
        // Now and then a step verifies fewer than were made.
        verify = 1 + (drafts == CHANGING && below(run, 4) == 0 ? below(run, 1 + made) : made);
    }
    close_run(run);
}

// ---- comparison ----

static void assert_same_entry(const struct step_logprob *a, const struct step_logprob *b)
{
    size_t count = (size_t)b->top_count;
    assert_int_equal(a->id, b->id);
    assert_memory_equal(&a->logprob, &b->logprob, sizeof a->logprob);
    assert_int_equal(a->top_count, b->top_count);
    assert_memory_equal(a->top_ids, b->top_ids, count * sizeof a->top_ids[0]);
    assert_memory_equal(a->top_logprobs, b->top_logprobs, count * sizeof a->top_logprobs[0]);
}

static void assert_same(const struct told *a, const struct told *b)
{
    assert_int_equal(a->end, b->end);
    assert_int_equal(a->count, b->count);
    assert_memory_equal(a->tokens, b->tokens, (size_t)b->count * sizeof a->tokens[0]);
    assert_int_equal(a->prompt_count, b->prompt_count);
    assert_int_equal(a->drawn_count, b->drawn_count);
    for (int i = 0; i < b->prompt_count; i++)
        assert_same_entry(&a->prompt[i], &b->prompt[i]);
    for (int i = 0; i < b->drawn_count; i++)
        assert_same_entry(&a->drawn[i], &b->drawn[i]);
}

// Whatever is asked for is told, and of the token that it is about.
static void assert_told(const struct run *run)
{
    for (int s = 0; s < SEQUENCES; s++) {
        const struct told *told = &run->told[s];
        bool runs = run->who >> s & 1;
        assert_int_equal(told->prompt_count, runs && prompt_tops[s] > 0 ? prompts[s] - 1 : 0);
        assert_int_equal(told->drawn_count, runs && drawn_tops[s] > 0 ? told->count : 0);
        for (int i = 0; i < told->prompt_count; i++) {
            assert_int_equal(told->prompt[i].id, prompt_token(s, i + 1));
            assert_int_equal(told->prompt[i].top_count, prompt_tops[s] - 1);
        }
        for (int i = 0; i < told->drawn_count; i++) {
            assert_int_equal(told->drawn[i].id, told->tokens[i]);
            assert_int_equal(told->drawn[i].top_count, drawn_tops[s] - 1);
        }
    }
}

// The first token, from `first` on, that the sequence does not draw before: its stop id.
static int32_t new_token(const struct told *told, int first)
{
    for (int at = first; at < told->count; at++) {
        int before = 0;
        while (told->tokens[before] != told->tokens[at])
            before++;
        if (before == at)
            return told->tokens[at];
    }
    return -1;
}

// STOPPED ends at a token of its own, LATE_STOP may not draw one that it would until it has
// min_tokens.
static void find_plain(struct run *run, struct told plain[SEQUENCES])
{
    for (int s = 0; s < SEQUENCES; s++)
        run->stops[s] = -1;
    run_all(run, 0, NULL);
    run->stops[STOPPED] = new_token(&run->told[STOPPED], OUTPUT / 2);
    run->stops[LATE_STOP] = (run->who >> LATE_STOP & 1) ? run->told[LATE_STOP].tokens[1] : -1;
    assert_true(run->stops[STOPPED] >= 0);
    run_all(run, 0, NULL);
    assert_told(run);
    assert_int_equal(run->told[STOPPED].end, SLOT_STOP);
    for (int i = 0; i < OUTPUT / 2 && run->stops[LATE_STOP] >= 0; i++)
        assert_int_not_equal(run->told[LATE_STOP].tokens[i], run->stops[LATE_STOP]);
    memcpy(plain, run->told, sizeof run->told);
}

static void check(const char *model, int ranks, int who, const int *drafts, int drafts_count)
{
    static struct told plain[SEQUENCES];
    struct run *run = (struct run *)calloc(1, sizeof *run);
    int stops_inside = 0;
    run->model = model;
    run->ranks = ranks;
    run->who = who;
    find_plain(run, plain);
    for (int i = 0; i < drafts_count; i++) {
        run_all(run, drafts[i], plain);
        for (int s = 0; s < SEQUENCES; s++)
            assert_same(&run->told[s], &plain[s]);
        assert_true(run->accepted > 0 && run->rejected > 0);
        stops_inside += run->stops_inside;
        print_message("%s, tp %d, drafts %d: rows with drafts taken %d, without %d, stops inside "
                      "%d\n",
                      model, ranks, drafts[i], run->accepted, run->rejected, run->stops_inside);
    }
    assert_true(stops_inside > 0);
    free(run);
}

static void drafts_change_no_logprob(void **state)
{
    static const int drafts[] = {3, CHANGING, 1, 5};
    (void)state;
#ifdef DELTAMESH_SANITIZED // many times slower there
    check("moe_e8_r2", 2, EVERYONE, drafts, 1);
#else
    for (int ranks = 1; ranks <= 2; ranks++) {
        check("dense_untied_r2", ranks, EVERYONE, drafts, 4);
        check("moe_e8_r2", ranks, EVERYONE, drafts, 4);
    }
#endif
}

// Then entries are of the logits that the step sampled from, and nothing is computed once more.
static void nor_where_the_samples_logits_are_told(void **state)
{
    static const int drafts[] = {5, CHANGING, 3, 1};
    (void)state;
#ifdef DELTAMESH_SANITIZED
    check("dense_untied_r2", 1, PLAIN_ONES, drafts, 1);
#else
    check("dense_untied_r2", 1, PLAIN_ONES, drafts, 4);
    check("moe_e8_r2", 2, PLAIN_ONES, drafts, 4);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drafts_change_no_logprob),
        cmocka_unit_test(nor_where_the_samples_logits_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
