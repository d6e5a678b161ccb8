// SPDX-License-Identifier: Apache-2.0
// linear_push.cu -- the gated norm of GDN where there is a gate, then the product into the lane.
#include "kernels/device/lane.cuh"
#include "kernels/device/linear.cuh"

extern "C" {
#include "kernels/linear_push.h"
}

enum { GATE_THREADS = 128 }; // one value dimension each

// grid (heads, tokens): gated = norm(o) * w * silu(z) of one head, rounded once.
static __global__ void gated_norm_kernel(bf16 *gated, const bf16 *o, const bf16 *gate,
                                         const float *norm, int64_t o_stride, int64_t gate_stride,
                                         float eps)
{
    __shared__ float shared[GATE_THREADS / WARP_THREADS];
    int64_t token = blockIdx.y;
    int64_t at = static_cast<int64_t>(blockIdx.x) * GATE_THREADS + threadIdx.x;
    float value = bf16_to_float(o[token * o_stride + at]);
    float z = bf16_to_float(gate[token * gate_stride + at]);
    float squares = block_sum<GATE_THREADS>(value * value, shared);
    float scale = rsqrtf(squares / GATE_THREADS + eps);
    float result = value * scale * norm[threadIdx.x] * (z / (1.0f + expf(-z)));
    gated[token * gridDim.x * GATE_THREADS + at] = bf16_from_float(result);
}

extern "C" void linear_push(struct stream *stream, const struct linear_push *op)
{
    ASSERT(op->weight.format == WEIGHT_BF16);
    if (op->tokens == 0)
        return;
    size_t bytes = static_cast<size_t>(op->tokens) * static_cast<size_t>(op->weight.rows) * 2;
    bf16 *lane = exchange_lane(op->push, bytes);
    const bf16 *x = op->x;
    int64_t x_stride = op->x_stride;
    if (op->gate != NULL) {
        ASSERT(op->dim == GATE_THREADS);
        dim3 grid(static_cast<unsigned>(op->heads), static_cast<unsigned>(op->tokens));
        gated_norm_kernel<<<grid, GATE_THREADS, 0, stream->handle>>>(
            op->gated, op->x, op->gate, op->norm, op->x_stride, op->gate_stride, op->eps);
        LAUNCH_CHECK();
        x = op->gated;
        x_stride = op->weight.columns;
    }
    linear_shape shape = {x,
                          NULL,
                          x_stride,
                          weight_bf16(&op->weight),
                          op->tokens,
                          op->weight.rows,
                          op->weight.columns,
                          lane,
                          NULL};
    linear_launch(stream->handle, shape);
}
