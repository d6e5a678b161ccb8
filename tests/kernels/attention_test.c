// SPDX-License-Identifier: Apache-2.0
// attention_test.c -- paged attention against a flat one in plain double, over several shuffled
// pages; and bit for bit, however the rows are cut and whoever runs beside them.
#include "kernels/attention.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/twins/twins.h"
#include "tests/fixtures/steps.h"

enum {
    SLOTS = 3,
    POSITIONS = 200, // more than three pages
    PAGES = 4,
    TOKENS_MAX = 3 * POSITIONS,
};

// Sanitizers make every token some twenty times slower: they see fewer cases of the same kinds.
#ifdef DELTAMESH_SANITIZED
enum { CUT_STEP = 31, MIXES = 2 };
#else
enum { CUT_STEP = 1, MIXES = 10 };
#endif

struct shape {
    int heads, kv_heads, head_dim, rotary_dim;
    float rotary_scale;
    int position_first;
};

// Slot s runs sequence s, whose projections are fixed by position. y is gathered by position.
struct world {
    struct ops ops;
    struct steps steps;
    struct attention op;
    int stride, y_width;
    size_t kv_values;
    bf16 *raw;       // [SLOTS, POSITIONS, stride]
    bf16 *wrong;     // [stride]
    bf16 *projected; // [TOKENS_MAX, stride]
    bf16 *y;         // [SLOTS, POSITIONS, y_width]
};

static void open_op(struct world *w, const struct shape *shape)
{
    struct ops *ops = &w->ops;
    float *frequencies = ops_alloc(ops, (size_t)shape->rotary_dim / 2 * sizeof *frequencies);
    for (int i = 0; i < shape->rotary_dim / 2; i++)
        frequencies[i] = (float)pow(1e7, -2.0 * i / shape->rotary_dim);
    w->kv_values = SLOTS * PAGES * 64 * (size_t)(shape->kv_heads * shape->head_dim);
    w->op = (struct attention){
        .k_pages = ops_alloc(ops, w->kv_values * sizeof(bf16)),
        .v_pages = ops_alloc(ops, w->kv_values * sizeof(bf16)),
        .projected = w->projected,
        .projected_stride = w->stride,
        .q_norm = ops_float(ops, (size_t)shape->head_dim, 0.5),
        .k_norm = ops_float(ops, (size_t)shape->head_dim, 0.5),
        .eps = 1e-6f,
        .inverse_frequencies = frequencies,
        .rotary_scale = shape->rotary_scale,
        .heads = shape->heads,
        .kv_heads = shape->kv_heads,
        .head_dim = shape->head_dim,
        .rotary_dim = shape->rotary_dim,
        .position_first = shape->position_first,
        .y = ops_alloc(ops, (size_t)TOKENS_MAX * (size_t)w->y_width * sizeof(bf16)),
    };
}

static void open_world(struct world *w, const struct shape *shape, uint64_t seed)
{
    struct slot_sampling sampling = steps_endless();
    memset(w, 0, sizeof *w);
    ops_open(&w->ops, 1, 256, seed);
    w->stride = 2 * (shape->heads + shape->kv_heads) * shape->head_dim + 5;
    w->y_width = shape->heads * shape->head_dim;
    w->raw = ops_bf16(&w->ops, (size_t)SLOTS * POSITIONS * (size_t)w->stride, 2);
    w->wrong = ops_bf16(&w->ops, (size_t)w->stride, 2);
    w->projected = ops_alloc(&w->ops, (size_t)TOKENS_MAX * (size_t)w->stride * sizeof(bf16));
    w->y = ops_alloc(&w->ops, (size_t)SLOTS * POSITIONS * (size_t)w->y_width * sizeof(bf16));
    open_op(w, shape);
    steps_open(&w->steps, &w->ops, SLOTS, PAGES, TOKENS_MAX);
    for (int slot = 0; slot < SLOTS; slot++)
        steps_open_slot(&w->steps, slot, 0, &sampling);
}

static void close_world(struct world *w)
{
    ops_close(&w->ops);
}

// A prefill of count tokens (accepted 0), or a decode of count rows, `accepted` of them right.
struct piece {
    int count, accepted;
};

static void add_pieces(struct world *w, const struct piece pieces[SLOTS])
{
    steps_clear(&w->steps);
    for (int slot = 0; slot < SLOTS; slot++) {
        struct slot *s = &w->steps.slots.slots[slot];
        if (pieces[slot].accepted == 0)
            continue;
        s->token_next = 1;
        for (int i = 0; i + 1 < pieces[slot].count; i++)
            s->drafts[i] = 10 + i;
        steps_add_decode(&w->steps, slot, pieces[slot].count);
    }
    for (int slot = 0; slot < SLOTS; slot++) {
        if (pieces[slot].count > 0 && pieces[slot].accepted == 0)
            steps_add_prefill(&w->steps, slot, NULL, pieces[slot].count, 1);
    }
}

