// SPDX-License-Identifier: Apache-2.0
// moe_push.cu -- which kernels serve how many tokens: one to four add their experts in registers
// (experts_down.cuh); up to some hundred stream each expert's weights once (experts_few.cuh, and
// moe_push_stream_sm90.cu where experts have more of them), more are multiplied in large tiles
// (moe_push_sm90.cu), and a token's products are then added in the order of its picks; odd shapes
// take a warp per column.
#include "kernels/device/dot.cuh"
#include "kernels/device/experts_down.cuh"
#include "kernels/device/experts_few.cuh"
#include "kernels/device/experts_many.cuh"
#include "kernels/device/experts_stream.cuh"
#include "kernels/device/lane.cuh"
#include "kernels/device/norm_parts.cuh"
#include "kernels/device/parts_sum.cuh"

extern "C" {
#include "kernels/moe_push.h"
}

enum {
    MOE_WARPS = 4,
    MOE_SPARSE_TOKENS_MAX = 128, // of 256 experts each then has rarely more than 8 tokens
};

static __device__ __forceinline__ const bf16x8 *row_of(const bf16 *matrix, int64_t row, int columns)
{
    return reinterpret_cast<const bf16x8 *>(matrix + row * columns);
}

struct moe_arguments {
    const bf16 *x, *gate_up, *down, *shared_gate_up, *shared_down;
    const int32_t *expert_ids;
    const float *expert_weights, *shared_weights;
    bf16 *middle; // [tokens, picks * width + shared_width]
    bf16 *lane;   // [tokens, hidden]
    int hidden, picks, width, shared_width;
};

// grid (tokens, middle columns / MOE_WARPS): silu(gate) * up of one column, rounded once.
static __global__ void moe_middle_kernel(moe_arguments a)
{
    int64_t token = blockIdx.x;
    int column =
        static_cast<int>(blockIdx.y) * MOE_WARPS + static_cast<int>(threadIdx.x) / WARP_THREADS;
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
        a.middle[token * columns + column] = bf16_from_float(silu(g) * u);
}

