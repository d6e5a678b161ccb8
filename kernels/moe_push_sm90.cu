// SPDX-License-Identifier: Apache-2.0
// moe_push_sm90.cu -- experts for many tokens, on slots sorted by expert (moe_sort.cu). A tile is
// 256 rows of W by up to 160 slots of an expert, which stand on the side of the product that may be
// any multiple of 16: little is multiplied in vain. One warpgroup loads, W by tensor copies, rows
// of x gathered by cp.async straight into the swizzled layout that wgmma reads; two multiply.
#include "kernels/device/experts_many.cuh"
#include "kernels/device/experts_sort.cuh"
#include "kernels/device/reduce.cuh"
#include "kernels/device/tensor_map.cuh"
#include "kernels/device/tile.cuh"
#include "kernels/device/wgmma_any.cuh"

enum {
    MANY_GROUP = 4 * WARP_THREADS, // threads of a warpgroup
    MANY_THREADS = 3 * MANY_GROUP, // the loading one comes first
    MANY_WARPS = 8,                // that multiply
    MANY_UNIT = 16,                // slots of a product are a multiple
    MANY_SLOTS = 160,              // most of a tile
    MANY_DENSE_TOKENS = 128,       // most of a dense tile: 8192 tokens and 257 rows make one wave
    MANY_HALF = 128,               // rows of W that one copy brings
    MANY_ROWS = 2 * MANY_HALF,     // of a tile
    MANY_STAGES = 4,
    MANY_W_BYTES = MANY_ROWS * WGMMA_ROW_BYTES,
    MANY_STAGE_BYTES = MANY_W_BYTES + MANY_SLOTS * WGMMA_ROW_BYTES,
    MANY_STAGING_ROW = 80, // from one slot to the next in a warp's staging: no bank conflicts
    MANY_STAGING_BYTES = MANY_UNIT * MANY_STAGING_ROW,
    // Shared memory, from a multiple of MANY_ALIGNMENT on: stages (W, then x), staging of the
    // warps, barriers (filled, then free, of each stage), the experts' tiles and slots.
    MANY_ALIGNMENT = 1024,
    MANY_STAGING = MANY_STAGES * MANY_STAGE_BYTES,
    MANY_BARRIERS = MANY_STAGING + MANY_WARPS * MANY_STAGING_BYTES,
    MANY_LISTS = MANY_BARRIERS + 2 * MANY_STAGES * 8,
    MANY_SHARED_MAX = 227 << 10,
};

enum many_kind {
    MANY_GATED,    // silu(gate) * up
    MANY_PRODUCTS, // as they are
    MANY_DENSE,    // one matrix for all tokens, the shared one; f32
};

struct many_arguments {
    CUtensorMap w, shared_w; // in boxes of MANY_HALF rows
    const bf16 *x;           // row of a slot at x + token * token_stride + pick * pick_stride
    int64_t token_stride, pick_stride;
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
    int expert, first, count; // slots[first ..]; tokens when shared
    int units;                // count in MANY_UNITs, rounded up
    int row;                  // first output
    int columns, rows;        // of the expert's matrix, outputs of the expert
};

// Part `part` of `parts` of the count slots from `first` on, in whole units.
static __device__ __forceinline__ void many_part(many_tile *tile, int first, int count, int part,
                                                 int parts)
{
    int units = (count + MANY_UNIT - 1) / MANY_UNIT;
    int from = part * units / parts, to = (part + 1) * units / parts;
    tile->first = first + from * MANY_UNIT;
    tile->count = min(count - from * MANY_UNIT, (to - from) * MANY_UNIT);
    tile->units = to - from;
}

// tiles and offsets: a's in shared memory. False past the last task. A gated tile holds 128 rows of
// gate and their 128 rows of up.
template <many_kind KIND>
static __device__ __forceinline__ bool many_find(many_tile *tile, const many_arguments &a,
                                                 const int32_t *tiles, const int32_t *offsets,
                                                 int task)
{
    constexpr int OUTPUTS = KIND == MANY_GATED ? MANY_HALF : MANY_ROWS;
    constexpr int TALL = KIND == MANY_DENSE ? MANY_DENSE_TOKENS : MANY_SLOTS;
    int shared_tall = (a.tokens + TALL - 1) / TALL;
    int shared_tasks = shared_tall * ((a.shared_rows + OUTPUTS - 1) / OUTPUTS);
    int wide = (a.rows + OUTPUTS - 1) / OUTPUTS;
    tile->shared = task < shared_tasks;
    if (tile->shared) {
        tile->expert = 0;
        tile->columns = a.shared_columns;
        tile->rows = a.shared_rows;
        tile->row = task / shared_tall * OUTPUTS;
        many_part(tile, 0, a.tokens, task % shared_tall, shared_tall);
        return true;
    }
    task -= shared_tasks;
    if (KIND == MANY_DENSE || task >= tiles[a.experts] * wide)
        return false;
    int low = 0,
        high = a.experts; // tiles[low] * wide <= task < tiles[high] * wide
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
    tile->row = within / tall * OUTPUTS;
    many_part(tile, offsets[low], offsets[low + 1] - offsets[low], within % tall, tall);
    return true;
}

