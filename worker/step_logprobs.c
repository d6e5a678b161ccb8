// SPDX-License-Identifier: Apache-2.0
// step_logprobs.c -- log-probabilities by the model's own distribution: over the logits of the step
// where nothing has changed them, else over logits that are computed once more. Steps of which
// nobody asked for them queue nothing.
#include "worker/step_engine.h"

#include <string.h>

// One turn of entries over the logits that op names.
static void queue_turn(const struct step_engine *engine, struct sample_logprobs op, int first)
{
    const struct model *model = engine->options.model;
    op.vocab_first = model->shard.vocab.first;
    op.vocab_count = model->shard.vocab.count;
    op.vocab_real = engine->options.vocab_real;
    op.logits = model->state->workspace.logits;
    op.tops = engine->upload_dev.logprob_tops + first;
    op.parts = engine->logprob_parts_dev;
    sample_logprobs_shard(model->stream, &op);
    group_all_gather(model->group, model->stream, engine->logprob_parts_gathered_dev,
                     engine->logprob_parts_dev,
                     (size_t)op.rows_count * sizeof(struct sample_logprob_part));
    sample_logprobs_merge(model->stream, engine->download_dev.logprobs + first,
                          engine->logprob_parts_gathered_dev, model->shard.ranks, &op);
}

// The logits of entries [first, first + count) into the first rows of the workspace.
static void queue_logits(const struct step_engine *engine, int first, int count)
{
    const struct model *model = engine->options.model;
    struct step_tables tables = engine->tables_dev;
    tables.sample_tokens = engine->upload_dev.logprob_hidden + first;
    tables.samples_count = count;
    model_logits(model, &tables, model->state->workspace.hidden, model->config.vocab);
}

static int turn_of(const struct step_engine *engine, int rest)
{
    int turn = engine->samples_max < STEP_LOGPROBS_TURN ? engine->samples_max : STEP_LOGPROBS_TURN;
    return rest < turn ? rest : turn;
}

static void queue_drawn(const struct step_engine *engine, const struct sampling_plan *sampling)
{
    int count;
    for (int first = 0; first < sampling->logprobs_drawn; first += count) {
        const int32_t *rows = engine->upload_dev.logprob_rows + first;
        count = turn_of(engine, sampling->logprobs_drawn - first);
        if (sampling->logprobs_changed)
            queue_logits(engine, first, count);
        queue_turn(engine,
                   (struct sample_logprobs){.rows_count = count,
                                            .rows = sampling->logprobs_changed ? NULL : rows,
                                            .tokens = engine->sampled_dev,
                                            .token_rows = rows},
                   first);
    }
}

static void queue_prompt(const struct step_engine *engine, const struct sampling_plan *sampling)
{
    int end = sampling->logprobs_drawn + sampling->logprobs_prompt, count;
    for (int first = sampling->logprobs_drawn; first < end; first += count) {
        count = turn_of(engine, end - first);
        queue_logits(engine, first, count);
        queue_turn(engine,
                   (struct sample_logprobs){.rows_count = count,
                                            .tokens = engine->upload_dev.logprob_tokens + first},
                   first);
    }
}

static int entries_of(const struct sampling_plan *sampling)
{
    return sampling->logprobs_drawn + sampling->logprobs_prompt;
}

void step_upload_logprobs(const struct step_engine *engine, const struct sampling_plan *sampling,
                          const struct upload *up)
{
    struct stream *stream = engine->options.model->stream;
    const struct upload *dev = &engine->upload_dev;
    size_t bytes = (size_t)entries_of(sampling) * sizeof(int32_t);
    if (bytes == 0)
        return;
    stream_copy_to_device(stream, dev->logprob_rows, up->logprob_rows, bytes);
    stream_copy_to_device(stream, dev->logprob_hidden, up->logprob_hidden, bytes);
    stream_copy_to_device(stream, dev->logprob_tops, up->logprob_tops, bytes);
    stream_copy_to_device(stream, dev->logprob_tokens, up->logprob_tokens, bytes);
}

void step_queue_logprobs(const struct step_engine *engine, const struct sampling_plan *sampling)
{
    queue_drawn(engine, sampling);
    queue_prompt(engine, sampling);
}

void step_download_logprobs(const struct step_engine *engine, const struct sampling_plan *sampling,
                            const struct download *down)
{
    const struct model *model = engine->options.model;
    int count = entries_of(sampling);
    if (count > 0 && group_place(model->group).rank == 0)
        stream_copy_to_host(model->stream, down->logprobs, engine->download_dev.logprobs,
                            (size_t)count * sizeof *down->logprobs);
}

static float clamp(float logprob)
{
    return logprob > (float)STEP_LOGPROB_MIN ? logprob : (float)STEP_LOGPROB_MIN; // NaN too
}

static void add_entry(struct report *report, const struct sample_logprob *entry)
{
    ASSERT(report->logprobs != NULL && report->logprobs_count < STEP_LOGPROBS_MAX);
    struct step_logprob *out = &report->logprobs[report->logprobs_count++];
    *out = (struct step_logprob){
        .id = entry->id, .logprob = clamp(entry->logprob), .top_count = entry->top_count};
    memcpy(out->top_ids, entry->top_ids, sizeof out->top_ids);
    for (int i = 0; i < entry->top_count; i++)
        out->top_logprobs[i] = clamp(entry->top_logprobs[i]);
}

void step_report_logprobs(struct report *report, struct step_result *result,
                          const struct staging *staging, int row)
{
    const struct row_logprobs *place = &staging->row_logprobs[row];
    const struct sample_logprob *entries = staging->download.logprobs;
    result->logprobs_first = report->logprobs_count;
    result->prompt_logprobs_count = place->prompt_count;
    result->logprobs_count = place->drawn_count > 0 ? result->count : 0;
    for (int i = 0; i < result->prompt_logprobs_count; i++)
        add_entry(report, &entries[place->prompt_first + i]);
    for (int i = 0; i < result->logprobs_count; i++)
        add_entry(report, &entries[place->drawn_first + i]);
}
