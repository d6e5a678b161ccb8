// SPDX-License-Identifier: Apache-2.0
// moe_route_check.cu -- residual to the bit and rows against the twin's; logits against the product
// of the rows that the kernel left; picks and weights against the twin's rule applied to the
// kernel's own logits, so that near ties cannot blur the check.
#include <stdlib.h>

#include "tests/gpu/check_products.cuh"

extern "C" {
#include "kernels/moe_route.h"
#include "kernels/norm_linear_pull.h"
}

CPU_FUNCTION(norm_linear_pull);

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
    const bf16 *x = op.norm != NULL ? check_result(op.x) : op.x;
    double *product = check_product(x, static_cast<size_t>(op.hidden), &op.router, op.tokens);
    int32_t *ids = static_cast<int32_t *>(malloc(tokens * picks * sizeof(int32_t)));
    double *weights = static_cast<double *>(malloc(tokens * picks * sizeof(double)));
    double *shared = static_cast<double *>(malloc(tokens * sizeof(double)));
    for (size_t t = 0; t < tokens; t++) {
        const float *row = logits + t * outputs;
        pick(ids + t * picks, weights + t * picks, row, op.experts, op.picks);
        shared[t] = 1 / (1 + exp(-static_cast<double>(row[op.experts])));
    }
    check_float("logits", op.logits, product, tokens * outputs, outputs,
                {0, check_sum_bound(op.hidden, op.norm != NULL ? 1.2 : 1, 1 / sqrt(op.hidden))});
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

// What the twin's norm leaves against the kernel's residual and rows.
static void judge_norm(const struct moe_route &op)
{
    size_t columns = static_cast<size_t>(op.hidden);
    size_t count = static_cast<size_t>(op.tokens) * columns;
    struct norm_linear_pull twin = {};
    twin.pull = op.pull;
    twin.residual = op.residual;
    twin.norm = op.norm;
    twin.eps = op.eps;
    twin.tokens = op.tokens;
    twin.hidden = op.hidden;
    twin.normed = op.x;
    twin.weight.format = WEIGHT_NONE;
    cpu_norm_linear_pull(check_cpu_stream(), &twin);
    check_cpu_wait();
    if (op.pull != NULL)
        check_equal("residual", op.residual, op.residual, count, sizeof(bf16));
    check_bf16("x", op.x, op.x, count, columns, {1.0 / 128, 0}); // two roundings
}

enum route_input {
    ROUTE_ROWS, // normalised
    ROUTE_TIES, // and experts come in pairs with equal rows, so every second pick is a tie
    ROUTE_NORM, // to be normalised
    ROUTE_PULL, // with a pull first
};

static const char *const ROUTE_INPUTS[] = {"", " ties", " norm", " pull"};

// The rows that come in: x, or the residual and what it pulls.
static void fill_rows(struct moe_route *op, struct check_exchange *exchange, route_input input)
{
    size_t columns = static_cast<size_t>(op->hidden);
    size_t count = static_cast<size_t>(op->tokens) * columns;
    bool rows = input == ROUTE_ROWS || input == ROUTE_TIES;
    op->x =
        static_cast<bf16 *>(check_array(rows ? ARRAY_INPUT : ARRAY_OUTPUT, count * sizeof(bf16)));
    if (rows) {
        check_fill(op->x, count, 1);
        return;
    }
    float *norm = static_cast<float *>(check_array(ARRAY_INPUT, columns * sizeof(float)));
    check_fill(norm, columns, 0.2);
    op->norm = norm;
    op->eps = 1e-6f;
    op->residual = static_cast<bf16 *>(
        check_array(input == ROUTE_PULL ? ARRAY_STATE : ARRAY_INPUT, count * sizeof(bf16)));
    check_fill(op->residual, count, 1);
    if (input != ROUTE_PULL)
        return;
    check_exchange_open(exchange, ARRAY_INPUT, count * sizeof(bf16));
    check_fill(exchange->lane, count, 0.5);
    check_exchange_pushed(exchange);
    op->pull = &exchange->host;
}