static void fill_inputs(struct world *w, const struct piece pieces[SLOTS])
{
    size_t bytes = (size_t)w->stride * sizeof(bf16);
    for (int row = 0; row < w->steps.tables.rows_count; row++) {
        const struct step_row *r = &w->steps.rows[row];
        int accepted = pieces[r->slot].accepted;
        for (int i = 0; i < r->token_count; i++) {
            int token = r->token_first + i, position = w->steps.tables.token_positions[token];
            const bf16 *from =
                w->raw + (size_t)(r->slot * POSITIONS + position) * (size_t)w->stride;
            memcpy(w->projected + (size_t)token * (size_t)w->stride,
                   accepted == 0 || i < accepted ? from : w->wrong, bytes);
        }
    }
}

static void run_step(struct world *w, const struct piece pieces[SLOTS])
{
    size_t width = (size_t)w->y_width;
    add_pieces(w, pieces);
    steps_begin(&w->steps);
    fill_inputs(w, pieces);
    w->op.tables = w->steps.tables;
    w->op.slots = w->steps.slots;
    attention(w->ops.streams[0], &w->op);
    ops_wait(&w->ops);
    for (int row = 0; row < w->steps.tables.rows_count; row++) {
        const struct step_row *r = &w->steps.rows[row];
        struct piece piece = pieces[r->slot];
        int committed = piece.accepted == 0 ? piece.count : piece.accepted;
        assert_int_equal(w->steps.tables.active_count[row], piece.count);
        for (int i = 0; i < committed; i++) {
            int token = r->token_first + i, position = w->steps.tables.token_positions[token];
            memcpy(w->y + (size_t)(r->slot * POSITIONS + position) * width,
                   w->op.y + (size_t)token * width, width * sizeof(bf16));
        }
        if (piece.accepted > 0)
            steps_accept(&w->steps, row, piece.accepted);
    }
    steps_end(&w->steps);
}

static void run_alone(struct world *w, int slot, struct piece piece)
{
    struct piece pieces[SLOTS] = {{0, 0}, {0, 0}, {0, 0}};
    pieces[slot] = piece;
    run_step(w, pieces);
}

static int left_of(const struct world *w, int slot)
{
    return POSITIONS - w->steps.slots.slots[slot].position;
}

// The stored row of a position, found through the block table.
static const bf16 *stored_row(const struct world *w, const bf16 *pages, int slot, int position,
                              int kv_head)
{
    int32_t page = w->steps.slots.block_table[slot * PAGES + position / 64];
    return pages + ((size_t)(page * w->op.kv_heads + kv_head) * 64 + (size_t)(position % 64)) *
                       (size_t)w->op.head_dim;
}

static void assert_same_slot(const struct world *a, const struct world *b, int slot)
{
    size_t y = (size_t)POSITIONS * (size_t)a->y_width, at = (size_t)slot * y;
    size_t row = (size_t)a->op.head_dim * sizeof(bf16);
    assert_memory_equal(a->y + at, b->y + at, y * sizeof(bf16));
    for (int position = 0; position < POSITIONS; position++) {
        for (int head = 0; head < a->op.kv_heads; head++) {
            assert_memory_equal(stored_row(a, a->op.k_pages, slot, position, head),
                                stored_row(b, b->op.k_pages, slot, position, head), row);
            assert_memory_equal(stored_row(a, a->op.v_pages, slot, position, head),
                                stored_row(b, b->op.v_pages, slot, position, head), row);
        }
    }
}

// ---------------------------------------------------------------- the formulas

static double bf(const bf16 *values, int i)
{
    return (double)bf16_to_float(values[i]);
}

static const bf16 *raw_row(const struct world *w, int slot, int position)
{
    return w->raw + (size_t)(slot * POSITIONS + position) * (size_t)w->stride;
}

