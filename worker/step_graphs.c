// SPDX-License-Identifier: Apache-2.0
// step_graphs.c -- decode steps recorded once for a few counts of rows: a step takes the smallest
// that holds its rows and fills up with rows of no sequence. Host side only.
#include "worker/step_engine.h"

#include <stdlib.h>

#include "kernels/step_frame.h"

_Static_assert((int)STEP_FRAME_RING == (int)STEP_STAGING, "the staging memory is the ring");

_Static_assert((int)STEP_CLASSES == (int)RECORDED_CLASSES, "worker and memory plan agree");

static void set_counts(struct step_tables *tables, int rows, int verify)
{
    tables->rows_count = rows;
    tables->tokens_count = rows * verify;
    tables->samples_count = rows * verify;
    tables->saves_count = 0;
    tables->decode_rows = rows;
    tables->verify = verify;
}

// What a class does to `samples` sampled rows.
static struct sampling_plan plan_of(enum step_class kind, int samples)
{
    if (kind == STEP_CLASS_PLAIN)
        return (struct sampling_plan){.cut_count = 0};
    return (struct sampling_plan){.every_row = true,
                                  .cut_count = samples,
                                  .cut_by_count = true,
                                  .cut_by_mass = true,
                                  .penalty_count = samples,
                                  .counts = true};
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

// The ring is the staging memory: a step's number says which is its own.
static struct step_frame frame_of(const struct step_engine *engine, int rows)
{
    const struct upload *up = &engine->upload_dev;
    const struct download *down = &engine->download_dev;
    struct step_frame frame = {
        .up_dev = (uint8_t *)up->step,
        .down_dev = (uint8_t *)down->hash,
        .up_bytes = (size_t)((uint8_t *)(up->rows + rows) - (uint8_t *)up->step),
        .down_bytes = (size_t)((uint8_t *)(down->results + rows) - (uint8_t *)down->hash),
    };
    frame.up_bytes = (frame.up_bytes + 15) / 16 * 16; // the arrays' ends are aligned
    frame.down_bytes = (frame.down_bytes + 15) / 16 * 16;
    for (int i = 0; i < STEP_STAGING; i++) {
        frame.up[i] = (const uint8_t *)engine->staging[i].upload.step;
        frame.down[i] = (uint8_t *)engine->staging[i].download.hash;
    }
    return frame;
}

static enum status record(struct step_engine *engine, int rows, int drafts, struct error *error)
{
    struct step_graphs *graphs = &engine->graphs;
    struct stream *stream = engine->options.model->stream;
    struct step_frame frame = frame_of(engine, rows);
    int index = graphs->counts[drafts]++;
    graphs->rows[drafts][index] = rows;
    set_counts(&engine->tables_dev, rows, 1 + drafts);
    for (int kind = 0; kind < STEP_CLASSES; kind++) {
        struct sampling_plan sampling =
            plan_of((enum step_class)kind, engine->tables_dev.samples_count);
        stream_capture_begin(stream);
        step_frame_fetch(stream, &frame);
        step_queue_rows(engine, &sampling, drafts);
        step_frame_report(stream, &frame);
        TRY(stream_capture_end(stream, &graphs->decode[kind][drafts][index], error));
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

// As many sequences as a step can verify.
static int most_rows(const struct step_engine *engine, int drafts)
{
    return memory_plan_recorded_most(&engine->options.memory, drafts);
}

// The smallest count of a recorded step that holds so many rows; the last holds them all.
static int padded_rows(const struct step_engine *engine, int rows, int drafts)
{
    return memory_plan_recorded_rows(&engine->options.memory, rows, drafts);
}

static enum status record_all(struct step_engine *engine, int drafts, struct error *error)
{
    int most = most_rows(engine, drafts), rows = 0;
    while (rows < most) {
        rows = padded_rows(engine, rows + 1, drafts);
        TRY(record(engine, rows, drafts, error));
    }
    return OK;
}

// Runs the rows that are staged first, none of which is a sequence's.
static void run_staged(struct step_engine *engine, int rows, enum step_class kind, int drafts)
{
    struct stream *stream = engine->options.model->stream;
    struct sampling_plan sampling = plan_of(kind, engine->tables_dev.samples_count);
    stream_copy_to_device(stream, engine->upload_dev.rows, engine->staging[0].upload.rows,
                          (size_t)rows * sizeof(struct step_row));
    step_queue_rows(engine, &sampling, drafts);
    stream_synchronize(stream); // the staged rows are written again
}

static void stage_decode(struct step_engine *engine, int rows, int drafts)
{
    engine->tables_dev.rows_count = 0;
    fill_up(engine, &engine->staging[0].upload, rows, 1 + drafts);
    set_counts(&engine->tables_dev, rows, 1 + drafts);
}

static void warm_decode(struct step_engine *engine, int rows, enum step_class kind, int drafts)
{
    stage_decode(engine, rows, drafts);
    run_staged(engine, rows, kind, drafts);
}

static void stage_prompt(struct step_engine *engine, int tokens)
{
    engine->staging[0].upload.rows[0] =
        (struct step_row){.slot = engine->options.model->state->slots.slots_count - 1,
                          .kind = ROW_NONE,
                          .token_count = tokens,
                          .token_next = -1,
                          .sample_first = -1};
    set_counts(&engine->tables_dev, 1, 1);
    engine->tables_dev.tokens_count = tokens;
    engine->tables_dev.samples_count = 0;
    engine->tables_dev.decode_rows = engine->tables_dev.verify = 0;
}

static void warm_prompt(struct step_engine *engine, int tokens)
{
    stage_prompt(engine, tokens);
    run_staged(engine, 1, STEP_CLASS_PLAIN, 0);
}

// Records what is staged and throws it away: the code that it needs is on the device then, without
// the time to run it.
static enum status load_staged(struct step_engine *engine, int drafts, struct error *error)
{
    struct stream *stream = engine->options.model->stream;
    struct sampling_plan plain = plan_of(STEP_CLASS_PLAIN, engine->tables_dev.samples_count);
    struct graph *graph;
    stream_capture_begin(stream);
    step_queue_rows(engine, &plain, drafts);
    TRY(stream_capture_end(stream, &graph, error));
    stream_synchronize(stream);
    graph_close(graph);
    return OK;
}

// Steps that are not recorded have any count of tokens: what the buckets of counts need. The
// products of a draft are the model's own but for a head that is shorter.
static enum status load_all_buckets(struct step_engine *engine, struct error *error)
{
    int rows_max = most_rows(engine, 0), tokens_max = engine->options.memory.step_tokens;
    int drafts_max = engine->options.drafts_max, verify = 1 + drafts_max;
    int samples_max = most_rows(engine, drafts_max) * verify; // more than rows_max with drafts only
    bool own_head =
        drafts_max > 0 && engine->options.draft_vocab < engine->options.model->config.vocab;
    for (int rows = 8; rows < rows_max; rows = runtime_tokens_bucket(rows + 1)) {
        stage_decode(engine, rows, 0);
        TRY(load_staged(engine, own_head ? 1 : 0, error));
    }
    for (int samples = runtime_tokens_bucket(rows_max + 1); samples < samples_max;
         samples = runtime_tokens_bucket(samples + 1)) {
        stage_decode(engine, (samples + verify - 1) / verify, drafts_max);
        engine->tables_dev.samples_count = samples; // of the last row not all
        TRY(load_staged(engine, 0, error));
    }
    for (int tokens = 8; tokens < tokens_max; tokens = runtime_tokens_bucket(tokens + 1)) {
        stage_prompt(engine, tokens);
        TRY(load_staged(engine, 0, error));
    }
    return OK;
}

static enum status load_buckets(struct step_engine *engine, struct error *error)
{
    struct group *group = engine->options.model->group;
    group_load_only(group, true);
    enum status status = load_all_buckets(engine, error);
    group_load_only(group, false);
    return status;
}

// What a backend loads or makes at first use, it does here and not in a request: steps of the
// smallest and largest counts and of a prompt run once, with rows of no sequence.
static enum status warm_up(struct step_engine *engine, struct error *error)
{
    int drafts_max = engine->options.drafts_max, tokens = engine->options.memory.step_tokens;
    for (int tokens_few = 1; tokens_few < tokens; tokens_few *= 8)
        warm_prompt(engine, tokens_few);
    warm_prompt(engine, tokens);
    for (int rows = 0; rows < most_rows(engine, 0);) {
        rows = padded_rows(engine, rows + 1, 0);
        warm_decode(engine, rows, STEP_CLASS_PLAIN, 0);
    }
    for (int drafts = 0; drafts <= drafts_max; drafts++) {
        warm_decode(engine, 1, STEP_CLASS_FULL, drafts);
        warm_decode(engine, most_rows(engine, drafts), STEP_CLASS_PLAIN, drafts);
    }
    return load_buckets(engine, error);
}

enum status step_graphs_open(struct step_engine *engine, struct error *error)
{
    TRY(fill_every_row(engine, error));
    if (engine->options.warm)
        TRY(warm_up(engine, error));
    stream_zero(engine->options.model->stream, engine->upload_dev.step, sizeof(uint64_t));
    uint64_t before_bytes = runtime_bytes_free();
    for (int drafts = 0; drafts <= engine->options.drafts_max; drafts++)
        TRY(record_all(engine, drafts, error));
    uint64_t after_bytes = runtime_bytes_free();
    engine->graphs.bytes = before_bytes > after_bytes ? before_bytes - after_bytes : 0;
    return OK;
}

void step_graphs_close(struct step_engine *engine)
{
    for (int drafts = 0; drafts < STEP_VERIFY_MAX; drafts++) {
        for (int i = 0; i < engine->graphs.counts[drafts]; i++) {
            for (int kind = 0; kind < STEP_CLASSES; kind++)
                graph_close(engine->graphs.decode[kind][drafts][i]);
        }
        engine->graphs.counts[drafts] = 0;
    }
}

struct graph *step_graphs_find(struct step_engine *engine, struct upload *up,
                               const struct sampling_plan *sampling, int drafts)
{
    struct step_graphs *graphs = &engine->graphs;
    struct step_tables *tables = &engine->tables_dev;
    bool recorded =
        sampling->logprobs_drawn == 0 && sampling->lists_count == 0 && !sampling->recent;
    bool plain = sampling->cut_count == 0 && sampling->penalty_count == 0 && !sampling->counts;
    enum step_class kind = plain ? STEP_CLASS_PLAIN : STEP_CLASS_FULL;
    if (!recorded || tables->rows_count == 0 || tables->decode_rows < tables->rows_count ||
        tables->verify != 1 + drafts)
        return NULL;
    int rows = padded_rows(engine, tables->rows_count, drafts);
    if ((!engine->options.graphs && !engine->options.padded) || rows < tables->rows_count)
        return NULL;
    fill_up(engine, up, rows, 1 + drafts);
    set_counts(tables, rows, 1 + drafts);
    for (int i = 0; i < graphs->counts[drafts]; i++) {
        if (graphs->rows[drafts][i] != rows)
            continue;
        graphs->launched++;
        return graphs->decode[kind][drafts][i];
    }
    return NULL;
}

uint64_t step_recorded_bytes(const struct step_engine *engine)
{
    return engine->graphs.bytes;
}
