// SPDX-License-Identifier: Apache-2.0
// norm_linear_pull_check.cu -- residual to the bit, the normalised rows against the twin, the
// product against one of the normalised rows that the kernel left.
#include <stdlib.h>

#include "tests/gpu/check_products.cuh"

extern "C" {
#include "kernels/norm_linear_pull.h"
}

CPU_FUNCTION(norm_linear_pull);

static void launch(struct stream *stream, const void *argument)
{
    norm_linear_pull(stream, static_cast<const struct norm_linear_pull *>(argument));
}

struct norm_case {
    int tokens, hidden, rows; // rows 0: no product
    bool pull, as_float;
    int picks; // of experts whose products are pulled, 0: the lane is
    bool rounded;
};

// Products and weights of every token, and in `lane` what they add up to: in f32, each product's
// rounding fused into the sum as the compiler does, so that the residual can be held to the bit.
static void fill_parts(struct push_parts *parts, bf16 *lane, const struct norm_case &shape)
{
    size_t tokens = static_cast<size_t>(shape.tokens), hidden = static_cast<size_t>(shape.hidden);
    size_t picks = static_cast<size_t>(shape.picks), count = tokens * (picks + 1) * hidden;
    void *products = check_array(ARRAY_INPUT, count * (shape.rounded ? 2 : 4));
    float *weights = static_cast<float *>(check_array(ARRAY_INPUT, tokens * picks * 4));
    float *shared = static_cast<float *>(check_array(ARRAY_INPUT, tokens * 4));
    if (shape.rounded)
        check_fill(static_cast<bf16 *>(products), count, 1);
    else
        check_fill(static_cast<float *>(products), count, 1);
    check_fill(weights, tokens * picks, 0.2);
    check_fill(shared, tokens, 0.3);
    for (size_t t = 0; t < tokens; t++) {
        for (size_t i = 0; i < hidden; i++) {
            float sum = 0;
            for (size_t pick = 0; pick <= picks; pick++) {
                size_t at = (t * (picks + 1) + pick) * hidden + i;
                float product = shape.rounded ? bf16_to_float(static_cast<bf16 *>(products)[at])
                                              : static_cast<float *>(products)[at];
                sum = fmaf(pick < picks ? weights[t * picks + pick] : shared[t], product, sum);
            }
            lane[t * hidden + i] = bf16_from_float(sum);
        }
    }
    *parts = {products, weights, shared, shape.picks, shape.rounded};
}

static void fill(struct norm_linear_pull *op, struct check_exchange *exchange,
                 struct push_parts *parts, const struct norm_case &shape)
{
    size_t count = static_cast<size_t>(shape.tokens) * static_cast<size_t>(shape.hidden);
    size_t outputs = static_cast<size_t>(shape.tokens) * static_cast<size_t>(shape.rows);
    float *norm = static_cast<float *>(
        check_array(ARRAY_INPUT, static_cast<size_t>(shape.hidden) * sizeof(float)));
    check_fill(norm, static_cast<size_t>(shape.hidden), 0.2);
    op->norm = norm;
    op->eps = 1e-6f;
    op->tokens = shape.tokens;
    op->hidden = shape.hidden;
    op->residual = static_cast<bf16 *>(
        check_array(shape.pull ? ARRAY_STATE : ARRAY_INPUT, count * sizeof(bf16)));
    check_fill(op->residual, count, 1);
    op->normed = static_cast<bf16 *>(check_array(ARRAY_OUTPUT, count * sizeof(bf16)));
    if (shape.pull) {
        check_exchange_open(exchange, ARRAY_INPUT, count * sizeof(bf16));
        if (shape.picks > 0)
            fill_parts(parts, exchange->lane, shape);
        else
            check_fill(exchange->lane, count, 0.5);
        check_exchange_pushed(exchange);
        op->pull = &exchange->host;
    }
    if (shape.rows == 0)
        return;
    op->weight = check_weight(shape.rows, shape.hidden);
    if (shape.as_float)
        op->y_float = static_cast<float *>(check_array(ARRAY_OUTPUT, outputs * sizeof(float)));
    else
        op->y = static_cast<bf16 *>(check_array(ARRAY_OUTPUT, outputs * sizeof(bf16)));
}

