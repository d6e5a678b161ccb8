// SPDX-License-Identifier: Apache-2.0
// gdn_test.c -- Gated DeltaNet: against the formulas of its source in plain double; and bit for
// bit, however a sequence is cut into prefill, decode and verify rows, whatever was accepted,
// whoever runs beside it.
#include "kernels/gdn.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/twins/twins.h"
#include "tests/fixtures/gdn_world.h"
#include "tests/fixtures/state_dtype.h"

enum {
    DIM = GDN_HEAD_DIM,
    SLOTS = GDN_WORLD_SLOTS,
    POSITIONS = GDN_WORLD_POSITIONS,
};

// Sanitizers make every token some twenty times slower: they see fewer cases of the same kinds.
#ifdef DELTAMESH_SANITIZED
enum { CUT_STEP = 29, MIXES = 2, FIRST_STEP = 6 };
#else
enum { CUT_STEP = 1, MIXES = 12, FIRST_STEP = 1 };
#endif

static void open_world(struct gdn_world *w, int key_heads, int value_heads, uint64_t seed)
{
    gdn_world_open_as(w, key_heads, value_heads, seed, bf16_state);
}

// ---------------------------------------------------------------- the formulas

// Plain double, [key dim][value dim] as in the source, nothing rounded but what the contract
// stores as bf16.
struct plain {
    double state[DIM][DIM];
    double largest; // |element| ever seen in the state
};

static double bf(const bf16 *values, int i)
{
    return (double)bf16_to_float(values[i]);
}

static void plain_conv(double *y, const struct gdn_world *w, int slot, int position, int channel)
{
    for (int i = 0; i < DIM; i++) {
        double sum = 0;
        for (int tap = 0; tap < 4; tap++) {
            int from = position - 3 + tap;
            if (from >= 0)
                sum +=
                    (double)w->op.conv_weight[(channel + i) * 4 + tap] *
                    bf(w->raw + (size_t)(slot * POSITIONS + from) * (size_t)w->stride, channel + i);
        }
        y[i] = (double)bf16_to_float(bf16_from_double(sum / (1 + exp(-sum))));
    }
}

static void plain_l2(double *x)
{
    double squares = 0;
    for (int i = 0; i < DIM; i++)
        squares += x[i] * x[i];
    for (int i = 0; i < DIM; i++)
        x[i] /= sqrt(squares + 1e-6);
}

static void plain_step(struct plain *plain, double *o, const struct gdn_world *w, int slot,
                       int position, int head)
{
    double q[DIM], k[DIM], v[DIM];
    int keys = w->op.key_heads, values = w->op.value_heads, key_head = head / (values / keys);
    const bf16 *raw = w->raw + (size_t)(slot * POSITIONS + position) * (size_t)w->stride;
    double b = bf(raw, w->channels + values * DIM + head);
    double a = bf(raw, w->channels + values * DIM + values + head) + (double)w->op.dt_bias[head];
    double alpha = exp(-exp((double)w->op.a_log[head]) * log(1 + exp(a)));
    plain_conv(q, w, slot, position, key_head * DIM);
    plain_conv(k, w, slot, position, (keys + key_head) * DIM);
    plain_conv(v, w, slot, position, (2 * keys + head) * DIM);
    plain_l2(q);
    plain_l2(k);
    for (int j = 0; j < DIM; j++) {
        double read = 0;
        for (int i = 0; i < DIM; i++)
            read += alpha * plain->state[i][j] * k[i];
        double u = (v[j] - read) / (1 + exp(-b));
        o[j] = 0;
        for (int i = 0; i < DIM; i++) {
            plain->state[i][j] = alpha * plain->state[i][j] + k[i] * u;
            plain->largest = fmax(plain->largest, fabs(plain->state[i][j]));
            o[j] += plain->state[i][j] * q[i] / sqrt(DIM);
        }
    }
}