// Zero-centred norm, then rotate-half on the leading dimensions.
static void plain_norm_rotate(double *y, const bf16 *x, const float *norm, const struct world *w,
                              int position)
{
    double squares = 0, normed[256];
    int half = w->op.rotary_dim / 2;
    for (int i = 0; i < w->op.head_dim; i++)
        squares += bf(x, i) * bf(x, i);
    for (int i = 0; i < w->op.head_dim; i++) {
        double mean = squares / w->op.head_dim + (double)w->op.eps;
        normed[i] = bf(x, i) / sqrt(mean) * (1 + (double)norm[i]);
    }
    for (int i = 0; i < w->op.head_dim; i++) {
        if (i >= w->op.rotary_dim) {
            y[i] = normed[i];
            continue;
        }
        double angle = (double)((float)position * w->op.inverse_frequencies[i % half]);
        double other = i < half ? -normed[i + half] : normed[i - half];
        y[i] = (normed[i] * cos(angle) + other * sin(angle)) * (double)w->op.rotary_scale;
    }
}

static void check_stored(const struct world *w, int slot)
{
    int dim = w->op.head_dim;
    for (int position = 0; position < POSITIONS; position++) {
        for (int head = 0; head < w->op.kv_heads; head++) {
            double k[256];
            const bf16 *raw = raw_row(w, slot, position);
            plain_norm_rotate(k, raw + (2 * w->op.heads + head) * dim, w->op.k_norm, w, position);
            const bf16 *keys = stored_row(w, w->op.k_pages, slot, position, head);
            for (int i = 0; i < dim; i++)
                assert_true(ops_rounded_bf16(keys[i], k[i], 1e-13 * (1 + fabs(k[i]))));
            assert_memory_equal(stored_row(w, w->op.v_pages, slot, position, head),
                                raw + (2 * w->op.heads + w->op.kv_heads + head) * dim,
                                (size_t)dim * sizeof(bf16));
        }
    }
}

// A query as the products see it: rounded to bf16 once.
static void plain_query(double *q, const bf16 *x, const struct world *w, int position)
{
    plain_norm_rotate(q, x, w->op.q_norm, w, position);
    for (int i = 0; i < w->op.head_dim; i++)
        q[i] = (double)bf16_to_float(bf16_from_double(q[i]));
}

// Softmax over all keys at once, in two passes, on the stored k and v.
static void plain_attention(double *y, const struct world *w, int slot, int position, int head)
{
    double q[256], scores[POSITIONS], largest = -INFINITY, sum = 0;
    int dim = w->op.head_dim, kv_head = head / (w->op.heads / w->op.kv_heads);
    plain_query(q, raw_row(w, slot, position) + head * dim, w, position);
    for (int key = w->op.position_first; key <= position; key++) {
        const bf16 *k = stored_row(w, w->op.k_pages, slot, key, kv_head);
        scores[key] = 0;
        for (int i = 0; i < dim; i++)
            scores[key] += q[i] * bf(k, i) / sqrt(dim);
        largest = fmax(largest, scores[key]);
    }
    for (int key = w->op.position_first; key <= position; key++)
        sum += exp(scores[key] - largest);
    for (int i = 0; i < dim; i++) {
        double z = bf(raw_row(w, slot, position), (w->op.heads + head) * dim + i);
        y[i] = 0;
        for (int key = w->op.position_first; key <= position; key++)
            y[i] += exp(scores[key] - largest) / sum *
                    bf(stored_row(w, w->op.v_pages, slot, key, kv_head), i);
        y[i] /= 1 + exp(-z);
    }
}

static void follows_the_flat_form(void **state)
{
    (void)state;
    static const struct shape shapes[] = {
        {4, 1, 256, 64, 1, 0}, {2, 2, 64, 64, 1, 0},        {6, 2, 32, 0, 1, 0},
        {20, 1, 16, 8, 1, 0},  {2, 1, 128, 32, 1.2079f, 0}, {1, 1, 20, 6, 1, 0},
        {4, 2, 32, 16, 1, 1},  {2, 1, 16, 8, 1, 70},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct world w;
        open_world(&w, &shapes[i], i);
        run_alone(&w, 0, (struct piece){POSITIONS, 0}); // so that slot 1 has other pages between
        run_alone(&w, 1, (struct piece){POSITIONS, 0});
        check_stored(&w, 1);
        for (int position = 0; position < POSITIONS; position += position < 70 ? 1 : 9) {
            for (int head = 0; head < shapes[i].heads; head++) {
                double y[256];
                const bf16 *got = w.y + (size_t)(POSITIONS + position) * (size_t)w.y_width +
                                  head * shapes[i].head_dim;
                plain_attention(y, &w, 1, position, head);
                for (int j = 0; j < shapes[i].head_dim; j++) {
                    // |v| < 2; scores of size below 50 are good to 1e-13 of it.
                    assert_true(ops_rounded_bf16(
                        got[j], position < shapes[i].position_first ? 0 : y[j], 1e-11));
                }
            }
        }
        close_world(&w);
    }
}

