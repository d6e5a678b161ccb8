// SPDX-License-Identifier: Apache-2.0
// norm_parts.cu -- a block per token, a vector a thread: the products of its experts are added up,
// pulled into the residual, and the row is normalised.
#include "kernels/device/norm_parts.cuh"

#include "kernels/device/parts_sum.cuh"
#include "kernels/device/reduce.cuh"

struct parts_arguments {
    struct push_parts parts;
    bf16 *residual, *normed; // [tokens, hidden]
    const float *norm;       // [hidden]
    int hidden;
    float eps;
};

// grid tokens; block hidden / 8 threads, in whole warps. The bound of one block lets the compiler
// keep all products on their way.
template <typename VALUES, int PICKS>
static __global__ void __launch_bounds__(NORM_PARTS_THREADS_MAX, 1)
    norm_parts_kernel(const parts_arguments a)
{
    __shared__ float squares_of[NORM_PARTS_THREADS_MAX / WARP_THREADS];
    int64_t token = blockIdx.x;
    int at = static_cast<int>(threadIdx.x), warps = static_cast<int>(blockDim.x) / WARP_THREADS;
    bool inside = at < a.hidden / BF16_VECTOR;
    int64_t vector = token * (a.hidden / BF16_VECTOR) + at;
    bf16x8 sum = {};
    float values[BF16_VECTOR], pushed[BF16_VECTOR] = {}, squares = 0;
    float4 low = {}, high = {}; // of the norm
    if (inside) {
        low = float_of(load_here(a.norm + at * BF16_VECTOR));
        high = float_of(load_here(a.norm + at * BF16_VECTOR + BF16_VECTOR / 2));
    }
    pdl_wait();
    pdl_trigger();
    if (inside) {
        sum.bits = load_here(reinterpret_cast<const uint4 *>(a.residual) + vector);
        parts_sum<VALUES, PICKS>(pushed, a.parts, token, a.hidden, at);
        bf16x8_to_float(values, sum);
        sum = bf16x8_from_float(pushed); // as a lane holds it
        bf16x8_to_float(pushed, sum);
#pragma unroll
        for (int k = 0; k < BF16_VECTOR; k++)
            values[k] += pushed[k];
        sum = bf16x8_from_float(values);
        reinterpret_cast<uint4 *>(a.residual)[vector] = sum.bits;
        bf16x8_to_float(values, sum);
#pragma unroll
        for (int k = 0; k < BF16_VECTOR; k++)
            squares += values[k] * values[k];
    }
    squares = warp_sum(squares);
    if (at % WARP_THREADS == 0)
        squares_of[at / WARP_THREADS] = squares;
    __syncthreads();
    squares = 0;
    for (int warp = 0; warp < warps; warp++)
        squares += squares_of[warp];
    float scale = rsqrtf(squares / static_cast<float>(a.hidden) + a.eps);
    if (!inside)
        return;
    const float norm[BF16_VECTOR] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int k = 0; k < BF16_VECTOR; k++)
        values[k] = values[k] * scale * (1.0f + norm[k]);
    reinterpret_cast<uint4 *>(a.normed)[vector] = bf16x8_from_float(values).bits;
}

template <typename VALUES>
static void norm_parts_launch(cudaStream_t stream, const parts_arguments &a, int tokens)
{
    int vectors = a.hidden / BF16_VECTOR;
    dim3 grid(static_cast<unsigned>(tokens));
    dim3 block(static_cast<unsigned>((vectors + WARP_THREADS - 1) / WARP_THREADS * WARP_THREADS));
    auto kernel = norm_parts_kernel<VALUES, 0>;
    if (a.parts.picks == 8)
        kernel = norm_parts_kernel<VALUES, 8>;
    else if (a.parts.picks == 10)
        kernel = norm_parts_kernel<VALUES, 10>;
    launch_chained(kernel, grid, block, 0, stream, a);
}

void norm_parts(cudaStream_t stream, const struct norm_linear_pull *op)
{
    parts_arguments a = {*op->parts, op->residual, op->normed, op->norm, op->hidden, op->eps};
    if (a.parts.rounded)
        norm_parts_launch<bf16x8>(stream, a, op->tokens);
    else
        norm_parts_launch<parts_float>(stream, a, op->tokens);
}
