// SPDX-License-Identifier: Apache-2.0
// step_prefix.c -- what a step does for prefix reuse: checkpoints become slots before these are
// opened; prompts leave checkpoints within the forward pass, and what it does not know of them
// after it; decode rows around the whole step; and token ids are noted beside their pages so that
// penalties find what a slot that opened later has not run.
#include "worker/step_engine.h"

struct prefix_moves step_stage_prefix(struct upload *up, const struct step_tables *tables,
                                      const struct step_plan *plan)
{
    struct prefix_moves moves = {.loads = plan->copies_count};
    for (int i = 0; i < plan->copies_count; i++) {
        up->loads[i] = (struct state_checkpoint_move){
            .checkpoint = plan->copies[i].checkpoint, .slot = plan->copies[i].slot, .token = -1};
    }
    for (int i = 0; i < plan->opens_count; i++) {
        moves.recalls |=
            plan->opens[i].position > 0 && sample_penalty_counts(&up->openings[i].sampling);
    }
    for (int i = 0; i < tables->rows_count; i++) {
        const struct step_row *row = &up->rows[i];
        struct state_checkpoint_move move = {.checkpoint = plan->rows[i].checkpoint,
                                             .slot = row->slot,
                                             .token = row->token_first,
                                             .position = row->pause_at};
        if (row->kind == ROW_DECODE && move.checkpoint >= 0)
            up->folds[moves.folds++] = move;
    }
    return moves;
}

static struct state_checkpoint checkpoint_op(const struct step_engine *engine,
                                             const struct state_checkpoint_move *moves_dev,
                                             int count)
{
    const struct model *model = engine->options.model;
    const struct prefix_state *prefix = &model->state->prefix;
    return (struct state_checkpoint){
        .layers = prefix->layers_dev,
        .layers_count = prefix->layers_count,
        .key_heads = model->shard.key_heads.count,
        .value_heads = model->shard.value_heads.count,
        .bf16_state = model->state->bf16_state,
        .checkpoint_hidden = prefix->checkpoint_hidden,
        .slot_hidden = model->state->slot_hidden,
        .hidden = model->config.hidden,
        .moves = moves_dev,
        .moves_count = count,
        .saves = engine->tables_dev.saves,
        .saves_count = engine->tables_dev.saves_count,
        .slots = model->state->slots,
        .pending_columns = model->state->pending_columns,
        .token_positions = engine->tables_dev.token_positions,
    };
}

void step_queue_loads(const struct step_engine *engine, const struct prefix_moves *moves)
{
    struct state_checkpoint op = checkpoint_op(engine, engine->upload_dev.loads, moves->loads);
    if (moves->loads > 0)
        state_checkpoint_load(engine->options.model->stream, &op);
}

void step_queue_recalls(const struct step_engine *engine, const struct prefix_moves *moves,
                        int openings_count)
{
    const struct model *model = engine->options.model;
    struct sampling_plan none = {.penalty_count = 0};
    struct sample_penalty penalty = step_penalty_op(engine, &none);
    if (moves->recalls)
        sample_penalty_recall(model->stream, &penalty, model->state->prefix.page_tokens,
                              engine->upload_dev.openings, openings_count);
}

void step_queue_notes(const struct step_engine *engine)
{
    const struct model *model = engine->options.model;
    struct sampling_plan none = {.penalty_count = 0};
    struct sample_penalty penalty = step_penalty_op(engine, &none);
    if (engine->options.memory.checkpoints > 0)
        sample_penalty_note(model->stream, &penalty, model->state->prefix.page_tokens);
}

void step_queue_saves(const struct step_engine *engine)
{
    const struct model *model = engine->options.model;
    struct state_checkpoint op = checkpoint_op(engine, NULL, 0);
    if (op.saves_count > 0)
        state_checkpoint_save(model->stream, &op, model->state->workspace.hidden);
}

void step_queue_fold_begin(const struct step_engine *engine, const struct prefix_moves *moves)
{
    struct state_checkpoint op = checkpoint_op(engine, engine->upload_dev.folds, moves->folds);
    if (moves->folds > 0)
        state_checkpoint_fold_begin(engine->options.model->stream, &op);
}

void step_queue_fold_end(const struct step_engine *engine, const struct prefix_moves *moves)
{
    struct state_checkpoint op = checkpoint_op(engine, engine->upload_dev.folds, moves->folds);
    if (moves->folds > 0)
        state_checkpoint_fold_end(engine->options.model->stream, &op);
}
