// SPDX-License-Identifier: Apache-2.0
// state.c -- one device allocation, carved twice: first to measure, then to place.
#include "worker/state.h"

#include <string.h>

#include "kernels/moe_push.h"
#include "kernels/runtime.h"

_Static_assert((int)ROW_VERIFY_MAX == (int)VERIFY_ROWS_MAX,
               "kernels and memory plan agree on verify rows");
_Static_assert((int)GDN_WAITING_MAX == (int)PENDING_ROWS,
               "kernels and memory plan agree on pending rows");
_Static_assert(2 * ((int)GDN_ROUND_TOKENS - 1) == (int)PENDING_ROWS_BF16,
               "kernels and memory plan agree on pending rows of bf16 states");
_Static_assert(SEQUENCE_LISTS_BYTES ==
                   (SAMPLE_LISTS_MAX + SAMPLE_RECENT_MAX) * (int)sizeof(int32_t),
               "kernels and memory plan agree on lists");
_Static_assert((int)ATTENTION_PAGE_TOKENS == (int)TOKENS_PER_PAGE, "one page size");
_Static_assert(2 * (int)ATTENTION_PARTS_MAX == (int)ATTENTION_PARTS &&
                   (int)ATTENTION_PART_ROWS == (int)ATTENTION_PART_QUERIES &&
                   (int)ATTENTION_BORDER_BYTES == 2 * (int)ATTENTION_PART_BORDER_BYTES,
               "attention's parts");
_Static_assert((int)MOE_FLOAT_TOKENS_MAX == (int)EXPERT_FLOAT_TOKENS_MAX,
               "kernels and memory plan agree on experts' products");

enum { CARVE_ALIGN_BYTES = 256 };

// base NULL: only counts.
struct carver {
    uint8_t *base;
    uint64_t used_bytes;
};

static void *carve(struct carver *carver, uint64_t count, uint64_t item_bytes)
{
    uint64_t at = carver->used_bytes;
    uint64_t bytes = count * item_bytes;
    carver->used_bytes += (bytes + CARVE_ALIGN_BYTES - 1) / CARVE_ALIGN_BYTES * CARVE_ALIGN_BYTES;
    return carver->base == NULL ? NULL : carver->base + at;
}

static int widest(int a, int b)
{
    return a > b ? a : b;
}

int state_samples_max(const struct memory_plan *plan)
{
    int64_t rows = (int64_t)plan->sequences * VERIFY_ROWS_MAX;
    return rows < plan->step_tokens ? (int)rows : plan->step_tokens;
}

static void carve_kv(struct kv_layer *layer, struct carver *carver,
                     const struct model_config *config, const struct shard *shard, int pages)
{
    uint64_t values = (uint64_t)pages * (uint64_t)shard->kv_heads.count * TOKENS_PER_PAGE *
                      (uint64_t)config->head_dim;
    layer->k_pages = (bf16 *)carve(carver, values, sizeof(bf16));
    layer->v_pages = (bf16 *)carve(carver, values, sizeof(bf16));
}

