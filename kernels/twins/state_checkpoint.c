// SPDX-License-Identifier: Apache-2.0
// state_checkpoint.c -- a slot's state into a checkpoint and back on the CPU. Owns nothing.
#include "kernels/state_checkpoint.h"

#include <string.h>

#include "kernels/runtime_cpu.h"

struct arguments {
    struct state_checkpoint op;
    const bf16 *hidden_rows;
};

static void copy(void *base_to, int32_t to, const void *base_from, int32_t from, size_t bytes)
{
    memcpy((uint8_t *)base_to + (size_t)to * bytes,
           (const uint8_t *)base_from + (size_t)from * bytes, bytes);
}

static size_t state_bytes(const struct state_checkpoint *op)
{
    return (size_t)op->value_heads * GDN_HEAD_DIM * GDN_HEAD_DIM *
           (size_t)gdn_state_bytes(op->bf16_state);
}

static void run_save(const void *data)
{
    const struct arguments *arguments = data;
    const struct state_checkpoint *op = &arguments->op;
    for (int i = 0; i < op->saves_count; i++) {
        const struct row_save *save = &op->saves[i];
        copy(op->checkpoint_hidden, save->checkpoint, arguments->hidden_rows, save->token_last,
             (size_t)op->hidden * sizeof(bf16));
    }
}

static void run_load(const void *data)
{
    const struct state_checkpoint *op = data;
    size_t states = state_bytes(op);
    size_t columns = (size_t)(2 * op->key_heads + op->value_heads) * GDN_HEAD_DIM *
                     (GDN_CONV_WIDTH - 1) * sizeof(bf16);
    size_t row = (size_t)op->hidden * sizeof(bf16);
    for (int i = 0; i < op->moves_count; i++) {
        const struct state_checkpoint_move *move = &op->moves[i];
        int32_t slot = move->slot, checkpoint = move->checkpoint;
        ASSERT(slot >= 0 && checkpoint >= 0);
        for (int k = 0; k < op->layers_count; k++) {
            const struct state_checkpoint_layer *layer = &op->layers[k];
            copy(layer->state, slot, layer->checkpoints.state, checkpoint, states);
            copy(layer->conv, slot, layer->checkpoints.conv, checkpoint, columns);
        }
        copy(op->slot_hidden, slot, op->checkpoint_hidden, checkpoint, row);
    }
}

void state_checkpoint_save(struct stream *stream, const struct state_checkpoint *op,
                           const bf16 *hidden_rows)
{
    ASSERT(op->saves_count >= 0 && op->hidden > 0 && op->hidden % 8 == 0);
    ASSERT(hidden_rows != NULL && op->checkpoint_hidden != NULL);
    struct arguments arguments = {*op, hidden_rows};
    if (op->saves_count > 0)
        stream_run(stream, run_save, &arguments, sizeof arguments);
}

void state_checkpoint_load(struct stream *stream, const struct state_checkpoint *op)
{
    ASSERT(op->moves_count >= 0 && op->hidden > 0 && op->hidden % 8 == 0);
    ASSERT(op->layers != NULL || op->layers_count == 0);
    ASSERT(op->slot_hidden != NULL && op->checkpoint_hidden != NULL);
    if (op->moves_count > 0)
        stream_run(stream, run_load, op, sizeof *op);
}

static void run_fold_begin(const void *data)
{
    const struct state_checkpoint *op = data;
    size_t row = (size_t)op->hidden * sizeof(bf16);
    for (int i = 0; i < op->moves_count; i++) {
        const struct state_checkpoint_move *move = &op->moves[i];
        if (op->slots.slots[move->slot].position == move->position)
            copy(op->checkpoint_hidden, move->checkpoint, op->slot_hidden, move->slot, row);
    }
}

// A token that does not run has position -1. slots_end has turned the slot's parity to the buffer
// that the row wrote.
static void run_fold_end(const void *data)
{
    const struct state_checkpoint *op = data;
    size_t states = state_bytes(op);
    size_t channels = (size_t)(2 * op->key_heads + op->value_heads) * GDN_HEAD_DIM;
    for (int i = 0; i < op->moves_count; i++) {
        const struct state_checkpoint_move *move = &op->moves[i];
        if (op->token_positions[move->token] != move->position)
            continue;
        size_t buffer = (size_t)move->slot * 2 + (size_t)op->slots.slots[move->slot].parity;
        for (int k = 0; k < op->layers_count; k++) {
            const struct state_checkpoint_layer *layer = &op->layers[k];
            copy(layer->checkpoints.state, move->checkpoint, layer->state, move->slot, states);
            copy(layer->checkpoints.conv, move->checkpoint,
                 layer->pending_conv + buffer * (size_t)op->pending_columns * channels, 0,
                 channels * (GDN_CONV_WIDTH - 1) * sizeof(bf16));
        }
    }
}

static void queue_fold(struct stream *stream, const struct state_checkpoint *op,
                       void (*run_it)(const void *))
{
    ASSERT(op->moves_count >= 0 && op->hidden > 0 && op->hidden % 8 == 0);
    ASSERT(op->slots.slots != NULL && op->token_positions != NULL);
    ASSERT(op->slot_hidden != NULL && op->checkpoint_hidden != NULL);
    if (op->moves_count > 0)
        stream_run(stream, run_it, op, sizeof *op);
}

void state_checkpoint_fold_begin(struct stream *stream, const struct state_checkpoint *op)
{
    queue_fold(stream, op, run_fold_begin);
}

void state_checkpoint_fold_end(struct stream *stream, const struct state_checkpoint *op)
{
    ASSERT(op->layers != NULL || op->layers_count == 0);
    queue_fold(stream, op, run_fold_end);
}