// Rounding to f32 moves an element of S, k, q, u and g by 2^-24 of it at most, once per token. k is
// a unit vector, so a token adds at most (2^-24 * (largest state * (1 + 3 sqrt 128) + |v|)) to what
// o = S^T q / sqrt(128), |q| = 1, can be off, and alpha <= 1 and the contraction never enlarge it:
// the bound below is that with |v| < 16 and one token's share for each token so far.
static double o_error(const struct plain *plain, int position)
{
    return (position + 1) * 0x1p-24 * (plain->largest * (1 + 3 * sqrt(DIM)) + 16) / sqrt(DIM);
}

static void follows_the_formulas(void **state)
{
    (void)state;
    static const int heads[][2] = {{1, 1}, {2, 4}, {1, 3}};
    for (int i = 0; i < 3; i++) {
        struct gdn_world w;
        gdn_world_open(&w, heads[i][0], heads[i][1], 10 + (uint64_t)i);
        gdn_world_run(&w, 1, (struct gdn_piece){POSITIONS, 0});
        struct plain *plain = calloc(1, sizeof *plain);
        assert_non_null(plain);
        for (int head = 0; head < heads[i][1]; head++) {
            memset(plain, 0, sizeof *plain);
            for (int position = 0; position < POSITIONS; position++) {
                double o[DIM];
                plain_step(plain, o, &w, 1, position, head);
                const bf16 *got =
                    w.o + (size_t)(POSITIONS + position) * (size_t)w.o_width + head * DIM;
                for (int j = 0; j < DIM; j++)
                    assert_true(ops_rounded_bf16(got[j], o[j], o_error(plain, position)));
            }
            assert_true(o_error(plain, POSITIONS) < 1e-3 * plain->largest); // the bound is sharp
        }
        free(plain);
        gdn_world_close(&w);
    }
}

// ---------------------------------------------------------------- bits

// What a row leaves on its way is what a row leaves that ends there, a neighbour's saves beside it.
static void checkpoints_are_what_cuts_leave(void **state)
{
    enum { SAVES = 4 };
    static const struct row_save anywhere[SAVES] = {
        {1, 0, 64, 63}, {3, 0, 128, 127}, {0, 0, POSITIONS, 0}, {2, 1, 5, 0}};
    static const struct row_save where_it_rounds[SAVES] = {
        {1, 0, 64, 63}, {3, 0, 128, 127}, {0, 0, 144, 0}, {2, 1, 8, 0}};
    const struct row_save *saves = bf16_state ? where_it_rounds : anywhere;
    struct gdn_world whole, cut;
    (void)state;
    open_world(&whole, 2, 4, 5);
    open_world(&cut, 2, 4, 5);
    size_t state_bytes = gdn_world_state_bytes(&cut), columns = 3 * (size_t)cut.channels;
    whole.op.checkpoints.state = ops_alloc(&whole.ops, SAVES * state_bytes);
    whole.op.checkpoints.conv = ops_alloc(&whole.ops, SAVES * columns * sizeof(bf16));
    whole.steps.tables.saves = saves;
    whole.steps.tables.saves_count = SAVES;
    gdn_world_step(&whole, (const struct gdn_piece[SLOTS]){{POSITIONS, 0}, {9, 0}, {9, 0}});
    for (int i = 0; i < SAVES; i++) {
        int slot = saves[i].row;
        size_t at = (size_t)slot, to = (size_t)saves[i].checkpoint;
        gdn_world_run(&cut, slot,
                      (struct gdn_piece){saves[i].tokens - gdn_world_position(&cut, slot), 0});
        assert_memory_equal((char *)whole.op.checkpoints.state + to * state_bytes,
                            gdn_world_state(&cut, slot), state_bytes);
        assert_memory_equal(whole.op.checkpoints.conv + to * columns,
                            cut.op.state.conv + at * columns, columns * sizeof(bf16));
    }
    gdn_world_finish(&cut, 0);
    gdn_world_same_slot(&whole, &cut, 0);
    gdn_world_close(&whole);
    gdn_world_close(&cut);
}