// ---------------------------------------------------------------- bits

static const struct shape bits_shape = {6, 2, 32, 16, 1, 0};

static void prefill_cut_anywhere_is_whole(void **state)
{
    (void)state;
    struct world whole;
    open_world(&whole, &bits_shape, 20);
    for (int slot = 0; slot < SLOTS; slot++)
        run_alone(&whole, slot, (struct piece){POSITIONS, 0});
    for (int cut = 1; cut < POSITIONS; cut += CUT_STEP) {
        struct world w;
        open_world(&w, &bits_shape, 20);
        run_alone(&w, 0, (struct piece){cut, 0});
        run_alone(&w, 0, (struct piece){left_of(&w, 0), 0});
        assert_same_slot(&w, &whole, 0);
        if (cut % 8 == 0 || cut == 1) {
            while (left_of(&w, 1) > 0)
                run_alone(&w, 1, (struct piece){left_of(&w, 1) < cut ? left_of(&w, 1) : cut, 0});
            assert_same_slot(&w, &whole, 1);
        }
        close_world(&w);
    }
    close_world(&whole);
}

// Prefill and verify rows of all slots at once, refused drafts among them, against each alone.
static void any_mix_of_rows_is_whole(void **state)
{
    (void)state;
    struct world whole;
    open_world(&whole, &bits_shape, 30);
    for (int slot = 0; slot < SLOTS; slot++)
        run_alone(&whole, slot, (struct piece){POSITIONS, 0});
    for (uint64_t seed = 0; seed < MIXES; seed++) {
        struct world w;
        open_world(&w, &bits_shape, 30);
        w.ops.random = seed;
        while (left_of(&w, 0) + left_of(&w, 1) + left_of(&w, 2) > 0) {
            struct piece pieces[SLOTS];
            for (int slot = 0; slot < SLOTS; slot++) {
                bool decode = ops_random(&w.ops) % 3 != 0;
                int most = decode ? ROW_VERIFY_MAX : 40;
                int count = 1 + (int)(ops_random(&w.ops) % (uint64_t)most);
                count = count < left_of(&w, slot) ? count : left_of(&w, slot);
                pieces[slot] = (struct piece){count, 0};
                if (decode && count > 0)
                    pieces[slot].accepted = 1 + (int)(ops_random(&w.ops) % (uint64_t)count);
            }
            run_step(&w, pieces);
        }
        for (int slot = 0; slot < SLOTS; slot++)
            assert_same_slot(&w, &whole, slot);
        close_world(&w);
    }
    close_world(&whole);
}

// ---------------------------------------------------------------- memory

static void inert_rows_append_nothing(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, &bits_shape, 40);
    run_step(&w, (struct piece[SLOTS]){{70, 0}, {65, 0}, {1, 0}});
    bf16 *k = ops_copy(&w.ops, w.op.k_pages, w.kv_values * sizeof *k);
    bf16 *v = ops_copy(&w.ops, w.op.v_pages, w.kv_values * sizeof *v);
    w.steps.slots.slots[0].end = SLOT_STOP;
    w.steps.slots.slots[1].end = SLOT_LENGTH;
    steps_clear(&w.steps);
    steps_add_decode(&w.steps, 0, 3);
    steps_add_prefill(&w.steps, 1, NULL, 9, -1);
    steps_begin(&w.steps);
    memset(w.op.y, 0xff, 12 * (size_t)w.y_width * sizeof(bf16));
    w.op.tables = w.steps.tables;
    attention(w.ops.streams[0], &w.op);
    ops_wait(&w.ops);
    assert_memory_equal(w.op.k_pages, k, w.kv_values * sizeof *k);
    assert_memory_equal(w.op.v_pages, v, w.kv_values * sizeof *v);
    for (int i = 0; i < 12 * w.y_width; i++)
        assert_int_equal(w.op.y[i].bits, 0);
    close_world(&w);
}

