// SPDX-License-Identifier: Apache-2.0
// moe_push_check.cu -- the middle against the twin; the combined sums against the formula in
// double over the middle that the kernel left. Routings: uniform, a quarter of the experts,
// one expert that everybody picks, and the same experts for everybody, so that others are empty.
#include <stdlib.h>

#include "tests/gpu/check_products.cuh"

extern "C" {
#include "kernels/moe_push.h"
}

CPU_FUNCTION(moe_push);

static void launch(struct stream *stream, const void *argument)
{
    moe_push(stream, static_cast<const struct moe_push *>(argument));
}

enum routing { ROUTING_UNIFORM, ROUTING_NARROW, ROUTING_FIRST, ROUTING_SAME, ROUTINGS };

struct moe_case {
    int tokens, hidden, experts, picks, width, shared_width;
    enum routing routing;
};

// Distinct experts per token, weights that sum to 1.
static void route(int32_t *ids, float *weights, const struct moe_case &shape)
{
    for (int t = 0; t < shape.tokens; t++) {
        int32_t *own = ids + t * shape.picks;
        float sum = 0;
        for (int i = 0; i < shape.picks; i++) {
            int among = shape.routing == ROUTING_NARROW && shape.experts / 4 >= shape.picks
                            ? shape.experts / 4
                            : shape.experts;
            bool again = true;
            while (again) {
                own[i] = static_cast<int32_t>(check_random() % static_cast<unsigned>(among));
                if (shape.routing == ROUTING_FIRST && i == 0)
                    own[i] = shape.experts - 1;
                if (shape.routing == ROUTING_SAME)
                    own[i] = i * 3 % shape.experts;
                again = false;
                for (int j = 0; j < i; j++)
                    again |= own[j] == own[i];
            }
            weights[t * shape.picks + i] = static_cast<float>(check_uniform(0.1, 1));
            sum += weights[t * shape.picks + i];
        }
        for (int i = 0; i < shape.picks; i++)
            weights[t * shape.picks + i] /= sum;
    }
}

static void fill(struct moe_push *op, const struct moe_case &shape)
{
    size_t tokens = static_cast<size_t>(shape.tokens), hidden = static_cast<size_t>(shape.hidden);
    size_t chosen = tokens * static_cast<size_t>(shape.picks);
    size_t middle = static_cast<size_t>(shape.picks * shape.width + shape.shared_width);
    bf16 *x = static_cast<bf16 *>(check_array(ARRAY_INPUT, tokens * hidden * sizeof(bf16)));
    int32_t *ids = static_cast<int32_t *>(check_array(ARRAY_INPUT, chosen * sizeof(int32_t)));
    float *weights = static_cast<float *>(check_array(ARRAY_INPUT, chosen * sizeof(float)));
    float *shared = static_cast<float *>(check_array(ARRAY_INPUT, tokens * sizeof(float)));
    check_fill(x, tokens * hidden, 1);
    route(ids, weights, shape);
    for (size_t t = 0; t < tokens; t++)
        shared[t] = static_cast<float>(check_uniform(0.1, 0.9));
    op->x = x;
    op->tokens = shape.tokens;
    op->hidden = shape.hidden;
    op->experts = shape.experts;
    op->picks = shape.picks;
    op->expert_ids = ids;
    op->expert_weights = weights;
    op->shared_weights = shared;
    op->gate_up = check_weight(shape.experts * 2 * shape.width, shape.hidden);
    op->down = check_weight(shape.experts * shape.hidden, shape.width);
    op->width = shape.width;
    op->shared_gate_up = check_weight(2 * shape.shared_width, shape.hidden);
    op->shared_down = check_weight(shape.hidden, shape.shared_width);
    op->shared_width = shape.shared_width;
    op->partial = static_cast<bf16 *>(check_array(ARRAY_SCRATCH, tokens * hidden * sizeof(bf16)));
    op->middle = static_cast<bf16 *>(check_array(ARRAY_OUTPUT, tokens * middle * sizeof(bf16)));
    op->products = check_array(ARRAY_SCRATCH, static_cast<size_t>(moe_products_bytes(
                                                  shape.tokens, shape.picks, shape.hidden)));
    op->lists = static_cast<int32_t *>(
        check_array(ARRAY_SCRATCH,
                    static_cast<size_t>(moe_lists_count(shape.tokens, shape.picks, shape.experts)) *
                        sizeof(int32_t)));
}

static double dot(const bf16 *a, const bf16 *b, int count)
{
    double sum = 0;
    for (int i = 0; i < count; i++)
        sum += static_cast<double>(bf16_to_float(a[i])) * static_cast<double>(bf16_to_float(b[i]));
    return sum;
}

