// SPDX-License-Identifier: Apache-2.0
// attention_check.cu -- paged attention: decode rows at page borders, with every count of tokens
// and group of heads; prefill rows whole, in chunks, beside decode rows; what does not run.
#include <cmath>
#include <vector>

#include "tests/gpu/check.cuh"

extern "C" {
#include "kernels/attention.h"
#include "kernels/twins/twins.h"
}

CPU_FUNCTION(attention_twin);

enum { DIM = 256, ROTARY = 64, PAGE = ATTENTION_PAGE_TOKENS };

struct heads {
    int query, kv;
};

// A row whose sequence holds `first` tokens; `active` of its `count` tokens run.
struct row_case {
    enum row_kind kind;
    int first, count, active;
};

// The op on the host, and the pages it has to leave.
struct world {
    struct attention op;
    std::vector<row_case> rows;
    size_t kv_values;
    int pages;
};

template <typename T> static T *array(enum array_kind kind, size_t count)
{
    return static_cast<T *>(check_array(kind, count * sizeof(T)));
}

static void fill_tables(struct world *w, int tokens)
{
    struct step_tables *t = &w->op.tables;
    size_t rows = w->rows.size(), count = static_cast<size_t>(tokens);
    struct step_row *list = array<struct step_row>(ARRAY_INPUT, rows);
    t->rows = list;
    t->active_count = array<int32_t>(ARRAY_INPUT, rows);
    t->token_positions = array<int32_t>(ARRAY_INPUT, count);
    t->token_rows = array<int32_t>(ARRAY_INPUT, count);
    t->rows_count = static_cast<int>(rows);
    t->tokens_count = tokens;
    int token = 0;
    for (size_t i = 0; i < rows; i++) {
        const row_case &row = w->rows[i];
        list[i].slot = static_cast<int32_t>(rows - 1 - i);
        list[i].kind = row.kind;
        list[i].token_first = token;
        list[i].token_count = row.count;
        t->active_count[i] = row.active;
        if (row.kind == ROW_DECODE) {
            t->decode_rows++;
            t->verify = row.count > t->verify ? row.count : t->verify;
        }
        for (int k = 0; k < row.count; k++, token++) {
            t->token_positions[token] = k < row.active ? row.first + k : -1;
            t->token_rows[token] = static_cast<int32_t>(i);
        }
    }
    for (; token < tokens; token++) // of no row
        t->token_positions[token] = t->token_rows[token] = -1;
}

// Shuffled pages, NaN where no key lies.
static void fill_pages(struct world *w)
{
    struct attention *op = &w->op;
    int rows = op->tables.rows_count, per = 1;
    for (const row_case &row : w->rows)
        per = per > (row.first + row.count + PAGE - 1) / PAGE
                  ? per
                  : (row.first + row.count + PAGE - 1) / PAGE;
    w->pages = rows * per + 3;
    w->kv_values = static_cast<size_t>(w->pages) * op->kv_heads * PAGE * DIM;
    op->slots.slots_count = rows;
    op->slots.pages_per_sequence = per;
    op->slots.block_table = array<int32_t>(ARRAY_INPUT, static_cast<size_t>(rows) * per);
    op->k_pages = array<bf16>(ARRAY_STATE, w->kv_values);
    op->v_pages = array<bf16>(ARRAY_STATE, w->kv_values);
    memset(op->k_pages, 0xff, w->kv_values * sizeof(bf16));
    memset(op->v_pages, 0xff, w->kv_values * sizeof(bf16));
    std::vector<int32_t> ids(static_cast<size_t>(w->pages));
    for (int i = 0; i < w->pages; i++) {
        int other = static_cast<int>(check_random() % static_cast<uint64_t>(i + 1));
        ids[static_cast<size_t>(i)] = ids[static_cast<size_t>(other)];
        ids[static_cast<size_t>(other)] = i;
    }
    for (int i = 0; i < rows * per; i++)
        op->slots.block_table[i] = ids[static_cast<size_t>(i)];
    for (int i = 0; i < rows; i++) {
        const int32_t *table = op->slots.block_table + op->tables.rows[i].slot * per;
        for (int position = 0; position < w->rows[static_cast<size_t>(i)].first; position++) {
            for (int head = 0; head < op->kv_heads; head++) {
                size_t at =
                    ((static_cast<size_t>(table[position / PAGE]) * op->kv_heads + head) * PAGE +
                     position % PAGE) *
                    DIM;
                check_fill(op->k_pages + at, DIM, 1);
                check_fill(op->v_pages + at, DIM, 1);
            }
        }
    }
}

