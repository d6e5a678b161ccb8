// SPDX-License-Identifier: Apache-2.0
// attention_work.cuh -- which tiles of queries a block of the persistent prefill kernel has: all
// tiles in the order of their pages, longest first, dealt there and back. What a tile gives does
// not depend on who makes it, nor when.
#pragma once

#include "kernels/device/attention_prefill.cuh"

enum { ROWS_KEPT = 256 };

// A tile of queries of a KV head; units 0: no more.
struct work {
    int first, kv_head, units; // its first query; pages up to its last one
    int known, group;          // keys in the last page; queries of a token
    row_view view;
};

// In shared memory, of the warp that finds.
struct finder {
    int longest;          // pages of the longest tile that may come
    int2 rows[ROWS_KEPT]; // position and tokens of the first prefill rows
};

// threadIdx.x, asked for again: what is made of it is not kept in a register from tile to tile.
static __device__ __forceinline__ int fresh_thread()
{
    int thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return thread;
}

// Reads the rows. One warp; so are all here.
static __device__ __forceinline__ void finder_init(finder *f, const struct attention &op)
{
    int longest = 1;
#pragma unroll 1
    for (int row = op.tables.decode_rows + fresh_thread() % WARP_THREADS;
         row < op.tables.rows_count; row += WARP_THREADS) {
        row_view view = view_row(op, row);
        if (row - op.tables.decode_rows < ROWS_KEPT)
            f->rows[row - op.tables.decode_rows] = make_int2(view.position, view.active);
        longest = max(longest, (view.position + view.active - 1) / PAGE_TOKENS + 1);
    }
    f->longest = __reduce_max_sync(0xffffffffu, longest);
    __syncwarp();
}

// Position and tokens of a row.
static __device__ __forceinline__ int2 extent_of(const finder *f, const struct attention &op,
                                                 int row)
{
    int kept = row - op.tables.decode_rows;
    if (kept < ROWS_KEPT)
        return f->rows[kept];
    row_view view = view_row(op, row);
    return make_int2(view.position, view.active);
}

// Tiles of a row of at least `units` pages, for one KV head.
static __device__ __forceinline__ int tiles_from(int2 extent, int units, int group)
{
    int tiles = (extent.y * group + PREFILL_QUERIES - 1) / PREFILL_QUERIES;
    int token = (units - 1) * PAGE_TOKENS - extent.x; // the first one on the last of the pages
    if (token >= extent.y)
        return 0;
    return tiles - (token > 0 ? token * group / PREFILL_QUERIES : 0);
}

// Of all rows.
static __device__ __forceinline__ int count_from(const finder *f, const struct attention &op,
                                                 int units)
{
    int sum = 0, group = op.heads / op.kv_heads;
#pragma unroll 1
    for (int row = op.tables.decode_rows + fresh_thread() % WARP_THREADS;
         row < op.tables.rows_count; row += WARP_THREADS)
        sum += tiles_from(extent_of(f, op, row), units, group);
    return __reduce_add_sync(0xffffffffu, sum);
}

// Row and tile of this rank among the tiles of `units` pages: by rows, last tiles first.
static __device__ __forceinline__ int2 tile_among(const finder *f, const struct attention &op,
                                                  int units, int rank)
{
    int lane = fresh_thread() % WARP_THREADS, group = op.heads / op.kv_heads;
    for (int base = op.tables.decode_rows;; base += WARP_THREADS) {
        int own = 0, longer = 0;
        if (base + lane < op.tables.rows_count) {
            int2 extent = extent_of(f, op, base + lane);
            longer = tiles_from(extent, units + 1, group);
            own = tiles_from(extent, units, group) - longer;
        }
        int before = own;
        for (int step = 1; step < WARP_THREADS; step *= 2) {
            int other = __shfl_up_sync(0xffffffffu, before, step);
            before += lane >= step ? other : 0;
        }
        unsigned here = __ballot_sync(0xffffffffu, rank < before && rank >= before - own);
        if (here != 0) {
            int from = __ffs(static_cast<int>(here)) - 1, row = base + from;
            int skipped = __shfl_sync(0xffffffffu, longer + rank - (before - own), from);
            return make_int2(row, tiles_from(extent_of(f, op, row), 1, group) - 1 - skipped);
        }
        rank -= __shfl_sync(0xffffffffu, before, WARP_THREADS - 1);
    }
}

// Row and tile of this rank among all; tile -1: there is none. Ranks come in order.
static __device__ __forceinline__ int2 tile_of(finder *f, const struct attention &op, int rank)
{
    int first = op.tables.decode_rows, low = 1, high = f->longest;
    if (op.tables.rows_count - first == 1)
        return make_int2(first, tiles_from(f->rows[0], 1, op.heads / op.kv_heads) - 1 - rank);
    if (rank >= count_from(f, op, 1))
        return make_int2(0, -1);
    while (low < high) { // the largest of which more than `rank` tiles have as many
        int middle = (low + high + 1) / 2;
        if (count_from(f, op, middle) > rank)
            low = middle;
        else
            high = middle - 1;
    }
    __syncwarp(); // all lanes have read it
    f->longest = low;
    return tile_among(f, op, low, rank - count_from(f, op, low + 1));
}

// This block's n-th tile, into shared memory.
static __device__ __forceinline__ void find_work(work *item, finder *f, const struct attention &op,
                                                 int n)
{
    int blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
    int index = n * blocks + (n % 2 ? blocks - 1 - block : block), kv_heads = op.kv_heads;
    int2 tile = tile_of(f, op, index / kv_heads);
    if (fresh_thread() % WARP_THREADS == 0) {
        item->units = 0;
        if (tile.y >= 0) {
            row_view view = view_row(op, tile.x);
            int first = tile.y * PREFILL_QUERIES, group = op.heads / kv_heads;
            int last =
                view.position + (min(first + PREFILL_QUERIES, view.active * group) - 1) / group;
            *item = {first, index % kv_heads, last / PAGE_TOKENS + 1, last % PAGE_TOKENS + 1, group,
                     view};
        }
    }
    __syncwarp();
}