// Also behind rows that wait: a checkpoint has them folded, and no token that comes behind it.
static void checkpoints_have_what_waits_folded(void **state)
{
    enum { SAVES = 3 };
    struct row_save saves[SAVES] = {{2, 0, 1, 0}, {0, 0, 17, 16}, {1, 0, 23, 22}};
    (void)state;
    for (int decodes = 1; decodes <= GDN_WAITING_MAX + 2; decodes++) {
        struct gdn_world whole, cut;
        open_world(&whole, 1, 2, 6);
        open_world(&cut, 1, 2, 6);
        size_t state_bytes = gdn_world_state_bytes(&cut), columns = 3 * (size_t)cut.channels;
        whole.op.checkpoints.state = ops_alloc(&whole.ops, SAVES * state_bytes);
        whole.op.checkpoints.conv = ops_alloc(&whole.ops, SAVES * columns * sizeof(bf16));
        for (int i = 0; i < decodes; i++) {
            gdn_world_run(&whole, 0, (struct gdn_piece){3, 1 + i % 2});
            gdn_world_run(&cut, 0, (struct gdn_piece){3, 1 + i % 2});
        }
        assert_true(gdn_world_waiting(&whole, 0) > 0);
        int begin = gdn_world_position(&whole, 0);
        for (int i = 0; i < SAVES && bf16_state; i++)
            saves[i].tokens = (i + 1) * GDN_ROUND_TOKENS - begin % GDN_ROUND_TOKENS;
        whole.steps.tables.saves = saves;
        whole.steps.tables.saves_count = SAVES;
        gdn_world_run(&whole, 0, (struct gdn_piece){saves[SAVES - 1].tokens, 0});
        assert_int_equal(gdn_world_waiting(&whole, 0), 0);
        for (int i = 0; i < SAVES; i++) {
            size_t to = (size_t)saves[i].checkpoint;
            gdn_world_run(
                &cut, 0,
                (struct gdn_piece){begin + saves[i].tokens - gdn_world_position(&cut, 0), 0});
            assert_memory_equal((char *)whole.op.checkpoints.state + to * state_bytes,
                                gdn_world_state(&cut, 0), state_bytes);
            assert_memory_equal(whole.op.checkpoints.conv + to * columns, cut.op.state.conv,
                                columns * sizeof(bf16));
        }
        gdn_world_same_slot(&whole, &cut, 0);
        gdn_world_close(&whole);
        gdn_world_close(&cut);
    }
}

static void prefill_cut_anywhere_is_whole(void **state)
{
    (void)state;
    struct gdn_world whole;
    open_world(&whole, 1, 2, 20);
    for (int slot = 0; slot < SLOTS; slot++)
        gdn_world_run(&whole, slot, (struct gdn_piece){POSITIONS, 0});
    for (int cut = 1; cut < POSITIONS; cut += cut < 20 ? CUT_STEP : 7 * CUT_STEP) {
        struct gdn_world w;
        open_world(&w, 1, 2, 20);
        gdn_world_run(&w, 0, (struct gdn_piece){cut, 0});
        gdn_world_finish(&w, 0);
        gdn_world_same_slot(&w, &whole, 0);
        for (int size = cut; gdn_world_position(&w, 1) + size <= POSITIONS;)
            gdn_world_run(&w, 1, (struct gdn_piece){size, 0});
        gdn_world_finish(&w, 1);
        gdn_world_same_slot(&w, &whole, 1);
        gdn_world_close(&w);
    }
    gdn_world_close(&whole);
}

// Verify width and accepted count in all combinations, after a prefill of `first` tokens.
static void check_speculation(const struct gdn_world *whole, int first, int verify, int accepted)
{
    struct gdn_world w;
    open_world(&w, 1, 2, 20);
    w.end = whole->end;
    if (first > 0)
        gdn_world_run(&w, 0, (struct gdn_piece){first, 0});
    for (int i = 0; i < 4; i++)
        gdn_world_run(&w, 0, (struct gdn_piece){verify, accepted});
    gdn_world_finish(&w, 0);
    gdn_world_same_slot(&w, whole, 0);
    gdn_world_close(&w);
}

