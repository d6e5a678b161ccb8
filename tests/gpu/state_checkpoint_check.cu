// SPDX-License-Identifier: Apache-2.0
// state_checkpoint_check.cu -- checkpoints to slots and back, and what decode rows leave at their
// places: the twin's bytes. Its copies are timed.
#include <string.h>

#include "tests/gpu/check.cuh"

extern "C" {
#include "kernels/state_checkpoint.h"
}

CPU_FUNCTION(state_checkpoint_save);
CPU_FUNCTION(state_checkpoint_load);
CPU_FUNCTION(state_checkpoint_fold_begin);
CPU_FUNCTION(state_checkpoint_fold_end);

enum { SLOTS = 4, CHECKPOINTS = 5, LAYERS = 3, TOKENS = 8, MOVES = 3, PLACE = 128 };
enum what { SAVE, LOAD, FOLD_BEGIN, FOLD_END, WHATS };
static const char *const names[WHATS] = {"save", "load", "fold_begin", "fold_end"};

struct checkpoint_op {
    enum what what;
    struct state_checkpoint op;
    const bf16 *hidden_rows;
};

static void launch(struct stream *stream, const void *argument)
{
    const struct checkpoint_op *op = static_cast<const struct checkpoint_op *>(argument);
    switch (op->what) {
    case SAVE: state_checkpoint_save(stream, &op->op, op->hidden_rows); break;
    case LOAD: state_checkpoint_load(stream, &op->op); break;
    case FOLD_BEGIN: state_checkpoint_fold_begin(stream, &op->op); break;
    default: state_checkpoint_fold_end(stream, &op->op);
    }
}

static void run_twin(const struct checkpoint_op *op)
{
    struct stream *stream = check_cpu_stream();
    switch (op->what) {
    case SAVE: cpu_state_checkpoint_save(stream, &op->op, op->hidden_rows); break;
    case LOAD: cpu_state_checkpoint_load(stream, &op->op); break;
    case FOLD_BEGIN: cpu_state_checkpoint_fold_begin(stream, &op->op); break;
    default: cpu_state_checkpoint_fold_end(stream, &op->op);
    }
    check_cpu_wait();
}

template <typename T> static T *filled(enum array_kind kind, size_t count)
{
    T *values = static_cast<T *>(check_array(kind, count * sizeof(T)));
    check_fill(values, count, 1);
    return values;
}

// Slot 1 stands at the place before and began there; slot 2 stood elsewhere; slot 3 has ended at it
// and ran nothing. Slots' parities differ.
static void fill_slots(struct state_checkpoint *op, struct state_checkpoint_move *moves)
{
    struct slot *slots =
        static_cast<struct slot *>(check_array(ARRAY_INPUT, SLOTS * sizeof *slots));
    int32_t *positions =
        static_cast<int32_t *>(check_array(ARRAY_INPUT, TOKENS * sizeof *positions));
    for (int i = 0; i < SLOTS; i++) {
        slots[i].position = i == 2 ? PLACE - 1 : PLACE;
        slots[i].parity = i % 2;
    }
    for (int i = 0; i < TOKENS; i++)
        positions[i] = i < 6 ? PLACE - 3 + i : -1;
    for (int i = 0; i < MOVES; i++)
        moves[i] = {(i * 2 + 1) % CHECKPOINTS, i + 1, i == 0 ? 3 : i == 1 ? 2 : 6, PLACE};
    op->slots.slots = slots;
    op->slots.slots_count = SLOTS;
    op->token_positions = positions;
}

static struct row_save *made_saves()
{
    struct row_save *saves =
        static_cast<struct row_save *>(check_array(ARRAY_INPUT, MOVES * sizeof *saves));
    for (int i = 0; i < MOVES; i++)
        saves[i] = {(i * 2 + 1) % CHECKPOINTS, i, 64, 5 - i};
    return saves;
}

