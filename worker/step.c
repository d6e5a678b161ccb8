// SPDX-License-Identifier: Apache-2.0
// step.c -- staging buffers (one set per step in flight), device tables (one set: the stream runs
// steps in order), and the order of ops of a step.
#include "worker/step.h"

#include <stdlib.h>
#include <string.h>

#include "parallel/base/clock.h"
#include "worker/step_check.h"
#include "worker/step_engine.h"

_Static_assert((int)SLOT_STOP_IDS_MAX == (int)STEP_STOP_IDS_MAX, "wire and kernels agree");
_Static_assert((int)ROW_VERIFY_MAX == (int)STEP_VERIFY_MAX, "wire and kernels agree");
_Static_assert((int)SAMPLE_BIASES_MAX == (int)STEP_BIASES_MAX &&
                   (int)SAMPLE_ALLOWED_MAX == (int)STEP_ALLOWED_MAX &&
                   (int)SAMPLE_WORDS_MAX == (int)STEP_WORDS_MAX &&
                   (int)SAMPLE_WORD_TOKENS_MAX == (int)STEP_WORD_TOKENS_MAX,
               "wire and kernels agree");
_Static_assert((int)STEP_REPLAY_TOKENS_MAX < (int)GDN_CHUNKED_TOKENS_MIN,
               "drawn tokens come back through the kernel that ran them first");
_Static_assert((int)SAMPLE_LOGPROBS_TOP_MAX == (int)STEP_LOGPROBS_TOP_MAX,
               "wire and kernels agree");
_Static_assert(STEP_ROWS_MAX *STEP_VERIFY_MAX + STEP_PROMPT_LOGPROBS_MAX <= STEP_LOGPROBS_MAX,
               "a report holds whatever a step can tell");

struct carver {
    uint8_t *base; // NULL: only counts
    size_t used_bytes;
};

static void *carve(struct carver *carver, size_t count, size_t item_bytes)
{
    size_t at = carver->used_bytes;
    carver->used_bytes += (count * item_bytes + 255) / 256 * 256;
    return carver->base == NULL ? NULL : carver->base + at;
}

static void carve_transfer(struct upload *up, struct download *down, struct carver *carver,
                           const struct memory_plan *memory)
{
    size_t samples = (size_t)state_samples_max(memory);
    size_t logprobs = samples + STEP_PROMPT_LOGPROBS_MAX;
    up->step = (uint64_t *)carve(carver, 1, sizeof *up->step);
    up->rows = (struct step_row *)carve(carver, STEP_ROWS_MAX, sizeof *up->rows);
    up->token_ids = (int32_t *)carve(carver, (size_t)memory->step_tokens, sizeof *up->token_ids);
    up->cut_rows = (int32_t *)carve(carver, samples, sizeof *up->cut_rows);
    up->penalty_rows = (int32_t *)carve(carver, samples, sizeof *up->penalty_rows);
    up->loads = (struct state_checkpoint_move *)carve(carver, STEP_ROWS_MAX, sizeof *up->loads);
    up->saves =
        (struct row_save *)carve(carver, (size_t)STEP_ROWS_MAX * STEP_SAVES_MAX, sizeof *up->saves);
    up->folds = (struct state_checkpoint_move *)carve(carver, STEP_ROWS_MAX, sizeof *up->folds);
    up->openings = (struct slot_opening *)carve(carver, STEP_ROWS_MAX, sizeof *up->openings);
    up->pages = (struct slot_pages *)carve(carver, STEP_ROWS_MAX, sizeof *up->pages);
    up->page_ids = (int32_t *)carve(carver, STEP_PAGE_IDS_MAX, sizeof *up->page_ids);
    up->list_rows = (int32_t *)carve(carver, samples, sizeof *up->list_rows);
    up->lists = (int32_t *)carve(carver, STEP_LISTS_MAX, sizeof *up->lists);
    up->logprob_rows = (int32_t *)carve(carver, logprobs, sizeof *up->logprob_rows);
    up->logprob_hidden = (int32_t *)carve(carver, logprobs, sizeof *up->logprob_hidden);
    up->logprob_tops = (int32_t *)carve(carver, logprobs, sizeof *up->logprob_tops);
    up->logprob_tokens = (int32_t *)carve(carver, logprobs, sizeof *up->logprob_tokens);
    down->hash = (uint64_t *)carve(carver, 1, sizeof *down->hash);
    down->results = (struct row_result *)carve(carver, STEP_ROWS_MAX, sizeof *down->results);
    down->logprobs = (struct sample_logprob *)carve(carver, logprobs, sizeof *down->logprobs);
}