static void check_case(int tokens, int hidden, int experts, int picks, route_input input)
{
    struct moe_route op = {};
    struct check_exchange exchange;
    check_begin("moe_route T=%d hidden=%d experts=%d picks=%d%s", tokens, hidden, experts, picks,
                ROUTE_INPUTS[input]);
    size_t count = static_cast<size_t>(tokens), columns = static_cast<size_t>(hidden);
    op.tokens = tokens;
    op.hidden = hidden;
    op.experts = experts;
    op.picks = picks;
    fill_rows(&op, &exchange, input);
    op.router = check_weight(experts + 1, hidden);
    bf16 *rows = static_cast<bf16 *>(const_cast<void *>(op.router.data));
    for (int i = 0; input == ROUTE_TIES && i + 1 < experts; i += 2)
        memcpy(rows + static_cast<size_t>(i + 1) * columns, rows + static_cast<size_t>(i) * columns,
               columns * sizeof(bf16));
    size_t chosen = count * static_cast<size_t>(picks);
    op.logits = static_cast<float *>(
        check_array(ARRAY_OUTPUT, count * (static_cast<size_t>(experts) + 1) * sizeof(float)));
    op.expert_ids = static_cast<int32_t *>(check_array(ARRAY_OUTPUT, chosen * sizeof(int32_t)));
    op.expert_weights = static_cast<float *>(check_array(ARRAY_OUTPUT, chosen * sizeof(float)));
    op.shared_weights = static_cast<float *>(check_array(ARRAY_OUTPUT, count * sizeof(float)));
    struct moe_route dev = op;
    dev.pull = op.pull != NULL ? &exchange.dev : NULL;
    check_to_dev(dev.residual, dev.norm, dev.x, dev.router, dev.logits, dev.expert_ids,
                 dev.expert_weights, dev.shared_weights);
    check_run(launch, &dev);
    if (op.norm != NULL)
        judge_norm(op);
    judge(op);
    check_end();
}

CHECK(moe_route)
{
    for (int i = 0; i < CHECK_TOKENS_COUNT; i++) {
        int tokens = CHECK_TOKENS[i];
        check_case(tokens, 256, 256, 8, i % 3 == 2 ? ROUTE_TIES : ROUTE_NORM);
        check_case(tokens, 128, i % 2 == 0 ? 512 : 16, i % 2 == 0 ? 10 : 4,
                   i % 3 == 2 ? ROUTE_ROWS : ROUTE_PULL);
        check_case(tokens, 2048, 256, 8, i % 4 == 3 ? ROUTE_TIES : ROUTE_PULL); // 35B-A3B
    }
    check_case(7, 64, 1000, 16, ROUTE_TIES);
    // Clusters of 16, 32 and 64 tokens, and their last token.
    for (int tokens : {6, 32, 48, 241, 257, 481, 513, 575, 961, 1024, 1025})
        check_case(tokens, 2048, 256, 8, tokens % 3 == 0 ? ROUTE_NORM : ROUTE_PULL);
    check_case(31, 2048, 256, 8, ROUTE_ROWS);
    check_case(40, 2048, 256, 16, ROUTE_PULL);
}

// A lane has up to 8, 16 and 32 experts.
SMALL(moe_route)
{
    check_case(3, 64, 16, 4, ROUTE_TIES);
    check_case(2, 64, 300, 10, ROUTE_ROWS);
    check_case(2, 64, 520, 8, ROUTE_PULL);
}

// A product of a cluster, and two of which the second is not full.
SMALL(route_cluster)
{
    check_case(5, 2048, 256, 8, ROUTE_PULL);
    check_case(263, 2048, 256, 8, ROUTE_NORM);
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
    for (int tokens : {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 8192}) {
        struct route_bench bench = {};
        struct exchange exchange = {};
        size_t count = static_cast<size_t>(tokens);
        size_t router_bytes = 257 * 2048 * sizeof(bf16);
        int turns = bench_turns(router_bytes) < 64 ? bench_turns(router_bytes) : 64;
        char shape[64];
        snprintf(shape, sizeof shape, "T=%d 257x2048", tokens);
        exchange.ranks = 1;
        exchange.lane_bytes = count * 4096;
        exchange.inboxes[0] = static_cast<uint8_t *>(bench_memory(count * 4096, 0));
        bench.op.pull = &exchange;
        bench.op.residual = static_cast<bf16 *>(bench_memory(count * 4096, 1));
        bench.op.norm = static_cast<float *>(bench_memory(2048 * sizeof(float), 0));
        bench.op.eps = 1e-6f;
        bench.op.x = static_cast<bf16 *>(bench_memory(count * 4096, 0));
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
                                  static_cast<double>(router_bytes + count * (4 * 4096 + 1028)),
                                  2.0 * tokens * 257 * 2048};
        bench_run(&what, launch_bench, &bench, turns);
        bench_clear();
    }
}
