// SPDX-License-Identifier: Apache-2.0
// moe_push.cu -- gate and up of every (token, pick) and of the shared expert, then down with the
// combine as one sum per output, in the order of the picks. General kernels: a warp per output.
#include "kernels/device/dot.cuh"
#include "kernels/device/lane.cuh"
#include "kernels/device/launch.cuh"

extern "C" {
#include "kernels/moe_push.h"
}

enum { MOE_WARPS = 4 };

static __device__ __forceinline__ const bf16x8 *row_of(const bf16 *matrix, int64_t row, int columns)
{
    return reinterpret_cast<const bf16x8 *>(matrix + row * columns);
}

static __device__ __forceinline__ float silu_of(float value)
{
    return value / (1.0f + expf(-value));
}

struct moe_arguments {
    const bf16 *x, *gate_up, *down, *shared_gate_up, *shared_down;
    const int32_t *expert_ids;
    const float *expert_weights, *shared_weights;
    bf16 *middle; // [tokens, picks * width + shared_width]
    bf16 *lane;   // [tokens, hidden]
    int hidden, picks, width, shared_width;
};

// grid (middle columns / MOE_WARPS, tokens): silu(gate) * up of one column, rounded once.
static __global__ void moe_middle_kernel(moe_arguments a)
{
    int64_t token = blockIdx.y;
    int column =
        static_cast<int>(blockIdx.x) * MOE_WARPS + static_cast<int>(threadIdx.x) / WARP_THREADS;
    int routed = a.picks * a.width, columns = routed + a.shared_width;
    if (column >= columns)
        return;
    const bf16x8 *x = row_of(a.x, token, a.hidden);
    const bf16 *matrix = a.shared_gate_up;
    int64_t gate = column - routed, up = gate + a.shared_width;
    if (column < routed) {
        int64_t expert = a.expert_ids[token * a.picks + column / a.width];
        matrix = a.gate_up;
        gate = expert * 2 * a.width + column % a.width;
        up = gate + a.width;
    }
    float g = warp_dot(x, row_of(matrix, gate, a.hidden), a.hidden);
    float u = warp_dot(x, row_of(matrix, up, a.hidden), a.hidden);
    if (threadIdx.x % WARP_THREADS == 0)
        a.middle[token * columns + column] = bf16_from_float(silu_of(g) * u);
}

// grid (hidden / MOE_WARPS, tokens): one output, experts in the order of their picks.
static __global__ void moe_down_kernel(moe_arguments a)
{
    int64_t token = blockIdx.y;
    int64_t row = static_cast<int64_t>(blockIdx.x) * MOE_WARPS + threadIdx.x / WARP_THREADS;
    int columns = a.picks * a.width + a.shared_width;
    const bf16 *middle = a.middle + token * columns;
    float sum = 0;
    if (row >= a.hidden)
        return;
    for (int pick = 0; pick < a.picks; pick++) {
        int64_t expert = a.expert_ids[token * a.picks + pick];
        float part = warp_dot(row_of(middle + pick * a.width, 0, a.width),
                              row_of(a.down, expert * a.hidden + row, a.width), a.width);
        sum += a.expert_weights[token * a.picks + pick] * part;
    }
    float shared = warp_dot(row_of(middle + a.picks * a.width, 0, a.shared_width),
                            row_of(a.shared_down, row, a.shared_width), a.shared_width);
    sum += a.shared_weights[token] * shared;
    if (threadIdx.x % WARP_THREADS == 0)
        a.lane[token * a.hidden + row] = bf16_from_float(sum);
}

extern "C" void moe_push(struct stream *stream, const struct moe_push *op)
{
    ASSERT(op->width % BF16_VECTOR == 0 && op->shared_width % BF16_VECTOR == 0);
    ASSERT(op->hidden % BF16_VECTOR == 0 && op->gate_up.format == WEIGHT_BF16);
    if (op->tokens == 0)
        return;
    size_t bytes = static_cast<size_t>(op->tokens) * static_cast<size_t>(op->hidden) * 2;
    moe_arguments a = {op->x,
                       weight_bf16(&op->gate_up),
                       weight_bf16(&op->down),
                       weight_bf16(&op->shared_gate_up),
                       weight_bf16(&op->shared_down),
                       op->expert_ids,
                       op->expert_weights,
                       op->shared_weights,
                       op->middle,
                       exchange_lane(op->push, bytes),
                       op->hidden,
                       op->picks,
                       op->width,
                       op->shared_width};
    unsigned tokens = static_cast<unsigned>(op->tokens);
    int columns = op->picks * op->width + op->shared_width;
    dim3 middle(static_cast<unsigned>((columns + MOE_WARPS - 1) / MOE_WARPS), tokens);
    dim3 down(static_cast<unsigned>((op->hidden + MOE_WARPS - 1) / MOE_WARPS), tokens);
    moe_middle_kernel<<<middle, MOE_WARPS * WARP_THREADS, 0, stream->handle>>>(a);
    LAUNCH_CHECK();
    moe_down_kernel<<<down, MOE_WARPS * WARP_THREADS, 0, stream->handle>>>(a);
    LAUNCH_CHECK();
}
