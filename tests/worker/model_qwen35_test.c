// SPDX-License-Identifier: Apache-2.0
// model_qwen35_test.c -- the forward pass against goldens of transformers, at every
// tensor-parallel degree that divides the model, alone and together, whole and in chunks.
//
// Tolerance. A golden holds float32 logits and how far transformers' own bf16 run of the same
// model is from them (rms and max over all positions, measured, not chosen). This engine rounds
// where a bf16 run rounds, and sums and keeps its state more exactly, so it must not be further
// from float32 than transformers in bf16 is: rms at most 1.1 times theirs (both are estimates
// from the same number of random roundings; 1.1 is 4 standard deviations of that ratio for the
// smallest case), max at most twice theirs. A changed token is a near tie when the golden's two
// best logits are closer than twice their max; nothing else may differ. Nor may our logits of the
// token taken and of the golden's lie further apart than that: float32 has the golden's ahead, so
// the gap is at most the difference of two errors. Where the router has a near tie of its own,
// another expert may have been chosen, and max is that of transformers' prompt with such ties.
#include "worker/model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixtures/golden.h"
#include "tests/fixtures/team.h"

// Sanitizers look for races and stray reads, not at numbers, and make this test twenty times
// slower: one dense and one MoE model are enough for them.
#ifdef DELTAMESH_SANITIZED
static const char *const cases[] = {"dense_tied_r1", "moe_e8_r2"};
#else
static const char *const cases[] = {
    "dense_tied_r1", "dense_untied_r2", "dense_flat_r3", "dense_deep_r4",
    "dense_yarn",    "moe_e8_r2",       "moe_e16_tp8",   "next_e8_r2",
};
#endif

static struct team_options options_for(const struct golden *golden, int ranks)
{
    return (struct team_options){.model_dir = golden->dir,
                                 .load_format = LOAD_DUMMY,
                                 .ranks = ranks,
                                 .sequences = 4,
                                 .sequence_tokens = 704,
                                 .step_tokens = 640};
}

struct difference {
    double squares, max;
    size_t count;
};

static void add(struct difference *difference, const float *got, const float *expected, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - (double)expected[i]);
        difference->squares += d * d;
        difference->max = d > difference->max ? d : difference->max;
        difference->count++;
        if (isnan(d))
            difference->max = INFINITY;
    }
}

// Every recorded number of one prompt against logits [length, vocab].
static void compare_prompt(struct difference *difference, const struct golden *golden,
                           const json_t *prompt, const float *logits)
{
    size_t vocab = (size_t)golden_number(golden->root, "vocab"), index;
    const float *full = golden_floats(golden, json_object_get(prompt, "full_logits"), NULL);
    const float *column = golden_floats(golden, json_object_get(prompt, "column_logits"), NULL);
    const json_t *columns = json_object_get(golden->root, "columns");
    size_t length = (size_t)golden_number(prompt, "length");
    json_t *position;
    json_array_foreach(json_object_get(prompt, "full_positions"), index, position)
    {
        size_t at = (size_t)json_integer_value(position);
        add(difference, logits + at * vocab, full + index * vocab, vocab);
    }
    for (size_t at = 0; at < length; at++) {
        for (size_t c = 0; c < json_array_size(columns); c++) {
            size_t id = (size_t)json_integer_value(json_array_get(columns, c));
            add(difference, logits + at * vocab + id, column + at * json_array_size(columns) + c,
                1);
        }
    }
}

static void check_case(const char *name, int ranks)
{
    struct golden golden;
    struct team *team = (struct team *)calloc(1, sizeof *team);
    struct difference difference = {0};
    size_t index;
    json_t *prompt;
    golden_open(&golden, name, "logits");
    struct team_options options = options_for(&golden, ranks);
    team_open(team, &options);
    float *logits = (float *)calloc((size_t)(640 * team->vocab), sizeof(float));
    json_array_foreach(json_object_get(golden.root, "prompts"), index, prompt)
    {
        size_t length;
        const int32_t *ids = golden_ints(&golden, json_object_get(prompt, "ids"), &length);
        if (strstr(json_string_value(json_object_get(prompt, "name")), "natural") != NULL)
            continue;
        team_open_slot(team, 0, 11, 3, 2);
        team_prefill(team, 0, ids, (int)length, 0, logits);
        compare_prompt(&difference, &golden, prompt, logits);
    }
    double rms = sqrt(difference.squares / (double)difference.count);
    double rms_limit = 1.1 * golden_number(golden.root, "bf16_minus_f32.hf.logits.rms");
    double max_limit = 2.0 * golden_number(golden.root, "bf16_minus_f32.hf.logits.max");
    print_message("%s tp %d: rms %.5f (limit %.5f), max %.4f (limit %.4f), %zu numbers\n", name,
                  ranks, rms, rms_limit, difference.max, max_limit, difference.count);
    assert_true(rms <= rms_limit);
    assert_true(difference.max <= max_limit);
    free(logits);
    team_close(team);
    free(team);
    golden_close(&golden);
}

