// SPDX-License-Identifier: Apache-2.0
// attention_merge.cu -- adds up what the blocks of attention_decode.cu left of items that lie in
// several of them: as many as there are items, or borders between blocks, whichever is less.
#include "kernels/device/attention.cuh"

enum {
    MERGE_THREADS = HEAD_DIM,
    MERGE_LANES = MERGE_THREADS / (HEAD_DIM / 4),
    // Parts of a lane that are asked for before their scales are known: of few items, which lie in
    // many blocks, and of many, which lie in two or three.
    MERGE_AHEAD_FEW = 6,
    MERGE_AHEAD_MANY = 2,
    FEW_ITEMS = 8,
};

static_assert(static_cast<int>(ATTENTION_PARTS_MAX) <= static_cast<int>(MERGE_THREADS),
              "a thread per part");

// Which row of the workspace holds part i of a query.
static __device__ __forceinline__ int64_t row_of(const struct border &border, int i, int row)
{
    return part_of(border.first + i, i == 0) * ATTENTION_PART_ROWS + row;
}

static __device__ __forceinline__ void add_part(float4 *sum, float4 part, float scale)
{
    sum->x += part.x * scale;
    sum->y += part.y * scale;
    sum->z += part.z * scale;
    sum->w += part.w * scale;
}

// grid (borders, queries of a part): merges one query of an item that lies in several blocks. All
// that it reads depends on the border alone and is asked for at once; parts are added in order.
template <int AHEAD>
static __global__ void __launch_bounds__(MERGE_THREADS) merge_kernel(struct attention op)
{
    __shared__ float scale[ATTENTION_PARTS_MAX], totals[MERGE_THREADS / WARP_THREADS];
    __shared__ float4 sums[MERGE_LANES][HEAD_DIM / 4];
    int thread = static_cast<int>(threadIdx.x), row = static_cast<int>(blockIdx.y);
    int quarter = thread % (HEAD_DIM / 4), lane = thread / (HEAD_DIM / 4);
    pdl_wait();
    pdl_trigger();
    const struct border border =
        reinterpret_cast<const struct border *>(op.workspace.borders)[blockIdx.x];
    if (border.count == 0 || row >= border.queries)
        return;
    const float4 *parts = reinterpret_cast<const float4 *>(op.workspace.sums) + quarter;
    float4 first[AHEAD];
    float2 own = make_float2(-INFINITY, 0);
#pragma unroll
    for (int k = 0; k < AHEAD; k++) {
        int i = lane + k * MERGE_LANES;
        if (i < border.count)
            first[k] = parts[row_of(border, i, row) * (HEAD_DIM / 4)];
    }
    if (thread < border.count)
        own = reinterpret_cast<const float2 *>(op.workspace.scales)[row_of(border, thread, row)];
    int group = op.heads / op.kv_heads, query = border.query_first + row;
    int64_t token = border.token_first + query / group;
    int head = border.kv_head * group + query % group;
    float gate = bf16_to_float(
        op.projected[token * op.projected_stride + (op.heads + head) * HEAD_DIM + thread]);

    float top = own.x;
    for (int step = 16; step > 0; step /= 2)
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, step));
    if (thread % WARP_THREADS == 0)
        totals[thread / WARP_THREADS] = top;
    __syncthreads();
    for (int w = 0; w < MERGE_THREADS / WARP_THREADS; w++)
        top = fmaxf(top, totals[w]);
    float factor = own.x == -INFINITY ? 0.0f : power_of_2(own.x - top);
    if (thread < border.count)
        scale[thread] = factor;
    float weight = block_sum<MERGE_THREADS>(factor * own.y, totals);
    float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int k = 0; k < AHEAD; k++) {
        int i = lane + k * MERGE_LANES;
        if (i < border.count)
            add_part(&sum, first[k], scale[i]);
    }
#pragma unroll 8
    for (int i = lane + AHEAD * MERGE_LANES; i < border.count; i += MERGE_LANES)
        add_part(&sum, parts[row_of(border, i, row) * (HEAD_DIM / 4)], scale[i]);
    sums[lane][quarter] = sum;
    __syncthreads();
    float value = 0;
    for (int l = 0; l < MERGE_LANES; l++)
        value += reinterpret_cast<const float *>(sums)[l * HEAD_DIM + thread];
    op.y[(token * op.heads + head) * HEAD_DIM + thread] =
        bf16_from_float(weight > 0 ? value / weight * sigmoid(gate) : 0.0f);
}

void attention_merge(struct stream *stream, const struct attention *op, int borders, int queries)
{
    dim3 grid(static_cast<unsigned>(borders), static_cast<unsigned>(queries));
    launch_chained(borders <= FEW_ITEMS ? merge_kernel<MERGE_AHEAD_FEW>
                                        : merge_kernel<MERGE_AHEAD_MANY>,
                   grid, dim3(MERGE_THREADS), 0, stream->handle, *op);
}