// The token and pick of a slot, which is a token when shared.
static __device__ __forceinline__ int many_token(const many_arguments &a, bool shared, int slot,
                                                 int *pick)
{
    int token = shared ? slot : slot / a.picks;
    *pick = shared ? a.picks : slot - token * a.picks;
    return token;
}

// Of the tile's row; past its count the last one's.
static __device__ __forceinline__ int many_slot(const many_arguments &a, const many_tile &tile,
                                                int row)
{
    int at = tile.first + min(row, tile.count - 1);
    return tile.shared ? at : a.slots[at];
}

// ---- the pipeline ----

// Where a thread stands in the ring of stages.
struct many_ring {
    int stage;
    uint32_t parity; // of the phase in which the stage is filled
};

static __device__ __forceinline__ void many_advance(many_ring *ring)
{
    ring->stage++;
    if (ring->stage == MANY_STAGES) {
        ring->stage = 0;
        ring->parity ^= 1;
    }
}

// The loading warpgroup, all tiles of this block. Thread t: piece t % 8 of rows t / 8 + 16 i of x.
template <many_kind KIND>
static __device__ __forceinline__ void many_load(const many_arguments &a, uint32_t base,
                                                 uint64_t *filled, const int32_t *tiles,
                                                 const int32_t *offsets)
{
    constexpr int TURNS = (KIND == MANY_DENSE ? MANY_DENSE_TOKENS : MANY_SLOTS) / MANY_UNIT;
    int thread = static_cast<int>(threadIdx.x), first = thread / 8, piece = thread % 8;
    uint32_t own = MANY_W_BYTES + wgmma_swizzled(first, piece); // rows 16 apart swizzle alike
    many_ring ring = {0, 0};
    many_tile tile;
    for (int task = static_cast<int>(blockIdx.x); many_find<KIND>(&tile, a, tiles, offsets, task);
         task += static_cast<int>(gridDim.x)) {
        uint32_t rows[TURNS]; // where they begin in x, in vectors
#pragma unroll
        for (int i = 0; i < TURNS; i++) {
            int pick = 0, token = many_token(a, tile.shared,
                                             many_slot(a, tile, first + i * MANY_UNIT), &pick);
            rows[i] = static_cast<uint32_t>((token * a.token_stride + pick * a.pick_stride) /
                                            BF16_VECTOR) +
                      static_cast<uint32_t>(piece);
        }
        int high = KIND == MANY_GATED ? tile.rows : MANY_HALF; // from the first half to the second
        int row = tile.expert * tile.rows * (KIND == MANY_GATED ? 2 : 1) + tile.row;
        const CUtensorMap *map = tile.shared ? &a.shared_w : &a.w;
        for (int step = 0; step < tile.columns / CHUNK; step++) {
            uint32_t to = base + ring.stage * MANY_STAGE_BYTES;
            uint64_t *barrier = filled + ring.stage;
            barrier_wait(barrier + MANY_STAGES, ring.parity ^ 1);
            if (thread == 0) {
                barrier_expect(barrier, MANY_W_BYTES);
                tensor_copy(to, map, row, step * CHUNK, barrier);
                tensor_copy(to + MANY_HALF * WGMMA_ROW_BYTES, map, row + high, step * CHUNK,
                            barrier);
            }
#pragma unroll
            for (int i = 0; i < TURNS; i++) {
                if (i < tile.units)
                    copy_async(to + own + i * MANY_UNIT * WGMMA_ROW_BYTES,
                               reinterpret_cast<const uint4 *>(a.x) + rows[i] +
                                   step * (CHUNK / BF16_VECTOR));
            }
            barrier_arrive_copied(barrier);
            many_advance(&ring);
        }
    }
}

// ---- what becomes of the sums ----