static int32_t *carve_ids(struct carver *carver)
{
    return (int32_t *)carve(carver, STEP_ROWS_MAX, sizeof(int32_t));
}

static void carve_drafts(struct step_engine *engine, struct carver *carver)
{
    struct step_tables *t = &engine->drafts_dev;
    engine->draft_rows_dev =
        (struct step_row *)carve(carver, STEP_ROWS_MAX, sizeof(struct step_row));
    t->rows = engine->draft_rows_dev;
    t->active_count = carve_ids(carver);
    t->token_ids = carve_ids(carver);
    t->token_positions = carve_ids(carver);
    t->token_rows = carve_ids(carver);
    t->sample_tokens = carve_ids(carver);
    t->sample_positions = carve_ids(carver);
    t->sample_slots = carve_ids(carver);
    engine->draft_picks_dev = carve_ids(carver);
    engine->draft_hash_dev = (uint64_t *)carve(carver, 1, sizeof(uint64_t));
    engine->pair_ids_dev =
        (int32_t *)carve(carver, (size_t)engine->options.memory.step_tokens, sizeof(int32_t));
}

static void carve_device(struct step_engine *engine, struct carver *carver)
{
    struct step_tables *t = &engine->tables_dev;
    size_t tokens = (size_t)engine->options.memory.step_tokens;
    size_t samples = (size_t)engine->samples_max;
    size_t ranks = (size_t)engine->options.model->shard.ranks;
    carve_transfer(&engine->upload_dev, &engine->download_dev, carver, &engine->options.memory);
    t->rows = engine->upload_dev.rows;
    t->saves = engine->upload_dev.saves;
    t->token_ids = engine->upload_dev.token_ids;
    t->active_count = (int32_t *)carve(carver, STEP_ROWS_MAX, sizeof(int32_t));
    t->token_positions = (int32_t *)carve(carver, tokens, sizeof(int32_t));
    t->token_rows = (int32_t *)carve(carver, tokens, sizeof(int32_t));
    t->sample_tokens = (int32_t *)carve(carver, samples, sizeof(int32_t));
    t->sample_positions = (int32_t *)carve(carver, samples, sizeof(int32_t));
    t->sample_slots = (int32_t *)carve(carver, samples, sizeof(int32_t));
    engine->candidates_dev =
        (struct sample_candidate *)carve(carver, samples, sizeof(struct sample_candidate));
    engine->parts_dev = (struct sample_candidate *)carve(carver, SAMPLE_PARTS + samples,
                                                         sizeof(struct sample_candidate));
    engine->gathered_dev = engine->candidates_dev; // with nobody to gather from
    if (ranks > 1) {
        engine->gathered_dev = (struct sample_candidate *)carve(carver, ranks * samples,
                                                                sizeof(struct sample_candidate));
    }
    engine->sampled_dev = (int32_t *)carve(carver, samples, sizeof(int32_t));
    size_t bins = (size_t)SAMPLE_CUT_ROWS_MAX * SAMPLE_CUT_BINS;
    engine->cut_states_dev = (struct sample_cut_state *)carve(carver, SAMPLE_CUT_ROWS_MAX,
                                                              sizeof(struct sample_cut_state));
    engine->bins_dev = (double *)carve(carver, bins, sizeof(double));
    engine->gathered_bins_dev = engine->bins_dev;
    if (ranks > 1)
        engine->gathered_bins_dev = (double *)carve(carver, ranks * bins, sizeof(double));
    engine->graphs.every_row_dev = (int32_t *)carve(carver, samples, sizeof(int32_t));
    engine->cuts_dev = (float *)carve(carver, samples, sizeof(float));
    engine->logprob_parts_dev = (struct sample_logprob_part *)carve(
        carver, STEP_LOGPROBS_TURN, sizeof(struct sample_logprob_part));
    engine->logprob_parts_gathered_dev = (struct sample_logprob_part *)carve(
        carver, ranks * STEP_LOGPROBS_TURN, sizeof(struct sample_logprob_part));
    if (engine->options.drafts_max > 0)
        carve_drafts(engine, carver);
}

