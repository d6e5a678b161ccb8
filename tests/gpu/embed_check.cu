// SPDX-License-Identifier: Apache-2.0
// embed_check.cu -- the embedding's rows, and zeros for tokens that do not run.
#include <string.h>

#include "tests/gpu/check.cuh"

extern "C" {
#include "kernels/embed.h"
}

CPU_FUNCTION(embed);

struct embed_op {
    bf16 *y;
    int32_t *ids;
    struct weight table;
    int tokens;
};

static void launch(struct stream *stream, const void *argument)
{
    const struct embed_op *op = static_cast<const struct embed_op *>(argument);
    embed(stream, op->y, op->ids, &op->table, op->tokens);
}

static void check_tokens(int tokens, int hidden)
{
    enum { VOCAB = 300 };
    check_begin("embed T=%d hidden=%d", tokens, hidden);
    struct embed_op op = {};
    size_t count = static_cast<size_t>(tokens) * static_cast<size_t>(hidden);
    op.y = static_cast<bf16 *>(check_array(ARRAY_OUTPUT, count * sizeof(bf16)));
    op.ids = static_cast<int32_t *>(
        check_array(ARRAY_INPUT, static_cast<size_t>(tokens) * sizeof(int32_t)));
    op.table = check_weight(VOCAB, hidden);
    op.tokens = tokens;
    for (int i = 0; i < tokens; i++)
        op.ids[i] = i % 5 == 3 ? -1 : static_cast<int32_t>(check_random() % VOCAB);
    struct embed_op dev = {check_dev(op.y), check_dev(op.ids), check_dev(op.table), tokens};
    check_run(launch, &dev);
    cpu_embed(check_cpu_stream(), op.y, op.ids, &op.table, tokens);
    check_cpu_wait();
    check_equal("y", op.y, op.y, count, sizeof(bf16));
    check_end();
}

CHECK(embed)
{
    for (int i = 0; i < CHECK_TOKENS_COUNT; i++)
        check_tokens(CHECK_TOKENS[i], i % 2 == 0 ? 1024 : 2048);
}

SMALL(embed)
{
    check_tokens(3, 64);
}

// Rows are read at random: turns use tables of their own.
struct embed_bench {
    bf16 *y, *tables;
    int32_t *ids;
    int tokens, hidden;
};

static void launch_bench(struct stream *stream, const void *argument, int turn)
{
    const struct embed_bench *op = static_cast<const struct embed_bench *>(argument);
    struct weight table = {};
    table.format = WEIGHT_BF16;
    table.rows = 1024;
    table.columns = op->hidden;
    table.data = op->tables + static_cast<int64_t>(turn) * 1024 * op->hidden;
    embed(stream, op->y, op->ids, &table, op->tokens);
}

BENCH(embed)
{
    for (int tokens : {1, 8, 256}) {
        struct embed_bench op = {NULL, NULL, NULL, tokens, 2048};
        size_t row_bytes = static_cast<size_t>(op.hidden) * sizeof(bf16);
        int turns = bench_turns(1024 * row_bytes);
        size_t y_bytes = static_cast<size_t>(tokens) * row_bytes;
        char shape[64];
        snprintf(shape, sizeof shape, "T=%d hidden=%d", tokens, op.hidden);
        op.y = static_cast<bf16 *>(bench_memory(y_bytes, 1));
        op.tables =
            static_cast<bf16 *>(bench_memory(static_cast<size_t>(turns) * 1024 * row_bytes, 1));
        op.ids = static_cast<int32_t *>(bench_memory(4 * static_cast<size_t>(tokens), 0));
        CUDA_CHECK(cudaMemset(op.ids, 0, 4 * static_cast<size_t>(tokens)));
        struct bench_case what = {"embed", shape, 2.0 * static_cast<double>(y_bytes), 0};
        bench_run(&what, launch_bench, &op, turns);
        bench_clear();
    }
}