static void make_world(struct world *w, struct heads heads, int position_first, int idle)
{
    struct attention *op = &w->op;
    int tokens = idle;
    for (const row_case &row : w->rows)
        tokens += row.count;
    op->heads = heads.query;
    op->kv_heads = heads.kv;
    op->head_dim = DIM;
    op->rotary_dim = ROTARY;
    op->rotary_scale = 1.25f;
    op->eps = 1e-6f;
    op->position_first = position_first;
    fill_tables(w, tokens);
    fill_pages(w);
    op->projected_stride = 2 * (heads.query + heads.kv) * DIM + 8;
    size_t values = static_cast<size_t>(tokens) * static_cast<size_t>(op->projected_stride);
    size_t parts = 2 * static_cast<size_t>(ATTENTION_PARTS_MAX) * ATTENTION_PART_ROWS;
    bf16 *projected = array<bf16>(ARRAY_INPUT, values);
    float *norms = array<float>(ARRAY_INPUT, 2 * DIM), *rotary = array<float>(ARRAY_INPUT, 32);
    check_fill(projected, values, 1);
    check_fill(norms, 2 * DIM, 0.25);
    for (int i = 0; i < ROTARY / 2; i++)
        rotary[i] = static_cast<float>(pow(1e7, -2.0 * i / ROTARY));
    op->projected = projected;
    op->q_norm = norms;
    op->k_norm = norms + DIM;
    op->inverse_frequencies = rotary;
    op->y = array<bf16>(ARRAY_OUTPUT, static_cast<size_t>(tokens) * heads.query * DIM);
    op->workspace.sums = array<float>(ARRAY_SCRATCH, parts * DIM);
    op->workspace.scales = array<float>(ARRAY_SCRATCH, parts * 2);
    op->workspace.borders = check_array(ARRAY_SCRATCH, static_cast<size_t>(ATTENTION_PARTS_MAX) *
                                                           ATTENTION_BORDER_BYTES);
}

static struct attention on_device(const struct attention &op)
{
    struct attention dev = op;
    check_to_dev(dev.tables.rows, dev.tables.active_count, dev.tables.token_positions,
                 dev.tables.token_rows, dev.slots.block_table, dev.k_pages, dev.v_pages,
                 dev.projected, dev.q_norm, dev.k_norm, dev.inverse_frequencies, dev.y,
                 dev.workspace.sums, dev.workspace.scales, dev.workspace.borders);
    return dev;
}

static void launch(struct stream *stream, const void *op)
{
    attention(stream, static_cast<const struct attention *>(op));
}

// What the op would give if every value were its magnitude: the sum of weight x |value|, gated.
static std::vector<double> magnitudes(const struct world &w, size_t count)
{
    struct attention op = w.op;
    std::vector<double> y(count);
    std::vector<bf16> k(op.k_pages, op.k_pages + w.kv_values);
    std::vector<bf16> v(op.v_pages, op.v_pages + w.kv_values);
    size_t values =
        static_cast<size_t>(op.tables.tokens_count) * static_cast<size_t>(op.projected_stride);
    std::vector<bf16> projected(op.projected, op.projected + values);
    for (bf16 &value : v)
        value.bits &= 0x7fff;
    for (int token = 0; token < op.tables.tokens_count; token++) {
        bf16 *own = projected.data() +
                    static_cast<size_t>(token) * static_cast<size_t>(op.projected_stride) +
                    (2 * op.heads + op.kv_heads) * DIM;
        for (int i = 0; i < op.kv_heads * DIM; i++)
            own[i].bits &= 0x7fff;
    }
    op.k_pages = k.data();
    op.v_pages = v.data();
    op.projected = projected.data();
    cpu_attention_twin(y.data(), &op);
    return y;
}

