// SPDX-License-Identifier: Apache-2.0
// gdn_layer.cuh -- a Gated DeltaNet layer's memory and the ops of its steps, for gdn's checks.
#pragma once

#include <math.h>
#include <string.h>

#include "tests/gpu/check.cuh"

extern "C" {
#include "kernels/gdn.h"
}

enum { DIM = GDN_HEAD_DIM };

// A layer with `slots` slots, on the host; steps are run on it one after the other.
struct layer {
    struct gdn op; // tables and projected as of the last step made
    int slots, channels, stride, checkpoints, verify_max;
    size_t state_values, conv_values, k_values, u_values, g_values, pending_values;
    double decay; // of a_log: how fast the heads forget
};

// Values of a check.
template <typename T> static inline T *array(enum array_kind kind, size_t count)
{
    return static_cast<T *>(check_array(kind, count * sizeof(T)));
}

// Random ones, of this deviation.
static inline float *floats(enum array_kind kind, size_t count, double deviation)
{
    float *values = array<float>(kind, count);
    check_fill(values, count, deviation);
    return values;
}

// As floats.
static inline bf16 *halves(enum array_kind kind, size_t count, double deviation)
{
    bf16 *values = array<bf16>(kind, count);
    check_fill(values, count, deviation);
    return values;
}

// Values of states, as the op has them.
static inline void *states_of(const struct gdn *op, size_t count, double deviation)
{
    if (op->bf16_state)
        return halves(ARRAY_STATE, count, deviation);
    return floats(ARRAY_STATE, count, deviation);
}

// Sizes of a slot's ring and columns.
static inline void set_pending(struct gdn_state *state, bool bf16_state, int verify_max)
{
    state->pending_rows = gdn_pending_rows(bf16_state, verify_max);
    state->pending_columns = gdn_pending_columns(verify_max);
}

// Memory of a layer as if decode rows were pending everywhere: unit keys, decays below 1.
static inline void open_memory(struct layer *layer)
{
    struct gdn_state *state = &layer->op.state;
    set_pending(state, layer->op.bf16_state, layer->verify_max);
    size_t slots = static_cast<size_t>(layer->slots);
    size_t rows = slots * static_cast<size_t>(state->pending_rows);
    size_t columns = slots * 2 * static_cast<size_t>(state->pending_columns);
    size_t keys = static_cast<size_t>(layer->op.key_heads);
    size_t values = static_cast<size_t>(layer->op.value_heads);
    size_t channels = static_cast<size_t>(layer->channels);
    layer->state_values = slots * values * DIM * DIM;
    layer->conv_values = slots * (GDN_CONV_WIDTH - 1) * channels;
    layer->k_values = rows * keys * DIM;
    layer->u_values = rows * values * DIM;
    layer->g_values = rows * values;
    layer->pending_values = columns * channels;
    state->state = states_of(&layer->op, layer->state_values, 0.1);
    state->conv = halves(ARRAY_STATE, layer->conv_values, 1);
    state->pending_k = floats(ARRAY_STATE, layer->k_values, 1 / sqrt(static_cast<double>(DIM)));
    state->pending_u = floats(ARRAY_STATE, layer->u_values, 1);
    state->pending_g = floats(ARRAY_STATE, layer->g_values, 1);
    state->pending_conv = halves(ARRAY_STATE, layer->pending_values, 1);
    state->waiting = array<struct gdn_waiting>(ARRAY_STATE, slots * 2);
    for (size_t i = 0; i < layer->g_values; i++)
        state->pending_g[i] = -fabsf(state->pending_g[i]);
}

// decay: of a_log, about which the heads' values lie.
static inline struct layer open_layer(int key_heads, int value_heads, int slots, double decay,
                                      bool bf16_state, int verify_max = ROW_VERIFY_MAX)
{
    struct layer layer = {};
    layer.verify_max = verify_max;
    struct gdn *op = &layer.op;
    layer.slots = slots;
    layer.decay = decay;
    layer.channels = (2 * key_heads + value_heads) * DIM;
    layer.stride = layer.channels + value_heads * DIM + 2 * value_heads;
    layer.stride = (layer.stride + 3) / 4 * 4;
    op->key_heads = key_heads;
    op->value_heads = value_heads;
    op->projected_stride = layer.stride;
    op->bf16_state = bf16_state;
    op->slots.slots_count = slots;
    op->conv_weight = floats(ARRAY_INPUT, static_cast<size_t>(layer.channels) * 4, 0.5);
    float *a_log = floats(ARRAY_INPUT, static_cast<size_t>(value_heads), 1);
    for (int i = 0; i < value_heads; i++)
        a_log[i] += static_cast<float>(decay);
    op->a_log = a_log;
    op->dt_bias = floats(ARRAY_INPUT, static_cast<size_t>(value_heads), 1);
    open_memory(&layer);
    return layer;
}

