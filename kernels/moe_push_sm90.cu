// SPDX-License-Identifier: Apache-2.0
// moe_push_sm90.cu -- experts for many tokens, on slots sorted by expert (moe_sort.cu): tiles of
// 128 tokens x 256 rows of W are multiplied by two warpgroups, 64 tokens each. Rows of x are
// gathered by cp.async straight into the swizzled layout that wgmma reads, so nothing is permuted
// in memory; the loads of the next tile run under the last products and the epilogue.
#include "kernels/device/experts_many.cuh"
#include "kernels/device/experts_sort.cuh"
#include "kernels/device/reduce.cuh"
#include "kernels/device/sm90.cuh"
#include "kernels/device/tile.cuh"
#include "kernels/device/wgmma.cuh"

enum {
    MANY_THREADS = 256,
    MANY_TOKENS = 128,         // of a tile
    MANY_ROWS = WGMMA_COLUMNS, // of W
    MANY_STAGES = 4,
    MANY_AHEAD = MANY_STAGES - 2, // a slot is filled two products after its last use
    MANY_A_BYTES = MANY_TOKENS * WGMMA_ROW_BYTES,
    MANY_STAGE_BYTES = MANY_A_BYTES + MANY_ROWS * WGMMA_ROW_BYTES,
    MANY_LOAD_ROWS = MANY_THREADS / 8, // rows of a tile that a turn of all threads loads
    MANY_A_LOADS = MANY_TOKENS / MANY_LOAD_ROWS,
    MANY_B_LOADS = MANY_ROWS / MANY_LOAD_ROWS,
};

// ---- products ----

enum many_kind {
    MANY_GATED,    // silu(gate) * up
    MANY_PRODUCTS, // as they are
    MANY_DENSE,    // one matrix for all tokens, the shared one; f32
};

struct many_arguments {
    const bf16 *x; // row of a slot at x + token * token_stride + pick * pick_stride
    int64_t token_stride, pick_stride;
    const bf16 *w, *shared_w;
    const int32_t *slots, *offsets, *tiles;
    int tokens, picks, experts;
    int columns, shared_columns; // of W
    int rows, shared_rows;       // outputs of an expert; a gated matrix has twice as many rows
    bf16 *y;                     // output of a slot at y + token * y_token + pick * y_pick
    int64_t y_token, y_pick;
    float *y_float; // dense: [tokens, shared_rows]
};

// One tile, the same in all threads.
struct many_tile {
    bool shared;
    int expert, first, count; // slots[first ..], at most MANY_TOKENS; tokens when shared
    int row;                  // first output
    int columns, rows;        // of the expert's matrix, outputs of the expert
};

// tiles: a.tiles in shared memory. False past the last task. A gated tile holds 128 rows of gate
// and their 128 rows of up.
template <many_kind KIND>
static __device__ bool many_find(many_tile *tile, const many_arguments &a, const int32_t *tiles,
                                 int task)
{
    constexpr int OUTPUTS = KIND == MANY_GATED ? MANY_ROWS / 2 : MANY_ROWS;
    int shared_tall = (a.tokens + MANY_TOKENS - 1) / MANY_TOKENS;
    int shared_tasks = shared_tall * ((a.shared_rows + OUTPUTS - 1) / OUTPUTS);
    int wide = (a.rows + OUTPUTS - 1) / OUTPUTS;
    tile->shared = task < shared_tasks;
    if (tile->shared) {
        tile->expert = 0;
        tile->columns = a.shared_columns;
        tile->rows = a.shared_rows;
        tile->first = task % shared_tall * MANY_TOKENS;
        tile->count = a.tokens - tile->first;
        tile->row = task / shared_tall * OUTPUTS;
    } else {
        task -= shared_tasks;
        if (KIND == MANY_DENSE || task >= tiles[a.experts] * wide)
            return false;
        int low = 0, high = a.experts; // tiles[low] * wide <= task < tiles[high] * wide
        while (high - low > 1) {
            int middle = (low + high) / 2;
            if (tiles[middle] * wide <= task)
                low = middle;
            else
                high = middle;
        }
        int tall = tiles[low + 1] - tiles[low], within = task - tiles[low] * wide;
        tile->expert = low;
        tile->columns = a.columns;
        tile->rows = a.rows;
        tile->first = a.offsets[low] + within % tall * MANY_TOKENS;
        tile->count = a.offsets[low + 1] - tile->first;
        tile->row = within / tall * OUTPUTS;
    }
    tile->count = tile->count < MANY_TOKENS ? tile->count : MANY_TOKENS;
    return true;
}

