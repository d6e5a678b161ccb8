// SPDX-License-Identifier: Apache-2.0
// sample_lists_test.c -- biases, allowed ids and banned words against plain loops over the whole
// row and the sequence's own history: any sharding, prompts that hold drawn tokens, verify rows
// with drafts before them, words that overlap, slots used again.
#include "kernels/sample_lists.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/sample.h"
#include "tests/fixtures/steps.h"

enum { VOCAB = 64, SLOTS = 3, TOKENS = 64, PROMPT = 9, SLOT = 1, LETTERS = 4 };

struct fixture {
    struct ops ops;
    struct steps steps;
    int32_t *lists[4], *recent[4]; // of each rank
    int ranks;
    struct slot_opening opening;
    int32_t pool[SAMPLE_LISTS_MAX + 5];
    int32_t history[256]; // drawn, oldest first
    int history_count;
};

static struct sample_lists rank_op(struct fixture *f, int rank, float *logits, const int32_t *rows,
                                   int rows_count)
{
    return (struct sample_lists){.tables = f->steps.tables,
                                 .slots = f->steps.slots,
                                 .logits = logits,
                                 .vocab_first = rank * VOCAB / f->ranks,
                                 .vocab_count = VOCAB / f->ranks,
                                 .rows = rows,
                                 .rows_count = rows_count,
                                 .lists = f->lists[rank],
                                 .recent = f->recent[rank]};
}

// The opening's lists lie somewhere in the pool.
static void open_fixture(struct fixture *f, int ranks, const struct slot_sampling *sampling,
                         const int32_t *lists, int lists_count)
{
    memset(f, 0, sizeof *f);
    f->ranks = ranks;
    ops_open(&f->ops, 1, 64, 3);
    steps_open(&f->steps, &f->ops, SLOTS, 2, TOKENS);
    steps_open_slot(&f->steps, SLOT, 0, sampling);
    memcpy(f->pool + 5, lists, (size_t)lists_count * sizeof *lists);
    f->opening = (struct slot_opening){.slot = SLOT, .lists_first = 5, .sampling = *sampling};
    for (int i = 0; i < SLOT_RECENT_MAX; i++)
        f->opening.recent[i] = -1;
    for (int r = 0; r < ranks; r++) {
        f->lists[r] = ops_alloc(&f->ops, SLOTS * SAMPLE_LISTS_MAX * sizeof(int32_t));
        f->recent[r] = ops_alloc(&f->ops, SLOTS * SAMPLE_RECENT_MAX * sizeof(int32_t));
        memset(f->recent[r], 0, SLOTS * SAMPLE_RECENT_MAX * sizeof(int32_t)); // of a former one
        struct sample_lists op = rank_op(f, r, NULL, NULL, 0);
        sample_lists_open(f->ops.streams[0], &op, f->pool, &f->opening, 1);
        ops_wait(&f->ops);
    }
}

static void note(struct fixture *f, bool drawn)
{
    for (int r = 0; r < f->ranks; r++) {
        struct sample_lists op = rank_op(f, r, NULL, NULL, 0);
        if (drawn)
            sample_lists_drawn(f->ops.streams[0], &op, f->steps.results);
        else
            sample_lists_prompt(f->ops.streams[0], &op);
        ops_wait(&f->ops);
    }
}

static float logit_before(int row, int id)
{
    return (float)(((row * VOCAB + id) * 37) % 41) / 8 - 2.5f;
}