// grid (tokens, hidden / MOE_WARPS): one output, experts in the order of their picks.
static __global__ void moe_down_kernel(moe_arguments a)
{
    int64_t token = blockIdx.x;
    int64_t row = static_cast<int64_t>(blockIdx.y) * MOE_WARPS + threadIdx.x / WARP_THREADS;
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

// The shape without a kernel of its own.
static void moe_general(cudaStream_t stream, const struct moe_push *op, bf16 *lane)
{
    moe_arguments a = {op->x,
                       weight_bf16(&op->gate_up),
                       weight_bf16(&op->down),
                       weight_bf16(&op->shared_gate_up),
                       weight_bf16(&op->shared_down),
                       op->expert_ids,
                       op->expert_weights,
                       op->shared_weights,
                       op->middle,
                       lane,
                       op->hidden,
                       op->picks,
                       op->width,
                       op->shared_width};
    unsigned tokens = static_cast<unsigned>(op->tokens);
    int columns = op->picks * op->width + op->shared_width;
    dim3 middle(tokens, static_cast<unsigned>((columns + MOE_WARPS - 1) / MOE_WARPS));
    dim3 down(tokens, static_cast<unsigned>((op->hidden + MOE_WARPS - 1) / MOE_WARPS));
    moe_middle_kernel<<<middle, MOE_WARPS * WARP_THREADS, 0, stream>>>(a);
    LAUNCH_CHECK();
    moe_down_kernel<<<down, MOE_WARPS * WARP_THREADS, 0, stream>>>(a);
    LAUNCH_CHECK();
}

enum { COMBINE_THREADS = 64 }; // few tokens' sums on many multiprocessors

// grid tokens * hidden / 8 / COMBINE_THREADS: eight outputs a thread.
template <typename VALUES, int PICKS>
static __global__ void __launch_bounds__(COMBINE_THREADS, 1)
    moe_combine_kernel(const struct push_parts parts, bf16 *y, int hidden, int tokens)
{
    int vectors = hidden / BF16_VECTOR;
    int64_t unit = static_cast<int64_t>(blockIdx.x) * COMBINE_THREADS + threadIdx.x;
    int64_t token = unit / vectors;
    float sums[BF16_VECTOR] = {};
    pdl_wait();
    pdl_trigger();
    if (token >= tokens)
        return;
    parts_sum<VALUES, PICKS>(sums, parts, token, hidden, static_cast<int>(unit % vectors));
    reinterpret_cast<uint4 *>(y)[unit] = bf16x8_from_float(sums).bits;
}

// Adds a token's products, VALUES of them at a time, or leaves that to who pulls.
template <typename VALUES>
static void moe_combine(cudaStream_t stream, const struct moe_push *op, bf16 *lane)
{
    struct push_parts parts = {op->products, op->expert_weights, op->shared_weights, op->picks,
                               sizeof(VALUES) == sizeof(bf16x8)};
    int64_t units = static_cast<int64_t>(op->tokens) * (op->hidden / BF16_VECTOR);
    dim3 grid(static_cast<unsigned>((units + COMBINE_THREADS - 1) / COMBINE_THREADS));
    auto kernel = moe_combine_kernel<VALUES, 0>;
    if (op->parts != NULL && op->push->cuda == NULL && norm_parts_serves(op->hidden)) {
        *op->parts = parts;
        return;
    }
    if (op->picks == 8)
        kernel = moe_combine_kernel<VALUES, 8>;
    else if (op->picks == 10)
        kernel = moe_combine_kernel<VALUES, 10>;
    launch_chained(kernel, grid, dim3(COMBINE_THREADS), 0, stream, parts, lane, op->hidden,
                   op->tokens);
}

// The first product, x to middle, and the second one, middle to products.
static experts_arguments moe_few_arguments(const struct moe_push *op, bool gated)
{
    int64_t middle_stride = static_cast<int64_t>(op->picks) * op->width + op->shared_width;
    experts_arguments a = {};
    a.x = gated ? op->x : op->middle;
    a.token_stride = gated ? op->hidden : middle_stride;
    a.pick_stride = gated ? 0 : op->width;
    a.w = weight_bf16(gated ? &op->gate_up : &op->down);
    a.shared_w = weight_bf16(gated ? &op->shared_gate_up : &op->shared_down);
    a.ids = op->expert_ids;
    a.tokens = op->tokens;
    a.picks = op->picks;
    a.experts = op->experts;
    a.columns = gated ? op->hidden : op->width;
    a.shared_columns = gated ? op->hidden : op->shared_width;
    a.rows = gated ? op->width : op->hidden;
    a.shared_rows = gated ? op->shared_width : op->hidden;
    a.sorted = op->tokens > DOWN_TOKENS_MAX;
    a.middle = op->middle;
    a.middle_stride = middle_stride;
    a.products = static_cast<float *>(op->products);
    return a;
}

// Down for one to four tokens; false when the shape is not served.
static bool moe_down_few(cudaStream_t stream, const struct moe_push *op, bf16 *lane)
{
    down_arguments a = {};
    a.w = weight_bf16(&op->down);
    a.shared_w = weight_bf16(&op->shared_down);
    a.ids = op->expert_ids;
    a.weights = op->expert_weights;
    a.shared_weights = op->shared_weights;
    a.middle = op->middle;
    a.y = lane;
    a.tokens = op->tokens;
    a.hidden = op->hidden;
    a.picks = op->picks;
    a.width = op->width;
    a.shared_width = op->shared_width;
    if (!down_serves(a))
        return false;
    down_launch(stream, a);
    return true;
}

static void moe_few(cudaStream_t stream, const struct moe_push *op, bf16 *lane)
{
    experts_arguments gate_up = moe_few_arguments(op, true), down = moe_few_arguments(op, false);
    bool sparse = op->tokens <= MOE_SPARSE_TOKENS_MAX;
    if (sparse)
        experts_launch<EXPERTS_GATED, 2, 1, 2, 16>(stream, gate_up);
    else
        experts_launch<EXPERTS_GATED, 2, 2, 3, 8>(stream, gate_up);
    if (moe_down_few(stream, op, lane))
        return;
    if (sparse)
        experts_launch<EXPERTS_PRODUCTS, 2, 1, 2, 16>(stream, down);
    else
        experts_launch<EXPERTS_PRODUCTS, 2, 2, 3, 8>(stream, down);
    moe_combine<parts_float>(stream, op, lane);
}

extern "C" void moe_push(struct stream *stream, const struct moe_push *op)
{
    ASSERT(op->width % BF16_VECTOR == 0 && op->shared_width % BF16_VECTOR == 0);
    ASSERT(op->hidden % BF16_VECTOR == 0 && op->gate_up.format == WEIGHT_BF16);
    if (op->tokens == 0)
        return;
    if (op->parts != NULL)
        op->parts->products = NULL;
    size_t bytes = static_cast<size_t>(op->tokens) * static_cast<size_t>(op->hidden) * 2;
    bf16 *lane = exchange_lane(op->push, bytes);
    bool tiles = op->hidden % CHUNK == 0 && op->width % CHUNK == 0 && op->shared_width % CHUNK == 0;
    bool few = op->tokens <= MOE_FLOAT_TOKENS_MAX && op->experts <= EXPERTS_MAX &&
               op->tokens * op->picks <= EXPERT_SLOTS_MAX;
    if (experts_stream_serves(op)) {
        experts_stream(stream->handle, op);
        if (op->tokens <= MOE_FLOAT_TOKENS_MAX)
            moe_combine<parts_float>(stream->handle, op, lane);
        else
            moe_combine<bf16x8>(stream->handle, op, lane);
    } else if (tiles && few) {
        moe_few(stream->handle, op, lane);
    } else if (experts_many_serves(op)) {
        experts_many(stream->handle, op);
        moe_combine<bf16x8>(stream->handle, op, lane);
    } else {
        moe_general(stream->handle, op, lane);
    }
    exchange_sent(stream, op->push, bytes);
}
