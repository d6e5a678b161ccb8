// SPDX-License-Identifier: Apache-2.0
// norm_linear_pull.cu -- few tokens: pull and norm are folded into the product, every block does
// them for itself; many: a block per token pulls, normalises and rounds; then the product.
#include "kernels/device/lane.cuh"
#include "kernels/device/linear.cuh"
#include "kernels/device/linear_few.cuh"

extern "C" {
#include "kernels/norm_linear_pull.h"
}

enum {
    NORM_THREADS = 256,
    NORM_FOLDED_TOKENS_MAX = 4, // beyond, what every block repeats costs more than a kernel
};

struct norm_arguments {
    bf16 *residual;   // [tokens, hidden]
    const bf16 *lane; // or NULL: nothing to pull
    const float *norm;
    bf16 *normed;
    int hidden;
    float eps;
};

// grid tokens. residual += lane, rounded once; normed = residual / rms * (1 + norm), rounded once.
// VALUES: of a thread at a time; hidden is a multiple.
template <int VALUES> static __global__ void pull_norm_kernel(const norm_arguments a)
{
    __shared__ float shared[NORM_THREADS / WARP_THREADS];
    int64_t row = static_cast<int64_t>(blockIdx.x) * a.hidden;
    float squares = 0;
    pdl_wait();
    pdl_trigger();
    for (int i = static_cast<int>(threadIdx.x) * VALUES; i < a.hidden; i += NORM_THREADS * VALUES) {
        alignas(2 * VALUES) bf16 sums[VALUES], lane[VALUES];
        copy_values<VALUES>(sums, a.residual + row + i);
        if (a.lane != NULL) {
            copy_values<VALUES>(lane, a.lane + row + i);
#pragma unroll
            for (int k = 0; k < VALUES; k++)
                sums[k] = bf16_from_float(bf16_to_float(sums[k]) + bf16_to_float(lane[k]));
            copy_values<VALUES>(a.residual + row + i, sums);
        }
#pragma unroll
        for (int k = 0; k < VALUES; k++)
            squares += bf16_to_float(sums[k]) * bf16_to_float(sums[k]);
    }
    float scale =
        rsqrtf(block_sum<NORM_THREADS>(squares, shared) / static_cast<float>(a.hidden) + a.eps);
    for (int i = static_cast<int>(threadIdx.x) * VALUES; i < a.hidden; i += NORM_THREADS * VALUES) {
        alignas(2 * VALUES) bf16 values[VALUES];
        copy_values<VALUES>(values, a.residual + row + i); // written by this same thread
#pragma unroll
        for (int k = 0; k < VALUES; k++)
            values[k] = bf16_from_float(bf16_to_float(values[k]) * scale * (1.0f + a.norm[i + k]));
        copy_values<VALUES>(a.normed + row + i, values);
    }
}

static void pull_norm(cudaStream_t stream, const struct norm_linear_pull *op, const bf16 *lane)
{
    norm_arguments a = {op->residual, lane, op->norm, op->normed, op->hidden, op->eps};
    dim3 grid(static_cast<unsigned>(op->tokens));
    if (op->hidden % BF16_VECTOR == 0)
        launch_chained(pull_norm_kernel<BF16_VECTOR>, grid, dim3(NORM_THREADS), 0, stream, a);
    else
        launch_chained(pull_norm_kernel<1>, grid, dim3(NORM_THREADS), 0, stream, a);
}

static void norm_folded(cudaStream_t stream, const struct norm_linear_pull *op, const bf16 *lane)
{
    few_arguments a = {};
    a.w = weight_bf16(&op->weight);
    a.rows = op->weight.rows;
    a.columns = op->hidden;
    a.tokens = op->tokens;
    a.y = op->y;
    a.y_float = op->y_float;
    a.norm = op->norm;
    a.eps = op->eps;
    a.residual = op->residual;
    a.lane = lane;
    a.normed = op->normed;
    few_launch<FEW_NORM>(stream, a);
}

extern "C" void norm_linear_pull(struct stream *stream, const struct norm_linear_pull *op)
{
    if (op->tokens == 0)
        return;
    size_t bytes = static_cast<size_t>(op->tokens) * static_cast<size_t>(op->hidden) * 2;
    const bf16 *lane = op->pull != NULL ? exchange_lane(op->pull, bytes) : NULL;
    bool product = op->weight.format != WEIGHT_NONE;
    ASSERT(!product ||
           (op->weight.format == WEIGHT_BF16 && (op->y == NULL) != (op->y_float == NULL)));
    if (product && op->tokens <= NORM_FOLDED_TOKENS_MAX &&
        few_serves(op->weight.rows, op->hidden, op->tokens)) {
        norm_folded(stream->handle, op, lane);
        return;
    }
    pull_norm(stream->handle, op, lane);
    if (!product)
        return;
    linear_shape shape = {op->normed,         NULL,
                          op->hidden,         weight_bf16(&op->weight),
                          op->tokens,         op->weight.rows,
                          op->weight.columns, op->y,
                          op->y_float};
    linear_launch(stream->handle, shape);
}
