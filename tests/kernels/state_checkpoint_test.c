// SPDX-License-Identifier: Apache-2.0
// state_checkpoint_test.c -- what is saved comes back bit for bit, into another slot, after the
// first slot has gone on; neighbours of slot and checkpoint keep every byte.
#include "kernels/state_checkpoint.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixtures/ops.h"

enum {
    SLOTS = 4,
    CHECKPOINTS = 3,
    LAYERS = 2,
    KEY_HEADS = 1,
    VALUE_HEADS = 2,
    HIDDEN = 40,
    TOKENS = 5,
    STATES = VALUE_HEADS * GDN_HEAD_DIM * GDN_HEAD_DIM,
    COLUMNS = (2 * KEY_HEADS + VALUE_HEADS) * GDN_HEAD_DIM * (GDN_CONV_WIDTH - 1),
};

struct world {
    struct ops ops;
    struct state_checkpoint_layer layers[LAYERS];
    struct state_checkpoint op;
    bf16 *hidden_rows;
};

static void open_world(struct world *w)
{
    memset(w, 0, sizeof *w);
    ops_open(&w->ops, 1, 256, 7);
    for (int i = 0; i < LAYERS; i++) {
        w->layers[i] = (struct state_checkpoint_layer){
            .state = ops_float(&w->ops, SLOTS * STATES, 1),
            .conv = ops_bf16(&w->ops, SLOTS * COLUMNS, 1),
            .checkpoint_state = ops_float(&w->ops, CHECKPOINTS * STATES, 1),
            .checkpoint_conv = ops_bf16(&w->ops, CHECKPOINTS * COLUMNS, 1)};
    }
    w->hidden_rows = ops_bf16(&w->ops, TOKENS * HIDDEN, 1);
    w->op = (struct state_checkpoint){
        .layers = ops_copy(&w->ops, w->layers, sizeof w->layers),
        .layers_count = LAYERS,
        .key_heads = KEY_HEADS,
        .value_heads = VALUE_HEADS,
        .checkpoint_hidden = ops_bf16(&w->ops, CHECKPOINTS * HIDDEN, 1),
        .slot_hidden = ops_bf16(&w->ops, SLOTS * HIDDEN, 1),
        .hidden = HIDDEN,
    };
}

// Expects that of `items` items only `changed` differ from before, which now equal `now`.
static void check_items(const void *after, const void *before, size_t item_bytes, int items,
                        const void *const *now)
{
    for (int i = 0; i < items; i++) {
        const uint8_t *at = (const uint8_t *)after + (size_t)i * item_bytes;
        const uint8_t *was = (const uint8_t *)before + (size_t)i * item_bytes;
        assert_memory_equal(at, now[i] != NULL ? now[i] : was, item_bytes);
    }
}

static void saves_named_slots_only(void **state)
{
    struct world w;
    (void)state;
    open_world(&w);
    const struct state_checkpoint_move moves[] = {{2, 1, 4}, {0, 3, 0}};
    float *states[LAYERS];
    bf16 *columns[LAYERS];
    for (int i = 0; i < LAYERS; i++) {
        states[i] =
            ops_copy(&w.ops, w.layers[i].checkpoint_state, CHECKPOINTS * STATES * sizeof(float));
        columns[i] =
            ops_copy(&w.ops, w.layers[i].checkpoint_conv, CHECKPOINTS * COLUMNS * sizeof(bf16));
    }
    bf16 *rows = ops_copy(&w.ops, w.op.checkpoint_hidden, CHECKPOINTS * HIDDEN * sizeof(bf16));
    w.op.moves = moves;
    w.op.moves_count = 2;
    state_checkpoint_save(w.ops.streams[0], &w.op, w.hidden_rows);
    ops_wait(&w.ops);
    for (int i = 0; i < LAYERS; i++) {
        const struct state_checkpoint_layer *layer = &w.layers[i];
        const void *now_states[] = {layer->state + 3 * STATES, NULL, layer->state + 1 * STATES};
        const void *now_columns[] = {layer->conv + 3 * COLUMNS, NULL, layer->conv + 1 * COLUMNS};
        check_items(layer->checkpoint_state, states[i], STATES * sizeof(float), CHECKPOINTS,
                    now_states);
        check_items(layer->checkpoint_conv, columns[i], COLUMNS * sizeof(bf16), CHECKPOINTS,
                    now_columns);
    }
    const void *now_rows[] = {w.hidden_rows, NULL, w.hidden_rows + 4 * HIDDEN};
    check_items(w.op.checkpoint_hidden, rows, HIDDEN * sizeof(bf16), CHECKPOINTS, now_rows);
    ops_close(&w.ops);
}

// One checkpoint becomes the state of two slots; the third stays as it was.
static void loads_what_was_saved(void **state)
{
    struct world w;
    (void)state;
    open_world(&w);
    const struct state_checkpoint_move save = {.checkpoint = 1, .slot = 0, .token = 2};
    const struct state_checkpoint_move loads[] = {{1, 2, -1}, {1, 3, -1}};
    float *saved[LAYERS], *other[LAYERS];
    for (int i = 0; i < LAYERS; i++) {
        saved[i] = ops_copy(&w.ops, w.layers[i].state, STATES * sizeof(float));
        other[i] = ops_copy(&w.ops, w.layers[i].state + STATES, STATES * sizeof(float));
    }
    w.op.moves = &save;
    w.op.moves_count = 1;
    state_checkpoint_save(w.ops.streams[0], &w.op, w.hidden_rows);
    ops_wait(&w.ops);
    for (int i = 0; i < LAYERS; i++)
        memset(w.layers[i].state, 0, STATES * sizeof(float)); // the slot goes on
    w.op.moves = loads;
    w.op.moves_count = 2;
    state_checkpoint_load(w.ops.streams[0], &w.op);
    ops_wait(&w.ops);
    for (int i = 0; i < LAYERS; i++) {
        assert_memory_equal(w.layers[i].state + STATES, other[i], STATES * sizeof(float));
        for (int slot = 2; slot <= 3; slot++) {
            assert_memory_equal(w.layers[i].state + slot * STATES, saved[i],
                                STATES * sizeof(float));
            assert_memory_equal(w.layers[i].conv + slot * COLUMNS, w.layers[i].conv,
                                COLUMNS * sizeof(bf16));
        }
    }
    for (int slot = 2; slot <= 3; slot++)
        assert_memory_equal(w.op.slot_hidden + slot * HIDDEN, w.hidden_rows + 2 * HIDDEN,
                            HIDDEN * sizeof(bf16));
    ops_close(&w.ops);
}

// No GDN layer at all, and no moves.
static void nothing_to_move_is_fine(void **state)
{
    struct world w;
    (void)state;
    open_world(&w);
    const struct state_checkpoint_move save = {.checkpoint = 2, .slot = 0, .token = 1};
    w.op.layers_count = 0;
    state_checkpoint_save(w.ops.streams[0], &w.op, w.hidden_rows);
    state_checkpoint_load(w.ops.streams[0], &w.op);
    w.op.moves = &save;
    w.op.moves_count = 1;
    state_checkpoint_save(w.ops.streams[0], &w.op, w.hidden_rows);
    ops_wait(&w.ops);
    assert_memory_equal(w.op.checkpoint_hidden + 2 * HIDDEN, w.hidden_rows + HIDDEN,
                        HIDDEN * sizeof(bf16));
    ops_close(&w.ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(saves_named_slots_only),
        cmocka_unit_test(loads_what_was_saved),
        cmocka_unit_test(nothing_to_move_is_fine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
