// SPDX-License-Identifier: Apache-2.0
// moe_route.cu -- router logits by the product, then a warp picks for a token, logits in registers.
#include "kernels/device/linear.cuh"
#include "kernels/device/reduce.cuh"

extern "C" {
#include "kernels/moe_route.h"
}

struct route_arguments {
    const float *logits; // [tokens, experts + 1]
    int32_t *expert_ids;
    float *expert_weights, *shared_weights;
    int tokens, experts, picks;
};

enum { ROUTE_WARPS = 4 };

// Larger is better; a NaN comes after all numbers, what is taken (0) after that.
static __device__ __forceinline__ unsigned route_key(float logit)
{
    unsigned bits = __float_as_uint(logit + 0.0f); // -0 becomes 0
    if (isnan(logit))
        return 1;
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// grid tokens / ROUTE_WARPS, a warp per token: lane l holds the logits of experts l, l + 32, ..;
// `picks` times the largest that is left, ties to the lowest id. PER_LANE * 32 >= experts.
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
    const float *logits = a.logits + token * (a.experts + 1);
    unsigned keys[PER_LANE];
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) {
        int id = i * WARP_THREADS + lane;
        keys[i] = id < a.experts ? route_key(logits[id]) : 0;
    }
    int own_id = 0; // of pick `lane`
    for (int pick = 0; pick < a.picks; pick++) {
        unsigned best = 0;
        int best_at = 0;
#pragma unroll
        for (int i = 0; i < PER_LANE; i++) {
            if (keys[i] > best) {
                best = keys[i];
                best_at = i;
            }
        }
        unsigned most = __reduce_max_sync(0xffffffffu, best);
        unsigned id = static_cast<unsigned>(best_at * WARP_THREADS + lane);
        id = __reduce_min_sync(0xffffffffu, best == most ? id : 0xffffffffu);
#pragma unroll
        for (int i = 0; i < PER_LANE; i++) {
            if (static_cast<unsigned>(i * WARP_THREADS + lane) == id)
                keys[i] = 0;
        }
        if (lane == pick)
            own_id = static_cast<int>(id);
    }
    float first = logits[__shfl_sync(0xffffffffu, own_id, 0)];
    float share = lane < a.picks ? expf(logits[own_id] - first) : 0.0f;
    float sum = warp_sum(share);
    if (lane < a.picks) {
        a.expert_ids[token * a.picks + lane] = own_id;
        a.expert_weights[token * a.picks + lane] = share / sum;
    }
    if (lane == 0)
        a.shared_weights[token] = 1.0f / (1.0f + expf(-logits[a.experts]));
}

extern "C" void moe_route(struct stream *stream, const struct moe_route *op)
{
    ASSERT(op->router.format == WEIGHT_NONE || op->router.format == WEIGHT_BF16);
    ASSERT(op->picks <= MOE_PICKS_MAX);
    if (op->tokens == 0)
        return;
    if (op->router.format == WEIGHT_BF16) {
        linear_shape shape = {
            op->x,      NULL, op->hidden, weight_bf16(&op->router), op->tokens, op->experts + 1,
            op->hidden, NULL, op->logits};
        linear_launch(stream->handle, shape);
    }
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