static void logits_are_those_of_transformers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check_case(cases[i], 1);
}

// ---- greedy continuations ----

static int32_t best_of(const float *logits, int real_ids)
{
    int best = 0;
    for (int id = 1; id < real_ids; id++)
        best = logits[id] > logits[best] ? id : best;
    return best;
}

struct near_ties {
    double tolerance, expert_tolerance; // of logits, without and with a near tie of the router
    double router_tolerance;            // of the router's logits
    int tokens, changed, unexplained;
    double gap_max; // of logits, found at the changed tokens
};

static void judge_change(struct near_ties *ties, double margin, double router_margin, double gap)
{
    bool expert_tie = router_margin < ties->router_tolerance;
    double tolerance = expert_tie ? ties->expert_tolerance : ties->tolerance;
    ties->changed++;
    ties->unexplained += (margin > tolerance && !expert_tie) || !(gap <= tolerance);
    ties->gap_max = gap > ties->gap_max ? gap : ties->gap_max;
}

// Prefill, then one decode row after another, each fed with the golden's token (teacher-forced).
static void run_greedy(struct near_ties *ties, struct team *team, const json_t *entry, int real_ids)
{
    int32_t prompt[128];
    size_t length = json_array_size(json_object_get(entry, "prompt"));
    size_t count = json_array_size(json_object_get(entry, "tokens"));
    float *logits = (float *)calloc(length * (size_t)team->vocab, sizeof(float));
    assert_true(length <= 128);
    for (size_t i = 0; i < length; i++)
        prompt[i] =
            (int32_t)json_integer_value(json_array_get(json_object_get(entry, "prompt"), i));
    team_open_slot(team, 1, 3, 0, 1);
    const float *row = logits + (length - 1) * (size_t)team->vocab;
    for (size_t i = 0; i < count; i++) {
        int32_t expected =
            (int32_t)json_integer_value(json_array_get(json_object_get(entry, "tokens"), i));
        double margin = json_number_value(json_array_get(json_object_get(entry, "margins"), i));
        const json_t *router = json_object_get(entry, "router_margins");
        if (i == 0) {
            team_prefill(team, 1, prompt, (int)length, expected, logits);
        } else {
            team_decode(team, 1, expected, logits);
            row = logits;
        }
        ties->tokens++;
        int32_t taken = best_of(row, real_ids);
        if (taken != expected)
            judge_change(ties, margin,
                         router != NULL ? json_number_value(json_array_get(router, i)) : INFINITY,
                         (double)row[taken] - (double)row[expected]);
    }
    free(logits);
}

static void check_greedy(const char *name, int ranks)
{
    struct golden golden;
    int bf16_changed = 0;
    size_t index, at;
    json_t *entry, *token;
    struct team *team = (struct team *)calloc(1, sizeof *team);
    golden_open(&golden, name, "logits");
    struct team_options options = options_for(&golden, ranks);
    team_open(team, &options);
    struct near_ties ties = {.tolerance =
                                 2 * golden_number(golden.root, "bf16_minus_f32.hf.logits.max")};
    if (json_object_get(golden.root, "router_margin_selected") != NULL) {
        ties.router_tolerance = golden_number(golden.root, "router_margin_selected");
        ties.expert_tolerance =
            2 * golden_number(golden.root, "bf16_minus_f32_natural.hf.logits.max");
    }
    int real_ids = (int)golden_number(golden.root, "real_ids");
    json_array_foreach(json_object_get(golden.root, "greedy"), index, entry)
    {
        run_greedy(&ties, team, entry, real_ids);
        json_array_foreach(json_object_get(entry, "bf16_best_ids"), at, token)
        {
            bf16_changed +=
                !json_equal(token, json_array_get(json_object_get(entry, "tokens"), at));
        }
    }
    print_message("%s tp %d: %d tokens, %d near ties taken otherwise (transformers in bf16: %d) by "
                  "up to %.4f (limit %.4f), %d unexplained\n",
                  name, ranks, ties.tokens, ties.changed, bf16_changed, ties.gap_max,
                  ties.tolerance, ties.unexplained);
    assert_int_equal(ties.tokens, 64);
    assert_int_equal(ties.unexplained, 0);
    assert_true(ties.changed <= 2 * bf16_changed + 1);
    team_close(team);
    free(team);
    golden_close(&golden);
}

