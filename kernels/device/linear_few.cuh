// SPDX-License-Identifier: Apache-2.0
// linear_few.cuh -- y = x W^T for up to 16 tokens: W streams through the rings of tile.cuh from
// before the wait on, every block prepares the few rows of x for itself (a norm folded in, a gate
// folded in, or copied as they are), and the warps of a tile add their parts of the columns in one
// order. One block of 512 per multiprocessor walks over the tiles.
#pragma once

#include "kernels/device/launch.cuh"
#include "kernels/device/tile.cuh"

enum {
    FEW_WARPS = 16,
    FEW_THREADS = FEW_WARPS * WARP_THREADS,
    FEW_TOKENS_MAX = 2 * TILE_TOKENS,
    FEW_GATE_DIM = 128, // of a head whose norm and gate are folded in
    ROW_PAD_BYTES = 64, // between rows of x: two tokens of a quarter warp hit all banks
    FEW_SHARED_MAX = 227 << 10,
};

enum few_input {
    FEW_PLAIN, // rows of x
    FEW_NORM,  // bf16(residual + lane), normalised
    FEW_GATED, // norm(x) * silu(gate), per head
};

struct few_arguments {
    const bf16 *w; // [rows, columns]
    int rows, columns, tokens;
    int split;      // warps that share a tile's columns
    bf16 *y;        // [tokens, rows], or NULL
    float *y_float; // [tokens, rows], or NULL
    const bf16 *x;  // FEW_PLAIN and FEW_GATED: row t at x + gather(t) * x_stride
    const int32_t *gather;
    int64_t x_stride;
    const bf16 *gate; // FEW_GATED: row t at gate + t * gate_stride
    int64_t gate_stride;
    const float *norm; // FEW_NORM [columns]; FEW_GATED [FEW_GATE_DIM]
    float eps;
    bf16 *residual;   // FEW_NORM [tokens, columns]; updated when lane is not NULL
    const bf16 *lane; // [tokens, columns], or NULL
    bf16 *normed;     // [tokens, columns]
};

// Blocks that have read residual and lane; the last one updates the residual and zeroes this.
static __device__ unsigned few_readers;

// From one row of x in shared memory to the next.
static __device__ __forceinline__ int64_t few_row_bytes(const few_arguments &a)
{
    return static_cast<int64_t>(a.columns) * 2 + ROW_PAD_BYTES;
}

// residual + lane, rounded once, of eight values.
static __device__ __forceinline__ bf16x8 few_sum(const few_arguments &a, int64_t at)
{
    bf16x8 sum = *reinterpret_cast<const bf16x8 *>(a.residual + at);
    if (a.lane == NULL)
        return sum;
    float x[BF16_VECTOR], y[BF16_VECTOR];
    bf16x8_to_float(x, sum);
    bf16x8_to_float(y, *reinterpret_cast<const bf16x8 *>(a.lane + at));
#pragma unroll
    for (int i = 0; i < BF16_VECTOR; i++)
        x[i] += y[i];
    return bf16x8_from_float(x);
}

// FEW_PLAIN: rows of x as they are.
static __device__ void few_copy_rows(const few_arguments &a, uint8_t *rows)
{
    int vectors = a.columns / BF16_VECTOR;
    for (int i = static_cast<int>(threadIdx.x); i < a.tokens * vectors; i += FEW_THREADS) {
        int token = i / vectors, vector = i % vectors;
        int64_t source = a.gather != NULL ? a.gather[token] : token;
        *reinterpret_cast<uint4 *>(rows + token * few_row_bytes(a) + vector * VECTOR_BYTES) =
            reinterpret_cast<const uint4 *>(a.x + source * a.x_stride)[vector];
    }
}