static void carve_gdn(struct gdn_state *state, struct carver *carver,
                      const struct model_config *config, const struct shard *shard,
                      const struct memory_plan *plan)
{
    uint64_t slots_count = (uint64_t)plan->sequences;
    uint64_t value_heads = (uint64_t)shard->value_heads.count;
    uint64_t key_heads = (uint64_t)shard->key_heads.count;
    uint64_t channels = (uint64_t)shard_conv_channels(shard, config);
    state->pending_rows = gdn_pending_rows(plan->bf16_state, 1 + plan->drafts_max);
    state->pending_columns = gdn_pending_columns(1 + plan->drafts_max);
    uint64_t pending = slots_count * (uint64_t)state->pending_rows;
    uint64_t columns = slots_count * 2 * (uint64_t)state->pending_columns;
    state->state = carve(carver, slots_count * value_heads * GDN_HEAD_DIM * GDN_HEAD_DIM,
                         (uint64_t)gdn_state_bytes(plan->bf16_state));
    state->conv =
        (bf16 *)carve(carver, slots_count * (GDN_CONV_WIDTH - 1) * channels, sizeof(bf16));
    state->pending_k = (float *)carve(carver, pending * key_heads * GDN_HEAD_DIM, sizeof(float));
    state->pending_u = (float *)carve(carver, pending * value_heads * GDN_HEAD_DIM, sizeof(float));
    state->pending_g = (float *)carve(carver, pending * value_heads, sizeof(float));
    // Read, and not used, for rows of kind none too, whose slot is behind the last.
    state->waiting =
        (struct gdn_waiting *)carve(carver, (slots_count + 1) * 2, sizeof(struct gdn_waiting));
    state->pending_conv = (bf16 *)carve(carver, columns * channels, sizeof(bf16));
}

// Widths of the buffers that layers of different kinds share.
struct widths {
    int projected, mixed, gated, middle;
};

static struct widths widths_of(const struct model_config *config, const struct shard *shard)
{
    int gdn_out = shard->value_heads.count * config->value_dim;
    int attention_out = shard->heads.count * config->head_dim;
    struct widths widths = {
        .projected = widest(shard_gdn_rows(shard, config), shard_attention_rows(shard, config)),
        .mixed = widest(gdn_out, attention_out),
        .gated = gdn_out,
        .middle = shard->intermediate.count,
    };
    widths.projected = widest(widths.projected, 2 * shard->intermediate.count);
    if (config->experts > 0) {
        widths.middle = config->experts_per_token * shard->expert_intermediate.count +
                        shard->shared_intermediate.count;
    }
    return widths;
}

static void carve_gdn_workspace(struct gdn_workspace *workspace, struct carver *carver,
                                const struct shard *shard, int step_tokens)
{
    uint64_t chunks = (uint64_t)gdn_workspace_chunks(step_tokens);
    uint64_t key_heads = (uint64_t)shard->key_heads.count;
    uint64_t value_heads = (uint64_t)shard->value_heads.count;
    workspace->chunks = (int)chunks;
    workspace->tiles =
        (bf16 *)carve(carver, chunks * (key_heads + value_heads) * GDN_TILE_VALUES, sizeof(bf16));
    workspace->factors = (float *)carve(carver, chunks * value_heads * GDN_FACTORS, sizeof(float));
}

static void carve_workspace(struct workspace *w, struct carver *carver,
                            const struct model_config *config, const struct shard *shard,
                            const struct memory_plan *plan)
{
    struct widths widths = widths_of(config, shard);
    uint64_t tokens = (uint64_t)plan->step_tokens;
    uint64_t hidden = tokens * (uint64_t)config->hidden;
    w->residual = (bf16 *)carve(carver, hidden, sizeof(bf16));
    w->normed = (bf16 *)carve(carver, hidden, sizeof(bf16));
    w->hidden = (bf16 *)carve(carver, hidden, sizeof(bf16));
    w->partial = (bf16 *)carve(carver, hidden, sizeof(bf16));
    w->joined = (bf16 *)carve(carver, 2 * hidden, sizeof(bf16));
    w->projected = (bf16 *)carve(carver, tokens * (uint64_t)widths.projected, sizeof(bf16));
    w->mixed = (bf16 *)carve(carver, tokens * (uint64_t)widths.mixed, sizeof(bf16));
    w->gated = (bf16 *)carve(carver, tokens * (uint64_t)widths.gated, sizeof(bf16));
    w->middle = (bf16 *)carve(carver, tokens * (uint64_t)widths.middle, sizeof(bf16));
    if (config->experts > 0) {
        uint64_t picks = tokens * (uint64_t)config->experts_per_token;
        w->router_logits =
            (float *)carve(carver, tokens * (uint64_t)(config->experts + 1), sizeof(float));
        w->expert_ids = (int32_t *)carve(carver, picks, sizeof(int32_t));
        w->expert_weights = (float *)carve(carver, picks, sizeof(float));
        w->shared_weights = (float *)carve(carver, tokens, sizeof(float));
        w->expert_products = carve(
            carver,
            moe_products_bytes(plan->step_tokens, config->experts_per_token, config->hidden), 1);
        w->expert_lists = (int32_t *)carve(
            carver, moe_lists_count(plan->step_tokens, config->experts_per_token, config->experts),
            sizeof(int32_t));
    }
    if (config->head_dim == ATTENTION_PART_HEAD_DIM) {
        uint64_t queries = (uint64_t)ATTENTION_PARTS * ATTENTION_PART_ROWS;
        w->attention = (struct attention_workspace){
            .sums = (float *)carve(carver, queries * ATTENTION_PART_HEAD_DIM, sizeof(float)),
            .scales = (float *)carve(carver, queries * 2, sizeof(float)),
            .borders = carve(carver, ATTENTION_PARTS_MAX, ATTENTION_BORDER_BYTES),
        };
    }
    w->logits = (float *)carve(
        carver, (uint64_t)state_samples_max(plan) * (uint64_t)shard->vocab.count, sizeof(float));
    carve_gdn_workspace(&w->gdn, carver, shard, plan->step_tokens);
}

