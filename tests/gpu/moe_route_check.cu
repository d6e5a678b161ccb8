// SPDX-License-Identifier: Apache-2.0
// moe_route_check.cu -- logits against the product; picks and weights against the twin's rule
// applied to the kernel's own logits, so that near ties cannot blur the check.
#include <stdlib.h>

#include "tests/gpu/check_products.cuh"

extern "C" {
#include "kernels/moe_route.h"
}

static void launch(struct stream *stream, const void *argument)
{
    moe_route(stream, static_cast<const struct moe_route *>(argument));
}

// The largest logits in order, ties to the lowest id.
static void pick(int32_t *ids, double *weights, const float *logits, int experts, int picks)
{
    double sum = 0;
    for (int rank = 0; rank < picks; rank++) {
        int best = -1;
        for (int id = 0; id < experts; id++) {
            bool taken = false;
            for (int earlier = 0; earlier < rank; earlier++)
                taken |= ids[earlier] == id;
            if (!taken && (best < 0 || logits[id] > logits[best]))
                best = id;
        }
        ids[rank] = best;
        weights[rank] = exp(static_cast<double>(logits[best]) - logits[ids[0]]);
        sum += weights[rank];
    }
    for (int rank = 0; rank < picks; rank++)
        weights[rank] /= sum;
}

static void judge(const struct moe_route &op)
{
    size_t tokens = static_cast<size_t>(op.tokens), picks = static_cast<size_t>(op.picks);
    size_t outputs = static_cast<size_t>(op.experts) + 1;
    const float *logits = check_result(op.logits);
    double *product = check_product(op.x, static_cast<size_t>(op.hidden), &op.router, op.tokens);
    int32_t *ids = static_cast<int32_t *>(malloc(tokens * picks * sizeof(int32_t)));
    double *weights = static_cast<double *>(malloc(tokens * picks * sizeof(double)));
    double *shared = static_cast<double *>(malloc(tokens * sizeof(double)));
    for (size_t t = 0; t < tokens; t++) {
        const float *row = logits + t * outputs;
        pick(ids + t * picks, weights + t * picks, row, op.experts, op.picks);
        shared[t] = 1 / (1 + exp(-static_cast<double>(row[op.experts])));
    }
    check_float("logits", op.logits, product, tokens * outputs, outputs,
                {0, check_sum_bound(op.hidden, 1, 1 / sqrt(op.hidden))});
    check_equal("expert_ids", op.expert_ids, ids, tokens * picks, sizeof(int32_t));
    // expf is within 2 units of the last place, a sum of 16 and a division add less than 10.
    check_float("expert_weights", op.expert_weights, weights, tokens * picks, picks,
                {12 * ldexp(1, -24), 0});
    check_float("shared_weights", op.shared_weights, shared, tokens, 1, {4 * ldexp(1, -24), 0});
    free(product);
    free(ids);
    free(weights);
    free(shared);
}

// ties: experts come in pairs with equal rows, so every second pick is a tie.
static void check_case(int tokens, int hidden, int experts, int picks, bool ties)
{
    struct moe_route op = {};
    check_begin("moe_route T=%d hidden=%d experts=%d picks=%d%s", tokens, hidden, experts, picks,
                ties ? " ties" : "");
    size_t count = static_cast<size_t>(tokens), columns = static_cast<size_t>(hidden);
    bf16 *x = static_cast<bf16 *>(check_array(ARRAY_INPUT, count * columns * sizeof(bf16)));
    check_fill(x, count * columns, 1);
    op.x = x;
    op.router = check_weight(experts + 1, hidden);
    bf16 *rows = static_cast<bf16 *>(const_cast<void *>(op.router.data));
    for (int i = 0; ties && i + 1 < experts; i += 2)
        memcpy(rows + static_cast<size_t>(i + 1) * columns, rows + static_cast<size_t>(i) * columns,
               columns * sizeof(bf16));
    op.tokens = tokens;
    op.hidden = hidden;
    op.experts = experts;
    op.picks = picks;
    size_t chosen = count * static_cast<size_t>(picks);
    op.logits = static_cast<float *>(
        check_array(ARRAY_OUTPUT, count * (static_cast<size_t>(experts) + 1) * sizeof(float)));
    op.expert_ids = static_cast<int32_t *>(check_array(ARRAY_OUTPUT, chosen * sizeof(int32_t)));
    op.expert_weights = static_cast<float *>(check_array(ARRAY_OUTPUT, chosen * sizeof(float)));
    op.shared_weights = static_cast<float *>(check_array(ARRAY_OUTPUT, count * sizeof(float)));
    struct moe_route dev = op;
    check_to_dev(dev.x, dev.router, dev.logits, dev.expert_ids, dev.expert_weights,
                 dev.shared_weights);
    check_run(launch, &dev);
    judge(op);
    check_end();
}

CHECK(moe_route)
{
    for (int i = 0; i < CHECK_TOKENS_COUNT; i++) {
        check_case(CHECK_TOKENS[i], 256, 256, 8, i % 3 == 2);
        check_case(CHECK_TOKENS[i], 128, i % 2 == 0 ? 512 : 16, i % 2 == 0 ? 10 : 4, false);
    }
    check_case(7, 64, 1000, 16, true);
    check_case(2, 2048, 256, 8, false); // 35B-A3B
}

// A lane has up to 8, 16 and 32 experts.
SMALL(moe_route)
{
    check_case(3, 64, 16, 4, true);
    check_case(2, 64, 300, 10, false);
    check_case(2, 64, 520, 8, false);
}

struct route_bench {
    struct moe_route op;
    const bf16 *routers;
};

static void launch_bench(struct stream *stream, const void *argument, int turn)
{
    const struct route_bench *bench = static_cast<const struct route_bench *>(argument);
    struct moe_route op = bench->op;
    op.router.data = bench->routers + static_cast<int64_t>(turn) * op.router.rows * op.hidden;
    moe_route(stream, &op);
}

BENCH(moe_route)
{
    for (int tokens : {1, 4, 8, 16, 64, 256, 1024, 8192}) {
        struct route_bench bench = {};
        size_t count = static_cast<size_t>(tokens);
        size_t router_bytes = 257 * 2048 * sizeof(bf16);
        int turns = bench_turns(router_bytes) < 64 ? bench_turns(router_bytes) : 64;
        char shape[64];
        snprintf(shape, sizeof shape, "T=%d 257x2048", tokens);
        bench.op.x = static_cast<bf16 *>(bench_memory(count * 4096, 1));
        bench.op.router.format = WEIGHT_BF16;
        bench.op.router.rows = 257;
        bench.op.router.columns = 2048;
        bench.op.tokens = tokens;
        bench.op.hidden = 2048;
        bench.op.experts = 256;
        bench.op.picks = 8;
        bench.op.logits = static_cast<float *>(bench_memory(count * 257 * 4, 0));
        bench.op.expert_ids = static_cast<int32_t *>(bench_memory(count * 32, 0));
        bench.op.expert_weights = static_cast<float *>(bench_memory(count * 32, 0));
        bench.op.shared_weights = static_cast<float *>(bench_memory(count * 4, 0));
        bench.routers =
            static_cast<bf16 *>(bench_memory(static_cast<size_t>(turns) * router_bytes, 0.02));
        struct bench_case what = {"moe_route", shape,
                                  static_cast<double>(router_bytes + count * (4096 + 1028)),
                                  2.0 * tokens * 257 * 2048};
        bench_run(&what, launch_bench, &bench, turns);
        bench_clear();
    }
}
