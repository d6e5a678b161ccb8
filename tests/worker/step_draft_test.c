// SPDX-License-Identifier: Apache-2.0
// step_draft_test.c -- speculation changes no token: the demo model with the head trained with it,
// on one rank and on two, with as many drafts as a seed says from step to step, against the same
// sequences without drafts: greedy, sampled, filtered and penalised, with stops inside accepted
// runs, prompts in chunks, and rows that run ahead of their ends.
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
    SEQUENCES = 4,
    OUTPUT = 48,
    PROMPT_MAX = 150,
    PAGES = 4,
    DRAFTS_MAX = STEP_VERIFY_MAX - 1,
    REAL_IDS = 1000, // of the demo's vocabulary; all are trained
    VOCAB = 4096,    // its rows
    TRAINED_IDS = 3833,
};

// Sanitizers make this test twenty times slower, and look for races and stray reads only.
#ifdef DELTAMESH_SANITIZED
enum { RANKS_FIRST = 2, DRAFTS_LAST = -1, STOPS = 1 };
static const int draft_vocabs[] = {37};
#else
enum { RANKS_FIRST = 1, DRAFTS_LAST = DRAFTS_MAX, STOPS = 8 };
// Of two ranks the second has the rows from 2048 on; 64 rows are a tile of the head.
static const int draft_vocabs[] = {1, 500, 3000, TRAINED_IDS, VOCAB};
#endif

static const char *const model_dir = SOURCE_DIR "/deploy/demo/model";

struct run {
    struct team *team;
    struct team_engines at;
    int ranks;
    struct step_plan plan;
    int32_t tokens[SEQUENCES][OUTPUT + STEP_VERIFY_MAX];
    int counts[SEQUENCES], ends[SEQUENCES];
    int steps, verified, accepted; // decode rows that drew; drafts they could have taken, and took
    int widths[STEP_VERIFY_MAX + 1];    // rows that drew so many tokens
    int32_t guesses[SEQUENCES][OUTPUT]; // the first draft for token i, -1: none was made
    struct run_wishes {
        double synthetic_length;
        bool bf16_state;
        int draft_vocab, real_ids; // real_ids 0: REAL_IDS
        bool warm;
    } wishes;
};

static const int prompts[SEQUENCES] = {9, 150, 64, 33};

// Everything but the wishes begins anew.
static void open_run(struct run *run, int ranks, int drafts_max)
{
    struct run_wishes wishes = run->wishes;
    struct error error = {.text = ""};
    struct team_options options = {.model_dir = model_dir,
                                   .load_format = LOAD_AUTO,
                                   .ranks = ranks,
                                   .sequences = SEQUENCES,
                                   .sequence_tokens = PAGES * 64,
                                   .step_tokens = 256,
                                   .verify_max = 1 + drafts_max,
                                   .bf16_state = wishes.bf16_state};
    memset(run, 0, sizeof *run);
    memset(run->guesses, -1, sizeof run->guesses);
    run->wishes = wishes;
    run->ranks = ranks;
    run->team = (struct team *)calloc(1, sizeof *run->team);
    team_open(run->team, &options);
    struct step_options step = {.epoch = 1,
                                .vocab_real = wishes.real_ids > 0 ? wishes.real_ids : REAL_IDS,
                                .drafts_max = drafts_max,
                                .draft_vocab = wishes.draft_vocab,
                                .synthetic_length = wishes.synthetic_length,
                                .graphs = drafts_max > 0,
                                .warm = wishes.warm,
                                .poison = true};
    team_open_engines(&run->at, run->team, &step);
    assert_int_equal(step_plan_open(&run->plan, &error), OK);
}

static void close_run(struct run *run)
{
    step_plan_close(&run->plan);
    team_close_engines(&run->at, run->team);
    team_close(run->team);
    free(run->team);
}

// Sequence s has its way of sampling; 3 is greedy with a stop id when there is one.
static void add_open(struct run *run, int s, int32_t stop_id)
{
    struct step_plan *plan = &run->plan;
    struct step_open *open = &plan->opens[plan->opens_count++];
    *open = (struct step_open){
        .slot = s, .prompt_tokens = prompts[s], .tokens_end = prompts[s] + OUTPUT, .seed = 77};
    if (s == 1)
        *open = (struct step_open){.slot = s,
                                   .prompt_tokens = prompts[s],
                                   .tokens_end = prompts[s] + OUTPUT,
                                   .seed = 5,
                                   .temperature = 0.9f,
                                   .top_k = 40,
                                   .top_p = 0.95f};
    if (s == 2)
        *open = (struct step_open){.slot = s,
                                   .prompt_tokens = prompts[s],
                                   .tokens_end = prompts[s] + OUTPUT,
                                   .seed = 9,
                                   .temperature = 0.7f,
                                   .repetition = 1.2f,
                                   .frequency = 0.3f,
                                   .presence = 0.2f};
    if (s == 3 && stop_id >= 0) {
        open->stop_count = 1;
        open->stop_ids[0] = stop_id;
    }
    plan->pages[plan->pages_count++] =
        (struct step_pages){.slot = s, .count = PAGES, .ids_first = plan->page_ids_count};
    for (int i = 0; i < PAGES; i++)
        plan->page_ids[plan->page_ids_count++] = i * SEQUENCES + s;
}

