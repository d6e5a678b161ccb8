// SPDX-License-Identifier: Apache-2.0
// mtp_rows.c -- rows of the multi-token-prediction head on the CPU. Owns nothing.
#include "kernels/mtp_rows.h"

#include <string.h>

#include "kernels/runtime_cpu.h"

static size_t row_bytes(const struct mtp_rows *op)
{
    return (size_t)op->hidden * sizeof(bf16);
}

static void run_shift(const void *arguments)
{
    const struct mtp_rows *op = arguments;
    size_t hidden = (size_t)op->hidden;
    for (int t = 0; t < op->tables.tokens_count; t++) {
        int r = op->tables.token_rows[t];
        bool runs = r >= 0 && op->tables.token_positions[t] >= 1;
        op->ids[t] = runs ? op->tables.token_ids[t] : -1;
        if (!runs) {
            memset(op->shifted + (size_t)t * hidden, 0, row_bytes(op));
            continue;
        }
        const bf16 *before = op->hidden_rows + (size_t)(t - 1) * hidden;
#ifndef PLANT_mtp_rows_chunk_border
        const struct step_row *row = &op->tables.rows[r];
        if (t == row->token_first)
            before = op->slot_hidden + (size_t)row->slot * hidden;
#endif
        memcpy(op->shifted + (size_t)t * hidden, before, row_bytes(op));
    }
}

void mtp_rows_shift(struct stream *stream, const struct mtp_rows *op)
{
    ASSERT(op->ids != NULL && op->shifted != NULL && op->hidden_rows != NULL);
    ASSERT(op->slot_hidden != NULL && op->shifted != op->hidden_rows && op->hidden > 0);
    stream_run(stream, run_shift, op, sizeof *op);
}

struct keep_arguments {
    struct mtp_rows op;
    const struct row_result *results;
};

static void run_keep(const void *data)
{
    const struct keep_arguments *arguments = data;
    const struct mtp_rows *op = &arguments->op;
    size_t hidden = (size_t)op->hidden;
    for (int r = 0; r < op->tables.rows_count; r++) {
        const struct step_row *row = &op->tables.rows[r];
        // A decode row commits as many tokens as it draws, a prefill row all of its own.
        int committed =
            row->kind == ROW_DECODE ? arguments->results[r].count : op->tables.active_count[r];
#ifdef PLANT_mtp_keep_nothing
        ASSERT(op->tables.active_count[r] == 0 || committed >= 1);
#endif
        if (op->tables.active_count[r] == 0 || committed == 0)
            continue;
        size_t last = (size_t)(row->token_first + committed - 1);
        memcpy(op->slot_hidden + (size_t)row->slot * hidden, op->hidden_rows + last * hidden,
               row_bytes(op));
    }
}

void mtp_rows_keep(struct stream *stream, const struct mtp_rows *op,
                   const struct row_result *results)
{
    ASSERT(results != NULL || op->tables.rows_count == 0);
    struct keep_arguments arguments = {*op, results};
    stream_run(stream, run_keep, &arguments, sizeof arguments);
}

struct pass_arguments {
    struct mtp_rows op;
    const int32_t *picks;
    int pass;
};

// The token that a pass runs for a slot, -1 when the slot drafts no (more) token.
static int32_t draft_token(const struct slot *slot, int pass)
{
    int32_t position = slot->position + pass;
    bool room = position < slot->page_tokens && position + 1 < slot->sampling.tokens_end;
    bool enough = slot->sampling.drafts > 0 && pass >= slot->sampling.drafts - 1;
    if (slot->end != SLOT_RUNS || slot->token_next < 0 || !room || enough)
        return -1;
    return pass == 0 ? slot->token_next : slot->drafts[pass - 1];
}

static void run_begin(const void *data)
{
    const struct pass_arguments *arguments = data;
    const struct mtp_rows *op = &arguments->op;
    const struct step_tables *drafts = &op->drafts;
    size_t hidden = (size_t)op->hidden;
    for (int r = 0; r < drafts->rows_count; r++) {
        const struct step_row *row = &op->tables.rows[r];
        int32_t slot_index = row->slot;
        const struct slot *slot = &op->slots.slots[slot_index];
        bool drew = op->tables.active_count[r] > 0 && (row->kind == ROW_DECODE || row->sample > 0);
        int32_t id = drew ? draft_token(slot, arguments->pass) : -1;
        int32_t position = slot->position + arguments->pass;
        op->draft_rows[r] = (struct step_row){.slot = slot_index,
                                              .kind = ROW_DECODE,
                                              .token_first = r,
                                              .token_count = 1,
                                              .token_next = -1,
                                              .sample = 1,
                                              .sample_first = r};
        drafts->active_count[r] = id >= 0;
        drafts->token_ids[r] = id;
        drafts->token_positions[r] = id >= 0 ? position : -1;
        drafts->token_rows[r] = r;
        drafts->sample_tokens[r] = r;
        drafts->sample_positions[r] = id >= 0 ? position + 1 : -1;
        drafts->sample_slots[r] = slot_index;
        if (arguments->pass == 0)
            memcpy(op->draft_hidden + (size_t)r * hidden,
                   op->slot_hidden + (size_t)slot_index * hidden, row_bytes(op));
    }
}

void mtp_rows_draft_begin(struct stream *stream, const struct mtp_rows *op, int pass)
{
    ASSERT(pass >= 0 && pass < ROW_VERIFY_MAX - 1 && op->draft_rows == op->drafts.rows);
    ASSERT(op->drafts.rows_count == op->tables.rows_count && op->draft_hidden != NULL);
    struct pass_arguments arguments = {*op, NULL, pass};
    stream_run(stream, run_begin, &arguments, sizeof arguments);
}

static void run_take(const void *data)
{
    const struct pass_arguments *arguments = data;
    const struct mtp_rows *op = &arguments->op;
    for (int r = 0; r < op->drafts.rows_count; r++) {
        struct slot *slot = &op->slots.slots[op->drafts.rows[r].slot];
        if (op->drafts.active_count[r] > 0)
            slot->drafts[arguments->pass] = arguments->picks[r];
    }
}

void mtp_rows_draft_take(struct stream *stream, const struct mtp_rows *op, const int32_t *picks,
                         int pass)
{
    ASSERT(picks != NULL && pass >= 0 && pass < ROW_VERIFY_MAX - 1);
    struct pass_arguments arguments = {*op, picks, pass};
    stream_run(stream, run_take, &arguments, sizeof arguments);
}
