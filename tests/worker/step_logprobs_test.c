// SPDX-License-Identifier: Apache-2.0
// step_logprobs_test.c -- plans that ask for log-probabilities, at one, two and four ranks, against
// a softmax in double over the whole row of logits that the forward pass gives alone: of prompts in
// chunks, of what was drawn with and without penalties, beside rows that ask for none.
#include "worker/step.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "parallel/base/clock.h"
#include "tests/fixtures/ops.h"
#include "tests/fixtures/team.h"

enum {
    RANKS_MAX_HERE = 4,
    SEQUENCES = 3,
    REAL_IDS = 364,
    VOCAB_MAX = 512,
    PROMPT = 100,
    DRAWN = 6
};
enum { TOLD_MAX = 256, EPOCH = 7 };

static const char *const model_dir = SOURCE_DIR "/tests/golden/moe_e16_tp8";

struct engines {
    struct team team;
    struct step_engine *engine[RANKS_MAX_HERE];
    int fd[RANKS_MAX_HERE];
    int ranks;
    struct step_plan plan;
    struct step_result rows[STEP_ROWS_MAX];
    struct step_logprob logprobs[STEP_LOGPROBS_MAX];
    struct report report; // of the last step, rank 0
};

// What was told of a slot.
struct told {
    struct step_logprob prompt[TOLD_MAX], drawn[TOLD_MAX];
    int prompt_count, drawn_count;
    int32_t tokens[TOLD_MAX];
    int tokens_count;
};

static void open_team(struct team *team, int ranks)
{
    team_open(team, &(struct team_options){.model_dir = model_dir,
                                           .load_format = LOAD_DUMMY,
                                           .ranks = ranks,
                                           .sequences = SEQUENCES,
                                           .sequence_tokens = 512,
                                           .step_tokens = 256});
}

static struct engines *open_engines(int ranks)
{
    struct engines *e = calloc(1, sizeof *e);
    struct error error;
    e->ranks = ranks;
    open_team(&e->team, ranks);
    assert_int_equal(step_plan_open(&e->plan, &error), OK);
    for (int r = 0; r < ranks; r++) {
        e->fd[r] = eventfd(0, EFD_NONBLOCK);
        struct step_options options = {.model = &e->team.ranks[r].model,
                                       .memory = e->team.ranks[r].plan,
                                       .epoch = EPOCH,
                                       .vocab_real = REAL_IDS,
                                       .notify_fd = e->fd[r],
                                       .poison = true};
        assert_int_equal(step_engine_open(&e->engine[r], &options, &error), OK);
    }
    return e;
}

static void close_engines(struct engines *e)
{
    for (int r = 0; r < e->ranks; r++) {
        step_engine_close(e->engine[r]);
        close(e->fd[r]);
    }
    step_plan_close(&e->plan);
    team_close(&e->team);
    free(e);
}

// Runs e->plan and takes the reports; only rank 0's has rows.
static void run(struct engines *e)
{
    struct error error = {.text = ""};
    for (int r = 0; r < e->ranks; r++) {
        if (step_submit(e->engine[r], &e->plan, &error) != OK)
            fail_msg("rank %d: %s", r, error.text);
    }
    uint64_t limit_ns = clock_now_ns() + 60ull * CLOCK_NS_PER_S;
    for (int r = e->ranks - 1; r >= 0; r--) {
        e->report = (struct report){.rows = e->rows, .logprobs = e->logprobs};
        while (!step_next_report(e->engine[r], &e->report)) {
            assert_true(clock_now_ns() < limit_ns);
            clock_sleep_ns(50 * CLOCK_NS_PER_US);
        }
        if (r > 0)
            assert_int_equal(e->report.logprobs_count, 0);
    }
}

static void begin(struct engines *e, uint64_t step)
{
    step_plan_clear(&e->plan);
    e->plan.step = step;
    e->plan.epoch = EPOCH;
}

static int32_t prompt_id(int slot, int position)
{
    return (slot * 101 + position * 7 + position * position) % REAL_IDS;
}