static void every_accepted_count_folds_to_the_same_bits(void **state)
{
    (void)state;
    struct gdn_world whole;
    open_world(&whole, 1, 2, 20);
    whole.end = 32; // five and four times six tokens, and some to fold the last of them
    gdn_world_finish(&whole, 0);
    for (int verify = 1; verify <= ROW_VERIFY_MAX; verify++) {
        for (int accepted = 1; accepted <= verify; accepted++) {
            for (int first = 0; first <= 5; first += FIRST_STEP)
                check_speculation(&whole, first, verify, accepted);
        }
    }
    gdn_world_close(&whole);
}

// Rings and columns for decode rows of up to so many tokens.
static void narrow(struct gdn_world *w, int verify_max)
{
    w->op.state.pending_rows = gdn_pending_rows(bf16_state, verify_max);
    w->op.state.pending_columns = gdn_pending_columns(verify_max);
}

// Random mixes of rows, verify changing from step to step, three slots side by side, in rings of
// every size, against each slot prefilled alone.
static void any_mix_of_rows_is_whole(void **state)
{
    (void)state;
    struct gdn_world whole;
    int states = 0;
    open_world(&whole, 2, 4, 30);
    for (int slot = 0; slot < SLOTS; slot++)
        gdn_world_run(&whole, slot, (struct gdn_piece){POSITIONS, 0});
    for (uint64_t seed = 0; seed < MIXES; seed++) {
        struct gdn_world w;
        open_world(&w, 2, 4, 30);
        w.ops.random = seed;
        int verify_max = ROW_VERIFY_MAX - (int)(seed % ROW_VERIFY_MAX);
        narrow(&w, verify_max);
        for (int step = 0; step < 25; step++) {
            struct gdn_piece pieces[SLOTS];
            for (int slot = 0; slot < SLOTS; slot++) {
                int left = POSITIONS - gdn_world_position(&w, slot);
                int count = 1 + (int)(ops_random(&w.ops) % (uint64_t)verify_max);
                bool decode = ops_random(&w.ops) % 3 != 0;
                count = count < left ? count : left;
                pieces[slot] = (struct gdn_piece){count, 0};
                if (decode && count > 0)
                    pieces[slot].accepted = 1 + (int)(ops_random(&w.ops) % (uint64_t)count);
            }
            gdn_world_step(&w, pieces);
        }
        for (int slot = 0; slot < SLOTS; slot++) {
            gdn_world_finish(&w, slot);
            gdn_world_same_o(&w, &whole, slot);
            if (w.steps.slots.slots[slot].pending > 0)
                continue; // ended with a decode row: the last fold is still to come
            gdn_world_same_slot(&w, &whole, slot);
            states++;
        }
        gdn_world_close(&w);
    }
    assert_true(states > MIXES);
    gdn_world_close(&whole);
}

// ---------------------------------------------------------------- memory

// A decode row writes only behind the rows that wait; an inert one nothing.
static void rows_touch_what_they_may(void **state)
{
    (void)state;
    struct gdn_world w;
    gdn_world_open(&w, 1, 2, 40);
    gdn_world_step(&w, (struct gdn_piece[SLOTS]){{5, 0}, {6, 0}, {7, 0}});
    gdn_world_step(&w, (struct gdn_piece[SLOTS]){{4, 2}, {4, 4}, {3, 1}});
    size_t places = (size_t)w.op.state.pending_rows;
    size_t k_bytes = SLOTS * places * DIM * sizeof(float);
    size_t state_bytes = gdn_world_states(&w) * sizeof(float);
    size_t conv_bytes = SLOTS * 3 * (size_t)w.channels * sizeof(bf16);
    float *k = ops_copy(&w.ops, w.op.state.pending_k, k_bytes);
    float *s = ops_copy(&w.ops, w.op.state.state, state_bytes);
    bf16 *conv = ops_copy(&w.ops, w.op.state.conv, conv_bytes);
    w.steps.slots.slots[0].end = SLOT_STOP;
    w.steps.slots.slots[1].token_next = 1;
    steps_clear(&w.steps);
    steps_add_decode(&w.steps, 0, 2);
    steps_add_decode(&w.steps, 1, 1);
    steps_begin(&w.steps);
    for (int token = 0; token < 3; token++)
        memcpy(w.projected + token * w.stride, w.raw, (size_t)w.stride * sizeof(bf16));
    w.op.tables = w.steps.tables;
    gdn(w.ops.streams[0], &w.op);
    ops_wait(&w.ops);
    for (int i = 0; i < 2 * w.o_width; i++)
        assert_int_equal(w.op.o[i].bits, 0); // the inert row
    size_t own_state = state_bytes / SLOTS, own_conv = conv_bytes / SLOTS;
    for (int slot = 0; slot < SLOTS; slot += 2) {
        assert_memory_equal((char *)w.op.state.state + (size_t)slot * own_state,
                            (char *)s + (size_t)slot * own_state, own_state);
        assert_memory_equal((char *)w.op.state.conv + (size_t)slot * own_conv,
                            (char *)conv + (size_t)slot * own_conv, own_conv);
    }
    // Four rows of slot 1 wait and go on waiting, so it writes the fifth; the state stays.
    size_t ring = k_bytes / SLOTS, row = ring / places, at = ring + 4 * row;
    assert_int_equal(w.steps.slots.slots[1].pending, 4);
    const char *now = (const char *)w.op.state.pending_k, *before = (const char *)k;
    assert_memory_equal(now, before, at);
    assert_memory_not_equal(now + at, before + at, row);
    assert_memory_equal(now + at + row, before + at + row, k_bytes - at - row);
    assert_memory_equal(w.op.state.state, s, state_bytes);
    gdn_world_close(&w);
}

