// SPDX-License-Identifier: Apache-2.0
// mtp_input.cu -- both halves normalised by a block per (half, token), then the product.
#include "kernels/device/linear.cuh"
#include "kernels/device/reduce.cuh"

extern "C" {
#include "kernels/mtp_input.h"
}

enum { JOIN_THREADS = 256 };

struct join_arguments {
    bf16 *joined;
    const int32_t *ids;
    const bf16 *hidden_rows, *embedding;
    const float *embedding_norm, *hidden_norm;
    int hidden;
    float eps;
};

// grid (tokens, 2): half 0 is the embedding, half 1 the hidden row; inert rows become zero.
static __global__ void join_kernel(join_arguments a)
{
    __shared__ float shared[JOIN_THREADS / WARP_THREADS];
    int64_t token = blockIdx.x, half = blockIdx.y;
    int64_t id = a.ids[token];
    const bf16 *row =
        half == 0 ? a.embedding + (id < 0 ? 0 : id) * a.hidden : a.hidden_rows + token * a.hidden;
    const float *norm = half == 0 ? a.embedding_norm : a.hidden_norm;
    bf16 *to = a.joined + (2 * token + half) * a.hidden;
    float squares = 0;
    for (int i = static_cast<int>(threadIdx.x); i < a.hidden; i += JOIN_THREADS) {
        float value = bf16_to_float(row[i]);
        squares += value * value;
    }
    float scale =
        rsqrtf(block_sum<JOIN_THREADS>(squares, shared) / static_cast<float>(a.hidden) + a.eps);
    for (int i = static_cast<int>(threadIdx.x); i < a.hidden; i += JOIN_THREADS) {
        float value = id < 0 ? 0.0f : bf16_to_float(row[i]) * scale * (1.0f + norm[i]);
        to[i] = bf16_from_float(value);
    }
}

extern "C" void mtp_input(struct stream *stream, const struct mtp_input *op)
{
    ASSERT(op->embedding.format == WEIGHT_BF16 && op->fc.format == WEIGHT_BF16);
    if (op->tokens == 0)
        return;
    join_arguments arguments = {
        op->joined,         op->ids,         op->hidden_rows, weight_bf16(&op->embedding),
        op->embedding_norm, op->hidden_norm, op->hidden,      op->eps};
    join_kernel<<<dim3(static_cast<unsigned>(op->tokens), 2), JOIN_THREADS, 0, stream->handle>>>(
        arguments);
    LAUNCH_CHECK();
    linear_shape shape = {op->joined,           NULL,       2 * op->hidden,
                          weight_bf16(&op->fc), op->tokens, op->hidden,
                          2 * op->hidden,       op->y,      NULL};
    linear_launch(stream->handle, shape);
}