// What the op's second half makes of a middle. *magnitude: the largest sum of |weight * product|.
static double *combined(const struct moe_push &op, const bf16 *middle, double *magnitude)
{
    size_t hidden = static_cast<size_t>(op.hidden), width = static_cast<size_t>(op.width);
    size_t stride = static_cast<size_t>(op.picks) * width + static_cast<size_t>(op.shared_width);
    double *want =
        static_cast<double *>(malloc(static_cast<size_t>(op.tokens) * hidden * sizeof(double)));
    *magnitude = 0;
    for (size_t t = 0; t < static_cast<size_t>(op.tokens); t++) {
        for (size_t row = 0; row < hidden; row++) {
            const bf16 *from = middle + t * stride;
            double sum = 0, absolute = 0;
            for (size_t i = 0; i < static_cast<size_t>(op.picks); i++) {
                size_t at = t * static_cast<size_t>(op.picks) + i;
                size_t expert = static_cast<size_t>(op.expert_ids[at]);
                double product =
                    dot(from + i * width, weight_bf16(&op.down) + (expert * hidden + row) * width,
                        op.width);
                sum += static_cast<double>(op.expert_weights[at]) * product;
                absolute += static_cast<double>(op.expert_weights[at]) * fabs(product);
            }
            size_t shared_width = static_cast<size_t>(op.shared_width);
            double product =
                dot(from + static_cast<size_t>(op.picks) * width,
                    weight_bf16(&op.shared_down) + row * shared_width, op.shared_width);
            sum += static_cast<double>(op.shared_weights[t]) * product;
            absolute += static_cast<double>(op.shared_weights[t]) * fabs(product);
            want[t * hidden + row] = sum;
            *magnitude = absolute > *magnitude ? absolute : *magnitude;
        }
    }
    return want;
}

static void check_case(const struct moe_case &shape)
{
    struct moe_push op = {};
    struct check_exchange exchange;
    check_begin("moe_push T=%d hidden=%d experts=%d picks=%d width=%d+%d routing=%d", shape.tokens,
                shape.hidden, shape.experts, shape.picks, shape.width, shape.shared_width,
                shape.routing);
    size_t count = static_cast<size_t>(shape.tokens) * static_cast<size_t>(shape.hidden);
    size_t columns = static_cast<size_t>(shape.picks * shape.width + shape.shared_width);
    check_exchange_open(&exchange, ARRAY_OUTPUT, count * sizeof(bf16));
    fill(&op, shape);
    op.push = &exchange.host;
    struct moe_push dev = op;
    dev.push = &exchange.dev;
    check_to_dev(dev.x, dev.expert_ids, dev.expert_weights, dev.shared_weights, dev.gate_up,
                 dev.down, dev.shared_gate_up, dev.shared_down, dev.partial, dev.middle,
                 dev.products, dev.lists);
    check_run(launch, &dev);
    double magnitude;
    double *want = combined(op, check_result(op.middle), &magnitude);
    // An expert's product is rounded to bf16 in steps of many tokens, before it is weighted.
    double rounded = shape.tokens > MOE_FLOAT_TOKENS_MAX ? magnitude / 256 : 0;
    check_bf16("pushed", exchange.lane, want, count, static_cast<size_t>(shape.hidden),
               {1.0 / 256, rounded + check_sum_bound(shape.width, 2, 2 / sqrt(shape.width))});
    free(want);
    cpu_moe_push(check_cpu_stream(), &op);
    check_cpu_wait();
    // Twin and kernel both round: one step, beside the error of gate and up, at most 6 each.
    check_bf16("middle", op.middle, op.middle, static_cast<size_t>(shape.tokens) * columns, columns,
               {1.0 / 128, 16 * check_sum_bound(shape.hidden, 1, 1 / sqrt(shape.hidden))});
    check_end();
}