// Rows wait for as long as those and the step's are GDN_WAITING_MAX at most; the state is written
// when they are folded, and only then; and where a row is to leave a checkpoint.
static void rows_wait_for_their_fold(void **state)
{
    (void)state;
    struct gdn_world w;
    gdn_world_open(&w, 1, 2, 43);
    size_t bytes = gdn_world_states(&w) * sizeof(float);
    gdn_world_run(&w, 0, (struct gdn_piece){3, 0});
    for (int step = 0; step < 3 * GDN_WAITING_MAX; step++) {
        float *before = ops_copy(&w.ops, w.op.state.state, bytes);
        int waited = gdn_world_waiting(&w, 0);
        gdn_world_run(&w, 0, (struct gdn_piece){1, 1});
        bool folds = waited + 1 > GDN_WAITING_MAX;
        assert_int_equal(gdn_world_waiting(&w, 0), folds ? 1 : waited + 1);
        assert_int_equal(memcmp(before, w.op.state.state, bytes) != 0, folds);
    }
    gdn_world_run(&w, 0, (struct gdn_piece){6, 2});
    assert_true(gdn_world_waiting(&w, 0) > 1);
    w.pause_at = gdn_world_position(&w, 0);
    gdn_world_run(&w, 0, (struct gdn_piece){2, 1});
    assert_int_equal(gdn_world_waiting(&w, 0), 1);
    gdn_world_run(&w, 0, (struct gdn_piece){2, 0});
    assert_int_equal(gdn_world_waiting(&w, 0), 0);
    gdn_world_close(&w);
}

// ---------------------------------------------------------------- a bf16 state

// Rounded to nearest where the sequence has a multiple of GDN_ROUND_TOKENS and nowhere else; in
// memory it is that of the last such place, which a row folds that begins behind it.
static void a_bf16_state_is_rounded_in_its_places(void **state)
{
    (void)state;
    struct gdn_world exact, w;
    gdn_world_open(&exact, 1, 2, 44);
    gdn_world_open_as(&w, 1, 2, 44, true);
    size_t values = gdn_world_states(&w) / SLOTS, same = 0;
    gdn_world_run(&exact, 0, (struct gdn_piece){GDN_ROUND_TOKENS, 0});
    gdn_world_run(&w, 0, (struct gdn_piece){3, 0});
    assert_int_equal(gdn_world_waiting(&w, 0), 3);
    for (int position = 3; position < 3 * GDN_ROUND_TOKENS; position++) {
        bf16 *before = ops_copy(&w.ops, gdn_world_state(&w, 0), gdn_world_state_bytes(&w));
        gdn_world_run(&w, 0, (struct gdn_piece){1, 1});
        bool folds = position % GDN_ROUND_TOKENS == 0;
        const bf16 *now = gdn_world_state(&w, 0);
        assert_int_equal(gdn_world_waiting(&w, 0), position % GDN_ROUND_TOKENS + 1);
        assert_int_equal(memcmp(before, now, gdn_world_state_bytes(&w)) != 0, folds);
        for (size_t i = 0; i < values && position == GDN_ROUND_TOKENS; i++)
            same += now[i].bits == bf16_from_float(((float *)exact.op.state.state)[i]).bits;
    }
    assert_int_equal(same, values);
    gdn_world_close(&exact);
    gdn_world_close(&w);
}

