// SPDX-License-Identifier: Apache-2.0
// moe_route.cu -- router logits by the product, then one warp picks for one token.
#include "kernels/device/linear.cuh"

extern "C" {
#include "kernels/moe_route.h"
}

struct route_arguments {
    const float *logits; // [tokens, experts + 1]
    int32_t *expert_ids;
    float *expert_weights, *shared_weights;
    int experts, picks;
};

// grid tokens, one warp: `picks` times the largest that is left, ties to the lowest id.
static __global__ void route_kernel(route_arguments a)
{
    int64_t token = blockIdx.x;
    int lane = static_cast<int>(threadIdx.x);
    const float *logits = a.logits + token * (a.experts + 1);
    float picked[MOE_PICKS_MAX];
    int ids[MOE_PICKS_MAX];
    float sum = 0;
    for (int pick = 0; pick < a.picks; pick++) {
        float best = -INFINITY;
        int best_id = a.experts;
        for (int e = lane; e < a.experts; e += WARP_THREADS) {
            bool taken = false;
            for (int before = 0; before < pick; before++)
                taken |= ids[before] == e;
            if (!taken && (logits[e] > best || (logits[e] == best && e < best_id))) {
                best = logits[e];
                best_id = e;
            }
        }
        for (int offset = WARP_THREADS / 2; offset > 0; offset /= 2) {
            float other = __shfl_xor_sync(0xffffffffu, best, offset);
            int other_id = __shfl_xor_sync(0xffffffffu, best_id, offset);
            if (other > best || (other == best && other_id < best_id)) {
                best = other;
                best_id = other_id;
            }
        }
        picked[pick] = best;
        ids[pick] = best_id < a.experts ? best_id : 0; // all NaN: any expert, the logits are NaN
    }
    for (int pick = 0; pick < a.picks; pick++)
        sum += expf(picked[pick] - picked[0]);
    if (lane > 0)
        return;
    for (int pick = 0; pick < a.picks; pick++) {
        a.expert_ids[token * a.picks + pick] = ids[pick];
        a.expert_weights[token * a.picks + pick] = expf(picked[pick] - picked[0]) / sum;
    }
    a.shared_weights[token] = 1.0f / (1.0f + expf(-logits[a.experts]));
}

extern "C" void moe_route(struct stream *stream, const struct moe_route *op)
{
    ASSERT(op->router.format == WEIGHT_BF16 && op->picks <= MOE_PICKS_MAX);
    if (op->tokens == 0)
        return;
    linear_shape shape = {
        op->x,      NULL, op->hidden, weight_bf16(&op->router), op->tokens, op->experts + 1,
        op->hidden, NULL, op->logits};
    linear_launch(stream->handle, shape);
    route_arguments arguments = {op->logits,         op->expert_ids, op->expert_weights,
                                 op->shared_weights, op->experts,    op->picks};
    route_kernel<<<static_cast<unsigned>(op->tokens), WARP_THREADS, 0, stream->handle>>>(arguments);
    LAUNCH_CHECK();
}