// Decode rows draw what transformers draws, but for near ties of the logits or of the router; not
// more of those than transformers' own bf16 run has, twice over.
static void greedy_tokens_are_those_of_transformers(void **state)
{
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        check_greedy(cases[c], 1);
        check_greedy(cases[c], 2);
    }
}

// ---- tensor-parallel degrees ----

static void degrees_agree(void **state)
{
    (void)state;
    check_case("moe_e16_tp8", 8); // KV heads replicated on four ranks each
#ifdef DELTAMESH_SANITIZED
    return;
#endif
    check_case("moe_e16_tp8", 2);
    check_case("moe_e16_tp8", 4);
    check_case("dense_untied_r2", 2);
    check_case("next_e8_r2", 2);
    check_case("dense_deep_r4", 2);
}

// ---- bits: whole = chunks = together = delayed ----

enum { BITS_TOKENS = 300, BITS_DECODES = 6 };

// Logits of every prompt position and of BITS_DECODES decode rows of one sequence.
struct bits_run {
    float *logits; // [BITS_TOKENS + BITS_DECODES, vocab]
    int chunk;     // tokens of a prefill chunk, 0 = whole
    bool together; // with a second sequence in every step
    uint64_t jitter;
    int ranks;
};

static void fill_prompt(int32_t *ids, int count, uint64_t seed, int real_ids)
{
    for (int i = 0; i < count; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        ids[i] = (int32_t)((seed >> 33) % (uint64_t)real_ids);
    }
}

static void run_chunk(struct team *team, struct bits_run *run, const int32_t *ids, int first,
                      int count, const int32_t *other)
{
    size_t vocab = (size_t)team->vocab;
    bool last = first + count == BITS_TOKENS;
    struct team_row rows[2] = {
        {.slot = 2, .kind = ROW_PREFILL, .ids = other, .count = 37, .forced = {5}},
        {.slot = 0,
         .kind = ROW_PREFILL,
         .ids = ids + first,
         .count = count,
         .forced = {7},
         .draws = last},
    };
    float *logits = (float *)calloc((size_t)(count + 37) * vocab, sizeof(float));
    if (run->together) {
        team_step(team, rows, 2, logits, NULL);
        memcpy(run->logits + (size_t)first * vocab, logits + 37 * vocab,
               (size_t)count * vocab * sizeof(float));
    } else {
        team_step(team, rows + 1, 1, logits, NULL);
        memcpy(run->logits + (size_t)first * vocab, logits, (size_t)count * vocab * sizeof(float));
    }
    free(logits);
}

static void run_bits(struct bits_run *run, const struct golden *golden)
{
    int32_t ids[BITS_TOKENS], other[BITS_TOKENS];
    struct team *team = (struct team *)calloc(1, sizeof *team);
    struct team_options options = options_for(golden, run->ranks);
    options.jitter_seed = run->jitter;
    team_open(team, &options);
    fill_prompt(ids, BITS_TOKENS, 1, 300);
    fill_prompt(other, BITS_TOKENS, 2, 300);
    size_t vocab = (size_t)team->vocab;
    run->logits = (float *)calloc((BITS_TOKENS + BITS_DECODES) * vocab, sizeof(float));
    team_open_slot(team, 0, 6, run->together ? 20 : 1, 1);
    team_open_slot(team, 2, 11, 33, 1);
    int chunk = run->chunk == 0 ? BITS_TOKENS : run->chunk;
    for (int first = 0; first < BITS_TOKENS; first += chunk) {
        int count = BITS_TOKENS - first < chunk ? BITS_TOKENS - first : chunk;
        run_chunk(team, run, ids, first, count, other);
    }
    for (int i = 0; i < BITS_DECODES; i++)
        team_decode(team, 0, 11 + i, run->logits + (size_t)(BITS_TOKENS + i) * vocab);
    team_close(team);
    free(team);
}

