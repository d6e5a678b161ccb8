// SPDX-License-Identifier: Apache-2.0
// attention_bench.cu -- decode rows by context, batch and tokens; prefill by length and by what
// lies before. Turns read pages of their own, so that L2 is cold.
#include <cmath>
#include <vector>

#include "tests/gpu/check.cuh"

extern "C" {
#include "kernels/attention.h"
}

enum { DIM = 256, ROTARY = 64, PAGE = ATTENTION_PAGE_TOKENS, TURNS_MAX = 32 };

struct shape {
    int heads, kv_heads, rows, context, tokens;
    enum row_kind kind;
};

struct bench {
    struct attention op;
    int64_t table_entries; // of one turn
};

template <typename T> static T *upload(const std::vector<T> &from)
{
    void *to = bench_memory(from.size() * sizeof(T), 0);
    CUDA_CHECK(cudaMemcpy(to, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
    return static_cast<T *>(to);
}

static void launch(struct stream *stream, const void *argument, int turn)
{
    const struct bench *bench = static_cast<const struct bench *>(argument);
    struct attention op = bench->op;
    op.slots.block_table += turn * bench->table_entries;
    attention(stream, &op);
}

static void fill_tables(struct step_tables *tables, const struct shape &shape)
{
    std::vector<struct step_row> rows;
    std::vector<int32_t> active, positions, token_rows;
    for (int row = 0; row < shape.rows; row++) {
        struct step_row own = {};
        own.slot = row;
        own.kind = shape.kind;
        own.token_first = row * shape.tokens;
        own.token_count = shape.tokens;
        rows.push_back(own);
        active.push_back(shape.tokens);
        for (int token = 0; token < shape.tokens; token++) {
            positions.push_back(shape.context + token);
            token_rows.push_back(row);
        }
    }
    tables->rows = upload(rows);
    tables->active_count = upload(active);
    tables->token_positions = upload(positions);
    tables->token_rows = upload(token_rows);
    tables->rows_count = shape.rows;
    tables->tokens_count = shape.rows * shape.tokens;
    tables->decode_rows = shape.kind == ROW_DECODE ? shape.rows : 0;
    tables->verify = shape.kind == ROW_DECODE ? shape.tokens : 0;
}

static void fill_op(struct bench *bench, const struct shape &shape, int turns)
{
    struct attention *op = &bench->op;
    int per = (shape.context + shape.tokens + PAGE - 1) / PAGE, pages = shape.rows * per * turns;
    size_t kv_bytes = static_cast<size_t>(pages) * shape.kv_heads * PAGE * DIM * sizeof(bf16);
    size_t tokens = static_cast<size_t>(shape.rows) * shape.tokens;
    size_t parts = 2 * static_cast<size_t>(ATTENTION_PARTS_MAX) * ATTENTION_PART_ROWS;
    std::vector<int32_t> table(static_cast<size_t>(pages));
    std::vector<float> frequencies, norm(DIM, 0.1f);
    for (int i = 0; i < pages; i++) // neighbours in a row are not neighbours in memory
        table[static_cast<size_t>(static_cast<int64_t>(i) * 7919 % pages)] = i;
    if (pages % 7919 == 0)
        for (int i = 0; i < pages; i++)
            table[static_cast<size_t>(i)] = i;
    for (int i = 0; i < ROTARY / 2; i++)
        frequencies.push_back(static_cast<float>(pow(1e7, -2.0 * i / ROTARY)));
    bench->table_entries = shape.rows * per;
    op->slots.block_table = upload(table);
    op->slots.slots_count = shape.rows;
    op->slots.pages_per_sequence = per;
    op->k_pages = static_cast<bf16 *>(bench_memory(kv_bytes, 1));
    op->v_pages = static_cast<bf16 *>(bench_memory(kv_bytes, 1));
    op->projected_stride = 2 * (shape.heads + shape.kv_heads) * DIM;
    op->projected = static_cast<bf16 *>(
        bench_memory(tokens * static_cast<size_t>(op->projected_stride) * sizeof(bf16), 1));
    op->q_norm = op->k_norm = upload(norm);
    op->eps = 1e-6f;
    op->inverse_frequencies = upload(frequencies);
    op->rotary_scale = 1;
    op->heads = shape.heads;
    op->kv_heads = shape.kv_heads;
    op->head_dim = DIM;
    op->rotary_dim = ROTARY;
    op->y = static_cast<bf16 *>(
        bench_memory(tokens * static_cast<size_t>(shape.heads) * DIM * sizeof(bf16), 0));
    op->workspace.sums = static_cast<float *>(bench_memory(parts * DIM * sizeof(float), 0));
    op->workspace.scales = static_cast<float *>(bench_memory(parts * 2 * sizeof(float), 0));
    op->workspace.borders =
        bench_memory(static_cast<size_t>(ATTENTION_PARTS_MAX) * ATTENTION_BORDER_BYTES, 0);
}

static void run(const struct shape &shape)
{
    bool decode = shape.kind == ROW_DECODE;
    double keys = static_cast<double>(shape.context) + shape.tokens;
    double seen =
        shape.tokens * (shape.context + (shape.tokens + 1) / 2.0); // by all tokens of a row
    double bytes = shape.rows * keys * shape.kv_heads * DIM * 2 * sizeof(bf16);
    double flops = 4.0 * shape.rows * seen * shape.heads * DIM;
    int turns = decode ? bench_turns(static_cast<size_t>(bytes)) : 2;
    char name[96];
    struct bench bench = {};
    turns = turns > TURNS_MAX ? static_cast<int>(TURNS_MAX) : turns;
    if (bytes > 5e8)
        turns = 2;
    snprintf(name, sizeof name, "%s rows=%d context=%d tokens=%d heads=%d/%d",
             decode ? "decode" : "prefill", shape.rows, shape.context, shape.tokens, shape.heads,
             shape.kv_heads);
    fill_tables(&bench.op.tables, shape);
    fill_op(&bench, shape, turns);
    struct bench_case what = {"attention", name, decode ? bytes : 0, decode ? 0 : flops};
    bench_run(&what, launch, &bench, turns);
    bench_clear();
}

BENCH(attention)
{
    static const struct shape shapes[] = {
        {16, 2, 1, 128, 1, ROW_DECODE},        {16, 2, 1, 1023, 1, ROW_DECODE},
        {16, 2, 1, 4095, 1, ROW_DECODE},       {16, 2, 1, 32767, 1, ROW_DECODE},
        {16, 2, 1, 131071, 1, ROW_DECODE},     {16, 2, 8, 1023, 1, ROW_DECODE},
        {16, 2, 64, 1023, 1, ROW_DECODE},      {16, 2, 64, 4095, 1, ROW_DECODE},
        {16, 2, 256, 1023, 1, ROW_DECODE},     {16, 2, 1, 1020, 4, ROW_DECODE},
        {16, 2, 64, 1020, 4, ROW_DECODE},      {16, 2, 64, 4092, 4, ROW_DECODE},
        {16, 2, 1, 131068, 4, ROW_DECODE},     {8, 1, 64, 4095, 1, ROW_DECODE},
        {32, 2, 64, 1020, 4, ROW_DECODE},      {16, 2, 1, 0, 128, ROW_PREFILL},
        {16, 2, 1, 0, 1024, ROW_PREFILL},      {16, 2, 1, 0, 8192, ROW_PREFILL},
        {16, 2, 8, 0, 1024, ROW_PREFILL},      {16, 2, 1, 30720, 2048, ROW_PREFILL},
        {16, 2, 1, 129024, 2048, ROW_PREFILL},
    };
    for (const struct shape &shape : shapes)
        run(shape);
}