// The token and pick of the tile's row.
static __device__ __forceinline__ int64_t many_slot(const many_arguments &a, const many_tile &tile,
                                                    int row, int64_t *pick)
{
    if (tile.shared) {
        *pick = a.picks;
        return tile.first + row;
    }
    int slot = a.slots[tile.first + row];
    *pick = slot % a.picks;
    return slot / a.picks;
}

// What this thread loads of a tile: piece thread % 8 of rows thread / 8 + 32 i.
struct many_loads {
    int task, step, steps; // steps 0 past the last task
    const bf16 *x[MANY_A_LOADS];
    unsigned present; // bit i: row i of x, bit MANY_A_LOADS + i: row i of W
    const bf16 *w;
    int64_t low, high; // values from one of this thread's rows of W to the next; to the rows of up
};

template <many_kind KIND>
static __device__ void many_seek(many_loads *loads, const many_arguments &a, const int32_t *tiles,
                                 int task)
{
    many_tile tile;
    int first = static_cast<int>(threadIdx.x) / 8, piece = static_cast<int>(threadIdx.x) % 8;
    loads->task = task;
    loads->step = loads->steps = 0;
    if (!many_find<KIND>(&tile, a, tiles, task))
        return;
    loads->steps = tile.columns / CHUNK;
    loads->present = 0;
#pragma unroll
    for (int i = 0; i < MANY_A_LOADS; i++) {
        int row = first + i * MANY_LOAD_ROWS;
        int64_t pick = 0, token = 0;
        if (row < tile.count) {
            token = many_slot(a, tile, row, &pick);
            loads->present |= 1u << i;
        }
        loads->x[i] = a.x + token * a.token_stride + pick * a.pick_stride + piece * BF16_VECTOR;
    }
    int64_t matrix = static_cast<int64_t>(tile.expert) * tile.rows * (KIND == MANY_GATED ? 2 : 1);
    loads->w = (tile.shared ? a.shared_w : a.w) + (matrix + tile.row + first) * tile.columns +
               piece * BF16_VECTOR;
    loads->low = static_cast<int64_t>(MANY_LOAD_ROWS) * tile.columns;
    loads->high = static_cast<int64_t>(tile.rows) * tile.columns;
#pragma unroll
    for (int i = 0; i < MANY_B_LOADS; i++) {
        int row = first + (KIND == MANY_GATED ? i % (MANY_B_LOADS / 2) : i) * MANY_LOAD_ROWS;
        loads->present |= tile.row + row < tile.rows ? 1u << (MANY_A_LOADS + i) : 0;
    }
}

// Starts this thread's copies of one step into a stage and moves on; ends one group, if empty.
template <many_kind KIND>
static __device__ __forceinline__ void many_issue(many_loads *loads, const many_arguments &a,
                                                  const int32_t *tiles, uint32_t stage)
{
    if (loads->step < loads->steps) {
        int first = static_cast<int>(threadIdx.x) / 8, piece = static_cast<int>(threadIdx.x) % 8;
        uint32_t to = stage + wgmma_swizzled(first, piece); // rows 32 apart swizzle alike
        const bf16 *w = loads->w + loads->step * CHUNK;
#pragma unroll
        for (int i = 0; i < MANY_A_LOADS; i++)
            copy_async(to + i * MANY_LOAD_ROWS * WGMMA_ROW_BYTES, loads->x[i] + loads->step * CHUNK,
                       loads->present >> i & 1);
        to += MANY_A_BYTES;
#pragma unroll
        for (int i = 0; i < MANY_B_LOADS; i++) {
            bool up = KIND == MANY_GATED && i >= MANY_B_LOADS / 2;
            bool present = loads->present >> (MANY_A_LOADS + i) & 1;
            int64_t row = (up ? i - MANY_B_LOADS / 2 : i) * loads->low + (up ? loads->high : 0);
            copy_async(to + i * MANY_LOAD_ROWS * WGMMA_ROW_BYTES, w + (present ? row : 0), present);
        }
        if (++loads->step == loads->steps)
            many_seek<KIND>(loads, a, tiles, loads->task + static_cast<int>(gridDim.x));
    }
    copy_commit();
}

static __device__ __forceinline__ uint32_t pack_bf16(float low, float high)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t *>(&pair);
}

// Four lanes hold words[b]: their two columns of block b. Afterwards lane c holds block c whole.
static __device__ __forceinline__ uint4 quad_transpose(uint32_t (&words)[4])
{
    int lane = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
    for (int step = 1; step <= 2; step *= 2) {
        bool odd = lane & step;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i & step)
                continue;
            uint32_t mine = odd ? words[i] : words[i + step];
            uint32_t other = __shfl_xor_sync(0xffffffffu, mine, step);
            if (odd)
                words[i] = other;
            else
                words[i + step] = other;
        }
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
}

