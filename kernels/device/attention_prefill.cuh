// SPDX-License-Identifier: Apache-2.0
// attention_prefill.cuh -- what the kernels of prefill rows share, whatever multiplies: which tile
// a block has, the making of its queries, causal hiding, and the gated end.
//
// A query is a (token, head of the group) pair, token-major: a tile has 128 / group tokens, so
// short rows fill it, and a page is loaded once for all heads that share it.
#pragma once

#include "kernels/device/attention.cuh"

enum {
    PREFILL_WARPS = 8,
    PREFILL_THREADS = PREFILL_WARPS * WARP_THREADS,
    PREFILL_QUERIES = PREFILL_WARPS * 16,
    QUERY_BYTES = PREFILL_QUERIES * HEAD_BYTES,
};

// Which tile a block has; -1: none.
struct prefill_share {
    int row, tile;
};

// Tiles of a row, for one KV head.
static __device__ __forceinline__ int row_tiles(const struct attention &op, int row)
{
    int queries = op.tables.active_count[row] * (op.heads / op.kv_heads);
    return (queries + PREFILL_QUERIES - 1) / PREFILL_QUERIES;
}

// The last tiles first: they have the longest way. One warp.
static __device__ void find_tile(prefill_share *s, const struct attention &op)
{
    int first = op.tables.decode_rows, rows = op.tables.rows_count - first;
    int lane = static_cast<int>(threadIdx.x), sum = 0;
    int each = (rows + WARP_THREADS - 1) / WARP_THREADS;
    int low = min(lane * each, rows), high = min(low + each, rows);
    for (int row = low; row < high; row++)
        sum += row_tiles(op, first + row);
    int before = sum;
    for (int step = 1; step < WARP_THREADS; step *= 2) {
        int other = __shfl_up_sync(0xffffffffu, before, step);
        before += lane >= step ? other : 0;
    }
    int wanted =
        __shfl_sync(0xffffffffu, before, WARP_THREADS - 1) - 1 - static_cast<int>(blockIdx.x);
    before -= sum;
    if (lane == 0)
        s->tile = -1;
    __syncwarp();
    if (wanted >= before && wanted < before + sum) {
        int row = low;
        for (; wanted >= before + row_tiles(op, first + row); row++)
            before += row_tiles(op, first + row);
        s->row = first + row;
        s->tile = wanted - before;
    }
}

// Norm, rotation and rounding of a tile's queries. rotation: scratch for the tile's tokens.
// `at` places a chunk of a row.
template <uint32_t (*AT)(int row, int chunk)>
static __device__ void load_tile(char *queries, float2 *rotation, const struct attention &op,
                                 const row_view &view, int first, int kv_head)
{
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    int group = op.heads / op.kv_heads, pairs = op.rotary_dim / 2, last = view.active * group - 1;
    int token_first = first / group, token_last = min(first + PREFILL_QUERIES - 1, last) / group;
    float scale[BF16_VECTOR];
    bf16x8 raw[PREFILL_QUERIES / PREFILL_WARPS]; // all under way while the rotations are made
#pragma unroll
    for (int i = 0; i < PREFILL_QUERIES / PREFILL_WARPS; i++) {
        int query = min(first + warp + i * PREFILL_WARPS, last);
        raw[i] =
            projected_head(op, view.token_first + query / group, kv_head * group + query % group);
    }
    load_norm(scale, op.q_norm);
    for (int i = static_cast<int>(threadIdx.x); i < (token_last - token_first + 1) * pairs;
         i += PREFILL_THREADS)
        rotation[i] = rotation_of(op, view.position + token_first + i / pairs, i % pairs);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < PREFILL_QUERIES / PREFILL_WARPS; i++) {
        int row = warp + i * PREFILL_WARPS, token = min(first + row, last) / group;
        bf16x8 q = norm_rotate_head(raw[i], scale, op.eps, rotation + (token - token_first) * pairs,
                                    op.rotary_dim);
        *reinterpret_cast<uint4 *>(queries + AT(row, lane)) = q.bits;
    }
    __syncthreads();
}

// A warp's 16 queries: rows lane / 4 and 8 more of the products.
struct prefill_state {
    float largest[2], weight[2]; // weight: of this thread's keys only
    float sum[HEAD_DIM / 8][4];
};

// Hides keys past a query's position and before position_first. key: of column 0.
static __device__ __forceinline__ void hide(float (&scores)[PAGE_TOKENS / 8][4], int key,
                                            const int (&position)[2], int position_first)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
#pragma unroll
    for (int j = 0; j < PAGE_TOKENS / 8; j++) {
#pragma unroll
        for (int k = 0; k < 4; k++) {
            int at = key + j * 8 + lane % 4 * 2 + k % 2;
            if (at > position[k / 2] || at < position_first)
                scores[j][k] = -INFINITY;
        }
    }
}

// Divided, gated, rounded: by way of shared memory, so that a warp reads gates and writes y a head
// at a time. stage: 16 rows of f32 of this warp; query: of the warp's first row.
static __device__ void store(prefill_state *r, char *stage, const struct attention &op,
                             const row_view &view, int query, int kv_head)
{
    enum { ROW_BYTES = HEAD_DIM * 4, BATCH = 8 };
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS, group = op.heads / op.kv_heads;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int row = lane / 4 + 8 * h;
        float weight = quad_sum(r->weight[h]), inverse = weight > 0 ? 1.0f / weight : 0.0f;
#pragma unroll
        for (int j = 0; j < HEAD_DIM / 8; j++) {
            int chunk = (2 * j + lane % 4 / 2) ^ (row & 7);
            *reinterpret_cast<float2 *>(stage + row * ROW_BYTES + chunk * 16 + lane % 2 * 8) =
                make_float2(r->sum[j][2 * h] * inverse, r->sum[j][2 * h + 1] * inverse);
        }
    }
    __syncwarp();
    int rows = min(16, view.active * group - query);
    for (int first = 0; first < rows; first += BATCH) {
        bf16x8 gates[BATCH];
        int64_t at[BATCH];
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            int own = query + min(first + i, rows - 1), head = kv_head * group + own % group;
            int64_t token = view.token_first + own / group;
            gates[i] = projected_head(op, static_cast<int>(token), op.heads + head);
            at[i] = (token * op.heads + head) * (HEAD_DIM / BF16_VECTOR) + lane;
        }
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            int row = first + i;
            float gate[BF16_VECTOR], y[BF16_VECTOR];
            if (row >= rows)
                break;
            bf16x8_to_float(gate, gates[i]);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float4 sum = *reinterpret_cast<const float4 *>(
                    stage + row * ROW_BYTES + ((2 * lane + half) ^ (row & 7)) * 16);
                y[4 * half] = sum.x;
                y[4 * half + 1] = sum.y;
                y[4 * half + 2] = sum.z;
                y[4 * half + 3] = sum.w;
            }
#pragma unroll
            for (int k = 0; k < BF16_VECTOR; k++)
                y[k] *= sigmoid(gate[k]);
            reinterpret_cast<uint4 *>(op.y)[at[i]] = bf16x8_from_float(y).bits;
        }
    }
}

// The tiles of all prefill rows by Hopper's products, after the append; false on other devices,
// where nothing was queued.
bool attention_prefill_sm90(struct stream *stream, const struct attention *op);
