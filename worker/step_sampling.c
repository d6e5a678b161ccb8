// SPDX-License-Identifier: Apache-2.0
// step_sampling.c -- the ops from hidden rows to sampled ids, in order: logits, lists, penalties,
// this shard's candidates, cuts, the pick that all ranks make alike.
#include "worker/step_engine.h"

struct sample_penalty step_penalty_op(const struct step_engine *engine,
                                      const struct sampling_plan *sampling)
{
    const struct model *model = engine->options.model;
    return (struct sample_penalty){
        .tables = engine->tables_dev,
        .slots = model->state->slots,
        .logits = model->state->workspace.logits,
        .vocab_first = model->shard.vocab.first,
        .vocab_count = model->shard.vocab.count,
        .rows =
            sampling->every_row ? engine->graphs.every_row_dev : engine->upload_dev.penalty_rows,
        .rows_count = sampling->penalty_count,
        .counts = model->state->drawn_counts,
    };
}

struct sample_lists step_lists_op(const struct step_engine *engine, int rows_count)
{
    const struct model *model = engine->options.model;
    return (struct sample_lists){
        .tables = engine->tables_dev,
        .slots = model->state->slots,
        .logits = model->state->workspace.logits,
        .vocab_first = model->shard.vocab.first,
        .vocab_count = model->shard.vocab.count,
        .rows = engine->upload_dev.list_rows,
        .rows_count = rows_count,
        .lists = model->state->lists,
        .recent = model->state->recent,
    };
}

void step_queue_candidates(const struct step_engine *engine, const struct step_tables *tables,
                           const float *cuts_dev, int ids_end)
{
    const struct model *model = engine->options.model;
    int real = engine->options.vocab_real;
    sample_shard(model->stream, &(struct sample_shard){
                                    .tables = *tables,
                                    .slots = model->state->slots,
                                    .logits = model->state->workspace.logits,
                                    .vocab_first = model->shard.vocab.first,
                                    .vocab_count = model_vocab_rows(model, ids_end),
                                    .vocab_real = ids_end < real ? ids_end : real,
                                    .cuts = cuts_dev,
                                    .candidates = engine->candidates_dev,
                                    .parts = engine->parts_dev,
                                });
    if (model->shard.ranks == 1)
        return; // gathered_dev is candidates_dev
    group_all_gather(model->group, model->stream, engine->gathered_dev, engine->candidates_dev,
                     (size_t)tables->samples_count * sizeof(struct sample_candidate));
}

static void queue_cut_levels(const struct step_engine *engine, const struct sample_cut *op,
                             enum sample_cut_kind kind)
{
    const struct model *model = engine->options.model;
    for (int level = 0; level < SAMPLE_CUT_LEVELS; level++) {
        sample_cut_histogram(model->stream, op, kind, level);
        if (model->shard.ranks > 1) {
            group_all_gather(model->group, model->stream, engine->gathered_bins_dev,
                             engine->bins_dev,
                             (size_t)op->rows_count * SAMPLE_CUT_BINS * sizeof(double));
        }
        sample_cut_narrow(model->stream, op, kind, level);
    }
}

// Rows whose cuts are found in one turn: a step with cuts may be recorded.
static int cut_rows_at_once(const struct step_engine *engine)
{
    enum { GATHERED = GROUP_GATHER_GRAPH_BYTES_MAX / (SAMPLE_CUT_BINS * sizeof(double)) };
    _Static_assert(GATHERED > 0 && (int)GATHERED <= (int)SAMPLE_CUT_ROWS_MAX, "bins of a row fit");
    return engine->options.model->shard.ranks > 1 ? GATHERED : SAMPLE_CUT_ROWS_MAX;
}

// Finds the cuts of all rows that have one, as many at a time as may be.
static void queue_cuts(const struct step_engine *engine, const struct sampling_plan *sampling)
{
    const struct model *model = engine->options.model;
    struct sample_cut op = {
        .tables = engine->tables_dev,
        .slots = model->state->slots,
        .logits = model->state->workspace.logits,
        .vocab_first = model->shard.vocab.first,
        .vocab_count = model->shard.vocab.count,
        .vocab_real = engine->options.vocab_real,
        .states = engine->cut_states_dev,
        .candidates = engine->gathered_dev,
        .parts = engine->parts_dev,
        .ranks = model->shard.ranks,
        .bins = engine->bins_dev,
        .gathered = engine->gathered_bins_dev,
        .cuts = engine->cuts_dev,
    };
    int at_once = cut_rows_at_once(engine);
    sample_cut_clear(model->stream, engine->cuts_dev, engine->tables_dev.samples_count);
    for (int first = 0; first < sampling->cut_count; first += at_once) {
        int rest = sampling->cut_count - first;
        const int32_t *rows =
            sampling->every_row ? engine->graphs.every_row_dev : engine->upload_dev.cut_rows;
        op.rows = rows + first;
        op.rows_count = rest < at_once ? rest : at_once;
        sample_cut_begin(model->stream, &op);
        if (sampling->cut_by_count)
            queue_cut_levels(engine, &op, SAMPLE_CUT_COUNT);
        if (sampling->cut_by_mass)
            queue_cut_levels(engine, &op, SAMPLE_CUT_MASS);
        sample_cut_end(model->stream, &op);
    }
}

void step_queue_sampling(const struct step_engine *engine, const struct sampling_plan *sampling)
{
    const struct model *model = engine->options.model;
    const struct step_tables *tables = &engine->tables_dev;
    int ids_end = model->config.vocab; // all
    if (tables->samples_count > 0) {
        struct sample_penalty penalty = step_penalty_op(engine, sampling);
        model_logits(model, tables, model->state->workspace.hidden, ids_end);
        struct sample_lists lists = step_lists_op(engine, sampling->lists_count);
        if (sampling->lists_count > 0)
            sample_lists(model->stream, &lists);
        if (sampling->penalty_count > 0)
            sample_penalty(model->stream, &penalty);
        step_queue_candidates(engine, tables, NULL, ids_end);
    }
    if (sampling->cut_count > 0) {
        queue_cuts(engine, sampling);
        step_queue_candidates(engine, tables, engine->cuts_dev, ids_end);
    }
    sample_pick(model->stream, engine->sampled_dev, engine->download_dev.hash, engine->gathered_dev,
                model->shard.ranks, tables, engine->upload_dev.step);
}
