// SPDX-License-Identifier: Apache-2.0
// norm_linear_pull.cu -- few tokens: pull and norm are folded into the product, every block does
// them for itself; many: a block per token pulls, normalises and rounds; then the product. What was
// pushed in parts is for norm_parts.cuh.
#include "kernels/device/bf16.cuh"
#include "kernels/device/lane.cuh"
#include "kernels/device/linear.cuh"
#include "kernels/device/linear_few.cuh"
#include "kernels/device/load.cuh"
#include "kernels/device/norm_parts.cuh"

extern "C" {
#include "kernels/norm_linear_pull.h"
}

enum {
    NORM_THREADS = 256,
    NORM_HELD_THREADS = 128,
    NORM_HELD_VALUES = NORM_HELD_THREADS * BF16_VECTOR,
    NORM_HELD_MAX = 8,          // pieces of so many values that a thread holds a vector of
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

// The same with the row in registers: each thread holds PIECES vectors, NORM_HELD_VALUES apart.
template <int PIECES>
static __global__ void __launch_bounds__(NORM_HELD_THREADS, 1)
    pull_norm_held_kernel(const norm_arguments a)
{
    __shared__ float shared[NORM_HELD_THREADS / WARP_THREADS];
    int first = static_cast<int>(threadIdx.x) * BF16_VECTOR;
    int64_t row = static_cast<int64_t>(blockIdx.x) * a.hidden;
    bf16x8 sums[PIECES], lane[PIECES];
    float squares = 0, values[BF16_VECTOR], others[BF16_VECTOR];
    // The norm's weights are constants: loaded before the wait, they are there when the sum of
    // squares is, and not on the way of every block.
    uint4 low[PIECES], high[PIECES];
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        low[i] = load_here(a.norm + first + i * NORM_HELD_VALUES);
        high[i] = load_here(a.norm + first + i * NORM_HELD_VALUES + BF16_VECTOR / 2);
    }
    pdl_wait();
    pdl_trigger();
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        int64_t at = row + first + i * NORM_HELD_VALUES;
        sums[i].bits = *reinterpret_cast<const uint4 *>(a.residual + at);
        if (a.lane != NULL)
            lane[i].bits = *reinterpret_cast<const uint4 *>(a.lane + at);
    }
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        bf16x8_to_float(values, sums[i]);
        if (a.lane != NULL) {
            bf16x8_to_float(others, lane[i]);
#pragma unroll
            for (int k = 0; k < BF16_VECTOR; k++)
                values[k] += others[k];
            sums[i] = bf16x8_from_float(values);
            *reinterpret_cast<uint4 *>(a.residual + row + first + i * NORM_HELD_VALUES) =
                sums[i].bits;
            bf16x8_to_float(values, sums[i]);
        }
#pragma unroll
        for (int k = 0; k < BF16_VECTOR; k++)
            squares += values[k] * values[k];
    }
    float scale = rsqrtf(
        block_sum<NORM_HELD_THREADS>(squares, shared) / static_cast<float>(a.hidden) + a.eps);
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        int at = first + i * NORM_HELD_VALUES;
        const uint32_t norm[BF16_VECTOR] = {low[i].x,  low[i].y,  low[i].z,  low[i].w,
                                            high[i].x, high[i].y, high[i].z, high[i].w};
        bf16x8_to_float(values, sums[i]);
#pragma unroll
        for (int k = 0; k < BF16_VECTOR; k++)
            values[k] = values[k] * scale * (1.0f + __uint_as_float(norm[k]));
        *reinterpret_cast<uint4 *>(a.normed + row + at) = bf16x8_from_float(values).bits;
    }
}

// False when no row of `pieces` pieces is held in registers.
template <int PIECES = NORM_HELD_MAX>
static bool pull_norm_held(cudaStream_t stream, const norm_arguments &a, dim3 grid, int pieces)
{
    if (pieces == PIECES) {
        launch_chained(pull_norm_held_kernel<PIECES>, grid, dim3(NORM_HELD_THREADS), 0, stream, a);
        return true;
    }
    if constexpr (PIECES > 1)
        return pull_norm_held<PIECES - 1>(stream, a, grid, pieces);
    return false;
}

static void pull_norm(cudaStream_t stream, const struct norm_linear_pull *op, const bf16 *lane)
{
    norm_arguments a = {op->residual, lane, op->norm, op->normed, op->hidden, op->eps};
    dim3 grid(static_cast<unsigned>(op->tokens));
    if (op->hidden % NORM_HELD_VALUES == 0 &&
        pull_norm_held(stream, a, grid, op->hidden / NORM_HELD_VALUES))
        return;
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
    bool apart = op->parts != NULL && op->parts->products != NULL;
    ASSERT(!apart || (op->pull != NULL && norm_parts_serves(op->hidden)));
    if (product && !apart && op->tokens <= NORM_FOLDED_TOKENS_MAX &&
        few_serves(op->weight.rows, op->hidden, op->tokens)) {
        norm_folded(stream->handle, op, lane);
        return;
    }
    if (apart)
        norm_parts(stream->handle, op);
    else
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
