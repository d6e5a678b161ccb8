// SPDX-License-Identifier: Apache-2.0
// rig.c -- opens what worker/loader.c opens, in its order, on the caller's thread.
#include "tests/gpu/engine/rig.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "kernels/sample_cut.h"
#include "parallel/base/clock.h"

enum { WAIT_MS_MAX = 60000 };

static void must(enum status status, const struct error *error)
{
    if (status != OK)
        DIE("rig: %s: %s", status_name(status), error->text);
}

static void *allocated(void *memory)
{
    if (memory == NULL)
        DIE("rig: no memory");
    return memory;
}

static void add_hash(uint64_t *hash, const void *bytes, size_t count)
{
    const uint8_t *at = (const uint8_t *)bytes;
    for (size_t i = 0; i < count; i++)
        *hash = (*hash ^ at[i]) * 0x100000001b3u;
}

static void open_group(struct rig *rig, struct error *error)
{
    struct group_options group = {
        .place = {.ranks = 1},
        .exchange_bytes =
            (size_t)rig->memory.step_tokens * (size_t)rig->model.config.hidden * sizeof(bf16),
        .gather_bytes = (size_t)SAMPLE_CUT_ROWS_MAX * SAMPLE_CUT_BINS * sizeof(double),
        .wait_ns_max = (uint64_t)WAIT_MS_MAX * CLOCK_NS_PER_MS,
        .join_ns_max = (uint64_t)WAIT_MS_MAX * CLOCK_NS_PER_MS,
    };
    must(group_open(&rig->model.group, &group, error), error);
}

static void open_engine(struct rig *rig, struct error *error)
{
    struct step_options options = {
        .model = &rig->model,
        .memory = rig->memory,
        .epoch = 1,
        .vocab_real = rig->options.vocab_real,
        .drafts_max = rig->weights.has_mtp ? rig->options.drafts_max : 0,
        .draft_vocab = rig->options.draft_vocab,
        .synthetic_length = rig->options.synthetic_length,
        .notify_fd = eventfd(0, EFD_NONBLOCK),
        .graphs = rig->options.graphs,
        .padded = rig->options.padded,
        .warm = rig->options.graphs,
        .poison = true,
    };
    must(step_engine_open(&rig->engine, &options, error), error);
}

// State as a device may hand it out: nothing behind the block table has a value but the tables that
// state_open fills.
static void fill_state(struct rig *rig)
{
    const struct rank_state *state = &rig->state;
    float frequencies[ROTARY_PAIRS_MAX];
    size_t table = (size_t)state->slots.slots_count * (size_t)state->slots.pages_per_sequence;
    uint8_t *from_dev = (uint8_t *)(state->slots.block_table + table);
    size_t bytes = (size_t)((uint8_t *)state->memory + state->memory_bytes - from_dev);
    void *values = allocated(malloc(bytes));
    memset(values, rig->options.fill, bytes);
    stream_copy_to_device(rig->model.stream, from_dev, values, bytes);
    config_rope_frequencies(frequencies, &rig->model.config.rope);
    stream_copy_to_device(rig->model.stream, state->inverse_frequencies, frequencies,
                          (size_t)rig->model.config.rope.rotary_dim / 2 * sizeof(float));
    stream_copy_to_device(rig->model.stream, state->prefix.layers_dev, state->prefix.layers,
                          (size_t)state->prefix.layers_count * sizeof *state->prefix.layers_dev);
    for (int layer = 0, i = 0; layer < rig->model.config.layers; layer++) {
        if (!rig->model.config.layer_is_attention[layer])
            stream_copy_to_device(rig->model.stream, state->gdn_dev + i++, &state->gdn[layer],
                                  sizeof *state->gdn_dev);
    }
    stream_synchronize(rig->model.stream);
    free(values);
}

