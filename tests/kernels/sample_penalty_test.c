// SPDX-License-Identifier: Apache-2.0
// sample_penalty_test.c -- penalties against plain arithmetic over the sequence's own history:
// prompt in chunks, decode and verify rows, drafts before a row, shards, banned stop ids.
#include "kernels/sample_penalty.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixtures/steps.h"

enum { VOCAB = 64, SLOTS = 3, TOKENS = 64, PROMPT = 12 };

struct fixture {
    struct ops ops;
    struct steps steps;
    uint16_t *counts[2]; // of each shard: [SLOTS, vocab own]
    int ranks;
};

static struct sample_penalty shard_op(struct fixture *f, int rank, float *logits,
                                      const int32_t *rows, int rows_count)
{
    int own = VOCAB / f->ranks;
    return (struct sample_penalty){.tables = f->steps.tables,
                                   .slots = f->steps.slots,
                                   .logits = logits,
                                   .vocab_first = rank * own,
                                   .vocab_count = own,
                                   .rows = rows,
                                   .rows_count = rows_count,
                                   .counts = f->counts[rank]};
}

static void open_fixture(struct fixture *f, int ranks, const struct slot_sampling *sampling)
{
    memset(f, 0, sizeof *f);
    f->ranks = ranks;
    ops_open(&f->ops, 1, 64, 3);
    steps_open(&f->steps, &f->ops, SLOTS, 2, TOKENS);
    for (int r = 0; r < ranks; r++) {
        size_t bytes = (size_t)(SLOTS * VOCAB / ranks) * sizeof(uint16_t);
        struct slot_opening opening = {.slot = 1};
        f->counts[r] = ops_alloc(&f->ops, bytes);
        memset(f->counts[r], 0xff, bytes); // as a former sequence left them
        sample_penalty_open(f->ops.streams[0], f->counts[r], VOCAB / ranks, &opening, 1);
        stream_synchronize(f->ops.streams[0]); // opening is read when the op runs
    }
    steps_open_slot(&f->steps, 1, 0, sampling);
}

// Runs the penalties of every sampled row of the begun step over `logits` [samples, VOCAB].
static void penalise(struct fixture *f, float *logits)
{
    int samples = f->steps.tables.samples_count, own = VOCAB / f->ranks;
    int32_t *rows = ops_alloc(&f->ops, sizeof(int32_t) * (size_t)samples);
    for (int i = 0; i < samples; i++)
        rows[i] = i;
    for (int r = 0; r < f->ranks; r++) {
        float *part = ops_alloc(&f->ops, sizeof(float) * (size_t)(samples * own));
        for (int i = 0; i < samples; i++)
            memcpy(part + i * own, logits + i * VOCAB + r * own, (size_t)own * sizeof(float));
        struct sample_penalty op = shard_op(f, r, part, rows, samples);
        sample_penalty(f->ops.streams[0], &op);
        ops_wait(&f->ops);
        for (int i = 0; i < samples; i++)
            memcpy(logits + i * VOCAB + r * own, part + i * own, (size_t)own * sizeof(float));
    }
}

static void note(struct fixture *f, bool drawn)
{
    for (int r = 0; r < f->ranks; r++) {
        struct sample_penalty op = shard_op(f, r, NULL, NULL, 0);
        if (drawn)
            sample_penalty_drawn(f->ops.streams[0], &op, f->steps.results);
        else
            sample_penalty_prompt(f->ops.streams[0], &op);
        ops_wait(&f->ops);
    }
}

// The definition: history[0 .. count) with its first prompt_tokens being prompt.
static float expected(float logit, int id, const int32_t *history, int count,
                      const struct slot_sampling *p)
{
    int in_prompt = 0, drawn = 0;
    for (int i = 0; i < count; i++) {
        in_prompt += history[i] == id && i < p->prompt_tokens;
        drawn += history[i] == id && i >= p->prompt_tokens;
    }
    if ((in_prompt || drawn) && p->repetition > 0)
        logit = logit > 0 ? logit / p->repetition : logit * p->repetition;
    if (drawn) {
        logit -= p->frequency * (float)drawn;
        logit -= p->presence;
    }
    return logit;
}

static void fill(float *logits, int samples)
{
    for (int i = 0; i < samples * VOCAB; i++)
        logits[i] = (float)((i * 37) % 41) / 8 - 2.5f;
}

// Row `row` of logits against the history of `count` tokens.
static void check(const float *logits, int row, const int32_t *history, int count,
                  const struct slot_sampling *p)
{
    for (int id = 0; id < VOCAB; id++) {
        float before = (float)(((row * VOCAB + id) * 37) % 41) / 8 - 2.5f;
        assert_true(logits[row * VOCAB + id] == expected(before, id, history, count, p));
    }
}