static void bits_depend_on_own_tokens_alone(void **state)
{
#ifdef DELTAMESH_SANITIZED
    static const char *const names[] = {"moe_e8_r2"};
#else
    static const char *const names[] = {"dense_untied_r2", "moe_e8_r2"};
#endif
    (void)state;
    for (size_t c = 0; c < sizeof names / sizeof names[0]; c++) {
        struct golden golden;
        struct bits_run runs[] = {
            {.ranks = 2},
            {.ranks = 2, .chunk = 64},
            {.ranks = 2, .chunk = 192, .together = true},
            {.ranks = 2, .chunk = 128, .together = true, .jitter = 77},
        };
        golden_open(&golden, names[c], "logits");
        size_t bytes =
            (size_t)golden_number(golden.root, "vocab") * (BITS_TOKENS + BITS_DECODES) * 4;
        for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
            run_bits(&runs[i], &golden);
            assert_memory_equal(runs[i].logits, runs[0].logits, bytes);
        }
        for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++)
            free(runs[i].logits);
        golden_close(&golden);
    }
}

// ---- verify rows ----

// Plain decoding of `count` given tokens after a prompt: logits of each row.
static void decode_plainly(struct team *team, const int32_t *tokens, int count, float *logits)
{
    int32_t prompt[70];
    fill_prompt(prompt, 70, 9, 300);
    team_open_slot(team, 0, 6, 0, 1);
    team_prefill(team, 0, prompt, 70, tokens[0], NULL);
    for (int i = 0; i < count; i++)
        team_decode(team, 0, tokens[i + 1], logits + (size_t)i * (size_t)team->vocab);
}

// The same tokens with verify rows of changing width, whose drafts are right for a while and then
// wrong: whatever is accepted, the rows that count are those of plain decoding, bit for bit.
static void verified_rows_equal_plain_rows(void **state)
{
    enum { TOKENS = 40 };
    struct golden golden;
    int32_t tokens[TOKENS + 8], prompt[70];
    struct team *team = (struct team *)calloc(1, sizeof *team);
    (void)state;
    golden_open(&golden, "moe_e8_r2", "logits");
    struct team_options options = options_for(&golden, 2);
    team_open(team, &options);
    size_t vocab = (size_t)team->vocab;
    float *plain = (float *)calloc(TOKENS * vocab, sizeof(float));
    float *logits = (float *)calloc(ROW_VERIFY_MAX * vocab, sizeof(float));
    fill_prompt(tokens, TOKENS + 8, 4, 300);
    fill_prompt(prompt, 70, 9, 300);
    decode_plainly(team, tokens, TOKENS, plain);
    team_open_slot(team, 0, 6, 0, 1);
    team_prefill(team, 0, prompt, 70, tokens[0], NULL);
    for (int at = 0, turn = 0; at < TOKENS - ROW_VERIFY_MAX; turn++) {
        int verify = 1 + turn % ROW_VERIFY_MAX, right = (turn * 5) % verify;
        struct team_row row = {.slot = 0, .kind = ROW_DECODE, .count = verify};
        int32_t drafts[ROW_VERIFY_MAX];
        for (int i = 0; i < verify; i++) {
            row.forced[i] = tokens[at + 1 + i]; // what sampling would give after each row
            drafts[i] = i < right ? tokens[at + 1 + i] : tokens[at + 1 + i] + 1;
        }
        team_set_drafts(team, 0, drafts, verify - 1);
        team_step(team, &row, 1, logits, NULL);
        assert_int_equal(team->results[0].count, right + 1);
        assert_memory_equal(logits, plain + (size_t)at * vocab,
                            (size_t)(right + 1) * vocab * sizeof(float));
        at += right + 1;
    }
    free(plain);
    free(logits);
    team_close(team);
    free(team);
    golden_close(&golden);
}

// ---- the multi-token-prediction head ----

struct mtp_run {
    struct team *team;
    const struct golden *golden;
    struct difference difference;
    int drafts, wrong;
};

