// SPDX-License-Identifier: Apache-2.0
// gdn_chunks.cuh -- what the chunked prefill's two kernels hand over: the chunks of a step, in the
// order of its rows, and each chunk's tiles in the workspace, stored so that one bulk copy brings a
// tile into shared memory as ldmatrix wants to read it.
#pragma once

#include "kernels/device/gdn.cuh"

enum {
    CHUNK = GDN_CHUNK_TOKENS,
    TILE_K = CHUNK * GDN_HEAD_DIM,    // values of a tile of k or q
    TILE_V = CHUNK * GDN_VALUE_SLICE, // of v: 32 value dimensions
    TILE_T = CHUNK * CHUNK,           // of the solved system and of the attention within a chunk
    SLICES = GDN_HEAD_DIM / GDN_VALUE_SLICE,
};

// Factors per token of a chunk: what scales its k when the state is read, its q when the state is
// read, its k when the state is written. Then the chunk's decay.
enum { FACTOR_READ, FACTOR_OUT = CHUNK, FACTOR_WRITE = 2 * CHUNK, FACTOR_DECAY = 3 * CHUNK };

// Where 8 values of 16 bits lie within a tile, in values, for rows of 128. The eight rows that one
// ldmatrix reads fall into different banks.
static __device__ __forceinline__ int tile_128(int row, int eighth)
{
    return eighth / 8 * (TILE_K / 2) + row * 64 + ((eighth % 8 ^ (row & 7)) << 3);
}

// As tile_128, rows of 64.
static __device__ __forceinline__ int tile_64(int row, int eighth)
{
    return row * 64 + ((eighth ^ (row & 7)) << 3);
}

// As tile_128, rows of 32.
static __device__ __forceinline__ int tile_32(int row, int eighth)
{
    return row * 32 + ((eighth ^ (row >> 1 & 3)) << 3);
}

struct gdn_tiles {
    bf16 *k, *q;    // of a key head: adjacent, TILE_K each
    bf16 *v;        // of a value head: SLICES * TILE_V
    bf16 *t, *p;    // of a value head: adjacent, TILE_T each
    float *factors; // of a value head: GDN_FACTORS
};

// Tiles of chunk `chunk` of the step and two heads.
static __device__ __forceinline__ gdn_tiles gdn_tiles_of(const struct gdn &op, int64_t chunk,
                                                         int key_head, int value_head)
{
    const int64_t chunks = op.workspace.chunks;
    const int64_t of_key = chunk * op.key_heads + key_head;
    const int64_t of_value = chunk * op.value_heads + value_head;
    bf16 *values = op.workspace.tiles;
    gdn_tiles tiles;
    tiles.k = values + of_key * 2 * TILE_K;
    tiles.q = tiles.k + TILE_K;
    values += chunks * op.key_heads * 2 * TILE_K;
    tiles.v = values + of_value * SLICES * TILE_V;
    values += chunks * op.value_heads * SLICES * TILE_V;
    tiles.t = values + of_value * 2 * TILE_T;
    tiles.p = tiles.t + TILE_T;
    tiles.factors = op.workspace.factors + of_value * GDN_FACTORS;
    return tiles;
}

// ---- which row is served by chunks ----

// Chunks that row `index` would take: none when it is short or does not prefill.
static __device__ __forceinline__ int gdn_chunks_of(const struct gdn &op, int index)
{
    if (index < op.tables.decode_rows || index >= op.tables.rows_count)
        return 0;
    int tokens = op.tables.active_count[index];
    return tokens >= GDN_CHUNKED_TOKENS_MIN ? (tokens + CHUNK - 1) / CHUNK : 0;
}

// The sum of count over the lanes before `lane`, and over all.
static __device__ __forceinline__ int gdn_sum_before(int lane, int count, int *total)
{
    int sum = count;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
        int left = __shfl_up_sync(0xffffffffu, sum, offset);
        sum += lane >= offset ? left : 0;
    }
    *total = __shfl_sync(0xffffffffu, sum, 31);
    return sum - count;
}

struct gdn_chunk {
    int row, first; // first token of the chunk within the row
};

// Chunk `chunk` of the step; row -1: there is none. Rows get chunks in their order until the
// workspace is full. Called by whole warps.
static __device__ __forceinline__ gdn_chunk gdn_find_chunk(const struct gdn &op, int chunk)
{
    int lane = static_cast<int>(threadIdx.x) % 32, before = 0;
    for (int row = op.tables.decode_rows; row < op.tables.rows_count; row += 32) {
        int count = gdn_chunks_of(op, row + lane), total;
        int first = before + gdn_sum_before(lane, count, &total);
        bool own = chunk >= first && chunk < first + count;
        unsigned found = __ballot_sync(0xffffffffu, own);
        if (found != 0) {
            int at = __ffs(static_cast<int>(found)) - 1;
            bool fits = __shfl_sync(0xffffffffu, first + count, at) <= op.workspace.chunks;
            first = __shfl_sync(0xffffffffu, first, at);
            return {fits ? row + at : -1, (chunk - first) * CHUNK};
        }
        before += total;
    }
    return {-1, 0};
}

// The first chunk of row `index`, -1 when it is not served by chunks. Called by whole warps.
static __device__ __forceinline__ int gdn_first_chunk(const struct gdn &op, int index)
{
    int lane = static_cast<int>(threadIdx.x) % 32, before = 0, own = gdn_chunks_of(op, index);
    if (own == 0 || op.workspace.chunks == 0)
        return -1;
    for (int row = op.tables.decode_rows; row < index; row += 32) {
        int total, count = row + lane < index ? gdn_chunks_of(op, row + lane) : 0;
        gdn_sum_before(lane, count, &total);
        before += total;
    }
    return before + own <= op.workspace.chunks ? before : -1;
}