// Each rounding moves an element by 2^-9 of it at most, and what there is of it decays from there
// on; o = S^T q / sqrt(128) of a state that is off by d of its length is off by |d| / sqrt(128).
static void a_bf16_state_stays_near(void **state)
{
    (void)state;
    struct gdn_world exact, w;
    double difference = 0, size = 0;
    gdn_world_open(&exact, 2, 4, 45);
    gdn_world_open_as(&w, 2, 4, 45, true);
    gdn_world_run(&exact, 0, (struct gdn_piece){POSITIONS, 0});
    gdn_world_run(&w, 0, (struct gdn_piece){POSITIONS, 0});
    for (int i = 0; i < POSITIONS * w.o_width; i++) {
        double a = bf(exact.o, i), b = bf(w.o, i);
        bool rounded = i >= GDN_ROUND_TOKENS * w.o_width;
        difference += (a - b) * (a - b);
        size += a * a;
        if (!rounded)
            assert_int_equal(exact.o[i].bits, w.o[i].bits);
    }
    assert_true(difference > 0);
    assert_true(sqrt(difference / size) < 0x1p-9 * POSITIONS / GDN_ROUND_TOKENS);
    gdn_world_close(&exact);
    gdn_world_close(&w);
}

// As the kernels of chunked prefill: at each chunk's end and at the row's, with nothing left.
static void by_chunks_it_is_rounded_at_their_ends(void **state)
{
    (void)state;
    enum { TOKENS = GDN_CHUNK_TOKENS + 13 };
    struct gdn_world exact, w;
    gdn_world_open(&exact, 1, 2, 46);
    gdn_world_open_as(&w, 1, 2, 46, true);
    for (int chunks = 1; chunks <= 2; chunks++) {
        steps_clear(&w.steps);
        steps_add_prefill(&w.steps, chunks, NULL, TOKENS, 1);
        steps_begin(&w.steps);
        gdn_world_inputs(&w, (struct gdn_piece[SLOTS]){{0, 0}, {TOKENS, 0}, {TOKENS, 0}});
        w.op.tables = w.steps.tables;
        w.op.slots = w.steps.slots;
        w.op.workspace.chunks = chunks;
        gdn_twin_chunks(ops_alloc(&w.ops, TOKENS * (size_t)w.o_width * sizeof(double)), &w.op);
        assert_int_equal(gdn_world_waiting(&w, chunks),
                         chunks == 1 ? TOKENS % GDN_ROUND_TOKENS : 0); // one chunk: no room
    }
    gdn_world_run(&exact, 2, (struct gdn_piece){GDN_CHUNK_TOKENS, 0});
    float *at = gdn_world_state(&exact, 2);
    for (size_t i = 0; i < gdn_world_states(&exact) / SLOTS; i++)
        at[i] = bf16_to_float(bf16_from_float(at[i]));
    gdn_world_run(&exact, 2, (struct gdn_piece){TOKENS - GDN_CHUNK_TOKENS, 0});
    const bf16 *got = gdn_world_state(&w, 2);
    for (size_t i = 0; i < gdn_world_states(&exact) / SLOTS; i++)
        assert_int_equal(got[i].bits, bf16_from_float(at[i]).bits);
    gdn_world_close(&exact);
    gdn_world_close(&w);
}