// A team of warps per token: sums first, then scaled in place by the same threads. Block 0 keeps
// the normalised rows. `last` becomes true in the block that read last.
static __device__ void few_norm_rows(const few_arguments &a, uint8_t *rows, float *shared,
                                     int *last)
{
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS, teams = 1;
    while (teams < a.tokens)
        teams *= 2;
    int team = FEW_WARPS / teams, token = warp / team; // warps of a team
    int first = static_cast<int>(threadIdx.x) - token * team * WARP_THREADS;
    int vectors = token < a.tokens ? a.columns / BF16_VECTOR : 0;
    bf16x8 *row = reinterpret_cast<bf16x8 *>(rows + token * few_row_bytes(a));
    int64_t from = static_cast<int64_t>(token) * a.columns;
    float squares = 0, x[BF16_VECTOR];
    for (int i = first; i < vectors; i += team * WARP_THREADS) {
        bf16x8 sum = few_sum(a, from + i * BF16_VECTOR);
        bf16x8_to_float(x, sum);
#pragma unroll
        for (int k = 0; k < BF16_VECTOR; k++)
            squares += x[k] * x[k];
        row[i] = sum;
    }
    squares = warp_sum(squares);
    if (threadIdx.x % WARP_THREADS == 0)
        shared[warp] = squares;
    __syncthreads();
    // No fence: what the block read has arrived, the sums hang on it; and a fence would wait for
    // this thread's copies of weights, too.
    if (threadIdx.x == 0)
        *last = a.lane != NULL && atomicAdd(&few_readers, 1) == gridDim.x - 1;
    squares = 0;
    for (int i = 0; i < team; i++)
        squares += shared[token * team + i];
    float scale = rsqrtf(squares / static_cast<float>(a.columns) + a.eps);
    for (int i = first; i < vectors; i += team * WARP_THREADS) {
        const float4 *norm = reinterpret_cast<const float4 *>(a.norm) + 2 * i;
        float4 low = norm[0], high = norm[1];
        const float weights[BF16_VECTOR] = {low.x,  low.y,  low.z,  low.w,
                                            high.x, high.y, high.z, high.w};
        bf16x8_to_float(x, row[i]);
#pragma unroll
        for (int k = 0; k < BF16_VECTOR; k++)
            x[k] = x[k] * scale * (1.0f + weights[k]);
        row[i] = bf16x8_from_float(x);
        if (blockIdx.x == 0)
            *reinterpret_cast<bf16x8 *>(a.normed + from + i * BF16_VECTOR) = row[i];
    }
}

// Brings `count` values of the norm near to the block, to be there when the wait is over.
static __device__ __forceinline__ void few_prefetch_norm(const few_arguments &a, int count)
{
    int at = static_cast<int>(threadIdx.x) * WARP_THREADS; // a line of 128 bytes
    if (a.norm != NULL && at < count)
        asm volatile("prefetch.global.L1 [%0];" ::"l"(a.norm + at));
}

// In the last reader alone: nobody needs the old residual any more.
static __device__ void few_update_residual(const few_arguments &a)
{
    int vectors = a.tokens * (a.columns / BF16_VECTOR);
    for (int i = static_cast<int>(threadIdx.x); i < vectors; i += FEW_THREADS) {
        int64_t at = static_cast<int64_t>(i) * BF16_VECTOR;
        *reinterpret_cast<bf16x8 *>(a.residual + at) = few_sum(a, at);
    }
    if (threadIdx.x == 0)
        few_readers = 0;
}

// norm(o) * w * silu(z) of this lane's four values of a head; all lanes of the warp.
static __device__ __forceinline__ uint2 few_gate(uint2 o, uint2 z, float4 norm, float eps)
{
    const uint32_t words[4] = {o.x, o.y, z.x, z.y};
    const float weights[4] = {norm.x, norm.y, norm.z, norm.w};
    float values[8], squares = 0;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        values[2 * k] = __uint_as_float(words[k] << 16);
        values[2 * k + 1] = __uint_as_float(words[k] & 0xffff0000u);
    }
#pragma unroll
    for (int k = 0; k < 4; k++)
        squares += values[k] * values[k];
    float scale = rsqrtf(warp_sum(squares) / FEW_GATE_DIM + eps);