static struct step_open *add_open(struct step_plan *plan, int slot, int prompt)
{
    struct step_open *open = &plan->opens[plan->opens_count++];
    *open = (struct step_open){
        .slot = slot, .prompt_tokens = prompt, .tokens_end = prompt + DRAWN, .seed = 3};
    plan->pages[plan->pages_count++] = (struct step_pages){
        .slot = slot, .first = 0, .count = 3, .ids_first = plan->page_ids_count};
    for (int i = 0; i < 3; i++)
        plan->page_ids[plan->page_ids_count++] = i * SEQUENCES + slot;
    return open;
}

// Tokens [first, first + count) of a slot's prompt of PROMPT tokens.
static void add_prefill(struct step_plan *plan, int slot, int first, int count, int logprobs)
{
    bool last = first + count == PROMPT;
    plan->rows[plan->rows_count++] =
        (struct step_plan_row){.slot = slot,
                               .kind = STEP_ROW_PREFILL,
                               .tokens_first = plan->tokens_count,
                               .tokens_count = count,
                               .token_next = last ? -1 : prompt_id(slot, first + count),
                               .sample = last,
                               .prompt_logprobs = logprobs,
                               .checkpoint = -1};
    for (int i = 0; i < count; i++)
        plan->tokens[plan->tokens_count++] = prompt_id(slot, first + i);
}

static void take(struct told *told, const struct engines *e, int slot)
{
    for (int i = 0; i < e->report.rows_count; i++) {
        const struct step_result *row = &e->rows[i];
        const struct step_logprob *at = e->logprobs + row->logprobs_first;
        if (row->slot != slot)
            continue;
        for (int k = 0; k < row->prompt_logprobs_count; k++)
            told->prompt[told->prompt_count++] = *at++;
        for (int k = 0; k < row->logprobs_count; k++)
            told->drawn[told->drawn_count++] = *at++;
        for (int k = 0; k < row->count; k++)
            told->tokens[told->tokens_count++] = row->tokens[k];
    }
}

static const float *row_sorted;

static int by_logit(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    float lx = row_sorted[x], ly = row_sorted[y];
    return lx != ly ? (lx < ly) - (lx > ly) : (x > y) - (x < y);
}

static void expect(const struct step_logprob *entry, const float *row, int32_t id, int top)
{
    int32_t ids[REAL_IDS];
    double maximum = -INFINITY, sum = 0;
    for (int i = 0; i < REAL_IDS; i++) {
        ids[i] = i;
        maximum = fmax(maximum, (double)row[i]);
    }
    for (int i = 0; i < REAL_IDS; i++)
        sum += exp((double)row[i] - maximum);
    row_sorted = row;
    qsort(ids, REAL_IDS, sizeof ids[0], by_logit);
    double norm = maximum + log(sum);
    assert_int_equal(entry->id, id);
    assert_true(ops_rounded_float(entry->logprob, (double)row[id] - norm, 1e-12));
    assert_int_equal(entry->top_count, top);
    for (int k = 0; k < top; k++) {
        assert_int_equal(entry->top_ids[k], ids[k]);
        assert_true(ops_rounded_float(entry->top_logprobs[k], (double)row[ids[k]] - norm, 1e-12));
    }
}

// Every position's logits of a whole sequence alone; a row's bits depend on its own tokens only.
static float *reference(int ranks, int slot, const struct told *told, int *vocab)
{
    struct team *team = calloc(1, sizeof *team);
    int32_t ids[PROMPT + DRAWN];
    open_team(team, ranks);
    *vocab = team->vocab;
    float *logits = calloc((size_t)(PROMPT + DRAWN) * (size_t)team->vocab, sizeof *logits);
    for (int i = 0; i < PROMPT; i++)
        ids[i] = prompt_id(slot, i);
    memcpy(ids + PROMPT, told->tokens, DRAWN * sizeof ids[0]);
    team_open_slot(team, 0, 2, 0, 1);
    team_prefill(team, 0, ids, PROMPT + DRAWN - 1, 1, logits);
    team_close(team);
    free(team);
    return logits;
}