static void *filled_states(size_t count, bool bf16_state)
{
    if (bf16_state)
        return filled<bf16>(ARRAY_STATE, count);
    return filled<float>(ARRAY_STATE, count);
}

static void check_what(enum what what, int key_heads, int value_heads, int hidden, bool bf16_state)
{
    check_begin("state_checkpoint %s%s heads=%d/%d hidden=%d", names[what],
                bf16_state ? " bf16" : "", key_heads, value_heads, hidden);
    const size_t value_bytes = static_cast<size_t>(gdn_state_bytes(bf16_state));
    struct checkpoint_op host = {};
    struct state_checkpoint *op = &host.op;
    size_t states = static_cast<size_t>(value_heads) * GDN_HEAD_DIM * GDN_HEAD_DIM;
    size_t channels = static_cast<size_t>(2 * key_heads + value_heads) * GDN_HEAD_DIM;
    size_t columns = channels * (GDN_CONV_WIDTH - 1), width = static_cast<size_t>(hidden);
    op->pending_columns = gdn_pending_columns(bf16_state ? 2 : ROW_VERIFY_MAX);
    size_t pending = SLOTS * 2 * static_cast<size_t>(op->pending_columns) * channels;
    struct state_checkpoint_layer layers[LAYERS];
    struct state_checkpoint_layer *layers_dev =
        static_cast<struct state_checkpoint_layer *>(check_array(ARRAY_INPUT, sizeof layers));
    struct state_checkpoint_move *moves = static_cast<struct state_checkpoint_move *>(
        check_array(ARRAY_INPUT, MOVES * sizeof *moves));
    struct row_save *saves = made_saves();
    for (int i = 0; i < LAYERS; i++) {
        layers[i] = {filled_states(SLOTS * states, bf16_state),
                     filled<bf16>(ARRAY_STATE, SLOTS * columns),
                     filled<bf16>(ARRAY_INPUT, pending),
                     {filled_states(CHECKPOINTS * states, bf16_state),
                      filled<bf16>(ARRAY_STATE, CHECKPOINTS * columns)}};
        layers_dev[i] = {
            check_dev(layers[i].state),
            check_dev(layers[i].conv),
            check_dev(layers[i].pending_conv),
            {check_dev(layers[i].checkpoints.state), check_dev(layers[i].checkpoints.conv)}};
    }
    fill_slots(op, moves);
    op->layers = layers;
    op->layers_count = LAYERS;
    op->key_heads = key_heads;
    op->value_heads = value_heads;
    op->bf16_state = bf16_state;
    op->hidden = hidden;
    op->checkpoint_hidden = filled<bf16>(ARRAY_STATE, CHECKPOINTS * width);
    op->slot_hidden = filled<bf16>(ARRAY_STATE, SLOTS * width);
    op->moves = moves;
    op->moves_count = MOVES;
    op->saves = saves;
    op->saves_count = MOVES;
    host.what = what;
    host.hidden_rows = filled<bf16>(ARRAY_INPUT, TOKENS * width);
    struct checkpoint_op dev = host;
    dev.op.layers = check_dev(layers_dev);
    dev.op.checkpoint_hidden = check_dev(op->checkpoint_hidden);
    dev.op.slot_hidden = check_dev(op->slot_hidden);
    dev.op.moves = check_dev(moves);
    dev.op.saves = check_dev(op->saves);
    dev.op.slots.slots = check_dev(op->slots.slots);
    dev.op.token_positions = check_dev(op->token_positions);
    dev.hidden_rows = check_dev(host.hidden_rows);
    check_run(launch, &dev);
    run_twin(&host);
    for (int i = 0; i < LAYERS; i++) {
        const struct state_checkpoint_layer *layer = &layers[i];
        check_equal("state", layer->state, layer->state, SLOTS * states, value_bytes);
        check_equal("conv", layer->conv, layer->conv, SLOTS * columns, 2);
        check_equal("checkpoint_state", layer->checkpoints.state, layer->checkpoints.state,
                    CHECKPOINTS * states, value_bytes);
        check_equal("checkpoint_conv", layer->checkpoints.conv, layer->checkpoints.conv,
                    CHECKPOINTS * columns, 2);
    }
    check_equal("checkpoint_hidden", op->checkpoint_hidden, op->checkpoint_hidden,
                CHECKPOINTS * width, 2);
    check_equal("slot_hidden", op->slot_hidden, op->slot_hidden, SLOTS * width, 2);
    check_end();
}