static void carve_prefix(struct rank_state *state, struct carver *carver,
                         const struct model_config *config, const struct shard *shard,
                         const struct memory_plan *plan)
{
    struct prefix_state *prefix = &state->prefix;
    uint64_t count = (uint64_t)plan->checkpoints, hidden = (uint64_t)config->hidden;
    uint64_t states = (uint64_t)shard->value_heads.count * GDN_HEAD_DIM * GDN_HEAD_DIM;
    uint64_t columns = (GDN_CONV_WIDTH - 1) * (uint64_t)shard_conv_channels(shard, config);
    prefix->layers_count = 0;
    if (count == 0)
        return;
    for (int i = 0; i < config->layers; i++) {
        if (config->layer_is_attention[i])
            continue;
        struct gdn_checkpoints *checkpoints = &prefix->checkpoints[i];
        checkpoints->state =
            carve(carver, count * states, (uint64_t)gdn_state_bytes(plan->bf16_state));
        checkpoints->conv = (bf16 *)carve(carver, count * columns, sizeof(bf16));
        prefix->layers[prefix->layers_count++] = (struct state_checkpoint_layer){
            .state = state->gdn[i].state,
            .conv = state->gdn[i].conv,
            .pending_conv = state->gdn[i].pending_conv,
            .checkpoints = *checkpoints,
        };
    }
    prefix->layers_dev = (struct state_checkpoint_layer *)carve(
        carver, (uint64_t)prefix->layers_count, sizeof *prefix->layers_dev);
    prefix->checkpoint_hidden = (bf16 *)carve(carver, count * hidden, sizeof(bf16));
    prefix->page_tokens =
        (int32_t *)carve(carver, (uint64_t)plan->pages * TOKENS_PER_PAGE, sizeof(int32_t));
}

