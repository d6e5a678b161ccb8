// SPDX-License-Identifier: Apache-2.0
// linear_push.cu -- the gated norm of GDN where there is a gate, then the product into the lane.
#include "kernels/device/bf16.cuh"
#include "kernels/device/lane.cuh"
#include "kernels/device/linear.cuh"
#include "kernels/device/linear_few.cuh"

extern "C" {
#include "kernels/linear_push.h"
}

enum {
    GATE_WARPS = 8,
    GATE_WIDE_LANES = FEW_GATE_DIM / BF16_VECTOR,
    GATE_WIDE_UNITS = GATE_WARPS * WARP_THREADS / GATE_WIDE_LANES,
    GATE_FOLDED_TOKENS_MAX = 1, // beyond, what every block repeats costs more than a kernel
};

struct gate_arguments {
    bf16 *gated; // [tokens, heads, GATE_DIM]
    const bf16 *o, *gate;
    const float *norm;
    int64_t o_stride, gate_stride, units; // of a head and token
    float eps;
    int heads;
};

// A warp per head and token, four values a lane: gated = norm(o) * w * silu(z), rounded once.
static __global__ void __launch_bounds__(GATE_WARPS *WARP_THREADS)
    gated_norm_kernel(const gate_arguments a)
{
    int64_t unit = static_cast<int64_t>(blockIdx.x) * GATE_WARPS + threadIdx.x / WARP_THREADS;
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    float4 norm = reinterpret_cast<const float4 *>(a.norm)[lane];
    pdl_wait();
    pdl_trigger();
    if (unit >= a.units)
        return;
    int64_t token = unit / a.heads, at = unit % a.heads * FEW_GATE_DIM + 4 * lane;
    uint2 o = *reinterpret_cast<const uint2 *>(a.o + token * a.o_stride + at);
    uint2 z = few_load_pairs(a.gate + token * a.gate_stride + at);
    *reinterpret_cast<uint2 *>(a.gated + token * a.heads * FEW_GATE_DIM + at) =
        few_gate(o, z, norm, a.eps);
}

// Half a warp per head and token, eight values a lane: o, gate and their strides are aligned so.
static __global__ void __launch_bounds__(GATE_WARPS *WARP_THREADS)
    gated_norm_wide_kernel(const gate_arguments a)
{
    int64_t unit =
        static_cast<int64_t>(blockIdx.x) * GATE_WIDE_UNITS + threadIdx.x / GATE_WIDE_LANES;
    int lane = static_cast<int>(threadIdx.x) % GATE_WIDE_LANES;
    float values[BF16_VECTOR], gates[BF16_VECTOR], norm[BF16_VECTOR], squares = 0;
#pragma unroll
    for (int k = 0; k < BF16_VECTOR; k++)
        norm[k] = a.norm[lane * BF16_VECTOR + k];
    pdl_wait();
    pdl_trigger();
    int64_t token = unit / a.heads, at = unit % a.heads * FEW_GATE_DIM + lane * BF16_VECTOR;
    bf16x8 o = {}, z = {};
    if (unit < a.units) {
        o.bits = *reinterpret_cast<const uint4 *>(a.o + token * a.o_stride + at);
        z.bits = *reinterpret_cast<const uint4 *>(a.gate + token * a.gate_stride + at);
    }
    bf16x8_to_float(values, o);
    bf16x8_to_float(gates, z);
#pragma unroll
    for (int k = 0; k < BF16_VECTOR; k++)
        squares += values[k] * values[k];
#pragma unroll
    for (int offset = GATE_WIDE_LANES / 2; offset > 0; offset /= 2)
        squares += __shfl_xor_sync(0xffffffffu, squares, offset);
    float scale = rsqrtf(squares / FEW_GATE_DIM + a.eps);
#pragma unroll
    for (int k = 0; k < BF16_VECTOR; k++)
        values[k] *= scale * norm[k] * (gates[k] / (1.0f + expf(-gates[k])));
    if (unit < a.units)
        *reinterpret_cast<uint4 *>(a.gated + token * a.heads * FEW_GATE_DIM + at) =
            bf16x8_from_float(values).bits;
}

static bool gate_aligned(const bf16 *row, int64_t stride)
{
    return reinterpret_cast<uintptr_t>(row) % sizeof(uint4) == 0 && stride % BF16_VECTOR == 0;
}

static void gate_rows(cudaStream_t stream, const struct linear_push *op)
{
    gate_arguments a = {op->gated,
                        op->x,
                        op->gate,
                        op->norm,
                        op->x_stride,
                        op->gate_stride,
                        static_cast<int64_t>(op->tokens) * op->heads,
                        op->eps,
                        op->heads};
    dim3 grid(static_cast<unsigned>((a.units + GATE_WARPS - 1) / GATE_WARPS));
    dim3 wide(static_cast<unsigned>((a.units + GATE_WIDE_UNITS - 1) / GATE_WIDE_UNITS));
    if (gate_aligned(a.o, a.o_stride) && gate_aligned(a.gate, a.gate_stride))
        launch_chained(gated_norm_wide_kernel, wide, dim3(GATE_WARPS * WARP_THREADS), 0, stream, a);
    else
        launch_chained(gated_norm_kernel, grid, dim3(GATE_WARPS * WARP_THREADS), 0, stream, a);
}

static void gate_folded(cudaStream_t stream, const struct linear_push *op, bf16 *lane)
{
    few_arguments a = {};
    a.w = weight_bf16(&op->weight);
    a.rows = op->weight.rows;
    a.columns = op->weight.columns;
    a.tokens = op->tokens;
    a.y = lane;
    a.x = op->x;
    a.x_stride = op->x_stride;
    a.gate = op->gate;
    a.gate_stride = op->gate_stride;
    a.norm = op->norm;
    a.eps = op->eps;
    few_launch<FEW_GATED>(stream, a);
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
        ASSERT(op->dim == FEW_GATE_DIM && op->heads * op->dim == op->weight.columns);
        if (op->tokens <= GATE_FOLDED_TOKENS_MAX &&
            few_serves(op->weight.rows, op->weight.columns, op->tokens)) {
            gate_folded(stream->handle, op, lane);
            exchange_sent(stream, op->push, bytes);
            return;
        }
        gate_rows(stream->handle, op);
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
    exchange_sent(stream, op->push, bytes);
}
