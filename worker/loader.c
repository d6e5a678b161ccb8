// SPDX-License-Identifier: Apache-2.0
// loader.c -- one thread that runs once: open in order, close in reverse.
#include "worker/loader.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/sample_cut.h"
#include "parallel/base/clock.h"
#include "parallel/base/log.h"

_Static_assert((int)WIRE_ID_BYTES == (int)GROUP_ID_BYTES, "wire and group agree on the id");

enum { MS_NS = CLOCK_NS_PER_MS, PROGRESS_MS = 5000 };

struct loader {
    struct loader_options options;
    struct model model;
    struct model_weights weights;
    struct rank_state state;
    struct step_engine *engine;
    struct memory_plan memory;
    pthread_t thread;
    bool weights_opened, state_opened;
    atomic_bool ended;
    enum status status;
    struct error error;
};

// The largest contribution to a gather: candidates of all sampled rows, or a turn of histograms.
static size_t gather_bytes(const struct memory_plan *memory)
{
    size_t candidates = (size_t)state_samples_max(memory) * sizeof(struct sample_candidate);
    size_t bins = (size_t)SAMPLE_CUT_ROWS_MAX * SAMPLE_CUT_BINS * sizeof(double);
    return candidates > bins ? candidates : bins;
}

static enum status open_group(struct loader *loader, struct error *error)
{
    const struct place_message *place = &loader->options.place;
    struct group_options options = {
        .place = {.group = place->group, .rank = place->rank, .ranks = place->ranks},
        .exchange_bytes =
            (size_t)place->step_tokens * (size_t)loader->model.config.hidden * sizeof(bf16),
        .gather_bytes = gather_bytes(&loader->memory),
        .wait_ns_max = (uint64_t)STEP_TIMEOUT_MS * MS_NS,
        .join_ns_max = (uint64_t)JOIN_TIMEOUT_MS * MS_NS,
    };
    memcpy(options.id, place->id, sizeof options.id);
    return group_open(&loader->model.group, &options, error);
}

// A launch from the host costs a GPU more than it takes the CPU's own queue.
static bool launches_cost(void)
{
    return strcmp(runtime_backend(), "cuda") == 0;
}

// DELTAMESH_GRAPHS=0 asks for plain launches, for comparing bytes.
static bool wants_graphs(void)
{
    const char *asked = getenv("DELTAMESH_GRAPHS");
    return launches_cost() && (asked == NULL || *asked != '0');
}

// Called by the one loader of this process, on its thread: a line every few seconds.
static void tell_progress(double share)
{
    static uint64_t told_ns;
    uint64_t now_ns = clock_now_ns();
    if (told_ns != 0 && now_ns - told_ns < (uint64_t)PROGRESS_MS * MS_NS)
        return;
    if (told_ns != 0)
        log_info("weights: %.0f %%", 100 * share);
    told_ns = now_ns;
}

// What recorded steps take is estimated in the plan: here is the truth beside it.
static void tell_recorded(const struct loader *loader, int drafts_max)
{
    struct memory_plan plan = loader->memory;
    plan.recorded = 1 + drafts_max;
    memory_plan_count_bytes(&plan, &loader->model.config, &loader->model.shard,
                            loader->weights.has_mtp);
    log_info("%d recorded steps: %.3f GB of the device, %.3f planned",
             memory_plan_recorded_steps(&plan), (double)step_recorded_bytes(loader->engine) * 1e-9,
             (double)plan.recorded_bytes * 1e-9);
}

