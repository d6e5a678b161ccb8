// SPDX-License-Identifier: Apache-2.0
// attention_queries.cuh -- a tile's queries into shared memory and its sums out of it, as the
// products of attention_prefill_sm90.cu need them: by single warps, 16 rows each.
//
// Tiles lie in shared memory as panels of 64 dimensions (128 bytes a row), chunk c of row r at
// place c ^ (r % 8): the layout that copies and products call swizzle 128.
#pragma once

#include "kernels/device/attention_work.cuh"
#include "kernels/device/wgmma.cuh"

enum {
    PANEL_DIMS = 64,
    PANELS = HEAD_DIM / PANEL_DIMS,
    PANEL_ROW_BYTES = PANEL_DIMS * 2,
    QUERY_PANEL_BYTES = PREFILL_QUERIES * PANEL_ROW_BYTES,
    // Eight lanes share a row, lane l of them chunks l, l + 8, ..: one of each panel.
    ROW_LANES = 8,
    ROUNDS = 16 * ROW_LANES / WARP_THREADS, // of four rows
};

// Four queries of a warp, one to eight lanes, or their gates: chunk lane % 8 + 8 j in raw[j].
// first_head: of the group. Returns the token.
static __device__ __forceinline__ int load_heads(uint4 (&raw)[PANELS], const struct attention &op,
                                                 const work &item, int query, int first_head)
{
    int token = query / item.group;
    const bf16 *from = op.projected +
                       static_cast<int64_t>(item.view.token_first + token) * op.projected_stride +
                       static_cast<int64_t>(first_head + query - token * item.group) * HEAD_DIM;
#pragma unroll
    for (int j = 0; j < PANELS; j++)
        raw[j] = reinterpret_cast<const uint4 *>(from)[fresh_thread() % ROW_LANES + j * ROW_LANES];
    return token;
}

// Norm, rotation and rounding of a lane's chunks of one query; only the first one is rotated.
// turns: of the lane's pairs.
static __device__ __forceinline__ void norm_rotate(uint4 (&raw)[PANELS],
                                                   const float (&scale)[PANELS][BF16_VECTOR],
                                                   float eps, const float4 *turns, int half_lanes)
{
    int lane = fresh_thread() % WARP_THREADS, part = lane % ROW_LANES;
    bool rotated = part < 2 * half_lanes, low = part < half_lanes;
    int partner = rotated ? (low ? lane + half_lanes : lane - half_lanes) : lane;
    float x[PANELS][BF16_VECTOR], squares = 0;
#pragma unroll
    for (int j = 0; j < PANELS; j++) {
        bf16x8 chunk;
        chunk.bits = raw[j];
        bf16x8_to_float(x[j], chunk);
#pragma unroll
        for (int k = 0; k < BF16_VECTOR; k++)
            squares += x[j][k] * x[j][k];
    }
#pragma unroll
    for (int step = 1; step < ROW_LANES; step *= 2)
        squares += __shfl_xor_sync(0xffffffffu, squares, step);
    float inverse = rsqrtf(squares / HEAD_DIM + eps);
#pragma unroll
    for (int j = 0; j < PANELS; j++) {
#pragma unroll
        for (int k = 0; k < BF16_VECTOR; k++)
            x[j][k] *= inverse * scale[j][k];
    }
#pragma unroll
    for (int k = 0; k < BF16_VECTOR; k += 2) {
        float4 turn = turns[k / 2];
        float first = __shfl_sync(0xffffffffu, x[0][k], partner);
        float second = __shfl_sync(0xffffffffu, x[0][k + 1], partner);
        if (rotated) {
            x[0][k] = x[0][k] * turn.x + (low ? -first : first) * turn.y;
            x[0][k + 1] = x[0][k + 1] * turn.z + (low ? -second : second) * turn.w;
        }
    }
#pragma unroll
    for (int j = 0; j < PANELS; j++)
        raw[j] = bf16x8_from_float(x[j]).bits;
}

// A lane's chunks of 1 + norm.
static __device__ __forceinline__ void load_scale(float (&scale)[PANELS][BF16_VECTOR],
                                                  const float *norm)
{
#pragma unroll
    for (int j = 0; j < PANELS; j++) {
        const float4 *from = reinterpret_cast<const float4 *>(norm) +
                             (fresh_thread() % ROW_LANES + j * ROW_LANES) * 2;
        float4 low = from[0], high = from[1];
        const float values[BF16_VECTOR] = {low.x,  low.y,  low.z,  low.w,
                                           high.x, high.y, high.z, high.w};
#pragma unroll
        for (int k = 0; k < BF16_VECTOR; k++)
            scale[j][k] = 1.0f + values[k];
    }
}