static int32_t prompt_token(int s, int i)
{
    return (s * 131 + i * 17 + i * i % 13) % REAL_IDS;
}

static void add_prefill(struct run *run, int s, int first, int count)
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
                               .checkpoint = -1};
    for (int i = first; i < first + count; i++)
        plan->tokens[plan->tokens_count++] = prompt_token(s, i);
}

// Sequences come one after another; 1 in two chunks.
static void make_plan(struct run *run, uint64_t step, int verify, int draft, int32_t stop_id)
{
    struct step_plan *plan = &run->plan;
    step_plan_clear(plan);
    plan->step = step;
    plan->epoch = 1;
    plan->verify = verify;
    plan->draft = draft;
    for (int s = 0; s < SEQUENCES; s++) {
        if (step > (s == 1 ? 3u : (unsigned)s + 1u))
            plan->rows[plan->rows_count++] =
                (struct step_plan_row){.slot = s, .kind = STEP_ROW_DECODE, .checkpoint = -1};
    }
    for (int s = 0; s < SEQUENCES; s++) {
        if (step == (unsigned)s + 1u)
            add_open(run, s, stop_id);
        if (s == 1 && (step == 2 || step == 3))
            add_prefill(run, s, step == 2 ? 0 : 128, step == 2 ? 128 : prompts[1] - 128);
        else if (s != 1 && step == (unsigned)s + 1u)
            add_prefill(run, s, 0, prompts[s]);
    }
}

static void take_row(struct run *run, const struct step_result *row)
{
    int verify = run->plan.verify;
    if (run->ends[row->slot] != 0)
        assert_int_equal(row->count, 0); // inert after its end
    for (int i = 0; i < row->count; i++)
        run->tokens[row->slot][run->counts[row->slot]++] = row->tokens[i];
    assert_in_range(run->counts[row->slot], 0, OUTPUT);
    run->widths[row->count]++;
    if (row->count > 0 && verify > 1) {
        run->verified += verify - 1;
        run->accepted += row->count - 1;
    }
    if (run->ends[row->slot] == 0)
        run->ends[row->slot] = row->end;
}

static void take_reports(struct run *run)
{
    struct step_result rows[STEP_ROWS_MAX];
    uint64_t hash = 0;
    for (int r = 0; r < run->ranks; r++) {
        struct report report = {.rows = rows};
        uint64_t limit_ns = clock_now_ns() + 60ull * CLOCK_NS_PER_S;
        while (!step_next_report(run->at.engines[r], &report)) {
            assert_true(clock_now_ns() < limit_ns);
            clock_sleep_ns(50 * CLOCK_NS_PER_US);
        }
        hash = r == 0 ? report.hash : hash;
        assert_true(report.hash == hash);
        for (int i = 0; i < report.rows_count; i++)
            take_row(run, &rows[i]);
    }
}

// What the slots' drafts are now: the same on every rank, and of the ids that are asked for.
static void take_drafts(struct run *run, int made)
{
    int end = run->wishes.draft_vocab > 0 ? run->wishes.draft_vocab : VOCAB;
    for (int s = 0; s < SEQUENCES; s++) {
        const struct slot *slot = &run->team->ranks[0].state.slots.slots[s];
        if (run->counts[s] == 0 || run->ends[s] != 0)
            continue;
        for (int r = 1; r < run->ranks; r++)
            assert_memory_equal(run->team->ranks[r].state.slots.slots[s].drafts, slot->drafts,
                                sizeof slot->drafts);
        for (int i = 0; i < made; i++) {
            bool room = run->counts[s] + i < OUTPUT;
            assert_true(room ? slot->drafts[i] >= 0 : slot->drafts[i] == -1);
            assert_true(slot->drafts[i] < end);
        }
        run->guesses[s][run->counts[s]] = made > 0 ? slot->drafts[0] : -1;
    }
}

static bool all_ended(const struct run *run)
{
    for (int s = 0; s < SEQUENCES; s++) {
        if (run->ends[s] == 0)
            return false;
    }
    return true;
}