static enum status open_staging(struct step_engine *engine, struct error *error)
{
    for (int i = 0; i < STEP_STAGING; i++) {
        struct staging *staging = &engine->staging[i];
        struct carver carver = {0};
        carve_transfer(&staging->upload, &staging->download, &carver, &engine->options.memory);
        engine->staging_bytes = carver.used_bytes;
        staging->memory = runtime_alloc_host(carver.used_bytes);
        if (staging->memory == NULL) {
            return error_set(error, E_LIMIT, "host memory: %zu bytes for step staging do not fit",
                             carver.used_bytes);
        }
        carver = (struct carver){.base = (uint8_t *)staging->memory};
        carve_transfer(&staging->upload, &staging->download, &carver, &engine->options.memory);
        memset(staging->memory, 0, engine->staging_bytes);
        TRY(event_open(&staging->ended, error));
    }
    return OK;
}

static enum status open_device(struct step_engine *engine, struct error *error)
{
    struct carver carver = {0};
    carve_device(engine, &carver);
    engine->memory_dev = runtime_alloc(carver.used_bytes);
    if (engine->memory_dev == NULL) {
        return error_set(error, E_LIMIT, "device memory: %zu bytes for step tables do not fit",
                         carver.used_bytes);
    }
    carver = (struct carver){.base = (uint8_t *)engine->memory_dev};
    carve_device(engine, &carver);
    // What lies between the hash and the results is downloaded with them.
    const struct download *down = &engine->download_dev;
    stream_zero(engine->options.model->stream, down->hash,
                (size_t)((uint8_t *)down->results - (uint8_t *)down->hash));
    return OK;
}

// A callback holds up the stream that it is queued on: it gets a stream of its own.
static enum status open_graphs(struct step_engine *engine, struct error *error)
{
    engine->notifier = NULL;
    TRY(stream_open(&engine->notifier, error));
    return step_graphs_open(engine, error);
}

enum status step_engine_open(struct step_engine **out, const struct step_options *options,
                             struct error *error)
{
    struct step_engine *engine = calloc(1, sizeof *engine);
    if (engine == NULL)
        return error_set(error, E_SYSTEM, "no memory for the step engine");
    engine->options = *options;
    int vocab = options->model->config.vocab;
    if (options->draft_vocab == 0 || options->draft_vocab > vocab)
        engine->options.draft_vocab = vocab;
    engine->samples_max = state_samples_max(&options->memory);
    engine->sampling = calloc((size_t)options->memory.sequences, sizeof *engine->sampling);
    enum status status = engine->sampling != NULL
                             ? open_device(engine, error)
                             : error_set(error, E_SYSTEM, "no memory for the step engine");
    if (status == OK)
        status = open_staging(engine, error);
    engine->notifier = options->model->stream;
    if (status == OK && options->graphs)
        status = open_graphs(engine, error);
    if (status != OK) {
        step_engine_close(engine);
        return status;
    }
    *out = engine;
    return OK;
}

void step_engine_close(struct step_engine *engine)
{
    if (engine == NULL)
        return;
    stream_synchronize(engine->options.model->stream);
    step_graphs_close(engine);
    if (engine->notifier != NULL && engine->notifier != engine->options.model->stream)
        stream_close(engine->notifier);
    for (int i = 0; i < STEP_STAGING; i++) {
        if (engine->staging[i].ended != NULL)
            event_close(engine->staging[i].ended);
        runtime_free_host(engine->staging[i].memory);
    }
    runtime_free(engine->memory_dev);
    free(engine->sampling);
    free(engine);
}

// Step s uses staging[s % STEP_STAGING]: no two steps in flight share one.
static struct staging *staging_of(struct step_engine *engine, uint64_t step)
{
#ifdef PLANT_staging_shared
    return &engine->staging[step % 1];
#else
    return &engine->staging[step % STEP_STAGING];
#endif
}

static void copy_up(struct stream *stream, void *to_dev, const void *from, int count, size_t bytes)
{
    if (count > 0)
        stream_copy_to_device(stream, to_dev, from, (size_t)count * bytes);
}

static void queue_upload(const struct step_engine *engine, const struct upload *up,
                         const struct step_plan *plan)
{
    struct stream *stream = engine->options.model->stream;
    const struct upload *dev = &engine->upload_dev;
    copy_up(stream, dev->openings, up->openings, plan->opens_count, sizeof *up->openings);
    copy_up(stream, dev->pages, up->pages, plan->pages_count, sizeof *up->pages);
    copy_up(stream, dev->page_ids, up->page_ids, plan->page_ids_count, sizeof *up->page_ids);
    copy_up(stream, dev->lists, up->lists, plan->lists_count, sizeof *up->lists);
}