static void carve_all(struct rank_state *state, struct carver *carver,
                      const struct model_config *config, const struct shard *shard,
                      const struct memory_plan *plan, bool mtp)
{
    state->bf16_state = plan->bf16_state;
    state->pending_columns = gdn_pending_columns(1 + plan->drafts_max);
    state->slots.slots_count = plan->sequences + 1; // the last is never opened: rows of kind none
    state->slots.pages_per_sequence = plan->pages_per_sequence;
    state->slots.slots =
        (struct slot *)carve(carver, (uint64_t)plan->sequences + 1, sizeof(struct slot));
    state->slots.block_table = (int32_t *)carve(
        carver, ((uint64_t)plan->sequences + 1) * (uint64_t)plan->pages_per_sequence,
        sizeof(int32_t));
    state->gdn_count = 0;
    for (int layer = 0; layer < config->layers; layer++) {
        if (config->layer_is_attention[layer]) {
            carve_kv(&state->kv[layer], carver, config, shard, plan->pages);
        } else {
            carve_gdn(&state->gdn[layer], carver, config, shard, plan);
            state->gdn_count++;
        }
    }
    state->gdn_dev =
        (struct gdn_state *)carve(carver, (uint64_t)state->gdn_count, sizeof *state->gdn_dev);
    if (mtp)
        carve_kv(&state->mtp_kv, carver, config, shard, plan->pages);
    state->slot_hidden =
        (bf16 *)carve(carver, (uint64_t)plan->sequences * (uint64_t)config->hidden, sizeof(bf16));
    carve_prefix(state, carver, config, shard, plan);
    state->inverse_frequencies =
        (float *)carve(carver, (uint64_t)config->rope.rotary_dim / 2, sizeof(float));
    state->drawn_counts = (uint16_t *)carve(
        carver, (uint64_t)plan->sequences * (uint64_t)shard->vocab.count, sizeof(uint16_t));
    state->lists =
        (int32_t *)carve(carver, (uint64_t)plan->sequences * SAMPLE_LISTS_MAX, sizeof(int32_t));
    state->recent =
        (int32_t *)carve(carver, (uint64_t)plan->sequences * SAMPLE_RECENT_MAX, sizeof(int32_t));
    carve_workspace(&state->workspace, carver, config, shard, plan);
}

static void copy_gdn(struct rank_state *state, const struct model_config *config,
                     struct stream *stream)
{
    int count = 0;
    for (int layer = 0; layer < config->layers; layer++) {
        if (!config->layer_is_attention[layer])
            stream_copy_to_device(stream, state->gdn_dev + count++, &state->gdn[layer],
                                  sizeof *state->gdn_dev);
    }
}

// Fills what must have a value before the first step: the rotary table and ended slots.
static enum status fill(struct rank_state *state, const struct model_config *config,
                        struct error *error)
{
    float frequencies[ROTARY_PAIRS_MAX];
    struct stream *stream;
    TRY(stream_open(&stream, error));
    config_rope_frequencies(frequencies, &config->rope);
    stream_copy_to_device(stream, state->inverse_frequencies, frequencies,
                          (size_t)config->rope.rotary_dim / 2 * sizeof(float));
    stream_copy_to_device(stream, state->prefix.layers_dev, state->prefix.layers,
                          (size_t)state->prefix.layers_count * sizeof *state->prefix.layers_dev);
    copy_gdn(state, config, stream);
    stream_zero(stream, state->slots.slots, (size_t)state->slots.slots_count * sizeof(struct slot));
    stream_synchronize(stream);
    stream_close(stream);
    return OK;
}

enum status state_open(struct rank_state *out, const struct model_config *config,
                       const struct shard *shard, const struct memory_plan *plan, bool mtp,
                       struct error *error)
{
    struct carver carver = {0};
    memset(out, 0, sizeof *out);
    carve_all(out, &carver, config, shard, plan, mtp);
    void *memory = runtime_alloc(carver.used_bytes);
    if (memory == NULL) {
        return error_set(error, E_LIMIT,
                         "device memory: %llu MiB for state and workspace do not "
                         "fit, %llu MiB are free",
                         (unsigned long long)(carver.used_bytes >> 20),
                         (unsigned long long)(runtime_bytes_free() >> 20));
    }
    carver = (struct carver){.base = (uint8_t *)memory};
    carve_all(out, &carver, config, shard, plan, mtp);
    out->memory = memory;
    out->memory_bytes = carver.used_bytes;
    enum status status = fill(out, config, error);
    if (status != OK)
        state_close(out);
    return status;
}

void state_close(struct rank_state *state)
{
    runtime_free(state->memory);
    memset(state, 0, sizeof *state);
}