// drafts: of every step; -1: drawn anew for each.
static void run_all(struct run *run, int ranks, int drafts, int32_t stop_id)
{
    uint32_t dice = 12345;
    int verify = 1;
    struct error error = {.text = ""};
    open_run(run, ranks, drafts < 0 ? DRAFTS_MAX : drafts);
    for (uint64_t step = 1; !all_ended(run); step++) {
        assert_true(step < 200);
        dice = dice * 1664525u + 1013904223u;
        int draft = drafts >= 0 ? drafts : (int)((dice >> 16) % (DRAFTS_MAX + 1));
        make_plan(run, step, verify, draft, stop_id);
        for (int r = 0; r < ranks; r++) {
            if (step_submit(run->at.engines[r], &run->plan, &error) != OK)
                fail_msg("%s", error.text);
        }
        take_reports(run);
        take_drafts(run, draft);
        verify = 1 + draft;
        run->steps++;
    }
    close_run(run);
}

static void assert_same_tokens(const struct run *plain, const struct run *run)
{
    for (int s = 0; s < SEQUENCES; s++) {
        assert_int_equal(run->counts[s], plain->counts[s]);
        assert_int_equal(run->ends[s], plain->ends[s]);
        assert_memory_equal(run->tokens[s], plain->tokens[s],
                            (size_t)plain->counts[s] * sizeof(int32_t));
    }
}

static void drafts_change_no_token(void **state)
{
    struct run *plain = (struct run *)calloc(1, sizeof *plain);
    struct run *run = (struct run *)calloc(1, sizeof *run);
    (void)state;
    for (int ranks = RANKS_FIRST; ranks <= 2; ranks++) {
        run_all(plain, ranks, 0, -1);
        for (int drafts = -1; drafts <= DRAFTS_LAST; drafts += 2) {
            run_all(run, ranks, drafts, -1);
            assert_same_tokens(plain, run);
            print_message("tp %d, drafts %d: %d steps for %d, %d of %d drafts taken\n", ranks,
                          drafts, run->steps, plain->steps, run->accepted, run->verified);
            assert_true(run->accepted > 0 && run->accepted < run->verified);
            assert_true(run->steps < plain->steps);
        }
    }
    free(plain);
    free(run);
}

// As a worker does before it is ready: steps of no sequence run on every rank, and meet.
static void a_warmed_up_group_draws_the_same(void **state)
{
    struct run *plain = (struct run *)calloc(1, sizeof *plain);
    struct run *run = (struct run *)calloc(1, sizeof *run);
    (void)state;
    run_all(plain, 2, 0, -1);
    run->wishes.warm = true;
    run_all(run, 2, 3, -1);
    assert_same_tokens(plain, run);
    free(plain);
    free(run);
}

// As drafts_change_no_token, with states that are rounded: where in the sequence does not depend on
// drafts. And they are rounded: the tokens are others.
static void nor_where_states_are_bf16(void **state)
{
    struct run *plain = (struct run *)calloc(1, sizeof *plain);
    struct run *exact = (struct run *)calloc(1, sizeof *exact);
    struct run *run = (struct run *)calloc(1, sizeof *run);
    (void)state;
    plain->wishes.bf16_state = run->wishes.bf16_state = true;
    run_all(exact, 1, 0, -1);
    run_all(plain, 1, 0, -1);
    for (int drafts = -1; drafts <= DRAFTS_LAST; drafts += 3) {
        run_all(run, 1, drafts, -1);
        assert_same_tokens(plain, run);
        assert_true(run->steps < plain->steps);
    }
    assert_memory_not_equal(plain->tokens, exact->tokens, sizeof plain->tokens);
    free(plain);
    free(exact);
    free(run);
}

// The first tokens of the greedy sequence become its stop id in turn: stops fall on the known
// token, on each draft and on the sample after the last.
static void a_stop_may_fall_anywhere(void **state)
{
    struct run *plain = (struct run *)calloc(1, sizeof *plain);
    struct run *run = (struct run *)calloc(1, sizeof *run);
    (void)state;
    run_all(plain, 1, 0, -1);
    for (int at = 0; at < STOPS; at++) {
        int until = 0;
        while (plain->tokens[3][until] != plain->tokens[3][at])
            until++;
        run_all(run, 1, 4, plain->tokens[3][at]);
        assert_int_equal(run->counts[3], until + 1);
        assert_int_equal(run->ends[3], SLOT_STOP);
        assert_memory_equal(run->tokens[3], plain->tokens[3],
                            (size_t)(until + 1) * sizeof(int32_t));
    }
    free(plain);
    free(run);
}

