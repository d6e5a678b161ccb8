// SPDX-License-Identifier: Apache-2.0
// state_checkpoint.cu -- plain copies: blocks over (piece, layer, move); a load's hidden rows are
// moved by the first layer's blocks. VALUE_BYTES: of the state.
#include "kernels/device/launch.cuh"

extern "C" {
#include "kernels/state_checkpoint.h"
}

enum { COPY_THREADS = 256, COPY_BLOCKS = 16 };

// bytes is a multiple of 16, and so is every address. Blocks of x share a copy.
static __device__ void copy(void *base_to, int32_t to, const void *base_from, int32_t from,
                            int64_t bytes)
{
    uint4 *out = reinterpret_cast<uint4 *>(static_cast<uint8_t *>(base_to) + to * bytes);
    const uint4 *in =
        reinterpret_cast<const uint4 *>(static_cast<const uint8_t *>(base_from) + from * bytes);
    int64_t step = static_cast<int64_t>(gridDim.x) * COPY_THREADS;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * COPY_THREADS + threadIdx.x; i < bytes / 16;
         i += step)
        out[i] = in[i];
}

// A block a save.
static __global__ void save_kernel(struct state_checkpoint op, const bf16 *hidden_rows)
{
    const struct row_save save = op.saves[blockIdx.z];
    copy(op.checkpoint_hidden, save.checkpoint, hidden_rows, save.token_last,
         static_cast<int64_t>(op.hidden) * 2);
}

// A grid of one layer without layers moves only the hidden rows.
template <int VALUE_BYTES> static __global__ void load_kernel(struct state_checkpoint op)
{
    const struct state_checkpoint_move move = op.moves[blockIdx.z];
    int64_t states =
        static_cast<int64_t>(op.value_heads) * GDN_HEAD_DIM * GDN_HEAD_DIM * VALUE_BYTES;
    int64_t columns = static_cast<int64_t>(2 * op.key_heads + op.value_heads) * GDN_HEAD_DIM *
                      (GDN_CONV_WIDTH - 1) * 2;
    if (op.layers_count > 0) {
        const struct state_checkpoint_layer layer = op.layers[blockIdx.y];
        copy(layer.state, move.slot, layer.checkpoints.state, move.checkpoint, states);
        copy(layer.conv, move.slot, layer.checkpoints.conv, move.checkpoint, columns);
    }
    if (blockIdx.y == 0)
        copy(op.slot_hidden, move.slot, op.checkpoint_hidden, move.checkpoint,
             static_cast<int64_t>(op.hidden) * 2);
}

// A block a move.
static __global__ void fold_begin_kernel(struct state_checkpoint op)
{
    const struct state_checkpoint_move move = op.moves[blockIdx.z];
    if (op.slots.slots[move.slot].position == move.position)
        copy(op.checkpoint_hidden, move.checkpoint, op.slot_hidden, move.slot,
             static_cast<int64_t>(op.hidden) * 2);
}

// A token that does not run has position -1. slots_end has turned the slot's parity to the buffer
// that the row wrote.
template <int VALUE_BYTES> static __global__ void fold_end_kernel(struct state_checkpoint op)
{
    const struct state_checkpoint_move move = op.moves[blockIdx.z];
    const struct state_checkpoint_layer layer = op.layers[blockIdx.y];
    int64_t states =
        static_cast<int64_t>(op.value_heads) * GDN_HEAD_DIM * GDN_HEAD_DIM * VALUE_BYTES;
    int64_t channels = static_cast<int64_t>(2 * op.key_heads + op.value_heads) * GDN_HEAD_DIM;
    if (op.token_positions[move.token] != move.position)
        return;
    int64_t buffer = static_cast<int64_t>(move.slot) * 2 + op.slots.slots[move.slot].parity;
    copy(layer.checkpoints.state, move.checkpoint, layer.state, move.slot, states);
    copy(layer.checkpoints.conv, move.checkpoint,
         layer.pending_conv + buffer * op.pending_columns * channels, 0,
         channels * (GDN_CONV_WIDTH - 1) * 2);
}

extern "C" void state_checkpoint_save(struct stream *stream, const struct state_checkpoint *op,
                                      const bf16 *hidden_rows)
{
    ASSERT(hidden_rows != NULL && op->hidden % 8 == 0);
    if (op->saves_count == 0)
        return;
    save_kernel<<<dim3(1, 1, static_cast<unsigned>(op->saves_count)), COPY_THREADS, 0,
                  stream->handle>>>(*op, hidden_rows);
    LAUNCH_CHECK();
}

extern "C" void state_checkpoint_load(struct stream *stream, const struct state_checkpoint *op)
{
    unsigned layers = static_cast<unsigned>(op->layers_count > 0 ? op->layers_count : 1);
    ASSERT(op->hidden % 8 == 0);
    if (op->moves_count == 0)
        return;
    auto kernel = op->bf16_state ? load_kernel<2> : load_kernel<4>;
    kernel<<<dim3(COPY_BLOCKS, layers, static_cast<unsigned>(op->moves_count)), COPY_THREADS, 0,
             stream->handle>>>(*op);
    LAUNCH_CHECK();
}

extern "C" void state_checkpoint_fold_begin(struct stream *stream,
                                            const struct state_checkpoint *op)
{
    ASSERT(op->hidden % 8 == 0);
    if (op->moves_count == 0)
        return;
    fold_begin_kernel<<<dim3(1, 1, static_cast<unsigned>(op->moves_count)), COPY_THREADS, 0,
                        stream->handle>>>(*op);
    LAUNCH_CHECK();
}

extern "C" void state_checkpoint_fold_end(struct stream *stream, const struct state_checkpoint *op)
{
    if (op->moves_count == 0 || op->layers_count == 0)
        return;
    dim3 grid(COPY_BLOCKS, static_cast<unsigned>(op->layers_count),
              static_cast<unsigned>(op->moves_count));
    auto kernel = op->bf16_state ? fold_end_kernel<2> : fold_end_kernel<4>;
    kernel<<<grid, COPY_THREADS, 0, stream->handle>>>(*op);
    LAUNCH_CHECK();
}