#pragma unroll
    for (int k = 0; k < 4; k++)
        values[k] *= scale * weights[k] * (values[4 + k] / (1.0f + expf(-values[4 + k])));
    __nv_bfloat162 low = __floats2bfloat162_rn(values[0], values[1]);
    __nv_bfloat162 high = __floats2bfloat162_rn(values[2], values[3]);
    return make_uint2(*reinterpret_cast<uint32_t *>(&low), *reinterpret_cast<uint32_t *>(&high));
}

// Four values that are aligned as two pairs: a row of z may begin on any even value.
static __device__ __forceinline__ uint2 few_load_pairs(const bf16 *from)
{
    const uint32_t *pairs = reinterpret_cast<const uint32_t *>(from);
    return make_uint2(pairs[0], pairs[1]);
}

// A warp per head and token.
static __device__ void few_gate_rows(const few_arguments &a, uint8_t *rows)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS, heads = a.columns / FEW_GATE_DIM;
    float4 norm = reinterpret_cast<const float4 *>(a.norm)[lane];
    for (int i = static_cast<int>(threadIdx.x) / WARP_THREADS; i < a.tokens * heads;
         i += FEW_WARPS) {
        int token = i / heads, at = i % heads * FEW_GATE_DIM + 4 * lane;
        uint2 o = *reinterpret_cast<const uint2 *>(a.x + token * a.x_stride + at);
        uint2 z = few_load_pairs(a.gate + token * a.gate_stride + at);
        *reinterpret_cast<uint2 *>(rows + token * few_row_bytes(a) + at * 2) =
            few_gate(o, z, norm, a.eps);
    }
}

// Where a warp stands in the stream of its chunks.
struct few_cursor {
    int tile, chunk;
    const bf16 *w; // this lane's piece of row lane / 8 of the tile; NULL past the last tile
};

// The first row of a tile: the last tile repeats rows of the one before, to the same bits.
static __device__ __forceinline__ int few_tile_row(const few_arguments &a, int tile)
{
    int row = tile * TILE_ROWS, last = a.rows - TILE_ROWS;
    return row < last ? row : last;
}

// Puts this lane at the first chunk of its warp's share of a tile.
static __device__ __forceinline__ void few_seek(few_cursor *cursor, const few_arguments &a,
                                                int tile)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    int chunks = a.columns / CHUNK / a.split;
    int64_t row = few_tile_row(a, tile) + lane / 8;
    cursor->tile = tile;
    cursor->chunk = 0;
    cursor->w = NULL;
    if (tile * TILE_ROWS < a.rows)
        cursor->w =
            a.w + row * a.columns + warp % a.split * chunks * CHUNK + lane % 8 * BF16_VECTOR;
}

// Copies the chunk under the cursor to `to` and moves on; always ends one group.
static __device__ __forceinline__ void few_issue(few_cursor *cursor, const few_arguments &a,
                                                 uint32_t to, int tile_step)
{
    if (cursor->w != NULL) {
        int64_t four = 4 * static_cast<int64_t>(a.columns);
        tile_copy(to, cursor->w, cursor->w + 2 * four, four);
        cursor->w += CHUNK;
        if (++cursor->chunk == a.columns / CHUNK / a.split)
            few_seek(cursor, a, cursor->tile + tile_step);
    }
    copy_commit();
}

// Rounds once to the output's type.
static __device__ __forceinline__ void few_store(const few_arguments &a, int token, int row,
                                                 float sum)
{
    if (token >= a.tokens)
        return;
    int64_t at = static_cast<int64_t>(token) * a.rows + row;
    if (a.y != NULL)
        a.y[at] = bf16_from_float(sum);
    else
        a.y_float[at] = sum;
}