// Appending alone leaves the bytes that attending would have appended.
static void append_appends_as_attention_does(void **state)
{
    (void)state;
    struct world whole, w;
    open_world(&whole, &bits_shape, 42);
    open_world(&w, &bits_shape, 42);
    run_alone(&whole, 0, (struct piece){90, 0});
    int dim = w.op.head_dim, width = 2 * w.op.kv_heads * dim;
    size_t keys_first = 2 * (size_t)w.op.heads * (size_t)dim;
    bf16 *narrow = ops_alloc(&w.ops, 90 * (size_t)width * sizeof *narrow);
    for (int i = 0; i < 90; i++)
        memcpy(narrow + i * width, raw_row(&w, 0, i) + keys_first, (size_t)width * sizeof(bf16));
    steps_clear(&w.steps);
    steps_add_prefill(&w.steps, 0, NULL, 90, -1);
    steps_begin(&w.steps);
    w.op.tables = w.steps.tables;
    w.op.slots = w.steps.slots;
    w.op.projected = narrow;
    w.op.projected_stride = width;
    w.op.q_norm = NULL;
    w.op.y = NULL;
    attention_append(w.ops.streams[0], &w.op);
    ops_wait(&w.ops);
    assert_memory_equal(w.op.k_pages, whole.op.k_pages, w.kv_values * sizeof(bf16));
    assert_memory_equal(w.op.v_pages, whole.op.v_pages, w.kv_values * sizeof(bf16));
    close_world(&w);
    close_world(&whole);
}

static void twin_is_y_before_rounding(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, &bits_shape, 41);
    run_alone(&w, 0, (struct piece){90, 0});
    double *y = ops_alloc(&w.ops, 90 * (size_t)w.y_width * sizeof *y);
    attention_twin(y, &w.op); // appends the same once more
    for (int i = 0; i < 90 * w.y_width; i++)
        assert_true(ops_rounded_bf16(w.op.y[i], y[i], 0));
    close_world(&w);
}

// 256K tokens of context: the softmax stays right and page numbers stay in range. Values are 1 in
// every key's last dimension, so y there is the gate alone whatever the weights are; the first
// dimension is checked against a plain sum.
static void the_longest_context_works(void **state)
{
    (void)state;
    enum { LONG_PAGES = 4096, LAST = LONG_PAGES * 64 - 1, DIM = 16 };
    static const struct shape shape = {1, 1, DIM, 8, 1, 0};
    struct world w;
    struct steps steps;
    struct slot_sampling sampling = steps_endless();
    open_world(&w, &shape, 50);
    size_t values = (size_t)LONG_PAGES * 64 * DIM;
    bf16 *k = ops_bf16(&w.ops, values, 2), *v = ops_bf16(&w.ops, values, 2);
    for (size_t i = DIM - 1; i < values; i += DIM)
        v[i] = bf16_from_float(1);
    steps_open(&steps, &w.ops, 1, LONG_PAGES, 8);
    steps_open_slot(&steps, 0, LAST, &sampling);
    steps_clear(&steps);
    steps_add_prefill(&steps, 0, NULL, 1, -1);
    steps_begin(&steps);
    memcpy(w.projected, w.raw, (size_t)w.stride * sizeof(bf16));
    w.projected[4 * DIM - 1] = bf16_from_float(1); // the token's own v
    w.op.k_pages = k;
    w.op.v_pages = v;
    w.op.tables = steps.tables;
    w.op.slots = steps.slots;
    attention(w.ops.streams[0], &w.op);
    ops_wait(&w.ops);
    double q[256], largest = -INFINITY, sum = 0, first = 0;
    double *scores = ops_alloc(&w.ops, (LAST + 1) * sizeof *scores);
    plain_query(q, w.raw, &w, LAST);
    for (int key = 0; key <= LAST; key++) {
        size_t at = (size_t)steps.slots.block_table[key / 64] * 64 * DIM + (size_t)(key % 64) * DIM;
        scores[key] = 0;
        for (int i = 0; i < DIM; i++)
            scores[key] += q[i] * bf(k, (int)at + i) / sqrt(DIM);
        largest = fmax(largest, scores[key]);
    }
    for (int key = 0; key <= LAST; key++) {
        size_t at = (size_t)steps.slots.block_table[key / 64] * 64 * DIM + (size_t)(key % 64) * DIM;
        sum += exp(scores[key] - largest);
        first += exp(scores[key] - largest) * bf(v, (int)at);
    }
    double gate_first = 1 / (1 + exp(-bf(w.raw, DIM))),
           gate_last = 1 / (1 + exp(-bf(w.raw, 2 * DIM - 1)));
    assert_true(ops_rounded_bf16(w.op.y[0], first / sum * gate_first, 1e-11));
    assert_true(ops_rounded_bf16(w.op.y[DIM - 1], gate_last, 1e-11));
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_flat_form),
        cmocka_unit_test(prefill_cut_anywhere_is_whole),
        cmocka_unit_test(any_mix_of_rows_is_whole),
        cmocka_unit_test(inert_rows_append_nothing),
        cmocka_unit_test(append_appends_as_attention_does),
        cmocka_unit_test(twin_is_y_before_rounding),
        cmocka_unit_test(the_longest_context_works),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