// Slot 0: prompt in two chunks, plain. Slot 1: penalties, a temperature, top 20. Slot 2 asks
// for nothing. In step 2 the second chunk of slot 0 meets the others' first rows.
static void run_all(struct engines *e, struct told told[SEQUENCES])
{
    for (uint64_t step = 1; step <= DRAWN + 1; step++) {
        begin(e, step);
        for (int slot = 0; slot < SEQUENCES && step > 2; slot++)
            e->plan.rows[e->plan.rows_count++] =
                (struct step_plan_row){.slot = slot, .kind = STEP_ROW_DECODE, .checkpoint = -1};
        if (step == 1) {
            add_open(&e->plan, 0, PROMPT)->logprobs = 1 + 3;
            add_prefill(&e->plan, 0, 0, 64, 1 + 2);
        } else if (step == 2) {
            struct step_open *open = add_open(&e->plan, 1, PROMPT);
            open->logprobs = 1 + STEP_LOGPROBS_TOP_MAX;
            open->temperature = 1.3f;
            open->top_k = 50;
            open->presence = 2;
            open->repetition = 1.8f;
            add_open(&e->plan, 2, PROMPT)->frequency = 1;
            add_prefill(&e->plan, 0, 64, PROMPT - 64, 1 + 2);
            add_prefill(&e->plan, 1, 0, PROMPT, 1);
            add_prefill(&e->plan, 2, 0, PROMPT, 0);
        }
        run(e);
        for (int slot = 0; slot < SEQUENCES; slot++)
            take(&told[slot], e, slot);
    }
}

static void expect_slot(int ranks, int slot, const struct told *told, int prompt_top, int top)
{
    int vocab;
    float *logits = reference(ranks, slot, told, &vocab);
    assert_int_equal(told->prompt_count, PROMPT - 1);
    assert_int_equal(told->drawn_count, DRAWN);
    for (int i = 0; i < PROMPT - 1; i++)
        expect(&told->prompt[i], logits + i * vocab, prompt_id(slot, i + 1), prompt_top);
    for (int i = 0; i < DRAWN; i++)
        expect(&told->drawn[i], logits + (PROMPT - 1 + i) * vocab, told->tokens[i], top);
    free(logits);
}

static void any_degree_tells_the_models_own_distribution(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= RANKS_MAX_HERE; ranks *= 2) {
        static struct told told[SEQUENCES];
        memset(told, 0, sizeof told);
        struct engines *e = open_engines(ranks);
        run_all(e, told);
        expect_slot(ranks, 0, &told[0], 2, 3);
        expect_slot(ranks, 1, &told[1], 0, STEP_LOGPROBS_TOP_MAX);
        assert_int_equal(told[2].prompt_count + told[2].drawn_count, 0);
        assert_int_equal(told[2].tokens_count, DRAWN);
        close_engines(e);
    }
}

static void too_much_is_refused_by_name(void **state)
{
    (void)state;
    struct error error;
    struct engines *e = open_engines(1);
    begin(e, 1);
    add_open(&e->plan, 0, PROMPT)->logprobs = 22;
    add_prefill(&e->plan, 0, 0, 64, 0);
    assert_int_equal(step_submit(e->engine[0], &e->plan, &error), E_MALFORMED);
    assert_string_equal(error.text, "step plan: opens.logp is 22, accepted is 0 to 21");
    e->plan.opens[0].logprobs = 0;
    e->plan.rows[0].prompt_logprobs = 22;
    assert_int_equal(step_submit(e->engine[0], &e->plan, &error), E_MALFORMED);
    assert_string_equal(error.text, "step plan: rows.prompt_logprobs is 22, accepted is 0 to 21");
    close_engines(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_degree_tells_the_models_own_distribution),
        cmocka_unit_test(too_much_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
