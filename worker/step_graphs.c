// SPDX-License-Identifier: Apache-2.0
// step_graphs.c -- decode steps recorded once for a few counts of rows: a step takes the smallest
// that holds its rows and fills up with rows of no sequence. Host side only.
#include "worker/step_engine.h"

#include <stdlib.h>

// At most a third of a step's rows are filling, and none up to four.
static const int counts[] = {1,  2,  3,  4,   6,   8,   12,  16,  24,  32,
                             48, 64, 96, 128, 192, 256, 384, 512, 768, 1024};

static void set_counts(struct step_tables *tables, int rows, int verify)
{
    tables->rows_count = rows;
    tables->tokens_count = rows * verify;
    tables->samples_count = rows * verify;
    tables->decode_rows = rows;
    tables->verify = verify;
}

// What a class does to `samples` sampled rows.
static struct sampling_plan plan_of(enum step_class class, int samples)
{
    if (class == STEP_CLASS_PLAIN)
        return (struct sampling_plan){.cut_count = 0};
    return (struct sampling_plan){.every_row = true,
                                  .cut_count = samples,
                                  .cut_by_count = true,
                                  .cut_by_mass = true,
                                  .penalty_count = samples,
                                  .counts = true};
}

static enum status record(struct step_engine *engine, int rows, int drafts, struct error *error)
{
    struct step_graphs *graphs = &engine->graphs;
    struct stream *stream = engine->options.model->stream;
    struct prefix_moves none = {.loads = 0};
    int index = graphs->counts[drafts]++;
    graphs->rows[drafts][index] = rows;
    set_counts(&engine->tables_dev, rows, 1 + drafts);
    for (int class = 0; class < STEP_CLASSES; class ++) {
        struct sampling_plan sampling =
            plan_of((enum step_class) class, engine->tables_dev.samples_count);
        stream_capture_begin(stream);
        step_queue_rows(engine, &sampling, &none, drafts);
        TRY(stream_capture_end(stream, &graphs->decode[class][drafts][index], error));
    }
    return OK;
}

// The rows' indices, for classes that leave it to a row whether it has something to do.
static enum status fill_every_row(struct step_engine *engine, struct error *error)
{
    struct stream *stream = engine->options.model->stream;
    size_t bytes = (size_t)engine->samples_max * sizeof(int32_t);
    int32_t *rows = (int32_t *)malloc(bytes);
    if (rows == NULL)
        return error_set(error, E_SYSTEM, "no memory for the rows of a graph");
    for (int i = 0; i < engine->samples_max; i++)
        rows[i] = i;
    stream_copy_to_device(stream, engine->graphs.every_row_dev, rows, bytes);
    stream_synchronize(stream);
    free(rows);
    return OK;
}

// The last graph holds as many sequences as a step can verify.
static enum status record_all(struct step_engine *engine, int drafts, struct error *error)
{
    int most = engine->options.memory.step_tokens / (1 + drafts);
    int sampled = engine->samples_max / (1 + drafts);
    most = engine->options.memory.sequences < most ? engine->options.memory.sequences : most;
    most = sampled < most ? sampled : most;
    for (size_t i = 0; i < sizeof counts / sizeof *counts && counts[i] < most; i++)
        TRY(record(engine, counts[i], drafts, error));
    return record(engine, most, drafts, error);
}

enum status step_graphs_open(struct step_engine *engine, struct error *error)
{
    TRY(fill_every_row(engine, error));
    for (int drafts = 0; drafts <= engine->options.drafts_max; drafts++)
        TRY(record_all(engine, drafts, error));
    return OK;
}

void step_graphs_close(struct step_engine *engine)
{
    for (int drafts = 0; drafts < STEP_VERIFY_MAX; drafts++) {
        for (int i = 0; i < engine->graphs.counts[drafts]; i++) {
            for (int class = 0; class < STEP_CLASSES; class ++)
                graph_close(engine->graphs.decode[class][drafts][i]);
        }
        engine->graphs.counts[drafts] = 0;
    }
}

// Rows of no sequence from the staged ones up to `rows`.
static void fill_up(const struct step_engine *engine, struct upload *up, int rows, int verify)
{
    for (int i = engine->tables_dev.rows_count; i < rows; i++) {
        up->rows[i] = (struct step_row){
            .slot = engine->options.model->state->slots.slots_count - 1,
            .kind = ROW_NONE,
            .token_first = i * verify,
            .token_count = verify,
            .token_next = -1,
            .sample = verify,
            .sample_first = i * verify,
        };
    }
}

struct graph *step_graphs_find(struct step_engine *engine, struct upload *up,
                               const struct sampling_plan *sampling, int drafts)
{
    struct step_graphs *graphs = &engine->graphs;
    struct step_tables *tables = &engine->tables_dev;
    bool plain = sampling->cut_count == 0 && sampling->penalty_count == 0 && !sampling->counts;
    enum step_class class = plain ? STEP_CLASS_PLAIN : STEP_CLASS_FULL;
    if (tables->rows_count == 0 || tables->decode_rows < tables->rows_count ||
        tables->verify != 1 + drafts)
        return NULL;
    for (int i = 0; i < graphs->counts[drafts]; i++) {
        int rows = graphs->rows[drafts][i];
        if (rows < tables->rows_count)
            continue;
        fill_up(engine, up, rows, 1 + drafts);
        set_counts(tables, rows, 1 + drafts);
        graphs->launched++;
        return graphs->decode[class][drafts][i];
    }
    return NULL;
}
