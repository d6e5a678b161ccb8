// SPDX-License-Identifier: Apache-2.0
// linear.cu -- the product of linear.cuh: up to 16 tokens by linear_few.cuh, up to 32 by the
// streaming kernel of experts_few.cuh, more by cuBLASLt. Where rows are not a multiple of 8 the
// streaming kernel serves up to 1024 tokens and, into f32, linear_many more. What none of them
// takes has a warp per row of W and up to LINEAR_TOKENS tokens, W read once for them.
#include "kernels/device/dot.cuh"
#include "kernels/device/experts_few.cuh"
#include "kernels/device/experts_many.cuh"
#include "kernels/device/library.cuh"
#include "kernels/device/linear.cuh"
#include "kernels/device/linear_few.cuh"
#include "kernels/device/sm90.cuh"

enum {
    LINEAR_TOKENS = 8,
    LINEAR_WARPS = 4,
    LINEAR_SOME_TOKENS = 32,       // beyond, cuBLASLt is faster, but
    LINEAR_SOME_TOKENS_ODD = 1024, // slow where rows are not a multiple of 8
};

// Rounds once to the output's type.
static __device__ __forceinline__ void linear_store(const linear_shape &shape, int token, int row,
                                                    float sum)
{
    int64_t at = static_cast<int64_t>(token) * shape.rows + row;
    if (shape.y != NULL)
        shape.y[at] = bf16_from_float(sum);
    else
        shape.y_float[at] = sum;
}

// grid (rows / LINEAR_WARPS, tokens / LINEAR_TOKENS); block LINEAR_WARPS warps; one warp per row.
static __global__ void linear_kernel(linear_shape shape)
{
    int row =
        static_cast<int>(blockIdx.x) * LINEAR_WARPS + static_cast<int>(threadIdx.x) / WARP_THREADS;
    int first = static_cast<int>(blockIdx.y) * LINEAR_TOKENS;
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    if (row >= shape.rows)
        return;
    const bf16x8 *w =
        reinterpret_cast<const bf16x8 *>(shape.w + static_cast<int64_t>(row) * shape.columns);
    const bf16x8 *x[LINEAR_TOKENS];
    float sums[LINEAR_TOKENS];
#pragma unroll
    for (int t = 0; t < LINEAR_TOKENS; t++) {
        int token = first + t < shape.tokens ? first + t : shape.tokens - 1;
        int64_t source = shape.gather != NULL ? shape.gather[token] : token;
        x[t] = reinterpret_cast<const bf16x8 *>(shape.x + source * shape.x_stride);
        sums[t] = 0;
    }
    for (int i = lane; i < shape.columns / BF16_VECTOR; i += WARP_THREADS) {
        float a[BF16_VECTOR], b[BF16_VECTOR];
        bf16x8_to_float(b, w[i]);
#pragma unroll
        for (int t = 0; t < LINEAR_TOKENS; t++) {
            bf16x8_to_float(a, x[t][i]);
#pragma unroll
            for (int k = 0; k < BF16_VECTOR; k++)
                sums[t] += a[k] * b[k];
        }
    }
#pragma unroll
    for (int t = 0; t < LINEAR_TOKENS; t++) {
        float sum = warp_sum(sums[t]);
        if (lane == 0 && first + t < shape.tokens)
            linear_store(shape, first + t, row, sum);
    }
}

static void linear_general(cudaStream_t stream, const linear_shape &shape)
{
    dim3 grid(static_cast<unsigned>((shape.rows + LINEAR_WARPS - 1) / LINEAR_WARPS),
              static_cast<unsigned>((shape.tokens + LINEAR_TOKENS - 1) / LINEAR_TOKENS));
    linear_kernel<<<grid, LINEAR_WARPS * WARP_THREADS, 0, stream>>>(shape);
    LAUNCH_CHECK();
}

// Some tokens: W streams once from memory, groups of tokens share it in the second-level cache.
static void linear_some(cudaStream_t stream, const linear_shape &shape)
{
    experts_arguments a = {};
    a.x = shape.x;
    a.token_stride = shape.x_stride;
    a.shared_w = shape.w;
    a.tokens = shape.tokens;
    a.shared_columns = shape.columns;
    a.shared_rows = shape.rows;
    a.gather = shape.gather;
    a.y = shape.y;
    a.y_float = shape.y_float;
    if (shape.tokens <= 2 * TILE_TOKENS)
        experts_launch<EXPERTS_DENSE, 2, 2, 3, 8>(stream, a);
    else
        experts_launch<EXPERTS_DENSE, 2, 4, 2, 8>(stream, a);
}

void linear_launch(cudaStream_t stream, const linear_shape &shape)
{
    if (shape.tokens == 0 || shape.rows == 0)
        return;
    ASSERT(shape.columns % BF16_VECTOR == 0 && shape.x_stride % BF16_VECTOR == 0);
    bool odd = shape.rows % 8 != 0;
    int some_tokens = odd ? LINEAR_SOME_TOKENS_ODD : LINEAR_SOME_TOKENS;
    if (few_serves(shape.rows, shape.columns, shape.tokens)) {
        few_arguments a = {};
        a.w = shape.w;
        a.rows = shape.rows;
        a.columns = shape.columns;
        a.tokens = shape.tokens;
        a.y = shape.y;
        a.y_float = shape.y_float;
        a.x = shape.x;
        a.gather = shape.gather;
        a.x_stride = shape.x_stride;
        few_launch<FEW_PLAIN>(stream, a);
    } else if (shape.columns % CHUNK == 0 && shape.rows >= 2 * TILE_ROWS &&
               shape.tokens <= some_tokens) {
        linear_some(stream, shape);
    } else if (odd && device_is_sm90() && shape.columns % CHUNK == 0 && shape.gather == NULL &&
               shape.y_float != NULL) {
        linear_many(stream, shape);
    } else if (shape.gather == NULL && library_serves(shape)) {
        library_linear(stream, shape);
    } else {
        linear_general(stream, shape);
    }
}