// Runs the op over every sampled row of the begun step; logits [samples, VOCAB].
static void run(struct fixture *f, float *logits)
{
    int samples = f->steps.tables.samples_count, own = VOCAB / f->ranks;
    int32_t *rows = ops_alloc(&f->ops, sizeof(int32_t) * (size_t)(samples + 1));
    for (int i = 0; i < samples; i++)
        rows[i] = samples - 1 - i;
    rows[samples] = -1; // padded
    for (int r = 0; r < f->ranks; r++) {
        float *part = ops_alloc(&f->ops, sizeof(float) * (size_t)(samples * own));
        for (int i = 0; i < samples * own; i++)
            part[i] = logit_before(i / own, r * own + i % own);
        struct sample_lists op = rank_op(f, r, part, rows, samples + 1);
        sample_lists(f->ops.streams[0], &op);
        ops_wait(&f->ops);
        for (int i = 0; i < samples; i++)
            memcpy(logits + i * VOCAB + r * own, part + i * own, (size_t)own * sizeof(float));
    }
}

// The definition, for one id after `seen` drawn tokens.
static float expected(const struct fixture *f, int row, int id, const int32_t *seen, int count)
{
    const struct slot_sampling *p = &f->opening.sampling;
    const int32_t *list = f->pool + 5, *allowed = list + 2 * p->bias_count;
    const int32_t *words = allowed + p->allowed_count;
    float logit = logit_before(row, id), bias;
    bool is_allowed = p->allowed_count == 0;
    for (int i = 0; i < p->bias_count; i++) {
        memcpy(&bias, &list[p->bias_count + i], sizeof bias);
        logit += list[i] == id ? bias : 0;
    }
    for (int i = 0; i < p->allowed_count; i++)
        is_allowed |= allowed[i] == id;
    for (int at = 0; at < p->words_count; at += 1 + words[at]) {
        int others = words[at] - 1;
        bool ends =
            others <= count && words[at + 1 + others] == id &&
            memcmp(seen + count - others, words + at + 1, (size_t)others * sizeof(int32_t)) == 0;
        is_allowed &= !ends;
    }
    return is_allowed ? logit : -INFINITY;
}

static int check(const struct fixture *f, const float *logits, int row, const int32_t *seen,
                 int count)
{
    int banned = 0;
    for (int id = 0; id < VOCAB; id++) {
        float wanted = expected(f, row, id, seen, count);
        assert_true(logits[row * VOCAB + id] == wanted);
        banned += wanted == -INFINITY;
    }
    return banned;
}

// A prompt whose last three tokens had been drawn before, then verify rows; letters repeat, so that
// words match often. Returns how many logits were masked in all.
static int run_sequence(int ranks, const struct slot_sampling *sampling, const int32_t *lists,
                        int lists_count)
{
    const int32_t prompt[PROMPT] = {1, 2, 3, 2, 2, 1, 0, 1, 2};
    float logits[ROW_VERIFY_MAX * VOCAB];
    struct fixture *f = malloc(sizeof *f);
    struct slot_sampling p = *sampling;
    int banned = 0;
    p.prompt_tokens = PROMPT - 3;
    p.tokens_end = 1000;
    open_fixture(f, ranks, &p, lists, lists_count);
    memcpy(f->history, prompt + PROMPT - 3, 3 * sizeof(int32_t));
    f->history_count = 3;
    for (int turn = 0; turn < 40; turn++) {
        int verify = turn == 0 ? 1 : 1 + turn % ROW_VERIFY_MAX;
        int32_t *drafts = f->steps.slots.slots[SLOT].drafts;
        steps_clear(&f->steps);
        for (int i = 0; i < verify - 1; i++)
            drafts[i] = (int32_t)(ops_random(&f->ops) % LETTERS);
        if (turn == 0)
            steps_add_prefill(&f->steps, SLOT, prompt, PROMPT, -1);
        else
            steps_add_decode(&f->steps, SLOT, verify);
        steps_begin(&f->steps);
        note(f, false);
        run(f, logits);
        for (int row = 0; row < verify; row++) {
            int32_t seen[300];
            memcpy(seen, f->history, sizeof f->history);
            for (int i = 0; i < row; i++)
                seen[f->history_count + i] = drafts[i];
            banned += check(f, logits, row, seen, f->history_count + row);
        }
        f->steps.sampled[0] = (int32_t)(ops_random(&f->ops) % LETTERS);
        for (int i = 1; i < verify; i++) // accepted as far as a draft was drawn
            f->steps.sampled[i] = (int32_t)(ops_random(&f->ops) % LETTERS);
        steps_end(&f->steps);
        note(f, true);
        for (int i = 0; i < f->steps.results[0].count; i++)
            f->history[f->history_count++] = f->steps.results[0].tokens[i];
    }
    ops_close(&f->ops);
    free(f);
    return banned;
}

