// SPDX-License-Identifier: Apache-2.0
// sample_lists.c -- biases, allowed ids and banned words of a request, on the CPU. Owns nothing.
#include "kernels/sample_lists.h"

#include <math.h>
#include <string.h>

#include "kernels/runtime_cpu.h"

bool sample_lists_needed(const struct slot_sampling *sampling)
{
    return sampling->bias_count > 0 || sampling->allowed_count > 0 || sampling->words_count > 0;
}

bool sample_lists_recent(const struct slot_sampling *sampling)
{
    return sampling->words_count > 0;
}

// ---- what was drawn last ----

static int32_t *recent_of(const struct sample_lists *op, int32_t slot)
{
    return op->recent + (size_t)slot * SAMPLE_RECENT_MAX;
}

static void note(const struct sample_lists *op, int32_t slot, int32_t id)
{
    int32_t *recent = recent_of(op, slot);
    memmove(recent + 1, recent, (SAMPLE_RECENT_MAX - 1) * sizeof *recent);
    recent[0] = id;
}

struct open_arguments {
    struct sample_lists op;
    const int32_t *pool;
    const struct slot_opening *openings;
    int openings_count;
};

static void run_open(const void *arguments)
{
    const struct open_arguments *open = arguments;
    for (int i = 0; i < open->openings_count; i++) {
        const struct slot_opening *opening = &open->openings[i];
        const struct slot_sampling *sampling = &opening->sampling;
        int count = 2 * sampling->bias_count + sampling->allowed_count + sampling->words_count;
        ASSERT(count >= 0 && count <= SAMPLE_LISTS_MAX);
        memcpy(recent_of(&open->op, opening->slot), opening->recent, sizeof opening->recent);
        if (count > 0)
            memcpy(open->op.lists + (size_t)opening->slot * SAMPLE_LISTS_MAX,
                   open->pool + opening->lists_first, (size_t)count * sizeof(int32_t));
    }
}

void sample_lists_open(struct stream *stream, const struct sample_lists *op, const int32_t *pool,
                       const struct slot_opening *openings, int openings_count)
{
    ASSERT(op->lists != NULL && op->recent != NULL && openings_count >= 0);
    struct open_arguments arguments = {*op, pool, openings, openings_count};
    stream_run(stream, run_open, &arguments, sizeof arguments);
}

static void run_prompt(const void *arguments)
{
    const struct sample_lists *op = arguments;
    const struct step_tables *tables = &op->tables;
    for (int r = 0; r < tables->rows_count; r++) {
        const struct step_row *row = &tables->rows[r];
        if (row->kind != ROW_PREFILL)
            continue;
        const struct slot_sampling *sampling = &op->slots.slots[row->slot].sampling;
        for (int i = 0; i < tables->active_count[r] && sample_lists_recent(sampling); i++) {
            int token = row->token_first + i;
            if (tables->token_positions[token] >= sampling->prompt_tokens)
                note(op, row->slot, tables->token_ids[token]);
        }
    }
}

void sample_lists_prompt(struct stream *stream, const struct sample_lists *op)
{
    stream_run(stream, run_prompt, op, sizeof *op);
}

struct drawn_arguments {
    struct sample_lists op;
    const struct row_result *results;
};

static void run_drawn(const void *arguments)
{
    const struct drawn_arguments *drawn = arguments;
    for (int r = 0; r < drawn->op.tables.rows_count; r++) {
        const struct row_result *result = &drawn->results[r];
        for (int i = 0; i < result->count; i++) {
            if (sample_lists_recent(&drawn->op.slots.slots[result->slot].sampling))
                note(&drawn->op, result->slot, result->tokens[i]);
        }
    }
}

void sample_lists_drawn(struct stream *stream, const struct sample_lists *op,
                        const struct row_result *results)
{
    struct drawn_arguments arguments = {*op, results};
    stream_run(stream, run_drawn, &arguments, sizeof arguments);
}

// ---- a sampled row ----

static float *logit_of(const struct sample_lists *op, float *logits, int32_t id)
{
    int32_t own = id - op->vocab_first;
    return own >= 0 && own < op->vocab_count ? &logits[own] : NULL;
}

static void add_biases(const struct sample_lists *op, float *logits, const int32_t *list, int count)
{
    for (int i = 0; i < count; i++) {
        float *logit = logit_of(op, logits, list[i]), bias;
        memcpy(&bias, &list[count + i], sizeof bias);
        if (logit != NULL)
            *logit += bias;
    }
}

static void keep_allowed(const struct sample_lists *op, float *logits, const int32_t *ids,
                         int count)
{
    for (int i = 0; i < op->vocab_count && count > 0; i++) {
        bool allowed = false;
        for (int k = 0; k < count && !allowed; k++)
            allowed = ids[k] == op->vocab_first + i;
        if (!allowed)
            logits[i] = -INFINITY;
    }
}

// The token drawn `back` before the one to be drawn (1: the last), -1 when there is none.
static int32_t drawn_before(const struct sample_lists *op, int32_t slot, int token, int back)
{
    const struct step_row *row = &op->tables.rows[op->tables.token_rows[token]];
    int drafts = row->kind == ROW_DECODE ? token - row->token_first : 0;
    if (back <= drafts)
        return op->tables.token_ids[token + 1 - back];
    return recent_of(op, slot)[back - drafts - 1];
}

static void ban_words(const struct sample_lists *op, float *logits, int32_t slot, int token,
                      const int32_t *words)
{
    int count = op->slots.slots[slot].sampling.words_count;
    for (int at = 0; at < count; at += 1 + words[at]) {
        int length = words[at];
        const int32_t *ids = &words[at + 1];
        bool matches = true;
        ASSERT(length >= 1 && length <= SAMPLE_WORD_TOKENS_MAX && at + length < count);
        for (int back = 1; back < length && matches; back++)
            matches = drawn_before(op, slot, token, back) == ids[length - 1 - back];
        float *logit = logit_of(op, logits, ids[length - 1]);
        if (matches && logit != NULL)
            *logit = -INFINITY;
    }
}

static void run(const void *arguments)
{
    const struct sample_lists *op = arguments;
    for (int r = 0; r < op->rows_count; r++) {
        int32_t sample = op->rows[r];
        if (sample < 0 || op->tables.sample_positions[sample] < 0)
            continue;
        int32_t slot = op->tables.sample_slots[sample];
        const struct slot_sampling *sampling = &op->slots.slots[slot].sampling;
        const int32_t *list = op->lists + (size_t)slot * SAMPLE_LISTS_MAX;
        const int32_t *allowed = list + 2 * sampling->bias_count;
        float *logits = op->logits + (size_t)sample * (size_t)op->vocab_count;
        add_biases(op, logits, list, sampling->bias_count);
        keep_allowed(op, logits, allowed, sampling->allowed_count);
        ban_words(op, logits, slot, op->tables.sample_tokens[sample],
                  allowed + sampling->allowed_count);
    }
}

void sample_lists(struct stream *stream, const struct sample_lists *op)
{
    ASSERT(op->logits != NULL && op->lists != NULL && op->recent != NULL && op->rows_count >= 0);
    stream_run(stream, run, op, sizeof *op);
}
