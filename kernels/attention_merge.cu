// SPDX-License-Identifier: Apache-2.0
// attention_merge.cu -- adds up what the blocks of attention_decode.cu left of items that lay
// across their borders: at most one item a border, whatever the batch.
#include "kernels/device/attention.cuh"

enum {
    MERGE_THREADS = HEAD_DIM,
    MERGE_LANES = MERGE_THREADS / (HEAD_DIM / 4),
};

static_assert(static_cast<int>(ATTENTION_PARTS_MAX) <= static_cast<int>(MERGE_THREADS),
              "a thread per part");

// grid (blocks of decode_kernel, rows of a part): merges one query of the item that lies across the
// border before block x, if that is the item's first border. Parts are added in order.
static __global__ void __launch_bounds__(MERGE_THREADS) merge_kernel(struct attention op)
{
    __shared__ float scale[ATTENTION_PARTS_MAX], totals[MERGE_THREADS / WARP_THREADS];
    __shared__ float4 sums[MERGE_LANES][HEAD_DIM / 4];
    int thread = static_cast<int>(threadIdx.x), row = static_cast<int>(blockIdx.y);
    pdl_wait();
    pdl_trigger();
    const struct border border =
        reinterpret_cast<const struct border *>(op.workspace.borders)[blockIdx.x];
    if (border.count == 0 || row >= border.queries)
        return;
    float2 own = make_float2(-INFINITY, 0);
    if (thread < border.count)
        own = reinterpret_cast<const float2 *>(
            op.workspace
                .scales)[part_of(border.first + thread, thread == 0) * ATTENTION_PART_ROWS + row];
    float top = own.x;
    for (int step = 16; step > 0; step /= 2)
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, step));
    if (thread % WARP_THREADS == 0)
        totals[thread / WARP_THREADS] = top;
    __syncthreads();
    for (int w = 0; w < MERGE_THREADS / WARP_THREADS; w++)
        top = fmaxf(top, totals[w]);
    float factor = own.x == -INFINITY ? 0.0f : exp2f(own.x - top);
    if (thread < border.count)
        scale[thread] = factor;
    float weight = block_sum<MERGE_THREADS>(factor * own.y, totals);
    int quarter = thread % (HEAD_DIM / 4), lane = thread / (HEAD_DIM / 4);
    float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 8
    for (int i = lane; i < border.count; i += MERGE_LANES) {
        int64_t at =
            (part_of(border.first + i, i == 0) * ATTENTION_PART_ROWS + row) * (HEAD_DIM / 4);
        float4 part = reinterpret_cast<const float4 *>(op.workspace.sums)[at + quarter];
        sum.x += part.x * scale[i];
        sum.y += part.y * scale[i];
        sum.z += part.z * scale[i];
        sum.w += part.w * scale[i];
    }
    sums[lane][quarter] = sum;
    __syncthreads();
    const float *parts = reinterpret_cast<const float *>(sums);
    float value = 0;
    for (int l = 0; l < MERGE_LANES; l++)
        value += parts[l * HEAD_DIM + thread];
    int group = op.heads / op.kv_heads, query = border.query_first + row;
    int64_t token = border.token_first + query / group;
    int head = border.kv_head * group + query % group;
    float gate = bf16_to_float(
        op.projected[token * op.projected_stride + (op.heads + head) * HEAD_DIM + thread]);
    op.y[(token * op.heads + head) * HEAD_DIM + thread] =
        bf16_from_float(weight > 0 ? value / weight * sigmoid(gate) : 0.0f);
}

void attention_merge(struct stream *stream, const struct attention *op, int blocks, int queries)
{
    launch_chained(merge_kernel,
                   dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(queries)),
                   dim3(MERGE_THREADS), 0, stream->handle, *op);
}
