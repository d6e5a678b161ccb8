// SPDX-License-Identifier: Apache-2.0
// step_draft.c -- speculation on a rank: after every step the head has KV of all known tokens, and
// the rows that drew get drafts for the step that comes. Nothing here changes what is drawn.
#include "kernels/accept_synthetic.h"
#include "kernels/mtp_rows.h"
#include "worker/step_engine.h"

static struct mtp_rows rows_op(const struct step_engine *engine)
{
    const struct model *model = engine->options.model;
    struct mtp_rows op = {
        .tables = engine->tables_dev,
        .slots = model->state->slots,
        .hidden = model->config.hidden,
        .hidden_rows = model->state->workspace.hidden,
        .slot_hidden = model->state->slot_hidden,
        .ids = engine->pair_ids_dev,
        .shifted = model->state->workspace.normed,
        .drafts = engine->drafts_dev,
        .draft_rows = engine->draft_rows_dev,
        .draft_hidden = model->state->workspace.hidden,
    };
    int rows = engine->tables_dev.rows_count;
    op.drafts.rows_count = rows;
    op.drafts.tokens_count = rows;
    op.drafts.samples_count = rows;
    op.drafts.decode_rows = rows;
    op.drafts.verify = 1;
    return op;
}

void step_queue_known_pairs(const struct step_engine *engine)
{
    const struct model *model = engine->options.model;
    struct mtp_rows op = rows_op(engine);
    mtp_rows_shift(model->stream, &op);
    model_mtp_known(model, &engine->tables_dev, op.ids, op.shifted);
}

// The first drafts are sure to be accepted, the last by the rest of the length: 3.39 tokens are the
// known one, two drafts, and a third in 39 of 100 rows.
void step_queue_synthetic(const struct step_engine *engine)
{
    const struct model *model = engine->options.model;
    double length = engine->options.synthetic_length;
    if (!(length > 0) || engine->options.drafts_max == 0)
        return;
    struct accept_synthetic op = {
        .tables = engine->tables_dev,
        .slots = model->state->slots,
        .vocab_real = engine->options.vocab_real,
        .sampled = engine->sampled_dev,
    };
    for (int i = 0; i < ROW_VERIFY_MAX - 1; i++) {
        double rest = length - 1 - i;
        op.probabilities[i] = (float)(rest < 0 ? 0 : rest > 1 ? 1 : rest);
    }
    accept_synthetic(model->stream, &op);
}

// The head's row of pass k is the hidden row of pass k + 1: both lie in workspace.hidden.
static void queue_pass(const struct step_engine *engine, const struct mtp_rows *op, int pass)
{
    const struct model *model = engine->options.model;
    bf16 *hidden = model->state->workspace.hidden;
    int ids_end = engine->options.draft_vocab;
    mtp_rows_draft_begin(model->stream, op, pass);
    model_mtp(model, &op->drafts, op->drafts.token_ids, hidden);
    model_logits(model, &op->drafts, hidden, ids_end);
    step_queue_candidates(engine, &op->drafts, NULL, ids_end);
    sample_pick(model->stream, engine->draft_picks_dev, engine->draft_hash_dev,
                engine->gathered_dev, model->shard.ranks, &op->drafts, engine->upload_dev.step);
    mtp_rows_draft_take(model->stream, op, engine->draft_picks_dev, pass);
}

void step_queue_drafts(const struct step_engine *engine, int count)
{
    struct mtp_rows op = rows_op(engine);
    mtp_rows_keep(engine->options.model->stream, &op, engine->download_dev.results);
    for (int pass = 0; pass < count; pass++)
        queue_pass(engine, &op, pass);
}
