// SPDX-License-Identifier: Apache-2.0
// sample_penalty.c -- counts and penalties on the CPU. Owns nothing.
#include "kernels/sample_penalty.h"

#include <math.h>
#include <string.h>

#include "kernels/runtime_cpu.h"

bool sample_penalty_counts(const struct slot_sampling *sampling)
{
    bool repetition = sampling->repetition > 0 && sampling->repetition != 1;
    return repetition || sampling->frequency != 0 || sampling->presence != 0;
}

bool sample_penalty_needed(const struct slot_sampling *sampling)
{
    return sample_penalty_counts(sampling) ||
           (sampling->stop_count > 0 && sampling->stops_from > 0);
}

// ---- counts ----

struct open_arguments {
    uint16_t *counts;
    int vocab_count;
    const struct slot_opening *openings;
    int openings_count;
};

static void run_open(const void *arguments)
{
    const struct open_arguments *op = arguments;
    for (int i = 0; i < op->openings_count; i++) {
        size_t first = (size_t)op->openings[i].slot * (size_t)op->vocab_count;
        memset(op->counts + first, 0, (size_t)op->vocab_count * sizeof(uint16_t));
    }
}

void sample_penalty_open(struct stream *stream, uint16_t *counts, int vocab_count,
                         const struct slot_opening *openings, int openings_count)
{
    ASSERT(counts != NULL && vocab_count > 0);
    struct open_arguments arguments = {counts, vocab_count, openings, openings_count};
    stream_run(stream, run_open, &arguments, sizeof arguments);
}

// The count of a token on this rank, NULL when another rank owns it.
static uint16_t *count_of(const struct sample_penalty *op, int32_t slot, int32_t id)
{
    int32_t own = id - op->vocab_first;
    if (own < 0 || own >= op->vocab_count)
        return NULL;
    return op->counts + (size_t)slot * (size_t)op->vocab_count + (size_t)own;
}

static void count_drawn(const struct sample_penalty *op, int32_t slot, int32_t id)
{
    uint16_t *count = count_of(op, slot, id);
    if (count != NULL && (*count & SAMPLE_COUNT_MAX) < SAMPLE_COUNT_MAX)
        (*count)++;
}

static void run_prompt(const void *arguments)
{
    const struct sample_penalty *op = arguments;
    for (int r = 0; r < op->tables.rows_count; r++) {
        const struct step_row *row = &op->tables.rows[r];
        const struct slot_sampling *sampling = &op->slots.slots[row->slot].sampling;
        if (row->kind != ROW_PREFILL || !sample_penalty_counts(sampling))
            continue;
        for (int i = 0; i < op->tables.active_count[r]; i++) {
            int token = row->token_first + i;
            int32_t id = op->tables.token_ids[token];
            uint16_t *count = count_of(op, row->slot, id);
            if (op->tables.token_positions[token] >= sampling->prompt_tokens)
                count_drawn(op, row->slot, id);
            else if (count != NULL)
                *count |= SAMPLE_COUNT_PROMPT;
        }
    }
}

void sample_penalty_prompt(struct stream *stream, const struct sample_penalty *op)
{
    ASSERT(op->counts != NULL);
    stream_run(stream, run_prompt, op, sizeof *op);
}

// ---- tokens beside their pages ----

struct page_arguments {
    struct sample_penalty op;
    int32_t *page_tokens;
    const struct slot_opening *openings;
    int openings_count;
};

static size_t page_place(const struct sample_penalty *op, int32_t slot, int32_t position)
{
    const int32_t *row =
        op->slots.block_table + (size_t)slot * (size_t)op->slots.pages_per_sequence;
    return (size_t)row[position / SAMPLE_PAGE_TOKENS] * SAMPLE_PAGE_TOKENS +
           (size_t)(position % SAMPLE_PAGE_TOKENS);
}

static void run_note(const void *data)
{
    const struct page_arguments *arguments = data;
    const struct sample_penalty *op = &arguments->op;
    for (int r = 0; r < op->tables.rows_count; r++) {
        const struct step_row *row = &op->tables.rows[r];
        for (int i = 0; i < op->tables.active_count[r]; i++) {
            int token = row->token_first + i;
            arguments->page_tokens[page_place(op, row->slot, op->tables.token_positions[token])] =
                op->tables.token_ids[token];
        }
    }
}

void sample_penalty_note(struct stream *stream, const struct sample_penalty *op,
                         int32_t *page_tokens)
{
    ASSERT(page_tokens != NULL);
    struct page_arguments arguments = {*op, page_tokens, NULL, 0};
    stream_run(stream, run_note, &arguments, sizeof arguments);
}

static void run_recall(const void *data)
{
    const struct page_arguments *arguments = data;
    const struct sample_penalty *op = &arguments->op;
    for (int i = 0; i < arguments->openings_count; i++) {
        const struct slot_opening *opening = &arguments->openings[i];
        if (!sample_penalty_counts(&opening->sampling))
            continue;
        for (int32_t position = 0; position < opening->position; position++) {
            int32_t id = arguments->page_tokens[page_place(op, opening->slot, position)];
            uint16_t *count = count_of(op, opening->slot, id);
            if (position >= opening->sampling.prompt_tokens)
                count_drawn(op, opening->slot, id);
            else if (count != NULL)
                *count |= SAMPLE_COUNT_PROMPT;
        }
    }
}

