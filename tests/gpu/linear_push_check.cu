// SPDX-License-Identifier: Apache-2.0
// linear_push_check.cu -- the product alone, and with GDN's gated norm in front.
#include <stdlib.h>

#include "tests/gpu/check_products.cuh"

extern "C" {
#include "kernels/linear_push.h"
}

CPU_FUNCTION(linear_push);

enum { DIM = 128 };

static void launch(struct stream *stream, const void *argument)
{
    linear_push(stream, static_cast<const struct linear_push *>(argument));
}

static void check_case(int tokens, int columns, int rows, bool gated)
{
    struct linear_push op = {};
    struct check_exchange exchange;
    size_t count = static_cast<size_t>(tokens), outputs = count * static_cast<size_t>(rows);
    check_begin("linear_push T=%d %dx%d%s", tokens, rows, columns, gated ? " gated" : "");
    check_exchange_open(&exchange, ARRAY_OUTPUT, outputs * sizeof(bf16));
    op.push = &exchange.host;
    op.x_stride = columns + 64;
    size_t x_count = count * static_cast<size_t>(op.x_stride);
    bf16 *x = static_cast<bf16 *>(check_array(ARRAY_INPUT, x_count * sizeof(bf16)));
    check_fill(x, x_count, 1);
    op.x = x;
    op.weight = check_weight(rows, columns);
    op.tokens = tokens;
    op.partial = static_cast<bf16 *>(check_array(ARRAY_SCRATCH, outputs * sizeof(bf16)));
    if (gated) {
        // Even is all that the projection promises; where it is a multiple of 8, vectors are read.
        op.gate_stride = columns + (rows % 8 == 0 ? 8 : 6);
        size_t gate_count = count * static_cast<size_t>(op.gate_stride);
        bf16 *gate = static_cast<bf16 *>(check_array(ARRAY_INPUT, gate_count * sizeof(bf16)));
        float *norm = static_cast<float *>(check_array(ARRAY_INPUT, DIM * sizeof(float)));
        check_fill(gate, gate_count, 2);
        check_fill(norm, DIM, 1);
        op.gate = gate;
        op.norm = norm;
        op.eps = 1e-6f;
        op.heads = columns / DIM;
        op.dim = DIM;
        op.gated = static_cast<bf16 *>(
            check_array(ARRAY_SCRATCH, count * static_cast<size_t>(columns) * sizeof(bf16)));
    }
    struct linear_push dev = op;
    dev.push = &exchange.dev;
    check_to_dev(dev.x, dev.weight, dev.partial, dev.gate, dev.norm, dev.gated);
    check_run(launch, &dev);
    cpu_linear_push(check_cpu_stream(), &op);
    check_cpu_wait();
    // The twin rounds, too; with a gate a few of its rounded inputs may be one step away: 8 of
    // them, 2^-7 of a value of at most 8 times a weight of at most 5 deviations.
    double absolute = check_sum_bound(columns, gated ? 1.5 : 1, 1 / sqrt(columns));
    absolute += gated ? 8 * (8.0 / 128) * 5 / sqrt(columns) : 0;
    check_bf16("pushed", exchange.lane, op.partial, outputs, static_cast<size_t>(rows),
               {1.0 / 128, absolute});
    check_end();
}

CHECK(linear_push)
{
    for (int i = 0; i < CHECK_TOKENS_COUNT; i++) {
        int tokens = CHECK_TOKENS[i];
        check_case(tokens, 512, 250, true);
        check_case(tokens, 64, 100, false);
        check_case(tokens, tokens > 100 ? 1024 : 4096, 40, i % 2 == 0);
    }
    check_case(1, 4096, 2048, true); // 35B-A3B
    check_case(2, 17408, 24, false);
    check_case(9, 17408, 24, false);
    check_case(5, 40, 24, false); // no multiple of a chunk
}

// The gate folded in, and by two kernels; one tile of tokens and two; rows of x that leave room for
// few stages; beyond those kernels' tokens; no multiple of a chunk.
SMALL(linear_few)
{
    check_case(1, 256, 40, true);
    check_case(2, 128, 24, true);
    check_case(2, 128, 26, true);
    check_case(9, 64, 24, false);
    check_case(3, 17408, 16, false);
}
SMALL(linear_some)
{
    check_case(17, 64, 40, false);
    check_case(9, 17408, 32, false);
}
SMALL(linear_library)
{
    check_case(40, 64, 40, false);
    check_case(5, 40, 24, false);
}

struct push_bench {
    struct linear_push op;
    const bf16 *weights;
};

static void launch_bench(struct stream *stream, const void *argument, int turn)
{
    const struct push_bench *bench = static_cast<const struct push_bench *>(argument);
    struct linear_push op = bench->op;
    op.weight.data =
        bench->weights + static_cast<int64_t>(turn) * op.weight.rows * op.weight.columns;
    linear_push(stream, &op);
}

static void bench_case_of(int tokens, int columns, int rows, bool gated)
{
    size_t row_bytes = static_cast<size_t>(tokens) * static_cast<size_t>(columns) * sizeof(bf16);
    size_t y_bytes = static_cast<size_t>(tokens) * static_cast<size_t>(rows) * sizeof(bf16);
    size_t weight_bytes = static_cast<size_t>(rows) * static_cast<size_t>(columns) * sizeof(bf16);
    int turns = bench_turns(weight_bytes);
    struct exchange exchange = {};
    struct push_bench bench = {};
    char shape[64];
    snprintf(shape, sizeof shape, "T=%d %dx%d%s", tokens, rows, columns, gated ? " gated" : "");
    exchange.ranks = 1;
    exchange.lane_bytes = y_bytes;
    exchange.inboxes[0] = static_cast<uint8_t *>(bench_memory(y_bytes, 0));
    bench.op.push = &exchange;
    bench.op.x = static_cast<bf16 *>(bench_memory(row_bytes, 1));
    bench.op.x_stride = columns;
    bench.op.weight.format = WEIGHT_BF16;
    bench.op.weight.rows = rows;
    bench.op.weight.columns = columns;
    bench.op.tokens = tokens;
    bench.op.gated = static_cast<bf16 *>(bench_memory(row_bytes, 0));
    if (gated) {
        bench.op.gate = static_cast<bf16 *>(bench_memory(row_bytes, 1));
        bench.op.gate_stride = columns;
        bench.op.norm = static_cast<float *>(bench_memory(DIM * sizeof(float), 0));
        bench.op.eps = 1e-6f;
        bench.op.heads = columns / DIM;
        bench.op.dim = DIM;
    }
    bench.weights = static_cast<bf16 *>(
        bench_memory(static_cast<size_t>(turns) * weight_bytes, 1 / sqrt(columns)));
    struct bench_case what = {"linear_push", shape,
                              static_cast<double>(weight_bytes + y_bytes) +
                                  (gated ? 2 : 1) * static_cast<double>(row_bytes),
                              2.0 * tokens * rows * columns};
    bench_run(&what, launch_bench, &bench, turns);
    bench_clear();
}

BENCH(linear_push)
{
    for (int tokens : {1, 2, 4, 8, 16, 64, 256, 512, 2048, 8192})
        bench_case_of(tokens, 4096, 2048, true);
    bench_case_of(1, 4096, 2048, false);
    bench_case_of(1, 17408, 5120, false);
    bench_case_of(8192, 17408, 5120, false);
}