// A first draft follows tokens that are the same in both runs: it is the same where it may be.
static void assert_guesses_as_far_as_allowed(const struct run *whole, const struct run *run)
{
    int end = run->wishes.draft_vocab, same = 0, other = 0;
    for (int s = 0; s < SEQUENCES; s++) {
        for (int i = 0; i < OUTPUT; i++) {
            int32_t guess = run->guesses[s][i], free_guess = whole->guesses[s][i];
            if (guess < 0 || free_guess < 0)
                continue;
            if (free_guess < end)
                assert_int_equal(guess, free_guess);
            same += free_guess < end;
            other += free_guess >= end;
        }
    }
    assert_true(end >= TRAINED_IDS ? other == 0 : end == 1 ? same < other : same + other > 0);
}

static void assert_same_drafts(const struct run *whole, const struct run *run)
{
    assert_memory_equal(run->guesses, whole->guesses, sizeof run->guesses);
    assert_memory_equal(run->widths, whole->widths, sizeof run->widths);
    assert_int_equal(run->accepted, whole->accepted);
    assert_int_equal(run->steps, whole->steps);
}

// Drafts are chosen among few ids: worse ones, and the same tokens. Of all ids by their number they
// are what they are unasked.
static void drafts_may_be_of_few_ids(void **state)
{
    struct run *plain = (struct run *)calloc(1, sizeof *plain);
    struct run *whole = (struct run *)calloc(1, sizeof *whole);
    struct run *run = (struct run *)calloc(1, sizeof *run);
    (void)state;
    plain->wishes.real_ids = whole->wishes.real_ids = run->wishes.real_ids = TRAINED_IDS;
    for (int ranks = RANKS_FIRST; ranks <= 2; ranks++) {
        run_all(plain, ranks, 0, -1);
        run_all(whole, ranks, 3, -1);
        for (size_t i = 0; i < sizeof draft_vocabs / sizeof draft_vocabs[0]; i++) {
            run->wishes.draft_vocab = draft_vocabs[i];
            run_all(run, ranks, 3, -1);
            assert_same_tokens(plain, run);
            assert_guesses_as_far_as_allowed(whole, run);
            print_message("tp %d, drafts below %d: %d steps for %d, %d of %d drafts taken\n", ranks,
                          draft_vocabs[i], run->steps, plain->steps, run->accepted, run->verified);
            if (draft_vocabs[i] >= TRAINED_IDS)
                assert_same_drafts(whole, run);
        }
    }
    free(plain);
    free(whole);
    free(run);
}

// Whole tiles of 64, at least one and never more than a rank has.
static void the_head_has_as_many_rows_as_ids_need(void **state)
{
    (void)state;
    static const struct {
        int first, count, ids_end, rows;
    } cases[] = {
        {0, 4096, 1, 64},        {0, 4096, 64, 64},        {0, 4096, 65, 128},
        {0, 4096, 4033, 4096},   {0, 4096, 4096, 4096},    {0, 90, 65, 90},
        {0, 40, 1, 40},          {2048, 2048, 1, 64},      {2048, 2048, 2048, 64},
        {2048, 2048, 2049, 64},  {2048, 2048, 2112, 64},   {2048, 2048, 2113, 128},
        {2048, 2048, 3000, 960}, {2048, 2048, 4096, 2048}, {0, 2048, 4096, 2048},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct model model = {.shard = {.vocab = {cases[i].first, cases[i].count}}};
        assert_int_equal(model_vocab_rows(&model, cases[i].ids_end), cases[i].rows);
    }
}

// Two drafts always, the third never: rows of three tokens but where the output ends or begins.
static void acceptance_can_be_forced(void **state)
{
    struct run *run = (struct run *)calloc(1, sizeof *run);
    (void)state;
    run->wishes.synthetic_length = 3;
    for (int draft_vocab = 0; draft_vocab <= 37; draft_vocab += 37) {
        run->wishes.draft_vocab = draft_vocab;
        run_all(run, 2, 3, -1);
        assert_int_equal(run->widths[4], 0);
        assert_true(run->widths[3] >= SEQUENCES * (OUTPUT - 4) / 3);
    }
    free(run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drafts_change_no_token),
        cmocka_unit_test(a_warmed_up_group_draws_the_same),
        cmocka_unit_test(nor_where_states_are_bf16),
        cmocka_unit_test(a_stop_may_fall_anywhere),
        cmocka_unit_test(drafts_may_be_of_few_ids),
        cmocka_unit_test(the_head_has_as_many_rows_as_ids_need),
        cmocka_unit_test(acceptance_can_be_forced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