void rig_open(struct rig *rig, const struct rig_options *options)
{
    struct error error = {.text = ""};
    struct model *model = &rig->model;
    memset(rig, 0, sizeof *rig);
    rig->options = *options;
    rig->hash = 0xcbf29ce484222325u;
    must(config_load(&model->config, options->model_dir, &error), &error);
    must(shard_make(&model->shard, &model->config, 0, 1, &error), &error);
    rig->memory = (struct memory_plan){.sequences = options->sequences,
                                       .sequence_tokens = options->sequence_tokens,
                                       .step_tokens = options->step_tokens,
                                       .pages = options->pages,
                                       .pages_per_sequence = (options->sequence_tokens + 63) / 64,
                                       .checkpoints = options->checkpoints,
                                       .drafts_max = VERIFY_ROWS_MAX - 1,
                                       .bf16_state = getenv("DELTAMESH_CHECK_BF16_STATE") != NULL};
    struct weights_request request = {.model_dir = options->model_dir,
                                      .format = LOAD_DUMMY,
                                      .config = &model->config,
                                      .shard = &model->shard};
    must(weights_open(&rig->weights, &request, &error), &error);
    must(state_open(&rig->state, &model->config, &model->shard, &rig->memory, rig->weights.has_mtp,
                    &error),
         &error);
    must(stream_open(&model->stream, &error), &error);
    fill_state(rig);
    open_group(rig, &error);
    model->weights = &rig->weights;
    model->state = &rig->state;
    open_engine(rig, &error);
    must(step_plan_open(&rig->plan, &error), &error);
    rig->report.rows = allocated(calloc(STEP_ROWS_MAX, sizeof *rig->report.rows));
    rig->report.logprobs = allocated(calloc(STEP_LOGPROBS_MAX, sizeof *rig->report.logprobs));
    size_t bytes = (size_t)options->step_tokens * sizeof(int32_t);
    int32_t *ids = allocated(malloc(bytes));
    for (int i = 0; i < options->step_tokens; i++)
        ids[i] = i;
    rig->all_tokens_dev = allocated(runtime_alloc(bytes));
    stream_copy_to_device(model->stream, rig->all_tokens_dev, ids, bytes);
    stream_synchronize(model->stream);
    free(ids);
}

void rig_close(struct rig *rig)
{
    step_engine_close(rig->engine);
    stream_synchronize(rig->model.stream);
    group_close(rig->model.group);
    stream_close(rig->model.stream);
    state_close(&rig->state);
    weights_close(&rig->weights);
    runtime_free(rig->all_tokens_dev);
    step_plan_close(&rig->plan);
    free(rig->report.rows);
    free(rig->report.logprobs);
}

struct step_plan *rig_plan(struct rig *rig)
{
    step_plan_clear(&rig->plan);
    rig->plan.epoch = 1;
    rig->plan.step = ++rig->step;
    return &rig->plan;
}

struct step_open *rig_add_open(struct rig *rig, int slot, int page_first, int page_count)
{
    struct step_plan *plan = &rig->plan;
    plan->pages[plan->pages_count++] =
        (struct step_pages){.slot = slot, .count = page_count, .ids_first = plan->page_ids_count};
    for (int i = 0; i < page_count; i++)
        plan->page_ids[plan->page_ids_count++] = page_first + i;
    struct step_open *open = &plan->opens[plan->opens_count++];
    *open = (struct step_open){.slot = slot, .tokens_end = rig->options.sequence_tokens};
    return open;
}

struct step_plan_row *rig_add_prompt(struct rig *rig, int slot, const int32_t *ids, int count,
                                     int32_t next)
{
    struct step_plan *plan = &rig->plan;
    struct step_plan_row *row = &plan->rows[plan->rows_count++];
    *row = (struct step_plan_row){.slot = slot,
                                  .kind = STEP_ROW_PREFILL,
                                  .tokens_first = plan->tokens_count,
                                  .tokens_count = count,
                                  .token_next = next,
                                  .sample = next < 0,
                                  .checkpoint = -1};
    memcpy(plan->tokens + plan->tokens_count, ids, (size_t)count * sizeof *ids);
    plan->tokens_count += count;
    return row;
}

struct step_plan_row *rig_add_decode(struct rig *rig, int slot)
{
    struct step_plan_row *row = &rig->plan.rows[rig->plan.rows_count++];
    *row = (struct step_plan_row){.slot = slot, .kind = STEP_ROW_DECODE, .checkpoint = -1};
    return row;
}

void rig_submit(struct rig *rig, int ahead)
{
    struct error error = {.text = ""};
    rig_drain(rig, ahead);
    must(step_submit(rig->engine, &rig->plan, &error), &error);
}

// Field by field: nobody promises what lies between fields or behind counts.
static void hash_report(struct rig *rig)
{
    const struct report *report = &rig->report;
    add_hash(&rig->hash, &report->step, sizeof report->step);
    add_hash(&rig->hash, &report->hash, sizeof report->hash);
    for (int i = 0; i < report->rows_count; i++) {
        const struct step_result *row = &report->rows[i];
        int32_t head[] = {row->slot, row->count, row->end, row->prompt_logprobs_count,
                          row->logprobs_count};
        add_hash(&rig->hash, head, sizeof head);
        add_hash(&rig->hash, row->tokens, (size_t)row->count * sizeof *row->tokens);
    }
    for (int i = 0; i < report->logprobs_count; i++) {
        const struct step_logprob *entry = &report->logprobs[i];
        size_t top = (size_t)entry->top_count;
        add_hash(&rig->hash, &entry->id, sizeof entry->id);
        add_hash(&rig->hash, &entry->logprob, sizeof entry->logprob);
        add_hash(&rig->hash, entry->top_ids, top * sizeof *entry->top_ids);
        add_hash(&rig->hash, entry->top_logprobs, top * sizeof *entry->top_logprobs);
    }
}