static enum status open_all(struct loader *loader, struct error *error)
{
    const struct place_message *place = &loader->options.place;
    struct model *model = &loader->model;
    TRY(shard_make(&model->shard, &model->config, place->rank, place->ranks, error));
    struct weights_request request = {.model_dir = loader->options.model_dir,
                                      .format = loader->options.load_format,
                                      .config = &model->config,
                                      .shard = &model->shard,
                                      .progress = tell_progress};
    uint64_t start_ns = clock_now_ns();
    TRY(weights_open(&loader->weights, &request, error));
    loader->weights_opened = true;
    double seconds = (double)(clock_now_ns() - start_ns) * 1e-9;
    double gb = (double)loader->weights.memory_bytes * 1e-9;
    log_info("weights: %.3f GB in %.3f s, %.1f GB/s", gb, seconds, gb / seconds);
    TRY(state_open(&loader->state, &model->config, &model->shard, &loader->memory,
                   loader->weights.has_mtp, error));
    loader->state_opened = true;
    TRY(stream_open(&model->stream, error));
    TRY(open_group(loader, error));
    model->weights = &loader->weights;
    model->state = &loader->state;
    struct step_options options = {.model = model,
                                   .memory = loader->memory,
                                   .epoch = place->epoch,
                                   .vocab_real = place->vocab_real,
                                   .drafts_max = loader->weights.has_mtp ? place->drafts_max : 0,
                                   .draft_vocab = place->draft_vocab,
                                   .synthetic_length = place->synthetic_thousandths / 1000.0,
                                   .notify_fd = loader->options.notify_fd,
                                   .graphs = wants_graphs(),
                                   .padded = launches_cost(),
                                   .warm = wants_graphs()};
    TRY(step_engine_open(&loader->engine, &options, error));
    if (options.graphs)
        tell_recorded(loader, options.drafts_max);
    return OK;
}

static void *run(void *argument)
{
    struct loader *loader = (struct loader *)argument;
    uint64_t one = 1;
    loader->status = open_all(loader, &loader->error);
    atomic_store(&loader->ended, true);
    ssize_t written = write(loader->options.ended_fd, &one, sizeof one);
    ASSERT(written == (ssize_t)sizeof one);
    return NULL;
}

enum status loader_start(struct loader **out, const struct loader_options *options,
                         struct error *error)
{
    struct loader *loader = calloc(1, sizeof *loader);
    if (loader == NULL)
        return error_set(error, E_SYSTEM, "no memory for the loader");
    const struct place_message *place = &options->place;
    loader->options = *options;
    loader->model.config = options->config;
    loader->memory = (struct memory_plan){
        .sequences = place->sequences,
        .sequence_tokens = place->sequence_tokens,
        .step_tokens = place->step_tokens,
        .pages = place->pages,
        .pages_per_sequence = place->pages_per_sequence,
        .checkpoints = place->checkpoints,
        .drafts_max = place->drafts_max,
        .bf16_state = place->bf16_state != 0,
    };
    if (pthread_create(&loader->thread, NULL, run, loader) != 0) {
        free(loader);
        return error_set(error, E_SYSTEM, "no thread for the loader");
    }
    *out = loader;
    return OK;
}

void loader_close(struct loader *loader)
{
    if (loader == NULL)
        return;
    if (!atomic_load(&loader->ended)) {
        // Reading a large model cannot be interrupted; the process ends now and takes it along.
        pthread_detach(loader->thread);
        return;
    }
    pthread_join(loader->thread, NULL);
    if (loader->model.group != NULL)
        group_abort(loader->model.group);
    step_engine_close(loader->engine);
    if (loader->model.stream != NULL)
        stream_synchronize(loader->model.stream);
    if (loader->model.group != NULL)
        group_close(loader->model.group);
    if (loader->model.stream != NULL)
        stream_close(loader->model.stream);
    if (loader->state_opened)
        state_close(&loader->state);
    if (loader->weights_opened)
        weights_close(&loader->weights);
    free(loader);
}

enum status loader_result(const struct loader *loader, struct error *error)
{
    if (!atomic_load(&loader->ended))
        return error_set(error, E_TIMEOUT, "still loading");
    if (loader->status != OK && error != NULL)
        *error = loader->error;
    return loader->status;
}

struct step_engine *loader_engine(const struct loader *loader)
{
    return loader->engine;
}

struct group *loader_group(const struct loader *loader)
{
    return loader->model.group;
}