// Values of all its checkpoints.
static inline size_t checkpoint_states(const struct layer *layer)
{
    return layer->state_values / static_cast<size_t>(layer->slots) *
           static_cast<size_t>(layer->checkpoints);
}

// As checkpoint_states.
static inline size_t checkpoint_columns(const struct layer *layer)
{
    return layer->conv_values / static_cast<size_t>(layer->slots) *
           static_cast<size_t>(layer->checkpoints);
}

// Memory for `count` checkpoints.
static inline void open_checkpoints(struct layer *layer, int count)
{
    layer->checkpoints = count;
    layer->op.checkpoints.state = states_of(&layer->op, checkpoint_states(layer), 1);
    layer->op.checkpoints.conv = halves(ARRAY_STATE, checkpoint_columns(layer), 1);
}

// The row, one behind those before, leaves its next checkpoint.
static inline void add_save(struct gdn *op, int checkpoint, int row, int tokens)
{
    enum { MOST = 16 };
    struct step_tables *tables = &op->tables;
    if (tables->saves == NULL)
        tables->saves = array<struct row_save>(ARRAY_INPUT, MOST);
    const_cast<struct row_save *>(tables->saves)[tables->saves_count++] = {
        checkpoint, row, tokens, tables->rows[row].token_first + tokens - 1};
}

// Room for `chunks` chunks.
static inline void open_workspace(struct layer *layer, int chunks)
{
    struct gdn_workspace *workspace = &layer->op.workspace;
    size_t heads = static_cast<size_t>(layer->op.key_heads + layer->op.value_heads);
    size_t count = static_cast<size_t>(chunks);
    workspace->chunks = chunks;
    workspace->tiles = array<bf16>(ARRAY_SCRATCH, count * heads * GDN_TILE_VALUES);
    workspace->factors = array<float>(
        ARRAY_SCRATCH, count * static_cast<size_t>(layer->op.value_heads) * GDN_FACTORS);
}

// A row of a step: of slot `slot`, `tokens` tokens of which `active` run.
struct row {
    int slot, kind, tokens, active;
    int pending, parity; // of the slot before the step
    int position;        // of its first token, 0: 100
};

// The op of one step with inputs of its own, `rest` tokens of no row behind the rows.
static inline struct gdn make_step(const struct layer *layer, const struct row *rows, int count,
                                   int rest)
{
    struct gdn op = layer->op;
    struct step_tables *tables = &op.tables;
    struct step_row *step = array<struct step_row>(ARRAY_INPUT, static_cast<size_t>(count));
    struct slot *slots = array<struct slot>(ARRAY_INPUT, static_cast<size_t>(layer->slots));
    for (int i = 0; i < count; i++) {
        step[i].slot = rows[i].slot;
        step[i].kind = rows[i].kind;
        step[i].token_first = tables->tokens_count;
        step[i].token_count = rows[i].tokens;
        step[i].pause_at = i % 3 == 2 ? 100 : 0;
        slots[rows[i].slot].position = rows[i].position > 0 ? rows[i].position : 100;
        slots[rows[i].slot].pending = rows[i].pending;
        slots[rows[i].slot].parity = rows[i].parity;
        tables->tokens_count += rows[i].tokens;
        tables->decode_rows += rows[i].kind != ROW_PREFILL;
        if (rows[i].kind == ROW_DECODE && rows[i].tokens > tables->verify)
            tables->verify = rows[i].tokens;
    }
    size_t tokens = static_cast<size_t>(tables->tokens_count += rest);
    tables->rows_count = count;
    tables->rows = step;
    tables->active_count = array<int32_t>(ARRAY_INPUT, static_cast<size_t>(count));
    tables->token_rows = array<int32_t>(ARRAY_INPUT, tokens);
    memset(tables->token_rows, 0xff, tokens * sizeof(int32_t));
    for (int i = 0; i < count; i++) {
        tables->active_count[i] = rows[i].active;
        for (int t = 0; t < rows[i].tokens; t++)
            tables->token_rows[step[i].token_first + t] = i;
    }
    op.slots.slots = slots;
    op.projected = halves(ARRAY_INPUT, tokens * static_cast<size_t>(layer->stride), 1);
    op.o = array<bf16>(ARRAY_OUTPUT, tokens * static_cast<size_t>(op.value_heads) * DIM);
    return op;
}

// The op with the device's copies of its arrays.
static inline struct gdn on_device(const struct gdn *host)
{
    struct gdn op = *host;
    check_to_dev(op.tables.rows, op.tables.active_count, op.tables.token_rows, op.slots.slots,
                 op.state.state, op.state.conv, op.state.pending_k, op.state.pending_u,
                 op.state.pending_g, op.state.pending_conv, op.state.waiting, op.workspace.tiles,
                 op.workspace.factors, op.projected, op.conv_weight, op.a_log, op.dt_bias, op.o,
                 op.tables.saves, op.checkpoints.state, op.checkpoints.conv);
    return op;
}