// Adds the parts of a round's tiles, sums[warp][n][lane], in the order of warps, and stores.
template <int N_TILES>
static __device__ __forceinline__ void few_finish(const few_arguments &a, const float4 *sums,
                                                  int tile_first)
{
    int count = FEW_WARPS / a.split * N_TILES * WARP_THREADS;
    for (int i = static_cast<int>(threadIdx.x); i < count; i += FEW_THREADS) {
        int lane = i % WARP_THREADS, n = i / WARP_THREADS % N_TILES;
        int group = i / WARP_THREADS / N_TILES;
        const float4 *part = sums + (group * a.split * N_TILES + n) * WARP_THREADS + lane;
        float4 sum = part[0];
        for (int p = 1; p < a.split; p++) {
            float4 other = part[p * N_TILES * WARP_THREADS];
            sum.x += other.x;
            sum.y += other.y;
            sum.z += other.z;
            sum.w += other.w;
        }
        if ((tile_first + group) * TILE_ROWS >= a.rows)
            continue;
        int row = few_tile_row(a, tile_first + group) + lane / 4;
        int token = n * TILE_TOKENS + lane % 4 * 2;
        few_store(a, token, row, sum.x);
        few_store(a, token + 1, row, sum.y);
        few_store(a, token, row + 8, sum.z);
        few_store(a, token + 1, row + 8, sum.w);
    }
}

// Of few_kernel with these template arguments.
static inline size_t few_shared_bytes(int columns, int tokens, int n_tiles, int stages)
{
    size_t vectors =
        FEW_WARPS * WARP_THREADS *
        (static_cast<size_t>(stages) * TILE_WEIGHTS + 2 * static_cast<size_t>(n_tiles));
    return vectors * VECTOR_BYTES +
           static_cast<size_t>(tokens) * (static_cast<size_t>(columns) * 2 + ROW_PAD_BYTES);
}

// grid: at most one block per multiprocessor; block FEW_THREADS; shared few_shared_bytes: rings
// [warp][stage][vector][lane], parts [2][warp][n][lane] of two rounds in turn, rows of x.
template <few_input INPUT, int N_TILES, int STAGES>
static __global__ void __launch_bounds__(FEW_THREADS, 1) few_kernel(const few_arguments a)
{
    extern __shared__ __align__(128) uint4 dynamic[];
    __shared__ float squares[FEW_WARPS];
    __shared__ int last;
    constexpr int STAGE_BYTES = WEIGHTS_BYTES;
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    float4 *parts =
        reinterpret_cast<float4 *>(dynamic) + FEW_WARPS * STAGES * TILE_WEIGHTS * WARP_THREADS;
    uint8_t *rows = reinterpret_cast<uint8_t *>(parts + 2 * FEW_WARPS * N_TILES * WARP_THREADS);
    uint32_t ring = shared_address(dynamic) + static_cast<uint32_t>(warp * STAGES * STAGE_BYTES);
    uint32_t copy_to = ring + tile_copy_offset(), read_from = ring + tile_read_offset();
    int groups = FEW_WARPS / a.split, tile_step = static_cast<int>(gridDim.x) * groups;
    int chunks = a.columns / CHUNK / a.split;
    few_cursor cursor;
    few_seek(&cursor, a, static_cast<int>(blockIdx.x) * groups + warp / a.split);
#pragma unroll
    for (int stage = 0; stage < STAGES; stage++)
        few_issue(&cursor, a, copy_to + stage * STAGE_BYTES, tile_step);
    if (threadIdx.x == 0)
        last = 0;
    few_prefetch_norm(a, INPUT == FEW_NORM ? a.columns : FEW_GATE_DIM);
    pdl_wait();
    pdl_trigger();
    if (INPUT == FEW_PLAIN)
        few_copy_rows(a, rows);
    else if (INPUT == FEW_NORM)
        few_norm_rows(a, rows, squares, &last);
    else
        few_gate_rows(a, rows);
    __syncthreads();
    uint32_t inputs_at =
        shared_address(rows) +
        static_cast<uint32_t>(lane / 4 * few_row_bytes(a) +
                              (warp % a.split * chunks * CHUNK + lane % 4 * BF16_VECTOR) * 2);
    int stage = 0, parity = 0;
    for (int tile_first = static_cast<int>(blockIdx.x) * groups; tile_first * TILE_ROWS < a.rows;
         tile_first += tile_step) {
        float4 sums[N_TILES] = {};
        for (int chunk = 0; chunk < chunks; chunk++) {
            uint4 weights[TILE_WEIGHTS], inputs[TILE_INPUTS] = {};
            copy_wait<STAGES - 1>();
            __syncwarp();
            tile_read_weights(weights, read_from + stage * STAGE_BYTES);
#pragma unroll
            for (int n = 0; n < N_TILES; n++) {
                uint32_t at = inputs_at + static_cast<uint32_t>(n * TILE_TOKENS * few_row_bytes(a) +
                                                                chunk * CHUNK * 2);
                if (n * TILE_TOKENS + lane / 4 < a.tokens) {
                    inputs[0] = shared_load(at);
                    inputs[1] = shared_load(at + PIECE * 2);
                } else {
                    inputs[0] = inputs[1] = make_uint4(0, 0, 0, 0);
                }
                tile_add(sums[n], weights, inputs);
            }
            __syncwarp();
            few_issue(&cursor, a, copy_to + stage * STAGE_BYTES, tile_step);
            stage = stage + 1 == STAGES ? 0 : stage + 1;
        }
        float4 *to = parts + parity * FEW_WARPS * N_TILES * WARP_THREADS;
#pragma unroll
        for (int n = 0; n < N_TILES; n++)
            to[(warp * N_TILES + n) * WARP_THREADS + lane] = sums[n];
        __syncthreads();
        few_finish<N_TILES>(a, to, tile_first);
        if (INPUT == FEW_NORM && last) {
            few_update_residual(a);
            __syncthreads();
            if (threadIdx.x == 0)
                last = 0;
        }
        parity ^= 1;
    }
}