static void run_sequence(int ranks)
{
    const struct slot_sampling p = {.repetition = 1.3f,
                                    .frequency = 0.25f,
                                    .presence = 0.5f,
                                    .prompt_tokens = PROMPT - 2, // two generated ones come again
                                    .tokens_end = 1000};
    const int32_t prompt[PROMPT] = {1, 2, 3, 2, 2, 60, 33, 31, 32, 7, 7, 9};
    int32_t history[TOKENS];
    float logits[ROW_VERIFY_MAX * VOCAB];
    struct fixture f;
    int count = PROMPT;
    open_fixture(&f, ranks, &p);
    memcpy(history, prompt, sizeof prompt);
    for (int first = 0; first < PROMPT; first += 5) { // in chunks
        int n = PROMPT - first < 5 ? PROMPT - first : 5;
        bool last = first + n == PROMPT;
        steps_clear(&f.steps);
        steps_add_prefill(&f.steps, 1, prompt + first, n, last ? -1 : prompt[first + n]);
        steps_begin(&f.steps);
        note(&f, false);
        if (last) {
            fill(logits, 1);
            penalise(&f, logits);
            check(logits, 0, history, count, &p);
            f.steps.sampled[0] = 7;
            history[count++] = 7;
        }
        steps_end(&f.steps);
        note(&f, true);
    }
    for (int turn = 0; turn < 6; turn++) {
        int verify = 1 + turn % 3;
        for (int i = 0; i < verify - 1; i++)
            f.steps.slots.slots[1].drafts[i] = (turn * 5 + 60 * i) % VOCAB;
        steps_clear(&f.steps);
        steps_add_decode(&f.steps, 1, verify);
        steps_begin(&f.steps);
        fill(logits, verify);
        penalise(&f, logits);
        for (int row = 0; row < verify; row++) { // each with the drafts before it as drawn
            int32_t seen[TOKENS];
            memcpy(seen, history, sizeof seen);
            for (int i = 0; i < row; i++)
                seen[count + i] = f.steps.slots.slots[1].drafts[i];
            check(logits, row, seen, count + row, &p);
        }
        steps_accept(&f.steps, 0, 1 + turn % verify);
        steps_end(&f.steps);
        note(&f, true);
        for (int i = 0; i < f.steps.results[0].count; i++)
            history[count++] = f.steps.results[0].tokens[i];
    }
    ops_close(&f.ops);
}

static void penalties_follow_the_history(void **state)
{
    (void)state;
    run_sequence(1);
    run_sequence(2);
}

// Stop ids cannot be drawn before stops_from and can from there on.
static void stops_are_banned_until_min_tokens(void **state)
{
    const struct slot_sampling p = {.prompt_tokens = 3,
                                    .tokens_end = 1000,
                                    .stops_from = 5,
                                    .stop_count = 2,
                                    .stop_ids = {4, 50}};
    const int32_t prompt[3] = {1, 2, 3};
    float logits[VOCAB];
    struct fixture f;
    (void)state;
    assert_true(sample_penalty_needed(&p) && !sample_penalty_counts(&p));
    open_fixture(&f, 2, &p);
    for (int step = 0; step < 4; step++) { // draws the tokens at positions 3, 4, 5, 6
        steps_clear(&f.steps);
        if (step == 0)
            steps_add_prefill(&f.steps, 1, prompt, 3, -1);
        else
            steps_add_decode(&f.steps, 1, 1);
        steps_begin(&f.steps);
        fill(logits, 1);
        penalise(&f, logits);
        assert_int_equal(logits[4] == -INFINITY, step < 2);
        assert_int_equal(logits[50] == -INFINITY, step < 2);
        assert_true(isfinite(logits[5]));
        f.steps.sampled[0] = 10 + step;
        steps_end(&f.steps);
    }
    ops_close(&f.ops);
}

// Counts stop growing at their limit and never reach the prompt's bit.
static void counts_saturate(void **state)
{
    const struct slot_sampling p = {.presence = 1, .tokens_end = 1000};
    struct fixture f;
    (void)state;
    open_fixture(&f, 1, &p);
    f.counts[0][VOCAB + 8] = SAMPLE_COUNT_MAX;
    f.steps.tables.rows_count = 1;
    f.steps.results[0] = (struct row_result){.slot = 1, .count = 2, .tokens = {8, 9}};
    note(&f, true);
    assert_int_equal(f.counts[0][VOCAB + 8], SAMPLE_COUNT_MAX);
    assert_int_equal(f.counts[0][VOCAB + 9], 1);
    ops_close(&f.ops);
}