static __device__ __forceinline__ uint32_t pack_bf16(float low, float high)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t *>(&pair);
}

static __device__ __forceinline__ float many_silu(float x)
{
    return __fdividef(x, 1.0f + __expf(-x));
}

// Four matrices of 8 x 8 stand in the warp as products leave them, one word a lane each, a row of W
// along a row. Matrix l / 8's column l % 8 goes to lane l, by way of its 16 bytes of shared memory.
static __device__ __forceinline__ void many_put(uint32_t at, const uint32_t (&words)[4])
{
    ASM_SM90("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, "
             "%4};" ::"r"(at),
             "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3])
             : "memory");
}

// Rounds and stores a warp's sums of MANY_UNIT slots at a time, 16 bytes of a slot at once. slots:
// lane l holds slots l, l + 32, ..
template <many_kind KIND, int N>
static __device__ __forceinline__ void
many_store(const many_arguments &a, const many_tile &tile, const float (&sums)[2][N / 2],
           const int (&slots)[(N + WARP_THREADS - 1) / WARP_THREADS], int first_row,
           uint32_t staging)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS, matrix = lane / 8;
    uint32_t to[(N + WARP_THREADS - 1) / WARP_THREADS]; // in vectors
#pragma unroll
    for (int i = 0; i < (N + WARP_THREADS - 1) / WARP_THREADS; i++) {
        int pick, token = many_token(a, tile.shared, slots[i], &pick);
        to[i] = static_cast<uint32_t>((token * a.y_token + pick * a.y_pick) / BF16_VECTOR);
    }
    // Gated: matrices 0 and 1 are 16 outputs of 8 slots, 2 and 3 of the next 8; else 0 and 1 are of
    // the first 128 outputs, 2 and 3 of the second.
    int output = tile.row + first_row +
                 (KIND == MANY_GATED ? matrix % 2 * 8 : matrix / 2 * MANY_HALF + matrix % 2 * 8);
    bool inside = output < tile.rows;
    int column = KIND == MANY_GATED ? matrix / 2 * 8 + lane % 8 : lane % 8;
    uint32_t at = staging + column * MANY_STAGING_ROW +
                  (KIND == MANY_GATED ? matrix % 2 : matrix) * VECTOR_BYTES;
    uint4 *y = reinterpret_cast<uint4 *>(a.y + output);
    constexpr int PUTS = KIND == MANY_GATED ? 1 : 2, SLOTS = MANY_UNIT / PUTS;
#pragma unroll
    for (int unit = 0; unit < N / MANY_UNIT; unit++) {
        __syncwarp();
#pragma unroll
        for (int put = 0; put < PUTS; put++) {
            uint32_t words[4];
#pragma unroll
            for (int m = 0; m < 4; m++) {
                const int block = 2 * unit + (KIND == MANY_GATED ? m / 2 : put);
                const int i = block * 4 + m % 2 * 2;
                float low = sums[KIND == MANY_GATED ? 0 : m / 2][i];
                float high = sums[KIND == MANY_GATED ? 0 : m / 2][i + 1];
                if (KIND == MANY_GATED) {
                    low = many_silu(low) * sums[1][i];
                    high = many_silu(high) * sums[1][i + 1];
                }
                words[m] = pack_bf16(low, high);
            }
            many_put(at + put * SLOTS * MANY_STAGING_ROW, words);
        }
        __syncwarp();
#pragma unroll
        for (int put = 0; put < PUTS; put++) {
            uint4 vector = shared_load(at + put * SLOTS * MANY_STAGING_ROW);
            int slot = unit * MANY_UNIT + put * SLOTS + column;
            uint32_t row =
                __shfl_sync(0xffffffffu, to[unit * MANY_UNIT / WARP_THREADS], slot % WARP_THREADS);
            if (inside && slot < tile.count)
                y[row] = vector;
        }
    }
}

// The same unrounded, for rows of any alignment; dense.
template <int N>
static __device__ __forceinline__ void
many_store_float(const many_arguments &a, const many_tile &tile, const float (&sums)[2][N / 2],
                 int first_row)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
#pragma unroll
    for (int half = 0; half < 2; half++) {
#pragma unroll
        for (int i = 0; i < N / 2; i++) {
            int output = tile.row + first_row + half * MANY_HALF + i % 4 / 2 * 8 + lane / 4;
            int slot = i / 4 * 8 + lane % 4 * 2 + i % 2;
            if (slot < tile.count && output < tile.rows)
                a.y_float[static_cast<int64_t>(tile.first + slot) * tile.rows + output] =
                    sums[half][i];
        }
    }
}

