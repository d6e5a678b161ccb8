// SPDX-License-Identifier: Apache-2.0
// attention_share.cuh -- how the blocks of a decode kernel divide the pages of all rows: one list
// of units (row, block of queries, KV head, page), cut evenly, wherever the cuts fall.
#pragma once

#include "kernels/device/attention.cuh"

// Of one block, in shared memory.
struct share {
    int units, first; // in all; of this block
    int row, offset;  // where it begins, in units of the row; of no meaning when it is empty
};

// A place in the list of units. The page's id is read a step ahead of its use.
struct cursor {
    row_view view;
    int row, item, unit; // item: block * kv_heads + kv head
    int items, units;    // of the row, of an item
    int page;
};

// Pages of a row, for one KV head.
static __device__ __forceinline__ int row_units(const row_view &view)
{
    return (view.position + view.active + PAGE_TOKENS - 1) / PAGE_TOKENS;
}

// KV heads x blocks of 16 M_TILES queries.
template <int M_TILES>
static __device__ __forceinline__ int row_items(const struct attention &op, const row_view &view)
{
    int queries = view.active * (op.heads / op.kv_heads);
    return (queries + M_TILES * 16 - 1) / (M_TILES * 16) * op.kv_heads;
}

// The page of a cursor's unit.
static __device__ __forceinline__ int read_page(const struct attention &op, const cursor &at)
{
    return op.slots
        .block_table[static_cast<int64_t>(at.view.slot) * op.slots.pages_per_sequence + at.unit];
}

// To the first unit of at->row.
template <int M_TILES>
static __device__ __forceinline__ void enter_row(cursor *at, const struct attention &op)
{
    at->view = view_row(op, at->row);
    at->units = row_units(at->view);
    at->items = row_items<M_TILES>(op, at->view);
    at->item = 0;
    at->unit = 0;
}

// To the next unit, over rows that do not run. There has to be one.
template <int M_TILES>
static __device__ __forceinline__ void advance(cursor *at, const struct attention &op)
{
    if (++at->unit == at->units) {
        at->unit = 0;
        if (++at->item == at->items) {
            do {
                at->row++;
                enter_row<M_TILES>(at, op);
            } while (at->view.active == 0);
        }
    }
    at->page = read_page(op, *at);
}

// `units` are divided evenly over as many blocks as there are, or one each.
static __device__ __forceinline__ int shares_of(int units)
{
    return min(static_cast<int>(gridDim.x), units);
}

// The first unit of a share; all units for one that is empty.
static __device__ __forceinline__ int share_begin(int share, int units, int shares)
{
    return share < shares ? static_cast<int>(static_cast<int64_t>(share) * units / shares) : units;
}

// Which share holds a unit.
static __device__ __forceinline__ int share_of(int unit, int units, int shares)
{
    return static_cast<int>(((unit + int64_t{1}) * shares - 1) / units);
}

// Counts units, finds this block's share and where it begins; leaves in scratch [decode_rows]
// (shared) how many units lie before each row.
template <int M_TILES, int THREADS>
static __device__ void find_share(struct share *s, int *scratch, const struct attention &op)
{
    int rows = op.tables.decode_rows, lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    for (int row = static_cast<int>(threadIdx.x); row < rows; row += THREADS) {
        row_view view = view_row(op, row);
        scratch[row] = view.active > 0 ? row_units(view) * row_items<M_TILES>(op, view) : 0;
    }
    __syncthreads();
    if (threadIdx.x < WARP_THREADS) {
        int each = (rows + WARP_THREADS - 1) / WARP_THREADS, sum = 0;
        int low = min(lane * each, rows), high = min(low + each, rows);
        for (int row = low; row < high; row++)
            sum += scratch[row];
        int before = sum;
        for (int step = 1; step < WARP_THREADS; step *= 2) {
            int other = __shfl_up_sync(0xffffffffu, before, step);
            before += lane >= step ? other : 0;
        }
        int units = __shfl_sync(0xffffffffu, before, WARP_THREADS - 1);
        int first = share_begin(static_cast<int>(blockIdx.x), units, shares_of(units));
        before -= sum;
        for (int row = low; row < high; row++) {
            int own = scratch[row];
            scratch[row] = before;
            if (first >= before && first < before + own) {
                s->row = row;
                s->offset = first - before;
            }
            before += own;
        }
        if (lane == 0) {
            s->units = units;
            s->first = first;
        }
    }
    __syncthreads();
}

// The border that this block tells of. Few items: block b tells of item b, in the order of rows,
// `each` of them a row. Else of the item that begins before the block's share and, of all shares,
// goes on first into this one.
template <int M_TILES>
static __device__ struct border find_border(const struct share &s, const int *scratch,
                                            const struct attention &op, const cursor &at, int each)
{
    struct border border = {};
    int block = static_cast<int>(blockIdx.x), item = at.item, first_unit = s.first - at.unit;
    bool few = op.tables.decode_rows * each <= static_cast<int>(gridDim.x);
    row_view view = at.view;
    if (few) {
        if (block >= op.tables.decode_rows * each)
            return border;
        view = view_row(op, block / each);
        item = block % each;
        if (view.active == 0 || item >= row_items<M_TILES>(op, view))
            return border;
        first_unit = scratch[block / each] + item * row_units(view);
    } else if (s.first >= s.units || at.unit == 0) {
        return border;
    }
    int shares = shares_of(s.units), first = share_of(first_unit, s.units, shares);
    int last = share_of(first_unit + row_units(view) - 1, s.units, shares);
    if (last == first || (!few && first != block - 1))
        return border;
    int query = item / op.kv_heads * M_TILES * 16, group = op.heads / op.kv_heads;
    border = {last - first + 1,
              first,
              view.token_first,
              min(view.active * group - query, M_TILES * 16),
              query,
              item % op.kv_heads,
              {0, 0}};
    return border;
}
