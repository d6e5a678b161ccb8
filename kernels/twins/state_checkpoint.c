// SPDX-License-Identifier: Apache-2.0
// state_checkpoint.c -- a slot's state into a checkpoint and back on the CPU. Owns nothing.
#include "kernels/state_checkpoint.h"

#include <string.h>

#include "kernels/runtime_cpu.h"

struct arguments {
    struct state_checkpoint op;
    const bf16 *hidden_rows; // NULL: load
};

static void copy(void *base_to, int32_t to, const void *base_from, int32_t from, size_t bytes)
{
    memcpy((uint8_t *)base_to + (size_t)to * bytes,
           (const uint8_t *)base_from + (size_t)from * bytes, bytes);
}

static void run(const void *data)
{
    const struct arguments *arguments = data;
    const struct state_checkpoint *op = &arguments->op;
    size_t states = (size_t)op->value_heads * GDN_HEAD_DIM * GDN_HEAD_DIM * sizeof(float);
    size_t columns = (size_t)(2 * op->key_heads + op->value_heads) * GDN_HEAD_DIM *
                     (GDN_CONV_WIDTH - 1) * sizeof(bf16);
    size_t row = (size_t)op->hidden * sizeof(bf16);
    for (int i = 0; i < op->moves_count; i++) {
        const struct state_checkpoint_move *move = &op->moves[i];
        int32_t slot = move->slot, checkpoint = move->checkpoint;
        ASSERT(slot >= 0 && checkpoint >= 0);
        for (int k = 0; k < op->layers_count; k++) {
            const struct state_checkpoint_layer *layer = &op->layers[k];
            if (arguments->hidden_rows != NULL) {
                copy(layer->checkpoint_state, checkpoint, layer->state, slot, states);
                copy(layer->checkpoint_conv, checkpoint, layer->conv, slot, columns);
            } else {
                copy(layer->state, slot, layer->checkpoint_state, checkpoint, states);
                copy(layer->conv, slot, layer->checkpoint_conv, checkpoint, columns);
            }
        }
        if (arguments->hidden_rows != NULL)
            copy(op->checkpoint_hidden, checkpoint, arguments->hidden_rows, move->token, row);
        else
            copy(op->slot_hidden, slot, op->checkpoint_hidden, checkpoint, row);
    }
}

static void queue(struct stream *stream, const struct state_checkpoint *op, const bf16 *hidden_rows)
{
    ASSERT(op->moves_count >= 0 && op->hidden > 0 && op->hidden % 8 == 0);
    ASSERT(op->layers != NULL || op->layers_count == 0);
    struct arguments arguments = {*op, hidden_rows};
    if (op->moves_count > 0)
        stream_run(stream, run, &arguments, sizeof arguments);
}

void state_checkpoint_save(struct stream *stream, const struct state_checkpoint *op,
                           const bf16 *hidden_rows)
{
    ASSERT(hidden_rows != NULL && op->checkpoint_hidden != NULL);
    queue(stream, op, hidden_rows);
}

void state_checkpoint_load(struct stream *stream, const struct state_checkpoint *op)
{
    ASSERT(op->slot_hidden != NULL && op->checkpoint_hidden != NULL);
    queue(stream, op, NULL);
}
