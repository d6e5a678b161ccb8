// SPDX-License-Identifier: Apache-2.0
// moe_route.cu -- one kernel (route_cluster.cuh) or logits by the product, into which the norm is
// folded where there is one, then a warp picks for a token, logits in registers.
#include "kernels/device/lane.cuh"
#include "kernels/device/linear.cuh"
#include "kernels/device/route.cuh"
#include "kernels/device/route_cluster.cuh"

extern "C" {
#include "kernels/moe_route.h"
#include "kernels/norm_linear_pull.h"
}

struct route_arguments {
    const float *logits; // [tokens, experts + 1]
    int32_t *expert_ids;
    float *expert_weights, *shared_weights;
    int tokens, experts, picks;
};

enum { ROUTE_WARPS = 4 };

// grid tokens / ROUTE_WARPS, a warp per token. PER_LANE * 32 >= experts.
template <int PER_LANE>
static __global__ void __launch_bounds__(ROUTE_WARPS *WARP_THREADS)
    route_kernel(const route_arguments a)
{
    int64_t token = static_cast<int64_t>(blockIdx.x) * ROUTE_WARPS + threadIdx.x / WARP_THREADS;
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    pdl_wait();
    pdl_trigger();
    if (token >= a.tokens)
        return;
    route_picked own =
        route_token<PER_LANE>(a.logits + token * (a.experts + 1), a.experts, a.picks);
    if (lane < a.picks) {
        a.expert_ids[token * a.picks + lane] = own.id;
        a.expert_weights[token * a.picks + lane] = own.weight;
    }
    if (lane == 0)
        a.shared_weights[token] = own.shared;
}

static void route_logits(struct stream *stream, const struct moe_route *op)
{
    if (op->norm == NULL) {
        linear_shape shape = {
            op->x,      NULL, op->hidden, weight_bf16(&op->router), op->tokens, op->experts + 1,
            op->hidden, NULL, op->logits};
        linear_launch(stream->handle, shape);
        return;
    }
    struct norm_linear_pull norm = {};
    norm.pull = op->pull;
    norm.residual = op->residual;
    norm.norm = op->norm;
    norm.eps = op->eps;
    norm.tokens = op->tokens;
    norm.hidden = op->hidden;
    norm.normed = op->x;
    norm.weight = op->router;
    norm.y_float = op->logits;
    norm_linear_pull(stream, &norm);
}

extern "C" void moe_route(struct stream *stream, const struct moe_route *op)
{
    ASSERT(op->router.format == WEIGHT_BF16 && op->picks <= MOE_PICKS_MAX);
    if (op->tokens == 0)
        return;
    if (route_cluster_serves(op)) {
        size_t bytes = static_cast<size_t>(op->tokens) * static_cast<size_t>(op->hidden) * 2;
        const bf16 *lane = op->pull != NULL ? exchange_lane(op->pull, bytes) : NULL;
        route_cluster(stream->handle, op, lane);
        return;
    }
    route_logits(stream, op);
    route_arguments arguments = {op->logits, op->expert_ids, op->expert_weights, op->shared_weights,
                                 op->tokens, op->experts,    op->picks};
    dim3 grid(static_cast<unsigned>((op->tokens + ROUTE_WARPS - 1) / ROUTE_WARPS));
    dim3 block(ROUTE_WARPS * WARP_THREADS);
    ASSERT(op->experts <= 32 * WARP_THREADS);
    if (op->experts <= 8 * WARP_THREADS)
        launch_chained(route_kernel<8>, grid, block, 0, stream->handle, arguments);
    else if (op->experts <= 16 * WARP_THREADS)
        launch_chained(route_kernel<16>, grid, block, 0, stream->handle, arguments);
    else
        launch_chained(route_kernel<32>, grid, block, 0, stream->handle, arguments);
}
