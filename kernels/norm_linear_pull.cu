// SPDX-License-Identifier: Apache-2.0
// norm_linear_pull.cu -- a block per token pulls, normalises and rounds; then the product.
#include "kernels/device/lane.cuh"
#include "kernels/device/linear.cuh"

extern "C" {
#include "kernels/norm_linear_pull.h"
}

enum { NORM_THREADS = 256 };

// grid tokens. residual [tokens, hidden] += lane (NULL: nothing to pull), rounded once; normed =
// residual / rms * (1 + norm), rounded once.
static __global__ void pull_norm_kernel(bf16 *residual, const bf16 *lane, const float *norm,
                                        bf16 *normed, int hidden, float eps)
{
    __shared__ float shared[NORM_THREADS / WARP_THREADS];
    int64_t row = static_cast<int64_t>(blockIdx.x) * hidden;
    float squares = 0;
    for (int i = static_cast<int>(threadIdx.x); i < hidden; i += NORM_THREADS) {
        float value = bf16_to_float(residual[row + i]);
        if (lane != NULL) {
            bf16 sum = bf16_from_float(value + bf16_to_float(lane[row + i]));
            residual[row + i] = sum;
            value = bf16_to_float(sum);
        }
        squares += value * value;
    }
    float scale =
        rsqrtf(block_sum<NORM_THREADS>(squares, shared) / static_cast<float>(hidden) + eps);
    for (int i = static_cast<int>(threadIdx.x); i < hidden; i += NORM_THREADS) {
        float value = bf16_to_float(residual[row + i]); // written by this same thread
        normed[row + i] = bf16_from_float(value * scale * (1.0f + norm[i]));
    }
}

extern "C" void norm_linear_pull(struct stream *stream, const struct norm_linear_pull *op)
{
    if (op->tokens == 0)
        return;
    size_t bytes = static_cast<size_t>(op->tokens) * static_cast<size_t>(op->hidden) * 2;
    const bf16 *lane = op->pull != NULL ? exchange_lane(op->pull, bytes) : NULL;
    pull_norm_kernel<<<static_cast<unsigned>(op->tokens), NORM_THREADS, 0, stream->handle>>>(
        op->residual, lane, op->norm, op->normed, op->hidden, op->eps);
    LAUNCH_CHECK();
    if (op->weight.format == WEIGHT_NONE)
        return;
    ASSERT(op->weight.format == WEIGHT_BF16 && (op->y == NULL) != (op->y_float == NULL));
    linear_shape shape = {op->normed,         NULL,
                          op->hidden,         weight_bf16(&op->weight),
                          op->tokens,         op->weight.rows,
                          op->weight.columns, op->y,
                          op->y_float};
    linear_launch(stream->handle, shape);
}