static void check_case(const struct norm_case &shape)
{
    struct norm_linear_pull op = {};
    struct check_exchange exchange;
    struct push_parts parts = {};
    char of[32] = "";
    if (shape.picks > 0)
        snprintf(of, sizeof of, " of %d%s", shape.picks, shape.rounded ? " rounded" : "");
    check_begin("norm_linear_pull T=%d hidden=%d rows=%d%s%s%s", shape.tokens, shape.hidden,
                shape.rows, shape.pull ? " pull" : "", of, shape.as_float ? " f32" : "");
    fill(&op, &exchange, &parts, shape);
    struct norm_linear_pull dev = op;
    dev.pull = shape.pull ? &exchange.dev : NULL;
    check_to_dev(parts.products, parts.weights, parts.shared_weights);
    dev.parts = shape.picks > 0 ? &parts : NULL;
    check_to_dev(dev.norm, dev.residual, dev.normed, dev.weight, dev.y, dev.y_float);
    check_run(launch, &dev);
    size_t count = static_cast<size_t>(shape.tokens) * static_cast<size_t>(shape.hidden);
    size_t columns = static_cast<size_t>(shape.hidden);
    // The twin's product is slow and not needed: the kernel's own normalised rows are multiplied.
    struct norm_linear_pull twin = op;
    twin.weight.format = WEIGHT_NONE;
    cpu_norm_linear_pull(check_cpu_stream(), &twin);
    check_cpu_wait();
    if (shape.pull)
        check_equal("residual", op.residual, op.residual, count, sizeof(bf16));
    check_bf16("normed", op.normed, op.normed, count, columns, {1.0 / 128, 0}); // two roundings
    if (shape.rows > 0) {
        double *want = check_product(check_result(op.normed), columns, &op.weight, shape.tokens);
        double absolute = check_sum_bound(shape.hidden, 1.2, 1 / sqrt(shape.hidden));
        size_t rows = static_cast<size_t>(shape.rows);
        size_t outputs = static_cast<size_t>(shape.tokens) * rows;
        if (shape.as_float)
            check_float("y", op.y_float, want, outputs, rows, {0, absolute});
        else
            check_bf16("y", op.y, want, outputs, rows, {1.0 / 256, absolute});
        free(want);
    }
    check_end();
}

CHECK(norm_linear_pull)
{
    for (int i = 0; i < CHECK_TOKENS_COUNT; i++) {
        int tokens = CHECK_TOKENS[i];
        check_case({tokens, 256, 1000, true, false, 0, false});
        check_case({tokens, 2048, tokens > 100 ? 24 : 257, i % 2 == 0, true, 0, false});
        check_case({tokens, 64, 36, false, false, 0, false});
        check_case({tokens, 1024, 0, true, false, 0, false});
    }
    for (int tokens : {1, 5, 16, 132, 133, 257}) {
        check_case({tokens, 2048, 24, true, false, 8, tokens > 100});
        check_case({tokens, 2048, 0, true, false, 10, tokens % 2 == 0});
        check_case({tokens, 320, 0, true, false, 3, tokens % 2 != 0});
    }
    check_case({7, 4096, 40, true, true, 8, false});
    check_case({1, 2048, 12352, true, false, 0, false}); // 35B-A3B
    check_case({3, 5120, 1544, true, false, 0, false});
}

// Folded in; a row in registers, in vectors and value by value.
SMALL(norm_linear_pull)
{
    check_case({1, 64, 40, true, false, 0, false});
    check_case({3, 64, 33, true, true, 0, false});
    check_case({4, 12288, 16, true, false, 0, false}); // leaves room for few stages
    check_case({5, 1024, 0, true, false, 0, false});
    check_case({2, 8192, 0, true, false, 0, false});
    check_case({5, 64, 0, true, false, 0, false});
    check_case({5, 66, 0, true, false, 0, false});
}

// Parts: all on their way at once, and one after another; a block with threads of no vector.
SMALL(norm_parts)
{
    check_case({5, 64, 0, true, false, 8, false});
    check_case({5, 320, 16, true, false, 10, true});
    check_case({5, 320, 0, true, false, 3, false});
}

// Rows that are no multiple of eight, for more tokens than share a stream of W.
SMALL(linear_many)
{
    check_case({1025, 64, 33, false, true, 0, false});
}

struct norm_bench {
    struct norm_linear_pull op;
    const bf16 *weights;
};

static void launch_bench(struct stream *stream, const void *argument, int turn)
{
    const struct norm_bench *bench = static_cast<const struct norm_bench *>(argument);
    struct norm_linear_pull op = bench->op;
    op.weight.data = bench->weights + static_cast<int64_t>(turn) * op.weight.rows * op.hidden;
    norm_linear_pull(stream, &op);
}