// y is rounded once: 2^-8 of itself, twice what rounding needs. Weights are rounded to 2^-9 of
// themselves; a few q and k round the other way in f32 than in double, each 2^-8 of one product of
// 256 in a score, in all less than 2^-8 of a weight: together below 2^-7 of the sum of weight x
// |value|, element by element.
static void judge(const struct world &w)
{
    size_t count = static_cast<size_t>(w.op.tables.tokens_count) * w.op.heads * DIM;
    std::vector<double> sums = magnitudes(w, count), want(count);
    double largest = 0;
    cpu_attention_twin(want.data(), &w.op); // and appends to the host's pages
    for (double sum : sums)
        largest = sum > largest ? sum : largest;
    check_bf16("y", w.op.y, want.data(), count, static_cast<size_t>(w.op.heads) * DIM,
               {1.0 / 256, largest / 128});
    const bf16 *got = check_result(w.op.y);
    for (size_t i = 0; i < count; i++) {
        double off = fabs(static_cast<double>(bf16_to_float(got[i])) - want[i]);
        if (!(off <= fabs(want[i]) / 256 + sums[i] / 128)) {
            check_fail("y token %zu head %zu dim %zu: off by %g, weight x |value| is %g",
                       i / (static_cast<size_t>(w.op.heads) * DIM), i / DIM % w.op.heads, i % DIM,
                       off, sums[i]);
            break;
        }
    }
    // Poison stays poison, bit for bit: compared as bytes. A new key may round the other way; and a
    // rotation takes the difference of two products of up to 8, each good to 2^-22 in f32.
    check_equal("v", w.op.v_pages, w.op.v_pages, w.kv_values, sizeof(bf16));
    const bf16 *keys = check_result(w.op.k_pages);
    for (size_t i = 0; i < w.kv_values; i++) {
        double want_key = static_cast<double>(bf16_to_float(w.op.k_pages[i]));
        double off = fabs(static_cast<double>(bf16_to_float(keys[i])) - want_key);
        if (keys[i].bits != w.op.k_pages[i].bits && !(off <= fabs(want_key) / 128 + 0x1p-18)) {
            check_fail("k value %zu: got %g, want %g", i,
                       static_cast<double>(bf16_to_float(keys[i])), want_key);
            break;
        }
    }
}

static void check_rows(const char *name, struct heads heads, const std::vector<row_case> &rows,
                       int position_first, int idle)
{
    check_begin("attention %s, heads %d/%d", name, heads.query, heads.kv);
    struct world w = {};
    w.rows = rows;
    make_world(&w, heads, position_first, idle);
    struct attention dev = on_device(w.op);
    check_run(launch, &dev);
    judge(w);
    check_end();
}

static void check_decode()
{
    char name[64];
    for (int first : {0, 1, 2, 7, 8, 9, 62, 63, 64, 65, 127, 128, 129, 1000, 4095, 4096}) {
        snprintf(name, sizeof name, "decode after %d", first);
        check_rows(name, {16, 2}, {{ROW_DECODE, first, 1, 1}}, 0, 0);
    }
    for (int tokens = 1; tokens <= ROW_VERIFY_MAX; tokens++) {
        for (int first : {0, 60, 63, 1022}) {
            snprintf(name, sizeof name, "decode %d after %d", tokens, first);
            check_rows(name, {16, 2}, {{ROW_DECODE, first, tokens, tokens}}, 0, 0);
        }
    }
    std::vector<row_case> mixed, many, inert;
    for (int i = 0; i < 64; i++)
        mixed.push_back({ROW_DECODE, static_cast<int>(check_random() % 700), 4, i % 5});
    for (int i = 0; i < 300; i++)
        many.push_back({ROW_DECODE, static_cast<int>(check_random() % 100), 1, i % 7 != 3});
    for (int i = 0; i < 5; i++)
        inert.push_back({ROW_DECODE, 10, 2, 0});
    check_rows("decode 64 rows", {16, 2}, mixed, 0, 3);
    check_rows("decode 300 short rows", {16, 2}, many, 0, 0);
    check_rows("decode inert rows", {16, 2}, inert, 0, 2);
}