// Rows and their tokens. Decode tokens are the device's: their ids go up only where a prompt's
// stand behind them.
static void queue_upload_rows(const struct step_engine *engine, const struct upload *up)
{
    bool prompts = engine->tables_dev.decode_rows < engine->tables_dev.rows_count;
    const void *end = prompts ? (const void *)(up->token_ids + engine->tables_dev.tokens_count)
                              : (const void *)(up->rows + engine->tables_dev.rows_count);
    stream_copy_to_device(engine->options.model->stream, engine->upload_dev.step, up->step,
                          (size_t)((const uint8_t *)end - (const uint8_t *)up->step));
}

// The hash and the results of the rows.
static void queue_download(const struct step_engine *engine, const struct staging *staging)
{
    const struct download *down = &staging->download;
    const uint8_t *end = (const uint8_t *)(down->results + staging->rows_count);
    stream_copy_to_host(engine->options.model->stream, down->hash, engine->download_dev.hash,
                        (size_t)(end - (const uint8_t *)down->hash));
}

// Slots first: what opens here may run here.
static void queue_openings(const struct step_engine *engine, const struct step_plan *plan,
                           const struct prefix_moves *moves)
{
    const struct model *model = engine->options.model;
    const struct upload *dev = &engine->upload_dev;
    step_queue_loads(engine, moves);
    if (plan->opens_count > 0) {
        slots_open(model->stream, &model->state->slots, dev->openings, plan->opens_count);
        sample_penalty_open(model->stream, model->state->drawn_counts, model->shard.vocab.count,
                            dev->openings, plan->opens_count);
        struct sample_lists lists = step_lists_op(engine, 0);
        sample_lists_open(model->stream, &lists, dev->lists, dev->openings, plan->opens_count);
        gdn_open(model->stream, &(struct gdn_open){.layers = model->state->gdn_dev,
                                                   .layers_count = model->state->gdn_count,
                                                   .bf16_state = model->state->bf16_state,
                                                   .key_heads = model->shard.key_heads.count,
                                                   .value_heads = model->shard.value_heads.count,
                                                   .openings = dev->openings,
                                                   .openings_count = plan->opens_count});
    }
    if (plan->pages_count > 0) {
        slots_set_pages(model->stream, &model->state->slots, dev->pages, plan->pages_count,
                        dev->page_ids);
    }
    step_queue_recalls(engine, moves, plan->opens_count);
}

void step_queue_rows(const struct step_engine *engine, const struct sampling_plan *sampling,
                     int drafts)
{
    const struct model *model = engine->options.model;
    const struct step_tables *tables = &engine->tables_dev;
    struct sample_penalty penalty = step_penalty_op(engine, sampling);
    struct sample_lists lists = step_lists_op(engine, 0);
    if (tables->rows_count > 0) {
        slots_begin(model->stream, &model->state->slots, tables);
        step_queue_notes(engine);
        if (sampling->counts && tables->decode_rows < tables->rows_count)
            sample_penalty_prompt(model->stream, &penalty);
        if (sampling->recent)
            sample_lists_prompt(model->stream, &lists);
        model_forward(model, tables);
        step_queue_saves(engine);
        if (engine->options.drafts_max > 0)
            step_queue_known_pairs(engine);
    }
    step_queue_sampling(engine, sampling);
    if (tables->rows_count > 0) {
        step_queue_synthetic(engine);
        step_queue_logprobs(engine, sampling);
        slots_end(model->stream, &model->state->slots, tables, engine->sampled_dev,
                  engine->download_dev.results);
        if (sampling->counts)
            sample_penalty_drawn(model->stream, &penalty, engine->download_dev.results);
        if (sampling->recent)
            sample_lists_drawn(model->stream, &lists, engine->download_dev.results);
        if (engine->options.drafts_max > 0)
            step_queue_drafts(engine, drafts);
    }
}