// Step of a tile, by one warpgroup. Returns when the step before it is done.
template <int N>
static __device__ __forceinline__ void many_step(float (&sums)[2][N / 2], uint32_t stage, int group)
{
    uint64_t low = wgmma_descriptor(stage + group * WGMMA_ROWS * WGMMA_ROW_BYTES);
    uint64_t high = wgmma_descriptor(stage + (MANY_HALF + group * WGMMA_ROWS) * WGMMA_ROW_BYTES);
    uint64_t x = wgmma_descriptor(stage + MANY_W_BYTES);
    wgmma_begin();
#pragma unroll
    for (int k = 0; k < CHUNK / WGMMA_DEPTH; k++) {
        wgmma_any<N>(sums[0], low + k * 2, x + k * 2);
        wgmma_any<N>(sums[1], high + k * 2, x + k * 2);
    }
    wgmma_commit();
    wgmma_wait<1>();
}

// One tile of N slots, by a warpgroup that multiplies: rows 64 group .. of both halves of W.
template <many_kind KIND, int N>
static __device__ __forceinline__ void many_multiply(const many_arguments &a, const many_tile &tile,
                                                     uint32_t base, uint64_t *filled,
                                                     many_ring *ring)
{
    constexpr int HELD = (N + WARP_THREADS - 1) / WARP_THREADS;
    int thread = static_cast<int>(threadIdx.x) - MANY_GROUP, group = thread / MANY_GROUP;
    int slots[HELD];
    float sums[2][N / 2];
    uint64_t *before = NULL; // of the stage of the step before
#pragma unroll
    for (int i = 0; i < HELD && KIND != MANY_DENSE; i++)
        slots[i] = many_slot(a, tile, i * WARP_THREADS + thread % WARP_THREADS);
#pragma unroll
    for (int i = 0; i < N / 2; i++) // without, the sums of all N seem to live at once
        sums[0][i] = sums[1][i] = 0;
    for (int step = 0; step < tile.columns / CHUNK; step++) {
        barrier_wait(filled + ring->stage, ring->parity);
        wgmma_publish(); // what cp.async wrote
        many_step<N>(sums, base + ring->stage * MANY_STAGE_BYTES, group);
        if (step > 0 && thread % MANY_GROUP == 0)
            barrier_arrive(before);
        before = filled + MANY_STAGES + ring->stage;
        many_advance(ring);
    }
    wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < N / 2; i++)
        ASM_SM90("" : "+f"(sums[0][i]), "+f"(sums[1][i])::"memory");
    if (thread % MANY_GROUP == 0)
        barrier_arrive(before);
    int warp = thread / WARP_THREADS, first_row = group * WGMMA_ROWS + warp % 4 * 16;
    if (KIND == MANY_DENSE)
        many_store_float<N>(a, tile, sums, first_row);
    else
        many_store<KIND, N>(a, tile, sums, slots, first_row,
                            base + MANY_STAGING + warp * MANY_STAGING_BYTES);
}

// Chooses the product for a tile's units.
template <many_kind KIND, int N>
static __device__ __forceinline__ void many_choose(const many_arguments &a, const many_tile &tile,
                                                   int units, uint32_t base, uint64_t *filled,
                                                   many_ring *ring)
{
    if (units == N / MANY_UNIT)
        many_multiply<KIND, N>(a, tile, base, filled, ring);
    else if constexpr (N > MANY_UNIT)
        many_choose<KIND, N - MANY_UNIT>(a, tile, units, base, filled, ring);
}