// Queues the kernel as it is.
template <few_input INPUT, int N_TILES, int STAGES>
static void few_launch_shaped(cudaStream_t stream, const few_arguments &a, int blocks)
{
    static bool prepared = false;
    if (!prepared)
        CUDA_CHECK(cudaFuncSetAttribute(few_kernel<INPUT, N_TILES, STAGES>,
                                        cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        FEW_SHARED_MAX - 1024));
    prepared = true;
    launch_chained(few_kernel<INPUT, N_TILES, STAGES>, dim3(static_cast<unsigned>(blocks)),
                   dim3(FEW_THREADS), few_shared_bytes(a.columns, a.tokens, N_TILES, STAGES),
                   stream, a);
}

// Whether few_launch serves the shape; rows of x and W are 16-byte aligned.
static inline bool few_serves(int rows, int columns, int tokens)
{
    int n_tiles = tokens > TILE_TOKENS ? 2 : 1;
    return rows >= TILE_ROWS && columns % CHUNK == 0 && tokens <= FEW_TOKENS_MAX &&
           few_shared_bytes(columns, tokens, n_tiles, 2) <= FEW_SHARED_MAX - 1024;
}

// Queues the product; few_serves(rows, columns, tokens). Deep rings where there is room.
template <few_input INPUT> static void few_launch(cudaStream_t stream, few_arguments a)
{
    ASSERT(few_serves(a.rows, a.columns, a.tokens) && a.tokens > 0 && a.rows > 0);
    a.split = tile_split(a.columns / CHUNK, FEW_WARPS);
    int groups = FEW_WARPS / a.split, tiles = (a.rows + TILE_ROWS - 1) / TILE_ROWS;
    int blocks = (tiles + groups - 1) / groups;
    blocks = blocks < multiprocessors() ? blocks : multiprocessors();
    if (a.tokens > TILE_TOKENS)
        few_launch_shaped<INPUT, 2, 2>(stream, a, blocks);
    else if (few_shared_bytes(a.columns, a.tokens, 1, 4) <= FEW_SHARED_MAX - 1024)
        few_launch_shaped<INPUT, 1, 4>(stream, a, blocks);
    else
        few_launch_shaped<INPUT, 1, 2>(stream, a, blocks);
}