void rig_drain(struct rig *rig, int left)
{
    uint64_t limit_ns = clock_now_ns() + (uint64_t)WAIT_MS_MAX * CLOCK_NS_PER_MS;
    while (step_begun(rig->engine) - step_done(rig->engine) > (uint64_t)left) {
        if (!step_next_report(rig->engine, &rig->report)) {
            if (clock_now_ns() > limit_ns)
                DIE("rig: step %llu did not end", (unsigned long long)step_done(rig->engine) + 1);
            continue;
        }
        hash_report(rig);
        if (rig->took != NULL)
            rig->took(rig->context, &rig->report);
    }
}

static void copy_down(struct rig *rig, void *to, const void *from_dev, size_t bytes)
{
    stream_copy_to_host(rig->model.stream, to, from_dev, bytes);
    stream_synchronize(rig->model.stream);
}

void rig_sampled_logits(struct rig *rig, int count, float *logits)
{
    copy_down(rig, logits, rig->state.workspace.logits,
              (size_t)count * (size_t)rig->model.config.vocab * sizeof(float));
}

void rig_all_logits(struct rig *rig, int count, float *logits)
{
    int most = state_samples_max(&rig->memory);
    for (int first = 0; first < count; first += most) {
        struct step_tables all = {.sample_tokens = rig->all_tokens_dev + first,
                                  .tokens_count = count,
                                  .samples_count = count - first < most ? count - first : most};
        model_logits(&rig->model, &all, rig->state.workspace.hidden, rig->model.config.vocab);
        rig_sampled_logits(rig, all.samples_count,
                           logits + (size_t)first * (size_t)rig->model.config.vocab);
    }
}

void rig_force(struct rig *rig, int slot, int32_t next, const int32_t *drafts, int count)
{
    struct slot *slot_dev = rig->state.slots.slots + slot;
    stream_copy_to_device(rig->model.stream, &slot_dev->token_next, &next, sizeof next);
    if (count > 0)
        stream_copy_to_device(rig->model.stream, slot_dev->drafts, drafts,
                              (size_t)count * sizeof *drafts);
    stream_synchronize(rig->model.stream);
}

void rig_drafts(struct rig *rig, int slot, int32_t *drafts)
{
    const struct slot *slot_dev = rig->state.slots.slots + slot;
    copy_down(rig, drafts, slot_dev->drafts, sizeof slot_dev->drafts);
}

static void hash_memory(struct rig *rig, uint64_t *hash, const void *from_dev, size_t bytes)
{
    void *host = allocated(malloc(bytes));
    copy_down(rig, host, from_dev, bytes);
    add_hash(hash, host, bytes);
    free(host);
}

uint64_t rig_state_hash(struct rig *rig)
{
    const struct rank_state *state = &rig->state;
    const struct shard *shard = &rig->model.shard;
    uint64_t hash = 0xcbf29ce484222325u;
    size_t slots = (size_t)rig->memory.sequences;
    size_t states = (size_t)shard->value_heads.count * GDN_HEAD_DIM * GDN_HEAD_DIM *
                    (size_t)gdn_state_bytes(rig->memory.bf16_state);
    size_t kv = (size_t)rig->memory.pages * (size_t)rig->model.config.kv_heads * TOKENS_PER_PAGE *
                (size_t)rig->model.config.head_dim * sizeof(bf16);
    hash_memory(rig, &hash, state->slots.slots, slots * sizeof *state->slots.slots);
    for (int i = 0; i < rig->model.config.layers; i++) {
        if (rig->model.config.layer_is_attention[i]) {
            hash_memory(rig, &hash, state->kv[i].k_pages, kv);
            hash_memory(rig, &hash, state->kv[i].v_pages, kv);
        } else {
            hash_memory(rig, &hash, state->gdn[i].state, slots * states);
        }
    }
    for (int i = 0; i < state->prefix.layers_count; i++)
        hash_memory(rig, &hash, state->prefix.layers[i].checkpoints.state,
                    (size_t)rig->memory.checkpoints * states);
    return hash;
}