// A warp's 16 queries, from row `warp * 16` of the tile on. The rotations, a row of pairs a token,
// lie where the third and fourth panel of the queries will.
static __device__ __forceinline__ void load_queries(char *queries, const struct attention &op,
                                                    const work &item, int warp)
{
    int lane = fresh_thread() % WARP_THREADS, group = item.group, pairs = op.rotary_dim / 2;
    int last = item.view.active * group - 1, first = min(item.first + warp * 16, last);
    int part = lane % ROW_LANES, token_first = first / group, half_lanes = pairs / BF16_VECTOR;
    int token_last = min(first + 15, last) / group, tokens[ROUNDS];
    char *own = queries + warp * 16 * PANEL_ROW_BYTES, *scratch = own + 2 * QUERY_PANEL_BYTES;
    uint4 raw[ROUNDS][PANELS];
    float scale[PANELS][BF16_VECTOR];
#pragma unroll
    for (int i = 0; i < ROUNDS; i++)
        tokens[i] = load_heads(raw[i], op, item, min(first + i * 4 + lane / ROW_LANES, last),
                               item.kv_head * group);
    load_scale(scale, op.q_norm);
#pragma unroll 1
    for (int token = token_first; token <= token_last; token++) {
        int i = token - token_first;
        if (lane < pairs)
            reinterpret_cast<float2 *>(scratch + i / 8 * QUERY_PANEL_BYTES + i % 8 * 256)[lane] =
                rotation_of(op, item.view.position + token, lane);
    }
    __syncwarp();
    int pair = part < half_lanes ? part : part < 2 * half_lanes ? part - half_lanes : 0;
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
        int token = tokens[i] - token_first, row = i * 4 + lane / ROW_LANES;
        norm_rotate(raw[i], scale, op.eps,
                    reinterpret_cast<const float4 *>(scratch + token / 8 * QUERY_PANEL_BYTES +
                                                     token % 8 * 256 + pair * BF16_VECTOR * 8),
                    half_lanes);
#pragma unroll
        for (int j = 0; j < 2; j++) // no rotations lie there
            *reinterpret_cast<uint4 *>(own + wgmma_swizzled(row, part) + j * QUERY_PANEL_BYTES) =
                raw[i][j];
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
#pragma unroll
        for (int j = 2; j < PANELS; j++)
            *reinterpret_cast<uint4 *>(own + wgmma_swizzled(i * 4 + lane / ROW_LANES, part) +
                                       j * QUERY_PANEL_BYTES) = raw[i][j];
    }
}

// The gates of a warp's queries.
static __device__ __forceinline__ void
load_gates(uint4 (&gates)[ROUNDS][PANELS], const struct attention &op, const work &item, int warp)
{
    int last = item.view.active * item.group - 1;
    int first = item.first + warp * 16 + fresh_thread() % WARP_THREADS / ROW_LANES;
#pragma unroll
    for (int i = 0; i < ROUNDS; i++)
        load_heads(gates[i], op, item, min(first + i * 4, last),
                   op.heads + item.kv_head * item.group);
}

// 1 / (1 + e^-value) to 4 ulp of f32.
static __device__ __forceinline__ float quick_sigmoid(float value)
{
    float inverse;
    asm("rcp.approx.ftz.f32 %0, %1;"
        : "=f"(inverse)
        : "f"(1.0f + power_of_2(value * -1.4426950408889634f)));
    return inverse;
}

// A warp's sums, divided, gated, rounded: eight rows at a time by way of its queries' place, where
// a row of f32 takes 256 bytes of each panel.
static __device__ __forceinline__ void store_sums(prefill_state *r,
                                                  const uint4 (&gates)[ROUNDS][PANELS], char *stage,
                                                  const struct attention &op, const work &item,
                                                  int query)
{
    int lane = fresh_thread() % WARP_THREADS, part = lane % ROW_LANES, row = lane / 4;
    int rows = item.view.active * item.group - query;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float weight = quad_sum(r->weight[h]), inverse = weight > 0 ? 1.0f / weight : 0.0f;
#pragma unroll
        for (int j = 0; j < HEAD_DIM / 8; j++) {
            int chunk = 2 * j + lane % 4 / 2;
            *reinterpret_cast<float2 *>(stage + chunk / 16 * QUERY_PANEL_BYTES + row * 256 +
                                        ((chunk % 16) ^ (2 * row)) * 16 + lane % 2 * 8) =
                make_float2(r->sum[j][2 * h] * inverse, r->sum[j][2 * h + 1] * inverse);
        }
        __syncwarp();
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int own = i * 4 + lane / ROW_LANES, token = (query + h * 8 + own) / item.group;
            int64_t head = static_cast<int64_t>(item.view.token_first + token) * op.heads +
                           item.kv_head * item.group + query + h * 8 + own - token * item.group;
            if (h * 8 + own >= rows)
                break;
#pragma unroll
            for (int j = 0; j < PANELS; j++) {
                float y[BF16_VECTOR];
                bf16x8 gate;
                gate.bits = gates[h * 2 + i][j];
                bf16x8_to_float(y, gate);
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    float4 sum = *reinterpret_cast<const float4 *>(
                        stage + j * QUERY_PANEL_BYTES + own * 256 +
                        ((2 * part + half) ^ (2 * own)) * 16);
                    y[4 * half] = sum.x * quick_sigmoid(y[4 * half]);
                    y[4 * half + 1] = sum.y * quick_sigmoid(y[4 * half + 1]);
                    y[4 * half + 2] = sum.z * quick_sigmoid(y[4 * half + 2]);
                    y[4 * half + 3] = sum.w * quick_sigmoid(y[4 * half + 3]);
                }
                reinterpret_cast<uint4 *>(op.y + head * HEAD_DIM)[part + j * ROW_LANES] =
                    bf16x8_from_float(y).bits;
            }
        }
        __syncwarp();
    }
}