// Chains five drafts after the prompt's pairs, as the golden does.
static void run_drafts(struct mtp_run *run, const json_t *prompt, int length, bf16 *last_hidden)
{
    struct team *team = run->team;
    size_t vocab = (size_t)team->vocab;
    float *logits = (float *)calloc(vocab, sizeof(float));
    const float *expected = golden_floats(run->golden, json_object_get(prompt, "logits"), NULL);
    const json_t *drafts = json_object_get(prompt, "drafts");
    int32_t id = (int32_t)golden_number(prompt, "next_token");
    int real_ids = (int)golden_number(run->golden->root, "real_ids");
    size_t row_bytes = (size_t)team->config.hidden * sizeof(bf16);
    bf16 *hidden_in = (bf16 *)malloc(row_bytes); // one rank may write while another still reads
    for (int k = 0; k < 5; k++) {
        memcpy(hidden_in, last_hidden, row_bytes);
        struct team_pairs pair = {0, length + k, 1, &id, hidden_in};
        team_mtp(team, &pair, logits, last_hidden);
        add(&run->difference, logits, expected + (size_t)k * vocab, vocab);
        id = (int32_t)json_integer_value(json_array_get(drafts, (size_t)k));
        run->drafts++;
        run->wrong += best_of(logits, real_ids) != id;
    }
    free(hidden_in);
    free(logits);
}

static void run_mtp_prompt(struct mtp_run *run, const json_t *prompt)
{
    struct team *team = run->team;
    int length = (int)golden_number(prompt, "length"), hidden = team->config.hidden;
    int32_t ids[128];
    size_t vocab = (size_t)team->vocab;
    bf16 *rows = (bf16 *)calloc((size_t)length * (size_t)hidden, sizeof(bf16));
    float *logits = (float *)calloc((size_t)length * vocab, sizeof(float));
    for (int i = 0; i < length; i++)
        ids[i] =
            (int32_t)json_integer_value(json_array_get(json_object_get(prompt, "ids"), (size_t)i));
    struct team_row row = {.slot = 0, .kind = ROW_PREFILL, .ids = ids, .count = length};
    team_open_slot(team, 0, 4, 1, 2);
    team_step(team, &row, 1, NULL, rows);
    struct team_pairs pairs = {0, 1, length - 1, ids + 1, rows};
    team_mtp(team, &pairs, logits, NULL);
    add(&run->difference, logits + (size_t)(length - 2) * vocab,
        golden_floats(run->golden, json_object_get(prompt, "prompt_pair_logits"), NULL), vocab);
    run_drafts(run, prompt, length, rows + (size_t)(length - 1) * (size_t)hidden);
    free(rows);
    free(logits);
}

static void check_mtp(const char *name, int ranks)
{
    struct golden golden;
    struct team *team = (struct team *)calloc(1, sizeof *team);
    struct mtp_run run = {.team = team, .golden = &golden};
    size_t index;
    json_t *prompt;
    golden_open(&golden, name, "mtp");
    struct team_options options = options_for(&golden, ranks);
    team_open(team, &options);
    json_array_foreach(json_object_get(golden.root, "prompts"), index, prompt)
    {
        run_mtp_prompt(&run, prompt);
    }
    double rms = sqrt(run.difference.squares / (double)run.difference.count);
    double rms_limit = 1.1 * golden_number(golden.root, "bf16_minus_f32.rms");
    double max_limit = 2.0 * golden_number(golden.root, "bf16_minus_f32.max");
    print_message("%s tp %d: head rms %.5f (limit %.5f), max %.4f (limit %.4f), %d of %d drafts "
                  "differ\n",
                  name, ranks, rms, rms_limit, run.difference.max, max_limit, run.wrong,
                  run.drafts);
    assert_true(rms <= rms_limit);
    assert_true(run.difference.max <= max_limit);
    assert_int_equal(run.wrong, 0); // the goldens' margins are clear of both tolerances
    team_close(team);
    free(team);
    golden_close(&golden);
}

static void the_head_agrees_with_its_equations(void **state)
{
    (void)state;
    check_mtp("dense_untied_r2", 1);
    check_mtp("moe_e8_r2", 1);
    check_mtp("moe_e8_r2", 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_are_those_of_transformers),
        cmocka_unit_test(greedy_tokens_are_those_of_transformers),
        cmocka_unit_test(degrees_agree),
        cmocka_unit_test(bits_depend_on_own_tokens_alone),
        cmocka_unit_test(verified_rows_equal_plain_rows),
        cmocka_unit_test(the_head_agrees_with_its_equations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