CHECK(moe_push)
{
    for (int i = 0; i < CHECK_TOKENS_COUNT; i++) {
        enum routing routing = static_cast<enum routing>(i % ROUTINGS);
        check_case({CHECK_TOKENS[i], 256, 16, 4, 64, 128, routing});
        check_case({CHECK_TOKENS[i], 128, 64, 10, 64, 64, ROUTING_UNIFORM});
    }
    for (int i = 0; i < ROUTINGS; i++) {
        enum routing routing = static_cast<enum routing>(i);
        check_case({33, 128, 16, 4, 64, 128, routing});
        check_case({1000, 128, 8, 2, 192, 64, routing});
        check_case({1100, 256, 16, 8, 64, 128, routing}); // slots of several blocks of the sort
        check_case({3000, 128, 24, 2, 64, 64, routing});
    }
    for (int tokens : {257, 320, 321, 330, 481}) // of one expert, about whole tiles
        check_case({tokens, 64, 1, 1, 64, 64, ROUTING_UNIFORM});
    check_case({600, 64, 512, 10, 64, 64, ROUTING_UNIFORM});
    check_case({5000, 128, 64, 8, 64, 64, ROUTING_NARROW});
    // Slots of one block and of several; words of 32 tokens; most experts.
    for (int tokens : {513, 544, 545, 575, 1024, 1025})
        check_case({tokens, 64, 256, 8, 64, 64, static_cast<enum routing>(tokens % ROUTINGS)});
    check_case({515, 64, 1024, 16, 64, 64, ROUTING_UNIFORM});
    for (int tokens : {65, 95, 96, 97, 159, 160, 512})
        check_case({tokens, 64, 256, 8, 64, 64, static_cast<enum routing>(tokens % ROUTINGS)});
    check_case({511, 64, 1024, 16, 64, 64, ROUTING_UNIFORM});
    check_case({8200, 64, 128, 8, 64, 64, ROUTING_UNIFORM}); // a warp sorts more than its lanes
    // What the streaming kernel serves, at the borders of its tasks' tokens and of its shapes.
    for (int tokens : {5, 8, 9, 16, 17, 31, 33, 64, 100, 127, 128, 129})
        check_case({tokens, 256, 16, 4, 128, 128, static_cast<enum routing>(tokens % ROUTINGS)});
    for (int tokens : {255, 256, 257, 511, 512, 513, 1000, 1024})
        check_case({tokens, 256, 16, 2, 128, 128, static_cast<enum routing>(tokens % ROUTINGS)});
    check_case({64, 256, 16, 4, 128, 128, ROUTING_SAME});
    check_case({300, 256, 16, 2, 128, 128, ROUTING_SAME});
    check_case({70, 512, 64, 8, 256, 256, ROUTING_UNIFORM});
    check_case({3, 64, 8, 2, 40, 24, ROUTING_UNIFORM});      // no multiple of a chunk
    check_case({1, 2048, 32, 8, 512, 512, ROUTING_UNIFORM}); // 35B-A3B, fewer experts
    check_case({6, 2048, 32, 8, 512, 512, ROUTING_UNIFORM});
}

// ---- for sanitizers: {tokens, hidden, experts, picks, width, shared width} ----

SMALL(moe_general)
{
    check_case({3, 64, 8, 2, 40, 24, ROUTING_UNIFORM}); // no multiple of a chunk
}

// Without a list, with the second product in registers; with one.
SMALL(moe_few)
{
    check_case({2, 64, 8, 2, 64, 64, ROUTING_UNIFORM});
    check_case({9, 128, 8, 2, 64, 64, ROUTING_UNIFORM});
}

// Three shapes of a task; beyond 256 tokens products are bf16.
SMALL(moe_stream)
{
    check_case({66, 64, 4, 2, 64, 64, ROUTING_UNIFORM});
    check_case({66, 128, 4, 2, 64, 64, ROUTING_NARROW});
    check_case({66, 256, 4, 2, 128, 128, ROUTING_SAME});
}
SMALL(moe_stream_bf16)
{
    check_case({257, 64, 4, 1, 64, 64, ROUTING_UNIFORM});
    check_case({257, 128, 4, 1, 64, 64, ROUTING_UNIFORM});
    check_case({257, 256, 4, 1, 128, 128, ROUTING_UNIFORM});
}

// One block sorts, and several; eight picks and ten are added by kernels of their own.
SMALL(moe_many)
{
    check_case({513, 64, 4, 1, 64, 64, ROUTING_UNIFORM});
}
SMALL(moe_many_picks)
{
    check_case({513, 64, 16, 8, 64, 64, ROUTING_UNIFORM});
    check_case({513, 64, 16, 10, 64, 64, ROUTING_UNIFORM});
}

struct moe_bench {
    struct moe_push op;
    const int32_t *ids; // [turns, tokens, picks]
};

static void launch_bench(struct stream *stream, const void *argument, int turn)
{
    const struct moe_bench *bench = static_cast<const struct moe_bench *>(argument);
    struct moe_push op = bench->op;
    op.expert_ids = bench->ids + static_cast<int64_t>(turn) * op.tokens * op.picks;
    moe_push(stream, &op);
}