static int32_t bits_of(float value)
{
    int32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static void biases_and_masks_alone_and_together(void **state)
{
    (void)state;
    const int32_t biases[] = {
        0, 31, 32, 63, bits_of(-100), bits_of(0.125f), bits_of(3), bits_of(-0.5f)};
    const int32_t allowed[] = {63, 0, 33, 2, 1};
    const int32_t words[] = {1, 3, 2, 1, 2, 3, 2, 1, 0, 8, 1, 2, 3, 0, 1, 2, 3, 0, 2, 2, 63};
    int32_t all[64];
    memcpy(all, biases, sizeof biases);
    memcpy(all + 8, allowed, sizeof allowed);
    memcpy(all + 13, words, sizeof words);
    for (int ranks = 1; ranks <= 4; ranks *= 2) {
        assert_int_equal(run_sequence(ranks, &(struct slot_sampling){.bias_count = 4}, biases, 8),
                         0);
        assert_true(run_sequence(ranks, &(struct slot_sampling){.allowed_count = 5}, allowed, 5) >
                    1000);
        int once = run_sequence(ranks, &(struct slot_sampling){.words_count = 1 + 1}, words, 2);
        int more = run_sequence(ranks, &(struct slot_sampling){.words_count = 21}, words, 21);
        assert_true(more > once + 30); // words of several ids matched, many times
        run_sequence(
            ranks, &(struct slot_sampling){.bias_count = 4, .allowed_count = 5, .words_count = 21},
            all, 34);
    }
}

// What an opening tells of drawn tokens counts as if they had been run.
static void openings_bring_what_was_drawn(void **state)
{
    (void)state;
    const int32_t words[] = {3, 1, 2, 5};
    float logits[VOCAB];
    struct fixture *f = malloc(sizeof *f);
    for (int knows = 0; knows < 2; knows++) {
        const struct slot_sampling p = {.words_count = 4, .prompt_tokens = 1, .tokens_end = 100};
        const int32_t last = 2;
        open_fixture(f, 2, &p, words, 4);
        f->opening.recent[0] = knows ? 1 : 3;
        for (int r = 0; r < 2; r++) {
            struct sample_lists op = rank_op(f, r, NULL, NULL, 0);
            sample_lists_open(f->ops.streams[0], &op, f->pool, &f->opening, 1);
        }
        f->steps.slots.slots[SLOT].position = 4; // behind a checkpoint
        steps_clear(&f->steps);
        steps_add_prefill(&f->steps, SLOT, &last, 1, -1);
        steps_begin(&f->steps);
        note(f, false);
        run(f, logits);
        assert_true((logits[5] == -INFINITY) == (knows == 1));
        ops_close(&f->ops);
    }
    free(f);
}

enum { DRAWS = 20000, ALLOWED = 6 };

// Draws at positions 0, 1, ... from the shards of one row.
static void draw_many(struct fixture *f, float *const *parts, int *counts)
{
    struct stream *stream = f->ops.streams[0];
    struct sample_candidate *gathered = ops_alloc(&f->ops, (size_t)f->ranks * sizeof *gathered);
    int32_t *token = ops_alloc(&f->ops, sizeof *token);
    uint64_t hash;
    const uint64_t step = 1;
    for (int draw = 0; draw < DRAWS; draw++) {
        f->steps.tables.sample_positions[0] = draw;
        for (int r = 0; r < f->ranks; r++) {
            struct sample_lists op = rank_op(f, r, parts[r], NULL, 0);
            sample_shard(stream, &(struct sample_shard){.tables = op.tables,
                                                        .slots = op.slots,
                                                        .logits = parts[r],
                                                        .vocab_first = op.vocab_first,
                                                        .vocab_count = op.vocab_count,
                                                        .vocab_real = VOCAB,
                                                        .candidates = gathered + r});
        }
        sample_pick(stream, token, &hash, gathered, f->ranks, &f->steps.tables, &step);
        ops_wait(&f->ops);
        counts[*token]++;
    }
}

static double chi_square(const int *counts, const struct slot_sampling *p, const int32_t *allowed)
{
    double weights[VOCAB] = {0}, total = 0, distance = 0;
    for (int i = 0; i < ALLOWED; i++) {
        double bias = allowed[i] == 3 ? 1.5 : allowed[i] == 40 ? -1 : 0;
        double logit = (double)logit_before(0, allowed[i]) + bias;
        weights[allowed[i]] = exp(logit / (double)p->temperature);
        total += weights[allowed[i]];
    }
    for (int id = 0; id < VOCAB; id++) {
        double wanted = DRAWS * weights[id] / total, off = (double)counts[id] - wanted;
        assert_true(wanted > 0 || counts[id] == 0);
        distance += wanted > 0 ? off * off / wanted : 0;
    }
    return distance;
}

// What is drawn under biases and a mask has the distribution of softmax((logit + bias) / T) over
// the allowed ids. Seed and positions are fixed; of five degrees of freedom, a true sampler stays
// below 30.9 with all but one of 100,000 seeds.
static void draws_have_the_biased_distribution(void **state)
{
    const int32_t lists[] = {3, 40, bits_of(1.5f), bits_of(-1), 3, 17, 31, 32, 40, 63};
    const struct slot_sampling p = {.bias_count = 2,
                                    .allowed_count = ALLOWED,
                                    .temperature = 1.25f,
                                    .seed = 77,
                                    .prompt_tokens = 1,
                                    .tokens_end = 100};
    const int32_t row = 0, last = 2;
    (void)state;
    for (int ranks = 1; ranks <= 4; ranks *= 2) {
        struct fixture *f = malloc(sizeof *f);
        int counts[VOCAB] = {0}, own = VOCAB / ranks;
        float *parts[4];
        open_fixture(f, ranks, &p, lists, 10);
        steps_clear(&f->steps);
        steps_add_prefill(&f->steps, SLOT, &last, 1, -1);
        steps_begin(&f->steps);
        for (int r = 0; r < ranks; r++) {
            parts[r] = ops_alloc(&f->ops, sizeof(float) * (size_t)own);
            for (int i = 0; i < own; i++)
                parts[r][i] = logit_before(0, r * own + i);
            struct sample_lists op = rank_op(f, r, parts[r], &row, 1);
            sample_lists(f->ops.streams[0], &op);
            ops_wait(&f->ops);
        }
        draw_many(f, parts, counts);
        double distance = chi_square(counts, &p, lists + 4);
        if (distance > 30.9)
            fail_msg("chi-square %g at %d ranks", distance, ranks);
        ops_close(&f->ops);
        free(f);
    }
}

static void who_needs_what(void **state)
{
    (void)state;
    assert_false(sample_lists_needed(&(struct slot_sampling){.temperature = 1, .stop_count = 1}));
    assert_true(sample_lists_needed(&(struct slot_sampling){.bias_count = 1}));
    assert_true(sample_lists_needed(&(struct slot_sampling){.allowed_count = 1}));
    assert_true(sample_lists_needed(&(struct slot_sampling){.words_count = 2}));
    assert_true(sample_lists_recent(&(struct slot_sampling){.words_count = 2}));
    assert_false(sample_lists_recent(&(struct slot_sampling){.bias_count = 1}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(biases_and_masks_alone_and_together),
        cmocka_unit_test(openings_bring_what_was_drawn),
        cmocka_unit_test(draws_have_the_biased_distribution),
        cmocka_unit_test(who_needs_what),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