static void bench_case_of(int tokens, int hidden, int rows)
{
    size_t weight_bytes = static_cast<size_t>(rows) * static_cast<size_t>(hidden) * sizeof(bf16);
    size_t row_bytes = static_cast<size_t>(tokens) * static_cast<size_t>(hidden) * sizeof(bf16);
    size_t y_bytes = static_cast<size_t>(tokens) * static_cast<size_t>(rows) * sizeof(bf16);
    int turns = bench_turns(weight_bytes);
    struct exchange exchange = {};
    struct norm_bench bench = {};
    char shape[64];
    snprintf(shape, sizeof shape, "T=%d %dx%d", tokens, rows, hidden);
    exchange.ranks = 1;
    exchange.lane_bytes = row_bytes;
    exchange.inboxes[0] = static_cast<uint8_t *>(bench_memory(row_bytes, 0));
    bench.op.pull = &exchange;
    bench.op.residual = static_cast<bf16 *>(bench_memory(row_bytes, 1));
    bench.op.norm = static_cast<float *>(bench_memory(static_cast<size_t>(hidden) * 4, 0));
    bench.op.eps = 1e-6f;
    bench.op.tokens = tokens;
    bench.op.hidden = hidden;
    bench.op.normed = static_cast<bf16 *>(bench_memory(row_bytes, 0));
    bench.op.weight.format = WEIGHT_BF16;
    bench.op.weight.rows = rows;
    bench.op.weight.columns = hidden;
    bench.op.y = static_cast<bf16 *>(bench_memory(y_bytes, 0));
    bench.weights = static_cast<bf16 *>(
        bench_memory(static_cast<size_t>(turns) * weight_bytes, 1 / sqrt(hidden)));
    struct bench_case what = {"norm_linear_pull", shape,
                              static_cast<double>(weight_bytes + 2 * row_bytes + y_bytes),
                              2.0 * tokens * rows * hidden};
    bench_run(&what, launch_bench, &bench, turns);
    bench_clear();
}

BENCH(norm_linear_pull)
{
    for (int tokens : {1, 2, 4, 8, 16, 64, 256, 512, 2048, 8192})
        bench_case_of(tokens, 2048, 12352);
    bench_case_of(1, 2048, 9216);
    bench_case_of(1, 5120, 34816);
    bench_case_of(8192, 5120, 34816);
}

static void launch_parts(struct stream *stream, const void *argument, int turn)
{
    const struct norm_linear_pull *bench = static_cast<const struct norm_linear_pull *>(argument);
    struct norm_linear_pull op = *bench;
    struct push_parts parts = *bench->parts;
    size_t bytes = static_cast<size_t>(op.tokens) * static_cast<size_t>(op.hidden) *
                   static_cast<size_t>(parts.picks + 1) * (parts.rounded ? 2 : 4);
    parts.products = static_cast<const uint8_t *>(parts.products) + turn % 2 * bytes;
    op.parts = &parts;
    norm_linear_pull(stream, &op);
}

// The products come from the second-level cache, as after the experts, while two turns fit there.
BENCH(norm_parts)
{
    for (int tokens : {8, 16, 32, 64, 128, 256, 257, 512, 1024, 8192}) {
        size_t count = static_cast<size_t>(tokens), row_bytes = count * 2048 * sizeof(bf16);
        bool rounded = tokens > 256;
        size_t products_bytes = count * 9 * 2048 * (rounded ? 2 : 4);
        struct push_parts parts = {};
        struct exchange exchange = {};
        struct norm_linear_pull op = {};
        char shape[64];
        snprintf(shape, sizeof shape, "T=%d 8 of 2048%s", tokens, rounded ? " bf16" : "");
        parts.products = bench_memory(2 * products_bytes, 1);
        parts.weights = static_cast<float *>(bench_memory(count * 8 * 4, 0));
        parts.shared_weights = static_cast<float *>(bench_memory(count * 4, 0));
        parts.picks = 8;
        parts.rounded = rounded;
        exchange.ranks = 1;
        exchange.lane_bytes = row_bytes;
        exchange.inboxes[0] = static_cast<uint8_t *>(bench_memory(row_bytes, 0));
        op.pull = &exchange;
        op.parts = &parts;
        op.residual = static_cast<bf16 *>(bench_memory(row_bytes, 1));
        op.norm = static_cast<float *>(bench_memory(2048 * sizeof(float), 0));
        op.eps = 1e-6f;
        op.tokens = tokens;
        op.hidden = 2048;
        op.normed = static_cast<bf16 *>(bench_memory(row_bytes, 0));
        struct bench_case what = {"norm_parts", shape,
                                  static_cast<double>(products_bytes + 3 * row_bytes), 0};
        bench_run(&what, launch_parts, &op, 8);
        bench_clear();
    }
}