// Every turn has a routing of its own. Returns the mean number of experts hit.
static double bench_route(struct moe_bench *bench, const struct moe_case &shape, int turns)
{
    size_t chosen = static_cast<size_t>(shape.tokens * shape.picks);
    size_t count = chosen * static_cast<size_t>(turns);
    int32_t *ids = static_cast<int32_t *>(malloc(count * sizeof(int32_t)));
    float *weights = static_cast<float *>(malloc(chosen * sizeof(float)));
    int hits = 0;
    for (int turn = 0; turn < turns; turn++) {
        int32_t *own = ids + chosen * static_cast<size_t>(turn);
        bool hit[1024] = {};
        route(own, weights, shape);
        for (size_t i = 0; i < chosen; i++) {
            hits += !hit[own[i]];
            hit[own[i]] = true;
        }
    }
    void *ids_dev = bench_memory(count * sizeof(int32_t), 0);
    void *weights_dev = bench_memory(chosen * sizeof(float), 0);
    CUDA_CHECK(cudaMemcpy(ids_dev, ids, count * sizeof(int32_t), cudaMemcpyHostToDevice));
    CUDA_CHECK(cudaMemcpy(weights_dev, weights, chosen * sizeof(float), cudaMemcpyHostToDevice));
    bench->ids = static_cast<int32_t *>(ids_dev);
    bench->op.expert_weights = static_cast<float *>(weights_dev);
    free(ids);
    free(weights);
    return static_cast<double>(hits) / turns;
}

static struct weight bench_weight(int rows, int columns)
{
    struct weight weight = {};
    weight.format = WEIGHT_BF16;
    weight.rows = rows;
    weight.columns = columns;
    weight.data = bench_memory(
        static_cast<size_t>(rows) * static_cast<size_t>(columns) * sizeof(bf16), 1 / sqrt(columns));
    return weight;
}

static void bench_case_of(const struct moe_case &shape)
{
    size_t tokens = static_cast<size_t>(shape.tokens), hidden = static_cast<size_t>(shape.hidden);
    int turns = shape.tokens <= 1024 ? 12 : 4;
    struct exchange exchange = {};
    struct moe_bench bench = {};
    char text[64];
    double hits = bench_route(&bench, shape, turns);
    snprintf(text, sizeof text, "T=%d experts=%d width=%d", shape.tokens, shape.experts,
             shape.width);
    exchange.ranks = 1;
    exchange.lane_bytes = tokens * hidden * sizeof(bf16);
    exchange.inboxes[0] = static_cast<uint8_t *>(bench_memory(exchange.lane_bytes, 0));
    bench.op.push = &exchange;
    bench.op.x = static_cast<bf16 *>(bench_memory(tokens * hidden * sizeof(bf16), 1));
    bench.op.partial = static_cast<bf16 *>(bench_memory(tokens * hidden * sizeof(bf16), 0));
    bench.op.tokens = shape.tokens;
    bench.op.hidden = shape.hidden;
    bench.op.experts = shape.experts;
    bench.op.picks = shape.picks;
    bench.op.shared_weights = static_cast<float *>(bench_memory(tokens * sizeof(float), 0));
    bench.op.gate_up = bench_weight(shape.experts * 2 * shape.width, shape.hidden);
    bench.op.down = bench_weight(shape.experts * shape.hidden, shape.width);
    bench.op.width = shape.width;
    bench.op.shared_gate_up = bench_weight(2 * shape.shared_width, shape.hidden);
    bench.op.shared_down = bench_weight(shape.hidden, shape.shared_width);
    bench.op.shared_width = shape.shared_width;
    size_t middle = static_cast<size_t>(shape.picks * shape.width + shape.shared_width);
    bench.op.middle = static_cast<bf16 *>(bench_memory(tokens * middle * sizeof(bf16), 0));
    bench.op.products = bench_memory(
        static_cast<size_t>(moe_products_bytes(shape.tokens, shape.picks, shape.hidden)), 0);
    bench.op.lists = static_cast<int32_t *>(bench_memory(
        static_cast<size_t>(moe_lists_count(shape.tokens, shape.picks, shape.experts)) * 4, 0));
    double outputs = hits * shape.width + shape.shared_width;
    double flops =
        6.0 * shape.tokens * shape.hidden * (shape.picks * shape.width + shape.shared_width);
    struct bench_case what = {
        "moe_push", text, 6.0 * outputs * shape.hidden + 4.0 * shape.tokens * shape.hidden, flops};
    bench_run(&what, launch_bench, &bench, turns);
    bench_clear();
}

BENCH(moe_push)
{
    for (int tokens : {1, 2, 4, 8, 16, 32, 64, 128, 256, 384, 512, 768, 1024, 2048, 8192})
        bench_case_of({tokens, 2048, 256, 8, 512, 512, ROUTING_UNIFORM});
}