// grid: one block per multiprocessor; shared: see MANY_ALIGNMENT.
template <many_kind KIND>
static __global__ void __launch_bounds__(MANY_THREADS, 1)
    experts_many_kernel(const __grid_constant__ many_arguments a)
{
    constexpr int N = KIND == MANY_DENSE ? MANY_DENSE_TOKENS : MANY_SLOTS;
    extern __shared__ uint8_t dynamic[];
    uint32_t base =
        (shared_address(dynamic) + MANY_ALIGNMENT - 1) / MANY_ALIGNMENT * MANY_ALIGNMENT;
    uint8_t *shared = dynamic + (base - shared_address(dynamic));
    uint64_t *filled = reinterpret_cast<uint64_t *>(shared + MANY_BARRIERS);
    int32_t *tiles = reinterpret_cast<int32_t *>(shared + MANY_LISTS);
    int32_t *offsets = tiles + a.experts + 1;
    int thread = static_cast<int>(threadIdx.x);
    if (thread < MANY_STAGES) {
        barrier_init(filled + thread,
                     MANY_GROUP + 1); // the loading threads, and W's bytes
        barrier_init(filled + MANY_STAGES + thread, 2);
    }
    ASM_SM90("fence.mbarrier_init.release.cluster;" ::: "memory");
    pdl_wait();
    pdl_trigger();
    for (int i = thread; KIND != MANY_DENSE && i <= a.experts; i += MANY_THREADS) {
        tiles[i] = a.tiles[i];
        offsets[i] = a.offsets[i];
    }
    __syncthreads();
    if (thread < MANY_GROUP) {
        ASM_SM90("setmaxnreg.dec.sync.aligned.u32 56;");
        many_load<KIND>(a, base, filled, tiles, offsets);
        copy_commit();
        copy_wait<0>();
    } else {
        ASM_SM90("setmaxnreg.inc.sync.aligned.u32 224;");
        many_ring ring = {0, 0};
        many_tile tile;
        for (int task = static_cast<int>(blockIdx.x);
             many_find<KIND>(&tile, a, tiles, offsets, task); task += static_cast<int>(gridDim.x)) {
            // By a shuffle, so that the compiler sees that a warp agrees.
            int units = __shfl_sync(0xffffffffu, tile.units, 0);
            many_choose<KIND, N>(a, tile, units, base, filled, &ring);
        }
    }
}

// ---- launches ----

static size_t many_bytes(int experts)
{
    return MANY_ALIGNMENT + MANY_LISTS + 2 * static_cast<size_t>(experts + 1) * sizeof(int32_t);
}

template <many_kind KIND> static void many_launch(cudaStream_t stream, const many_arguments &a)
{
    static bool prepared = false;
    if (!prepared)
        CUDA_CHECK(cudaFuncSetAttribute(experts_many_kernel<KIND>,
                                        cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        MANY_SHARED_MAX));
    prepared = true;
    launch_chained(experts_many_kernel<KIND>, dim3(static_cast<unsigned>(multiprocessors())),
                   dim3(MANY_THREADS), many_bytes(a.experts), stream, a);
}

bool experts_many_serves(const struct moe_push *op)
{
    return device_is_sm90() && op->hidden % CHUNK == 0 && op->width % CHUNK == 0 &&
           op->shared_width % CHUNK == 0 && op->shared_width > 0 &&
           op->experts <= SORT_EXPERTS_MAX && many_bytes(op->experts) <= MANY_SHARED_MAX;
}

void experts_many(cudaStream_t stream, const struct moe_push *op)
{
    int slots = op->tokens * op->picks;
    int64_t middle_stride = static_cast<int64_t>(op->picks) * op->width + op->shared_width;
    struct experts_sort sort = {};
    sort.ids = op->expert_ids;
    sort.slots_count = slots;
    sort.picks = op->picks;
    sort.experts = op->experts;
    sort.tile_tokens = MANY_SLOTS;
    sort.slots = op->lists;
    sort.offsets = op->lists + slots;
    sort.tiles = op->lists + slots + op->experts + 1;
    sort.counts = reinterpret_cast<int32_t *>(op->middle); // free until the first product
    ASSERT(experts_sort_counts(slots, op->experts) * 4 <= op->tokens * middle_stride * 2);
    many_arguments a = {};
    a.x = op->x;
    a.token_stride = op->hidden;
    a.w = tensor_map(weight_bf16(&op->gate_up), static_cast<int64_t>(op->experts) * 2 * op->width,
                     op->hidden, MANY_HALF);
    a.shared_w =
        tensor_map(weight_bf16(&op->shared_gate_up), 2 * op->shared_width, op->hidden, MANY_HALF);
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
    a.w = tensor_map(weight_bf16(&op->down), static_cast<int64_t>(op->experts) * op->hidden,
                     op->width, MANY_HALF);
    a.shared_w = tensor_map(weight_bf16(&op->shared_down), op->hidden, op->shared_width, MANY_HALF);
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
    a.shared_w = tensor_map(shape.w, shape.rows, shape.columns, MANY_HALF);
    a.tokens = shape.tokens;
    a.shared_columns = shape.columns;
    a.shared_rows = shape.rows;
    a.y_float = shape.y_float;
    many_launch<MANY_DENSE>(stream, a);
}
