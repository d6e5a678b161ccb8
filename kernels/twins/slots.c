// SPDX-License-Identifier: Apache-2.0
// slots.c -- the life of a slot on the CPU: opened, its pages named, a step begun and ended. Owns
// nothing; every rule is in the header.
#include "kernels/slots.h"

#include <string.h>

#include "kernels/runtime_cpu.h"

enum { PAGE_TOKENS = 64 };

static struct slot *slot_of(const struct slots *slots, int32_t index)
{
    ASSERT(index >= 0 && index < slots->slots_count);
    return &slots->slots[index];
}

static void clear_drafts(struct slot *slot)
{
    for (int i = 0; i < ROW_VERIFY_MAX - 1; i++)
        slot->drafts[i] = -1;
}

struct open_arguments {
    struct slots slots;
    const struct slot_opening *openings;
    int openings_count;
};

static void run_open(const void *arguments)
{
    const struct open_arguments *op = arguments;
    for (int i = 0; i < op->openings_count; i++) {
        struct slot *slot = slot_of(&op->slots, op->openings[i].slot);
        const struct slot_sampling *sampling = &op->openings[i].sampling;
        ASSERT(sampling->stop_count >= 0 && sampling->stop_count <= SLOT_STOP_IDS_MAX);
        *slot = (struct slot){
            .position = op->openings[i].position,
            .token_next = -1,
            .end = SLOT_RUNS,
            .sampling = *sampling,
        };
        clear_drafts(slot);
    }
}

void slots_open(struct stream *stream, const struct slots *slots,
                const struct slot_opening *openings, int openings_count)
{
    ASSERT(openings_count >= 0 && (openings != NULL || openings_count == 0));
    struct open_arguments arguments = {*slots, openings, openings_count};
    stream_run(stream, run_open, &arguments, sizeof arguments);
}

struct set_pages_arguments {
    struct slots slots;
    const struct slot_pages *pages;
    const int32_t *ids;
    int pages_count;
};

static void run_set_pages(const void *arguments)
{
    const struct set_pages_arguments *op = arguments;
    for (int i = 0; i < op->pages_count; i++) {
        const struct slot_pages *pages = &op->pages[i];
        struct slot *slot = slot_of(&op->slots, pages->slot);
        int32_t last = pages->first + pages->count;
        ASSERT(pages->first >= 0 && pages->count >= 0 && pages->ids_first >= 0);
        ASSERT(last <= op->slots.pages_per_sequence);
        int32_t *row =
            op->slots.block_table + (size_t)pages->slot * (size_t)op->slots.pages_per_sequence;
        memcpy(row + pages->first, op->ids + pages->ids_first,
               (size_t)pages->count * sizeof(int32_t));
        slot->page_tokens = last * PAGE_TOKENS;
    }
}

void slots_set_pages(struct stream *stream, const struct slots *slots,
                     const struct slot_pages *pages, int pages_count, const int32_t *ids)
{
    ASSERT(pages_count >= 0 && ((pages != NULL && ids != NULL) || pages_count == 0));
    struct set_pages_arguments arguments = {*slots, pages, ids, pages_count};
    stream_run(stream, run_set_pages, &arguments, sizeof arguments);
}

struct begin_arguments {
    struct slots slots;
    struct step_tables tables;
};

// How many tokens of a decode row run: the known one and the drafts there are, as far as pages,
// the output's end and a pause reach.
static int decode_tokens(const struct slot *slot, const struct step_row *row)
{
    int tokens = 1;
    if (slot->end != SLOT_RUNS || slot->token_next < 0)
        return 0;
    while (tokens < row->token_count && slot->drafts[tokens - 1] >= 0)
        tokens++;
    int room = slot->page_tokens - slot->position;
#ifdef PLANT_slots_no_room
    room = tokens; // runs past the pages that the slot was given
#endif
    // The last token of the output is never run: it only has to be drawn.
    int useful = slot->sampling.tokens_end - 1 - slot->position;
    tokens = room < tokens ? room : tokens;
    tokens = useful < tokens ? useful : tokens;
#ifndef PLANT_slots_no_pause
    int before = row->pause_at - slot->position;
    tokens = before > 0 && before < tokens ? before : tokens;
#endif
    return tokens < 0 ? 0 : tokens;
}

static int32_t decode_id(const struct slot *slot, int index)
{
    return index == 0 ? slot->token_next : slot->drafts[index - 1];
}

static int begin_decode(const struct step_tables *tables, const struct step_row *row,
                        const struct slot *slot)
{
    ASSERT(row->token_count >= 1 && row->token_count <= ROW_VERIFY_MAX && row->sample_first >= 0);
    ASSERT(row->sample_first + row->token_count <= tables->samples_count);
    int active = decode_tokens(slot, row);
    for (int i = 0; i < row->token_count; i++) {
        int token = row->token_first + i, sample = row->sample_first + i;
        tables->token_ids[token] = i < active ? decode_id(slot, i) : -1;
        tables->token_positions[token] = i < active ? slot->position + i : -1;
        tables->sample_tokens[sample] = token;
        tables->sample_positions[sample] = i < active ? slot->position + i + 1 : -1;
        tables->sample_slots[sample] = row->slot;
    }
    return active;
}

static int begin_none(const struct step_tables *tables, const struct step_row *row)
{
    for (int i = 0; i < row->token_count; i++) {
        tables->token_ids[row->token_first + i] = -1;
        tables->token_positions[row->token_first + i] = -1;
        if (row->sample_first >= 0)
            tables->sample_tokens[row->sample_first + i] = row->token_first + i;
    }
    return 0;
}