// Runs tokens [first, 70) of the prompt in slot `slot` and notes them.
static void run_prompt(struct fixture *f, int slot, const int32_t *prompt, int first,
                       int32_t *page_tokens)
{
    while (first < 70) {
        int n = 70 - first < TOKENS ? 70 - first : TOKENS;
        steps_clear(&f->steps);
        steps_add_prefill(&f->steps, slot, prompt + first, n, first + n < 70 ? 1 : -1);
        steps_begin(&f->steps);
        struct sample_penalty op = shard_op(f, 0, NULL, NULL, 0);
        sample_penalty_note(f->ops.streams[0], &op, page_tokens);
        note(f, false);
        steps_end(&f->steps);
        first += n;
    }
}

// A slot that opens behind another's first page counts what stands in it, as if it had run: prompt
// tokens, and those after the original prompt as drawn.
static void pages_remember_their_tokens(void **state)
{
    const struct slot_sampling p = {.repetition = 1.3f, .prompt_tokens = 60, .tokens_end = 1000};
    const struct slot_opening openings[] = {
        {.slot = 2, .position = 64, .sampling = p},
        {.slot = 0, .position = 64, .sampling = {.tokens_end = 1000}}}; // keeps no counts
    int32_t prompt[70];
    struct fixture f;
    (void)state;
    for (int i = 0; i < 70; i++)
        prompt[i] = i % 2 ? (i * i + 5) % 50 : 61;
    open_fixture(&f, 2, &p);
    size_t pages = (size_t)f.steps.pages_all;
    int32_t *page_tokens = ops_alloc(&f.ops, pages * SAMPLE_PAGE_TOKENS * sizeof *page_tokens);
    run_prompt(&f, 1, prompt, 0, page_tokens);
    steps_open_slot(&f.steps, 2, 64, &p);
    int32_t *table = f.steps.slots.block_table;
    table[2 * f.steps.slots.pages_per_sequence] = table[1 * f.steps.slots.pages_per_sequence];
    for (int r = 0; r < 2; r++) {
        struct sample_penalty op = shard_op(&f, r, NULL, NULL, 0);
        sample_penalty_open(f.ops.streams[0], f.counts[r], VOCAB / 2, openings, 2);
        sample_penalty_recall(f.ops.streams[0], &op, page_tokens, openings, 2);
        ops_wait(&f.ops);
        for (int i = 0; i < VOCAB / 2; i++)
            assert_int_equal(f.counts[r][i], 0); // slot 0
    }
    run_prompt(&f, 2, prompt, 64, page_tokens);
    for (int r = 0; r < 2; r++)
        assert_memory_equal(f.counts[r] + 2 * VOCAB / 2, f.counts[r] + 1 * VOCAB / 2,
                            VOCAB / 2 * sizeof(uint16_t));
    assert_int_equal(f.counts[1][1 * VOCAB / 2 + 61 - VOCAB / 2], SAMPLE_COUNT_PROMPT | 5);
    ops_close(&f.ops);
}

// What was drawn stands in its place, whatever drafts stood there before.
static void decode_rows_are_noted(void **state)
{
    const struct slot_sampling p = {.tokens_end = 1000};
    int32_t text[70];
    struct fixture f;
    (void)state;
    for (int i = 0; i < 70; i++)
        text[i] = (i * 7 + 3) % 50;
    open_fixture(&f, 1, &p);
    size_t pages = (size_t)f.steps.pages_all;
    int32_t *page_tokens = ops_alloc(&f.ops, pages * SAMPLE_PAGE_TOKENS * sizeof *page_tokens);
    run_prompt(&f, 1, text, 0, page_tokens); // 70 tokens, so that every place is known
    int32_t page = f.steps.slots.block_table[f.steps.slots.pages_per_sequence];
    int32_t *noted = page_tokens + (size_t)page * SAMPLE_PAGE_TOKENS;
    assert_memory_equal(noted, text, SAMPLE_PAGE_TOKENS * sizeof *text);
    memset(noted + 50, 0xff, 14 * sizeof *noted);
    struct slot *slot = &f.steps.slots.slots[1];
    slot->position = 50;
    while (slot->position < 64) {
        slot->token_next = text[slot->position];
        slot->drafts[0] = text[slot->position + 1];
        slot->drafts[1] = 61; // is never right
        steps_clear(&f.steps);
        steps_add_decode(&f.steps, 1, 3);
        steps_begin(&f.steps);
        struct sample_penalty op = shard_op(&f, 0, NULL, NULL, 0);
        sample_penalty_note(f.ops.streams[0], &op, page_tokens);
        steps_accept(&f.steps, 0, 1 + slot->position % 2);
        steps_end(&f.steps);
    }
    assert_memory_equal(noted, text, SAMPLE_PAGE_TOKENS * sizeof *text);
    ops_close(&f.ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(penalties_follow_the_history),
        cmocka_unit_test(stops_are_banned_until_min_tokens),
        cmocka_unit_test(counts_saturate),
        cmocka_unit_test(pages_remember_their_tokens),
        cmocka_unit_test(decode_rows_are_noted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