CHECK(state_checkpoint)
{
    for (int what = 0; what < WHATS; what++) {
        for (bool bf16_state : {false, true}) {
            check_what(static_cast<enum what>(what), 1, 2, 40, bf16_state);
            check_what(static_cast<enum what>(what), 4, 8, 2048, bf16_state);
        }
    }
}

SMALL(state_checkpoint)
{
    for (int what = 0; what < WHATS; what++)
        check_what(static_cast<enum what>(what), 1, 1, 40, what % 2 != 0);
}

// A turn folds a move of its own: slot i into checkpoint i.
static void launch_bench(struct stream *stream, const void *argument, int turn)
{
    struct state_checkpoint op = *static_cast<const struct state_checkpoint *>(argument);
    op.moves += turn;
    state_checkpoint_fold_end(stream, &op);
}

template <typename T> static T *uploaded(const T *from, size_t count)
{
    T *to = static_cast<T *>(bench_memory(count * sizeof(T), 0));
    CUDA_CHECK(cudaMemcpy(to, from, count * sizeof(T), cudaMemcpyHostToDevice));
    return to;
}

// Qwen3.5-35B-A3B: 30 GDN layers of 16 and 32 heads.
BENCH(state_checkpoint)
{
    enum { ALL_LAYERS = 30, TURNS = 8, KEYS = 16, VALUES = 32 };
    const size_t states = static_cast<size_t>(VALUES) * GDN_HEAD_DIM * GDN_HEAD_DIM * 4;
    const size_t channels = static_cast<size_t>(2 * KEYS + VALUES) * GDN_HEAD_DIM;
    const size_t columns = channels * (GDN_CONV_WIDTH - 1) * 2;
    const size_t pending = static_cast<size_t>(gdn_pending_columns(ROW_VERIFY_MAX)) * channels * 2;
    struct state_checkpoint_layer layers[ALL_LAYERS];
    struct state_checkpoint_move moves[TURNS];
    struct slot slots[TURNS] = {};
    struct state_checkpoint op = {};
    int32_t position = PLACE;
    for (int i = 0; i < ALL_LAYERS; i++) {
        layers[i] = {static_cast<float *>(bench_memory(TURNS * states, 1)),
                     NULL,
                     static_cast<bf16 *>(bench_memory(TURNS * 2 * pending, 1)),
                     {static_cast<float *>(bench_memory(TURNS * states, 1)),
                      static_cast<bf16 *>(bench_memory(TURNS * columns, 1))}};
    }
    for (int i = 0; i < TURNS; i++)
        moves[i] = {i, i, 0, PLACE};
    op.layers = uploaded(layers, ALL_LAYERS);
    op.layers_count = ALL_LAYERS;
    op.key_heads = KEYS;
    op.value_heads = VALUES;
    op.hidden = 2048;
    op.pending_columns = gdn_pending_columns(ROW_VERIFY_MAX);
    op.moves = uploaded(moves, TURNS);
    op.moves_count = 1;
    op.slots.slots = uploaded(slots, TURNS);
    op.token_positions = uploaded(&position, 1);
    struct bench_case what = {"state_checkpoint", "fold layers=30 heads=16/32",
                              2.0 * ALL_LAYERS * static_cast<double>(states + columns), 0};
    bench_run(&what, launch_bench, &op, TURNS);
    bench_clear();
}