static int begin_prefill(const struct step_tables *tables, const struct step_row *row,
                         const struct slot *slot)
{
    int active = slot->end == SLOT_RUNS ? row->token_count : 0;
    ASSERT(row->token_count >= 1);
    ASSERT(active == 0 || slot->position + active <= slot->page_tokens);
    for (int i = 0; i < row->token_count; i++) {
        int token = row->token_first + i;
        tables->token_positions[token] = active > 0 ? slot->position + i : -1;
        if (active == 0)
            tables->token_ids[token] = -1;
    }
    if (row->sample) {
        ASSERT(row->sample_first >= 0 && row->sample_first < tables->samples_count);
        tables->sample_tokens[row->sample_first] = row->token_first + row->token_count - 1;
        tables->sample_positions[row->sample_first] = active > 0 ? slot->position + active : -1;
        tables->sample_slots[row->sample_first] = row->slot;
    }
    return active;
}

static void run_begin(const void *arguments)
{
    const struct begin_arguments *op = arguments;
    const struct step_tables *tables = &op->tables;
    // Entries that no row claims are inert.
    for (int i = 0; i < tables->tokens_count; i++)
        tables->token_rows[i] = -1;
    for (int i = 0; i < tables->samples_count; i++) {
        tables->sample_tokens[i] = 0;
        tables->sample_positions[i] = -1;
        tables->sample_slots[i] = -1;
    }
    for (int i = 0; i < tables->rows_count; i++) {
        const struct step_row *row = &tables->rows[i];
        const struct slot *slot = slot_of(&op->slots, row->slot);
        ASSERT(row->token_first >= 0);
        ASSERT(row->token_first + row->token_count <= tables->tokens_count);
        for (int token = 0; token < row->token_count; token++)
            tables->token_rows[row->token_first + token] = i;
        tables->active_count[i] = row->kind == ROW_NONE     ? begin_none(tables, row)
                                  : row->kind == ROW_DECODE ? begin_decode(tables, row, slot)
                                                            : begin_prefill(tables, row, slot);
    }
    for (int i = 0; i < tables->tokens_count; i++) {
        if (tables->token_rows[i] < 0) {
            tables->token_ids[i] = -1;
            tables->token_positions[i] = -1;
        }
    }
}

void slots_begin(struct stream *stream, const struct slots *slots, const struct step_tables *tables)
{
    ASSERT(tables->rows_count >= 0 && tables->tokens_count >= 0 && tables->samples_count >= 0);
    struct begin_arguments arguments = {*slots, *tables};
    stream_run(stream, run_begin, &arguments, sizeof arguments);
}

struct end_arguments {
    struct slots slots;
    struct step_tables tables;
    const int32_t *sampled;
    struct row_result *results;
};

static bool is_stop(const struct slot_sampling *sampling, int32_t id)
{
    for (int i = 0; i < sampling->stop_count; i++) {
        if (sampling->stop_ids[i] == id)
            return true;
    }
    return false;
}

// Takes one drawn token, the one at slot->position: it is next, and it may be the last.
static void take_token(struct slot *slot, struct row_result *result, int32_t id)
{
    if (id < 0) {
        slot->token_next = -1;
        slot->end = SLOT_BROKEN;
        return;
    }
    result->tokens[result->count++] = id;
    slot->token_next = id;
    if (is_stop(&slot->sampling, id))
        slot->end = SLOT_STOP;
    else if (slot->position + 1 >= slot->sampling.tokens_end)
        slot->end = SLOT_LENGTH;
}

static void end_decode(struct slot *slot, struct row_result *result, const int32_t *token_ids,
                       const int32_t *sampled, int active)
{
    slot->pending = 0;
    for (int i = 0; i < active && slot->end == SLOT_RUNS; i++) {
        // Token i ran after the sample before it: it counts only if it was that sample.
        if (i > 0 && token_ids[i] != sampled[i - 1])
            break;
        slot->position += sampled[i] >= 0;
        slot->pending += sampled[i] >= 0;
        take_token(slot, result, sampled[i]);
    }
    slot->parity = 1 - slot->parity;
}

static void end_prefill(struct slot *slot, struct row_result *result, const struct step_row *row,
                        const int32_t *sampled)
{
    slot->position += row->token_count;
    slot->pending = 0;
    slot->token_next = row->token_next;
    if (row->sample)
        take_token(slot, result, sampled[row->sample_first]);
}

static void run_end(const void *arguments)
{
    const struct end_arguments *op = arguments;
    for (int i = 0; i < op->tables.rows_count; i++) {
        const struct step_row *row = &op->tables.rows[i];
        struct slot *slot = slot_of(&op->slots, row->slot);
        struct row_result *result = &op->results[i];
        int active = op->tables.active_count[i];
        *result = (struct row_result){.slot = row->slot};
        for (int j = 0; j < ROW_VERIFY_MAX; j++)
            result->tokens[j] = -1;
        if (active == 0)
            continue;
        if (row->kind == ROW_DECODE)
            end_decode(slot, result, op->tables.token_ids + row->token_first,
                       op->sampled + row->sample_first, active);
        else
            end_prefill(slot, result, row, op->sampled);
        clear_drafts(slot);
        result->end = slot->end;
    }
}

void slots_end(struct stream *stream, const struct slots *slots, const struct step_tables *tables,
               const int32_t *sampled, struct row_result *results)
{
    ASSERT(sampled != NULL || tables->samples_count == 0);
    ASSERT(results != NULL || tables->rows_count == 0);
    struct end_arguments arguments = {*slots, *tables, sampled, results};
    stream_run(stream, run_end, &arguments, sizeof arguments);
}