static void opening_zeroes_fresh_slots_only(void **state)
{
    (void)state;
    struct gdn_world w;
    gdn_world_open(&w, 1, 2, 41);
    size_t values = gdn_world_states(&w) / SLOTS, columns = 3 * (size_t)w.channels;
    memset(w.op.state.state, 0x41, SLOTS * values * sizeof(float));
    memset(w.op.state.conv, 0x41, SLOTS * columns * sizeof(bf16));
    for (int i = 0; i < 2 * SLOTS; i++)
        w.op.state.waiting[i].count = 9;
    struct slot_opening openings[2] = {{.slot = 2, .position = 0}, {.slot = 0, .position = 64}};
    const struct gdn_state layers[2] = {
        w.op.state,
        {.state = ops_copy(&w.ops, w.op.state.state, SLOTS * values * sizeof(float)),
         .conv = ops_copy(&w.ops, w.op.state.conv, SLOTS * columns * sizeof(bf16)),
         .waiting = ops_copy(&w.ops, w.op.state.waiting, 2 * SLOTS * sizeof(struct gdn_waiting))}};
    gdn_open(w.ops.streams[0], &(struct gdn_open){.layers = layers,
                                                  .layers_count = 2,
                                                  .key_heads = 1,
                                                  .value_heads = 2,
                                                  .openings = openings,
                                                  .openings_count = 2});
    ops_wait(&w.ops);
    for (int layer = 0; layer < 2; layer++) {
        for (int i = 0; i < 2 * SLOTS; i++)
            assert_int_equal(layers[layer].waiting[i].count, i / 2 == 1 ? 9 : 0);
        for (size_t i = 0; i < SLOTS * values * sizeof(float); i++) {
            int expected = i / (values * sizeof(float)) == 2 ? 0 : 0x41;
            assert_int_equal(((const uint8_t *)layers[layer].state)[i], expected);
        }
        for (size_t i = 0; i < SLOTS * columns * sizeof(bf16); i++) {
            int expected = i / (columns * sizeof(bf16)) == 2 ? 0 : 0x41;
            assert_int_equal(((const uint8_t *)layers[layer].conv)[i], expected);
        }
    }
    gdn_world_close(&w);
}

static void twin_is_o_before_rounding(void **state)
{
    (void)state;
    struct gdn_world a, b;
    gdn_world_open(&a, 1, 2, 42);
    gdn_world_open(&b, 1, 2, 42);
    gdn_world_run(&a, 0, (struct gdn_piece){20, 0});
    steps_clear(&b.steps);
    steps_add_prefill(&b.steps, 0, NULL, 20, 1);
    steps_begin(&b.steps);
    gdn_world_inputs(&b, (struct gdn_piece[SLOTS]){{20, 0}, {0, 0}, {0, 0}});
    b.op.tables = b.steps.tables;
    b.op.slots = b.steps.slots;
    double *o = ops_alloc(&b.ops, 20 * (size_t)b.o_width * sizeof *o);
    gdn_twin(o, &b.op);
    for (int i = 0; i < 20 * b.o_width; i++)
        assert_true(ops_rounded_bf16(a.o[i], o[i], 0));
    assert_int_equal(b.op.o[0].bits, 0xffff); // not written
    gdn_world_close(&a);
    gdn_world_close(&b);
}

#define IN_BOTH(test) cmocka_unit_test_setup(test, as_f32), cmocka_unit_test_setup(test, as_bf16)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_formulas),
        IN_BOTH(checkpoints_are_what_cuts_leave),
        IN_BOTH(checkpoints_have_what_waits_folded),
        IN_BOTH(prefill_cut_anywhere_is_whole),
        IN_BOTH(every_accepted_count_folds_to_the_same_bits),
        IN_BOTH(any_mix_of_rows_is_whole),
        cmocka_unit_test(rows_touch_what_they_may),
        cmocka_unit_test(rows_wait_for_their_fold),
        cmocka_unit_test(a_bf16_state_is_rounded_in_its_places),
        cmocka_unit_test(a_bf16_state_stays_near),
        cmocka_unit_test(by_chunks_it_is_rounded_at_their_ends),
        cmocka_unit_test(opening_zeroes_fresh_slots_only),
        cmocka_unit_test(twin_is_o_before_rounding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