static void queue_step(struct step_engine *engine, struct staging *staging,
                       const struct sampling_plan *sampling, const struct prefix_moves *moves,
                       const struct step_plan *plan)
{
    struct stream *stream = engine->options.model->stream;
    struct graph *graph = step_graphs_find(engine, &staging->upload, sampling, plan->draft);
    queue_upload(engine, &staging->upload, plan);
    if (graph == NULL) { // a recorded step fetches its rows itself, and leaves its results here
        queue_upload_rows(engine, &staging->upload);
        copy_up(stream, engine->upload_dev.cut_rows, staging->upload.cut_rows, sampling->cut_count,
                sizeof(int32_t));
        copy_up(stream, engine->upload_dev.penalty_rows, staging->upload.penalty_rows,
                sampling->penalty_count, sizeof(int32_t));
    }
    copy_up(stream, engine->upload_dev.list_rows, staging->upload.list_rows, sampling->lists_count,
            sizeof(int32_t));
    copy_up(stream, engine->upload_dev.loads, staging->upload.loads, moves->loads,
            sizeof *staging->upload.loads);
    copy_up(stream, engine->upload_dev.saves, staging->upload.saves, engine->tables_dev.saves_count,
            sizeof *staging->upload.saves);
    copy_up(stream, engine->upload_dev.folds, staging->upload.folds, moves->folds,
            sizeof *staging->upload.folds);
    step_upload_logprobs(engine, sampling, &staging->upload);
    queue_openings(engine, plan, moves);
    step_queue_fold_begin(engine, moves);
    if (graph != NULL) {
        graph_launch(graph, stream);
    } else {
        step_queue_rows(engine, sampling, plan->draft);
        queue_download(engine, staging);
    }
    step_queue_fold_end(engine, moves);
    step_download_logprobs(engine, sampling, &staging->download);
    event_record(staging->ended, stream);
    if (engine->notifier != stream)
        stream_wait(engine->notifier, staging->ended);
    stream_notify(engine->notifier, engine->options.notify_fd);
}

enum status step_submit(struct step_engine *engine, const struct step_plan *plan,
                        struct error *error)
{
    uint64_t begun = atomic_load(&engine->begun);
    if (begun - atomic_load(&engine->done) >= STEP_STAGING) {
        return error_set(error, E_OVERLOADED, "step %llu: %d steps are in flight already",
                         (unsigned long long)plan->step, STEP_STAGING);
    }
    struct step_check check = {.memory = &engine->options.memory,
                               .epoch = engine->options.epoch,
                               .step_next = begun + 1,
                               .vocab = engine->options.model->config.vocab,
                               .samples_max = engine->samples_max,
                               .drafts_max = engine->options.drafts_max};
    TRY(step_check(&check, plan, error));
    struct staging *staging = staging_of(engine, plan->step);
    staging->step = plan->step;
    *staging->upload.step = plan->step;
    staging->rows_count = plan->rows_count;
    staging->queued_ns = clock_now_ns();
    step_stage_openings(engine, &staging->upload, plan);
    step_stage_rows(&staging->upload, &engine->tables_dev, plan);
    struct sampling_plan sampling = step_stage_sampling(engine, &staging->upload);
    step_stage_logprobs(engine, staging, &sampling, plan);
    struct prefix_moves moves = step_stage_prefix(&staging->upload, &engine->tables_dev, plan);
    queue_step(engine, staging, &sampling, &moves, plan);
    atomic_store(&engine->begun, plan->step);
    return OK;
}

static void fill_rows(struct report *report, const struct staging *staging)
{
    report->rows_count = staging->rows_count;
    report->logprobs_count = 0;
    for (int i = 0; i < staging->rows_count; i++) {
        const struct row_result *result = &staging->download.results[i];
        struct step_result *row = &report->rows[i];
        *row =
            (struct step_result){.slot = result->slot, .count = result->count, .end = result->end};
        memcpy(row->tokens, result->tokens, sizeof row->tokens);
        step_report_logprobs(report, row, staging, i);
    }
}

bool step_next_report(struct step_engine *engine, struct report *report)
{
    uint64_t step = atomic_load(&engine->done) + 1;
    struct staging *staging = staging_of(engine, step);
    if (step > atomic_load(&engine->begun) || !event_query(staging->ended))
        return false;
    ASSERT(staging->step == step);
    struct place place = group_place(engine->options.model->group);
    uint64_t now_ns = clock_now_ns();
    uint64_t from_ns =
        staging->queued_ns > engine->ended_ns ? staging->queued_ns : engine->ended_ns;
    report->group = place.group;
    report->rank = place.rank;
    report->epoch = engine->options.epoch;
    report->step = step;
    report->hash = *staging->download.hash;
    report->step_ns = now_ns - from_ns;
    report->rows_count = report->logprobs_count = 0;
    if (place.rank == 0)
        fill_rows(report, staging);
    if (engine->options.poison)
        memset(staging->memory, 0xA5, engine->staging_bytes);
    engine->ended_ns = now_ns;
    atomic_store(&engine->done, step);
    return true;
}

uint64_t step_begun(const struct step_engine *engine)
{
    return atomic_load(&engine->begun);
}

uint64_t step_done(const struct step_engine *engine)
{
    return atomic_load(&engine->done);
}