static void check_prefill()
{
    char name[64];
    for (int i = 0; i < CHECK_TOKENS_COUNT; i++) {
        int tokens = CHECK_TOKENS[i];
        struct heads heads = {tokens > 500 ? 8 : 16, 2};
        snprintf(name, sizeof name, "prefill %d", tokens);
        check_rows(name, heads, {{ROW_PREFILL, 0, tokens, tokens}}, 0, 0);
    }
    check_rows("prefill 100 after 1000", {16, 2}, {{ROW_PREFILL, 1000, 100, 100}}, 0, 1);
    check_rows("prefill 64 after 4032", {8, 2}, {{ROW_PREFILL, 4032, 64, 64}}, 0, 0);
    // More tiles than multiprocessors, of many lengths; and more rows than a block remembers.
    std::vector<row_case> mixed, many;
    for (int i = 0; i < 40; i++) {
        int tokens = 1 + static_cast<int>(check_random() % 120);
        mixed.push_back(
            {ROW_PREFILL, static_cast<int>(check_random() % 300), tokens, i % 9 == 4 ? 0 : tokens});
    }
    for (int i = 0; i < 420; i++) {
        int tokens = 1 + static_cast<int>(check_random() % 3);
        many.push_back({ROW_PREFILL, static_cast<int>(check_random() % 60), tokens, tokens});
    }
    check_rows("prefill 40 rows", {16, 2}, mixed, 0, 3);
    check_rows("prefill 420 short rows", {16, 2}, many, 0, 0);
    check_rows("prefill 700 of many heads", {32, 2}, {{ROW_PREFILL, 30, 700, 700}}, 0, 0);
}

CHECK(attention)
{
    check_decode();
    check_prefill();
    static const struct heads groups[] = {{8, 2},  {4, 2},  {24, 4}, {32, 2}, {8, 1},
                                          {16, 1}, {12, 2}, {6, 1},  {4, 1},  {3, 3}};
    for (struct heads heads : groups) {
        for (int tokens : {1, 2, 4, 6}) {
            char name[64];
            snprintf(name, sizeof name, "decode %d", tokens);
            check_rows(name, heads,
                       {{ROW_DECODE, 300, tokens, tokens},
                        {ROW_DECODE, 0, tokens, tokens},
                        {ROW_DECODE, 61, tokens, tokens},
                        {ROW_DECODE, 129, tokens, tokens}},
                       0, 0);
        }
        check_rows("mixed", heads,
                   {{ROW_DECODE, 100, 2, 2},
                    {ROW_DECODE, 5, 2, 1},
                    {ROW_PREFILL, 0, 70, 70},
                    {ROW_PREFILL, 64, 33, 0},
                    {ROW_PREFILL, 63, 130, 130},
                    {ROW_PREFILL, 128, 1, 1}},
                   0, 2);
    }
    check_rows("MTP decode", {16, 2},
               {{ROW_DECODE, 0, 2, 1},
                {ROW_DECODE, 1, 2, 1},
                {ROW_DECODE, 2, 2, 1},
                {ROW_DECODE, 63, 2, 2},
                {ROW_DECODE, 300, 2, 1}},
               1, 0);
    check_rows("MTP prefill", {16, 2},
               {{ROW_PREFILL, 0, 70, 70}, {ROW_PREFILL, 1, 5, 5}, {ROW_PREFILL, 64, 33, 33}}, 1, 0);
}

// ---- for sanitizers ----

// Up to 16, 32 and 48 queries of a key head at a time.
SMALL(attention_decode)
{
    for (int tokens : {1, 4, 6})
        check_rows("decode", {8, 1},
                   {{ROW_DECODE, 130, tokens, tokens}, {ROW_DECODE, 63, tokens, 1}}, 0, 1);
}

// Borders of more parts than are merged in one way.
SMALL(attention_merge)
{
    check_rows("decode", {2, 1}, std::vector<row_case>(10, {ROW_DECODE, 65, 1, 1}), 0, 0);
}

// Seven pages of a row pass the stages; a second row, and one that does not run.
SMALL(attention_prefill)
{
    check_rows("prefill", {4, 1},
               {{ROW_PREFILL, 390, 40, 40}, {ROW_PREFILL, 0, 70, 70}, {ROW_PREFILL, 3, 9, 0}}, 0,
               1);
}

SMALL(attention_mtp)
{
    check_rows("MTP", {4, 1}, {{ROW_DECODE, 63, 2, 1}, {ROW_PREFILL, 1, 5, 5}}, 1, 0);
}