void sample_penalty_recall(struct stream *stream, const struct sample_penalty *op,
                           const int32_t *page_tokens, const struct slot_opening *openings,
                           int openings_count)
{
    ASSERT(op->counts != NULL && page_tokens != NULL && openings_count >= 0);
    int32_t *tokens = (int32_t *)(uintptr_t)page_tokens; // only read
    struct page_arguments arguments = {*op, tokens, openings, openings_count};
    stream_run(stream, run_recall, &arguments, sizeof arguments);
}

struct drawn_arguments {
    struct sample_penalty op;
    const struct row_result *results;
};

static void run_drawn(const void *data)
{
    const struct drawn_arguments *arguments = data;
    const struct sample_penalty *op = &arguments->op;
    for (int r = 0; r < op->tables.rows_count; r++) {
        const struct row_result *result = &arguments->results[r];
        if (!sample_penalty_counts(&op->slots.slots[result->slot].sampling))
            continue;
        for (int i = 0; i < result->count; i++)
            count_drawn(op, result->slot, result->tokens[i]);
    }
}

void sample_penalty_drawn(struct stream *stream, const struct sample_penalty *op,
                          const struct row_result *results)
{
    ASSERT(op->counts != NULL && results != NULL);
    struct drawn_arguments arguments = {*op, results};
    stream_run(stream, run_drawn, &arguments, sizeof arguments);
}

// ---- penalties ----

static float penalised(float logit, uint32_t count, const struct slot_sampling *sampling)
{
    uint32_t drawn = count & SAMPLE_COUNT_MAX;
    if (sampling->repetition > 0)
        logit = logit > 0 ? logit / sampling->repetition : logit * sampling->repetition;
    if (drawn > 0) {
        logit -= sampling->frequency * (float)drawn;
        logit -= sampling->presence;
    }
    return logit;
}

// How often id is among the drafts that a verify row runs before `token`.
static uint32_t drafts_before(const struct step_tables *tables, int token, int32_t id)
{
    const struct step_row *row = &tables->rows[tables->token_rows[token]];
    uint32_t count = 0;
    for (int t = row->token_first + 1; row->kind == ROW_DECODE && t <= token; t++)
        count += tables->token_ids[t] == id;
    return count;
}

// Tokens with a count of their own; drafts that have none follow apart.
static void penalise_counted(const struct sample_penalty *op, float *logits, int32_t slot,
                             int token)
{
    const struct slot_sampling *sampling = &op->slots.slots[slot].sampling;
    const uint16_t *counts = op->counts + (size_t)slot * (size_t)op->vocab_count;
    for (int i = 0; i < op->vocab_count; i++) {
        if (counts[i] != 0) {
            uint32_t more = drafts_before(&op->tables, token, op->vocab_first + i);
            logits[i] = penalised(logits[i], counts[i] + more, sampling);
        }
    }
}

static void penalise_drafts(const struct sample_penalty *op, float *logits, int32_t slot, int token)
{
    const struct step_tables *tables = &op->tables;
    const struct step_row *row = &tables->rows[tables->token_rows[token]];
    for (int t = row->token_first + 1; row->kind == ROW_DECODE && t <= token; t++) {
        int32_t id = tables->token_ids[t];
        const uint16_t *count = count_of(op, slot, id);
        bool seen = false; // once for a token that comes twice
        for (int before = row->token_first + 1; before < t; before++)
            seen |= tables->token_ids[before] == id;
        if (count == NULL || *count != 0 || seen)
            continue;
        float *logit = &logits[id - op->vocab_first];
        *logit =
            penalised(*logit, drafts_before(tables, token, id), &op->slots.slots[slot].sampling);
    }
}

static void ban_stops(const struct sample_penalty *op, float *logits,
                      const struct slot_sampling *sampling)
{
    for (int i = 0; i < sampling->stop_count; i++) {
        int32_t own = sampling->stop_ids[i] - op->vocab_first;
        if (own >= 0 && own < op->vocab_count)
            logits[own] = -INFINITY;
    }
}

static void run(const void *arguments)
{
    const struct sample_penalty *op = arguments;
    for (int r = 0; r < op->rows_count; r++) {
        int32_t sample = op->rows[r];
        int32_t position = op->tables.sample_positions[sample];
        if (position < 0)
            continue; // inert
        int32_t slot = op->tables.sample_slots[sample];
        const struct slot_sampling *sampling = &op->slots.slots[slot].sampling;
        float *logits = op->logits + (size_t)sample * (size_t)op->vocab_count;
        if (sample_penalty_counts(sampling)) {
            penalise_counted(op, logits, slot, op->tables.sample_tokens[sample]);
            penalise_drafts(op, logits, slot, op->tables.sample_tokens[sample]);
        }
        if (position < sampling->stops_from)
            ban_stops(op, logits, sampling);
    }
}

void sample_penalty(struct stream *stream, const struct sample_penalty *op)
{
    ASSERT(op->counts != NULL && op->logits != NULL && op->rows_count >= 0);
    stream_run(stream, run, op, sizeof *op);
}
