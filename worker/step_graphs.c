// SPDX-License-Identifier: Apache-2.0
// step_graphs.c -- decode steps recorded once for a few counts of rows: a step takes the smallest
// that holds its rows and fills up with rows of no sequence. Host side only.
#include "worker/step_engine.h"

// At most a third of a step's rows are filling, and none up to four.
static const int counts[] = {1,  2,  3,  4,   6,   8,   12,  16,  24,  32,
                             48, 64, 96, 128, 192, 256, 384, 512, 768, 1024};

static void set_counts(struct step_tables *tables, int rows)
{
    tables->rows_count = rows;
    tables->tokens_count = rows;
    tables->samples_count = rows;
    tables->decode_rows = rows;
    tables->verify = 1;
}

static enum status record(struct step_engine *engine, int rows, struct error *error)
{
    struct step_graphs *graphs = &engine->graphs;
    struct stream *stream = engine->options.model->stream;
    struct sampling_plan plain = {.cut_count = 0};
    struct prefix_moves none = {.loads = 0};
    set_counts(&engine->tables_dev, rows);
    stream_capture_begin(stream);
    step_queue_rows(engine, &plain, &none);
    TRY(stream_capture_end(stream, &graphs->decode[graphs->count], error));
    graphs->rows[graphs->count++] = rows;
    return OK;
}

enum status step_graphs_open(struct step_engine *engine, struct error *error)
{
    int most = engine->options.memory.sequences; // the last graph holds them all
    most = most < engine->options.memory.step_tokens ? most : engine->options.memory.step_tokens;
    for (size_t i = 0; i < sizeof counts / sizeof *counts && counts[i] < most; i++)
        TRY(record(engine, counts[i], error));
    return record(engine, most, error);
}

void step_graphs_close(struct step_engine *engine)
{
    for (int i = 0; i < engine->graphs.count; i++)
        graph_close(engine->graphs.decode[i]);
    engine->graphs.count = 0;
}

// Rows of no sequence from the staged ones up to `rows`.
static void fill_up(const struct step_engine *engine, struct upload *up, int rows)
{
    for (int i = engine->tables_dev.rows_count; i < rows; i++) {
        up->rows[i] = (struct step_row){
            .slot = engine->options.model->state->slots.slots_count - 1,
            .kind = ROW_NONE,
            .token_first = i,
            .token_count = 1,
            .token_next = -1,
            .sample = 1,
            .sample_first = i,
        };
    }
}

struct graph *step_graphs_find(struct step_engine *engine, struct upload *up,
                               const struct sampling_plan *sampling)
{
    struct step_graphs *graphs = &engine->graphs;
    struct step_tables *tables = &engine->tables_dev;
    bool plain = sampling->cut_count == 0 && sampling->penalty_count == 0 && !sampling->counts;
    if (!plain || tables->rows_count == 0 || tables->decode_rows < tables->rows_count ||
        tables->verify != 1)
        return NULL;
    for (int i = 0; i < graphs->count; i++) {
        if (graphs->rows[i] < tables->rows_count)
            continue;
        fill_up(engine, up, graphs->rows[i]);
        set_counts(tables, graphs->rows[i]);
        graphs->launched++;
        return graphs->decode[i];
    }
    return NULL;
}