static __device__ __forceinline__ float many_silu(float x)
{
    return x / (1.0f + expf(-x));
}

// Rounds and stores a warpgroup's sums, 16 bytes of a row at a time.
template <many_kind KIND>
static __device__ __forceinline__ void many_store(const many_arguments &a, const many_tile &tile,
                                                  const float (&sums)[WGMMA_VALUES])
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    constexpr int BLOCKS = KIND == MANY_GATED ? MANY_ROWS / 16 : MANY_ROWS / 8;
    bf16 *to[2];
    bool there[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = warp * 16 + half * 8 + lane / 4;
        int64_t pick = 0, token = 0;
        there[half] = row < tile.count;
        if (there[half])
            token = many_slot(a, tile, row, &pick);
        to[half] = a.y + token * a.y_token + pick * a.y_pick + tile.row + lane % 4 * 8;
    }
#pragma unroll
    for (int block = 0; block < BLOCKS; block += 4) {
        bool inside = tile.row + (block + lane % 4) * 8 < tile.rows;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            uint32_t words[4];
#pragma unroll
            for (int b = 0; b < 4; b++) {
                const int at = (block + b) * 4 + half * 2;
                float low = sums[at], high = sums[at + 1];
                if (KIND == MANY_GATED) {
                    low = many_silu(low) * sums[(at + WGMMA_VALUES / 2) % WGMMA_VALUES];
                    high = many_silu(high) * sums[(at + 1 + WGMMA_VALUES / 2) % WGMMA_VALUES];
                }
                words[b] = pack_bf16(low, high);
            }
            uint4 vector = quad_transpose(words);
            if (there[half] && inside)
                *reinterpret_cast<uint4 *>(to[half] + block * 8) = vector;
        }
    }
}

// The same unrounded, for rows of any alignment.
static __device__ __forceinline__ void
many_store_float(const many_arguments &a, const many_tile &tile, const float (&sums)[WGMMA_VALUES])
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
#pragma unroll
    for (int i = 0; i < WGMMA_VALUES; i++) {
        int row = warp * 16 + i % 4 / 2 * 8 + lane / 4;
        int column = tile.row + i / 4 * 8 + lane % 4 * 2 + i % 2;
        if (row < tile.count && column < tile.rows)
            a.y_float[static_cast<int64_t>(tile.first + row) * tile.rows + column] = sums[i];
    }
}

// grid: one block per multiprocessor; shared: stages (x, then W), then tiles [experts + 1].
template <many_kind KIND>
static __global__ void __launch_bounds__(MANY_THREADS, 1)
    experts_many_kernel(const many_arguments a)
{
    extern __shared__ uint8_t dynamic[];
    uint32_t base = (shared_address(dynamic) + 1023) / 1024 * 1024;
    int32_t *tiles = reinterpret_cast<int32_t *>(dynamic + (base - shared_address(dynamic)) +
                                                 MANY_STAGES * MANY_STAGE_BYTES);
    int group = static_cast<int>(threadIdx.x) / (4 * WARP_THREADS);
    pdl_wait();
    pdl_trigger();
    for (int i = static_cast<int>(threadIdx.x); KIND != MANY_DENSE && i <= a.experts;
         i += MANY_THREADS)
        tiles[i] = a.tiles[i];
    __syncthreads();
    many_loads loads;
    many_seek<KIND>(&loads, a, tiles, static_cast<int>(blockIdx.x));
#pragma unroll
    for (int i = 0; i < MANY_AHEAD; i++)
        many_issue<KIND>(&loads, a, tiles, base + i * MANY_STAGE_BYTES);
    many_tile tile;
    int stage = 0;
    float sums[WGMMA_VALUES];
    for (int task = static_cast<int>(blockIdx.x); many_find<KIND>(&tile, a, tiles, task);
         task += static_cast<int>(gridDim.x)) {
        // By a shuffle, so that the compiler sees that a warp agrees: products may not diverge.
        bool active = __shfl_sync(0xffffffffu, group * WGMMA_ROWS < tile.count, 0);
        for (int step = 0; step < tile.columns / CHUNK; step++) {
            copy_wait<MANY_AHEAD - 1>();
            wgmma_publish();
            __syncthreads();
            uint32_t slot = base + stage * MANY_STAGE_BYTES;
            if (active) {
                uint64_t x = wgmma_descriptor(slot + group * WGMMA_ROWS * WGMMA_ROW_BYTES);
                uint64_t w = wgmma_descriptor(slot + MANY_A_BYTES);
                wgmma_begin();
#pragma unroll
                for (int k = 0; k < CHUNK / WGMMA_DEPTH; k++)
                    wgmma_m64n256k16(sums, x + k * 2, w + k * 2, step > 0 || k > 0);
                wgmma_commit();
                wgmma_wait<1>();
            }
            int ahead = stage + MANY_AHEAD;
            ahead -= ahead >= MANY_STAGES ? MANY_STAGES : 0;
            many_issue<KIND>(&loads, a, tiles, base + ahead * MANY_STAGE_BYTES);
            stage = stage + 1 == MANY_STAGES ? 0 : stage + 1;
        }
        if (active) {
            wgmma_wait_all(sums);
            if (KIND == MANY_DENSE)
                many_store_float(a, tile, sums);
            else
                many_store<KIND>(a, tile, sums);
        }
    }
}

