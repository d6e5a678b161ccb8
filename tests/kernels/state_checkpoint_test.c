// SPDX-License-Identifier: Apache-2.0
// state_checkpoint_test.c -- a checkpoint comes back bit for bit, into any slot; neighbours of slot
// and checkpoint keep every byte. What decode rows leave at a position is what a prompt that runs
// past it leaves, however many drafts each of them accepted.
#include "kernels/state_checkpoint.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixtures/state_dtype.h"
#include "tests/fixtures/steps.h"

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

static size_t state_bytes(void)
{
    return STATES * (size_t)gdn_state_bytes(bf16_state);
}

// The state of a slot or checkpoint.
static char *state_at(const void *states, int index)
{
    return (char *)(uintptr_t)states + (size_t)index * state_bytes();
}

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
            .checkpoints = {.state = ops_float(&w->ops, CHECKPOINTS * STATES, 1),
                            .conv = ops_bf16(&w->ops, CHECKPOINTS * COLUMNS, 1)}};
    }
    w->hidden_rows = ops_bf16(&w->ops, TOKENS * HIDDEN, 1);
    w->op = (struct state_checkpoint){
        .layers = ops_copy(&w->ops, w->layers, sizeof w->layers),
        .layers_count = LAYERS,
        .key_heads = KEY_HEADS,
        .value_heads = VALUE_HEADS,
        .bf16_state = bf16_state,
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

// States and columns were left by the layers themselves.
static void saves_hidden_rows_only(void **state)
{
    struct world w;
    (void)state;
    open_world(&w);
    const struct row_save saves[] = {{2, 1, 64, 4}, {0, 3, 64, 0}};
    float *states[LAYERS];
    for (int i = 0; i < LAYERS; i++)
        states[i] =
            ops_copy(&w.ops, w.layers[i].checkpoints.state, CHECKPOINTS * STATES * sizeof(float));
    bf16 *rows = ops_copy(&w.ops, w.op.checkpoint_hidden, CHECKPOINTS * HIDDEN * sizeof(bf16));
    w.op.saves = saves;
    w.op.saves_count = 2;
    state_checkpoint_save(w.ops.streams[0], &w.op, w.hidden_rows);
    ops_wait(&w.ops);
    for (int i = 0; i < LAYERS; i++)
        assert_memory_equal(w.layers[i].checkpoints.state, states[i],
                            CHECKPOINTS * STATES * sizeof(float));
    const void *now_rows[] = {w.hidden_rows, NULL, w.hidden_rows + 4 * HIDDEN};
    check_items(w.op.checkpoint_hidden, rows, HIDDEN * sizeof(bf16), CHECKPOINTS, now_rows);
    ops_close(&w.ops);
}

// One checkpoint becomes the state of two slots; the others stay as they were.
static void loads_named_slots_only(void **state)
{
    struct world w;
    (void)state;
    open_world(&w);
    const struct state_checkpoint_move loads[] = {{1, 2, 0, 0}, {1, 3, 0, 0}};
    float *states[LAYERS];
    bf16 *columns[LAYERS];
    for (int i = 0; i < LAYERS; i++) {
        states[i] = ops_copy(&w.ops, w.layers[i].state, SLOTS * state_bytes());
        columns[i] = ops_copy(&w.ops, w.layers[i].conv, SLOTS * COLUMNS * sizeof(bf16));
    }
    bf16 *rows = ops_copy(&w.ops, w.op.slot_hidden, SLOTS * HIDDEN * sizeof(bf16));
    w.op.moves = loads;
    w.op.moves_count = 2;
    state_checkpoint_load(w.ops.streams[0], &w.op);
    ops_wait(&w.ops);
    for (int i = 0; i < LAYERS; i++) {
        const struct state_checkpoint_layer *layer = &w.layers[i];
        const char *state_now = state_at(layer->checkpoints.state, 1);
        const bf16 *columns_now = layer->checkpoints.conv + COLUMNS;
        check_items(layer->state, states[i], state_bytes(), SLOTS,
                    (const void *[]){NULL, NULL, state_now, state_now});
        check_items(layer->conv, columns[i], COLUMNS * sizeof(bf16), SLOTS,
                    (const void *[]){NULL, NULL, columns_now, columns_now});
    }
    const bf16 *row = w.op.checkpoint_hidden + HIDDEN;
    check_items(w.op.slot_hidden, rows, HIDDEN * sizeof(bf16), SLOTS,
                (const void *[]){NULL, NULL, row, row});
    ops_close(&w.ops);
}

// No GDN layer at all, and no moves.
static void nothing_to_move_is_fine(void **state)
{
    struct world w;
    (void)state;
    open_world(&w);
    const struct state_checkpoint_move load = {.checkpoint = 2, .slot = 1};
    w.op.layers_count = 0;
    state_checkpoint_save(w.ops.streams[0], &w.op, w.hidden_rows);
    state_checkpoint_load(w.ops.streams[0], &w.op);
    w.op.moves = &load;
    w.op.moves_count = 1;
    state_checkpoint_load(w.ops.streams[0], &w.op);
    ops_wait(&w.ops);
    assert_memory_equal(w.op.slot_hidden + HIDDEN, w.op.checkpoint_hidden + 2 * HIDDEN,
                        HIDDEN * sizeof(bf16));
    ops_close(&w.ops);
}

// ---- fold: one layer whose inputs depend on a token's position alone ----

enum {
    DIM = GDN_HEAD_DIM,
    PLACE = 64, // where a checkpoint is made
    POSITIONS = PLACE + 40,
    CHANNELS = (2 * KEY_HEADS + VALUE_HEADS) * DIM,
    STRIDE = CHANNELS + VALUE_HEADS * DIM + 2 * VALUE_HEADS,
};

struct sequence {
    struct world w; // its first layer is the one that runs
    struct steps steps;
    struct gdn gdn;
    bf16 *raw; // [POSITIONS, STRIDE]
};

static void open_sequence(struct sequence *q)
{
    int places = gdn_pending_rows(bf16_state, ROW_VERIFY_MAX);
    int columns = gdn_pending_columns(ROW_VERIFY_MAX);
    size_t rows = SLOTS * (size_t)places;
    open_world(&q->w);
    struct ops *ops = &q->w.ops;
    struct state_checkpoint_layer *layer = q->w.layers;
    steps_open(&q->steps, ops, SLOTS, POSITIONS / 64 + 1, POSITIONS);
    q->raw = ops_bf16(ops, POSITIONS * STRIDE, 2);
    q->gdn = (struct gdn){
        .slots = q->steps.slots,
        .state = {.state = layer->state,
                  .conv = layer->conv,
                  .pending_k = ops_alloc(ops, rows * KEY_HEADS * DIM * sizeof(float)),
                  .pending_u = ops_alloc(ops, rows * VALUE_HEADS * DIM * sizeof(float)),
                  .pending_g = ops_alloc(ops, rows * VALUE_HEADS * sizeof(float)),
                  .waiting = ops_alloc(ops, SLOTS * 2 * sizeof(struct gdn_waiting)),
                  .pending_conv =
                      ops_alloc(ops, SLOTS * 2 * (size_t)columns * CHANNELS * sizeof(bf16)),
                  .pending_rows = places,
                  .pending_columns = columns},
        .projected = ops_alloc(ops, POSITIONS * STRIDE * sizeof(bf16)),
        .projected_stride = STRIDE,
        .bf16_state = bf16_state,
        .conv_weight = ops_float(ops, CHANNELS * 4, 0.6),
        .a_log = ops_float(ops, VALUE_HEADS, 2),
        .dt_bias = ops_float(ops, VALUE_HEADS, 2),
        .key_heads = KEY_HEADS,
        .value_heads = VALUE_HEADS,
        .o = ops_alloc(ops, POSITIONS * VALUE_HEADS * DIM * sizeof(bf16)),
    };
    q->gdn.checkpoints = layer->checkpoints;
    layer->pending_conv = q->gdn.state.pending_conv;
    q->w.op.layers = ops_copy(ops, layer, sizeof *layer);
    q->w.op.layers_count = 1;
    q->w.op.slots = q->steps.slots;
    q->w.op.pending_columns = columns;
    q->w.op.token_positions = q->steps.tables.token_positions;
    struct slot_sampling sampling = steps_endless();
    for (int slot = 0; slot < 2; slot++) {
        struct slot_opening opening = {.slot = slot};
        steps_open_slot(&q->steps, slot, 0, &sampling);
        gdn_open(ops->streams[0], &(struct gdn_open){.layers = &q->gdn.state,
                                                     .layers_count = 1,
                                                     .key_heads = KEY_HEADS,
                                                     .value_heads = VALUE_HEADS,
                                                     .bf16_state = bf16_state,
                                                     .openings = &opening,
                                                     .openings_count = 1});
        ops_wait(ops);
    }
}

// Runs the step that was added; its rows commit `accepted` tokens where they decode. What is
// refused carries another position's inputs. The slot's last hidden row tells its position.
static void run_sequence(struct sequence *q, int slot, int accepted)
{
    struct stream *stream = q->w.ops.streams[0];
    const struct step_row *row = &q->steps.rows[0];
    steps_begin(&q->steps);
    if (row->kind == ROW_DECODE && accepted > q->steps.tables.active_count[0])
        accepted = q->steps.tables.active_count[0];
    for (int t = 0; t < row->token_count; t++) {
        int position = q->steps.tables.token_positions[t];
        if (row->kind == ROW_DECODE && t >= accepted)
            position = 0;
        bf16 *to = (bf16 *)(uintptr_t)q->gdn.projected + (size_t)t * STRIDE;
        memcpy(to, q->raw + (size_t)position * STRIDE, STRIDE * sizeof(bf16));
    }
    q->gdn.tables = q->steps.tables;
    gdn(stream, &q->gdn);
    ops_wait(&q->w.ops);
    if (row->kind == ROW_DECODE && accepted > 0)
        steps_accept(&q->steps, 0, accepted);
    steps_end(&q->steps);
    for (int i = 0; i < HIDDEN; i++)
        q->w.op.slot_hidden[slot * HIDDEN + i].bits = (uint16_t)q->steps.slots.slots[slot].position;
}

static void run_prompt(struct sequence *q, int slot, int count)
{
    steps_clear(&q->steps);
    steps_add_prefill(&q->steps, slot, NULL, count, 1);
    run_sequence(q, slot, 0);
}

// A decode row of `verify` tokens, of which `accepted` prove right, with the move around it.
static void run_decode(struct sequence *q, int slot, int verify, int accepted,
                       const struct state_checkpoint_move *move)
{
    struct slot *s = &q->steps.slots.slots[slot];
    for (int i = 0; i < ROW_VERIFY_MAX - 1; i++)
        s->drafts[i] = i + 1 < verify ? 10 + i : -1;
    s->token_next = 1;
    q->w.op.moves = move;
    q->w.op.moves_count = 1;
    state_checkpoint_fold_begin(q->w.ops.streams[0], &q->w.op);
    steps_clear(&q->steps);
    steps_add_decode(&q->steps, slot, verify);
    q->steps.rows[0].pause_at = move->position;
    run_sequence(q, slot, accepted);
    state_checkpoint_fold_end(q->w.ops.streams[0], &q->w.op);
    ops_wait(&q->w.ops);
}

static void same_checkpoints(const struct sequence *q, int a, int b)
{
    const struct state_checkpoint_layer *layer = q->w.layers;
    assert_memory_equal(state_at(layer->checkpoints.state, a),
                        state_at(layer->checkpoints.state, b), state_bytes());
    assert_memory_equal(layer->checkpoints.conv + (size_t)a * COLUMNS,
                        layer->checkpoints.conv + (size_t)b * COLUMNS, COLUMNS * sizeof(bf16));
    assert_memory_equal(q->w.op.checkpoint_hidden + (size_t)a * HIDDEN,
                        q->w.op.checkpoint_hidden + (size_t)b * HIDDEN, HIDDEN * sizeof(bf16));
}

// Slot 0 runs past the place as a prompt, which leaves checkpoint 0 on its way.
static void save_plainly(struct sequence *q)
{
    const struct row_save save = {.checkpoint = 0, .row = 0, .tokens = PLACE, .token_last = 0};
    bf16 row[HIDDEN];
    for (int i = 0; i < HIDDEN; i++)
        row[i].bits = PLACE;
    q->steps.tables.saves = &save;
    q->steps.tables.saves_count = 1;
    run_prompt(q, 0, POSITIONS);
    q->steps.tables.saves_count = 0;
    q->w.op.saves = &save;
    q->w.op.saves_count = 1;
    state_checkpoint_save(q->w.ops.streams[0], &q->w.op, row);
    ops_wait(&q->w.ops);
}

// Checkpoint 1, of slot 1, is as it was opened until a row begins at the place, and then as 0.
static void check_fold(uint64_t seed, int first, int verify)
{
    const struct state_checkpoint_move move = {.checkpoint = 1, .slot = 1, .position = PLACE};
    struct sequence q;
    open_sequence(&q);
    save_plainly(&q);
    const struct state_checkpoint_layer *layer = q.w.layers;
    const struct slot *slot = &q.steps.slots.slots[1];
    void *before = ops_copy(&q.w.ops, state_at(layer->checkpoints.state, 1), state_bytes());
    q.w.ops.random = seed;
    run_prompt(&q, 1, first);
    bool begun = false;
    while (slot->position < PLACE + 20) {
        int accepted = 1 + (int)(ops_random(&q.w.ops) % (uint64_t)verify);
        begun |= slot->position == PLACE;
        run_decode(&q, 1, verify, accepted, &move);
        if (!begun)
            assert_memory_equal(state_at(layer->checkpoints.state, 1), before, state_bytes());
        else
            same_checkpoints(&q, 0, 1);
    }
    assert_true(begun);
    // Behind it both go on alike.
    const struct state_checkpoint_move load = {.checkpoint = 1, .slot = 2, .token = -1};
    struct slot_sampling sampling = steps_endless();
    q.w.op.moves = &load;
    state_checkpoint_load(q.w.ops.streams[0], &q.w.op);
    steps_open_slot(&q.steps, 2, PLACE, &sampling);
    gdn_open(q.w.ops.streams[0],
             &(struct gdn_open){.layers = &q.gdn.state,
                                .layers_count = 1,
                                .key_heads = KEY_HEADS,
                                .value_heads = VALUE_HEADS,
                                .bf16_state = bf16_state,
                                .openings = &(struct slot_opening){.slot = 2, .position = PLACE},
                                .openings_count = 1});
    ops_wait(&q.w.ops);
    run_prompt(&q, 2, POSITIONS - PLACE);
    assert_memory_equal(layer->state, state_at(layer->state, 2), state_bytes());
    assert_memory_equal(layer->conv, layer->conv + 2 * (size_t)COLUMNS, COLUMNS * sizeof(bf16));
    ops_close(&q.w.ops);
}

static void decode_rows_leave_what_prompts_leave(void **state)
{
    (void)state;
    for (int verify = 1; verify <= ROW_VERIFY_MAX; verify++) {
        for (int first = PLACE - 5; first <= PLACE; first++) // with and without rows pending
            check_fold((uint64_t)(verify * 100 + first), first, verify);
    }
}

// A sequence that ended at the place runs no row there, and one whose rows are not listed in the
// step in which they begin there leaves nothing.
static void who_does_not_run_at_the_place_leaves_nothing(void **state)
{
    struct sequence q;
    (void)state;
    open_sequence(&q);
    const struct state_checkpoint_layer *layer = q.w.layers;
    float *before = ops_copy(&q.w.ops, layer->checkpoints.state, CHECKPOINTS * STATES * 4);
    run_prompt(&q, 1, PLACE - 1);
    run_decode(&q, 1, 1, 1,
               &(struct state_checkpoint_move){.checkpoint = 1, .slot = 1, .position = PLACE});
    q.steps.slots.slots[1].end = SLOT_STOP;
    run_decode(&q, 1, 3, 0,
               &(struct state_checkpoint_move){.checkpoint = 1, .slot = 1, .position = PLACE});
    q.steps.slots.slots[1].end = SLOT_RUNS;
    run_decode(&q, 1, 1, 1,
               &(struct state_checkpoint_move){.checkpoint = 2, .slot = 1, .position = PLACE + 64});
    run_decode(&q, 1, 1, 1,
               &(struct state_checkpoint_move){.checkpoint = 1, .slot = 1, .position = PLACE});
    assert_memory_equal(layer->checkpoints.state, before, CHECKPOINTS * STATES * 4);
    ops_close(&q.w.ops);
}

#define IN_BOTH(test) cmocka_unit_test_setup(test, as_f32), cmocka_unit_test_setup(test, as_bf16)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(saves_hidden_rows_only),
        IN_BOTH(loads_named_slots_only),
        cmocka_unit_test(nothing_to_move_is_fine),
        IN_BOTH(decode_rows_leave_what_prompts_leave),
        IN_BOTH(who_does_not_run_at_the_place_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