// ---- launches ----

template <many_kind KIND> static void many_launch(cudaStream_t stream, const many_arguments &a)
{
    static bool prepared = false;
    size_t bytes = 1024 + static_cast<size_t>(MANY_STAGES) * MANY_STAGE_BYTES +
                   static_cast<size_t>(a.experts + 1) * sizeof(int32_t);
    if (!prepared)
        CUDA_CHECK(cudaFuncSetAttribute(experts_many_kernel<KIND>,
                                        cudaFuncAttributeMaxDynamicSharedMemorySize, 226 << 10));
    prepared = true;
    launch_chained(experts_many_kernel<KIND>, dim3(static_cast<unsigned>(multiprocessors())),
                   dim3(MANY_THREADS), bytes, stream, a);
}

bool experts_many_serves(const struct moe_push *op)
{
    return device_is_sm90() && op->hidden % CHUNK == 0 && op->width % CHUNK == 0 &&
           op->shared_width % CHUNK == 0 && op->experts <= SORT_EXPERTS_MAX;
}

void experts_many(cudaStream_t stream, const struct moe_push *op)
{
    int slots = op->tokens * op->picks;
    int64_t middle_stride = static_cast<int64_t>(op->picks) * op->width + op->shared_width;
    struct experts_sort sort = {};
    sort.ids = op->expert_ids;
    sort.slots_count = slots;
    sort.experts = op->experts;
    sort.tile_tokens = MANY_TOKENS;
    sort.slots = op->lists;
    sort.offsets = op->lists + slots;
    sort.tiles = op->lists + slots + op->experts + 1;
    sort.counts = reinterpret_cast<int32_t *>(op->middle); // free until the first product
    ASSERT(experts_sort_counts(slots, op->experts) * 4 <= op->tokens * middle_stride * 2);
    many_arguments a = {};
    a.x = op->x;
    a.token_stride = op->hidden;
    a.w = weight_bf16(&op->gate_up);
    a.shared_w = weight_bf16(&op->shared_gate_up);
    a.slots = sort.slots;
    a.offsets = sort.offsets;
    a.tiles = sort.tiles;
    a.tokens = op->tokens;
    a.picks = op->picks;
    a.experts = op->experts;
    a.columns = a.shared_columns = op->hidden;
    a.rows = op->width;
    a.shared_rows = op->shared_width;
    a.y = op->middle;
    a.y_token = middle_stride;
    a.y_pick = op->width;
    experts_sort(stream, sort);
    many_launch<MANY_GATED>(stream, a);
    a.x = op->middle;
    a.token_stride = middle_stride;
    a.pick_stride = op->width;
    a.w = weight_bf16(&op->down);
    a.shared_w = weight_bf16(&op->shared_down);
    a.columns = op->width;
    a.shared_columns = op->shared_width;
    a.rows = a.shared_rows = op->hidden;
    a.y = static_cast<bf16 *>(op->products);
    a.y_token = static_cast<int64_t>(op->picks + 1) * op->hidden;
    a.y_pick = op->hidden;
    many_launch<MANY_PRODUCTS>(stream, a);
}

void linear_many(cudaStream_t stream, const linear_shape &shape)
{
    many_arguments a = {};
    ASSERT(shape.gather == NULL && shape.y_float != NULL && shape.columns % CHUNK == 0);
    a.x = shape.x;
    a.token_stride = shape.x_stride;
    a.shared_w = shape.w;
    a.tokens = shape.tokens;
    a.shared_columns = shape.columns;
    a.shared_rows = shape.rows;
    a.y_float = shape.y_float;
    many_launch<MANY_DENSE>(stream, a);
}
