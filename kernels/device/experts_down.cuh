// SPDX-License-Identifier: Apache-2.0
// experts_down.cuh -- the second product of a mixture of experts for one to four tokens: a block
// takes 16 outputs of a token and adds all of its experts in one pass, so the weighted sum is a sum
// in registers: chunks in the order of picks within a warp, then warps in order.
#pragma once

#include "kernels/device/launch.cuh"
#include "kernels/device/tile.cuh"

enum {
    DOWN_WARPS = 16,
    DOWN_THREADS = DOWN_WARPS * WARP_THREADS,
    DOWN_STAGES = 4,
    DOWN_TOKENS_MAX = 4,
};

struct down_arguments {
    const bf16 *w, *shared_w; // [experts * hidden, width], [hidden, shared_width]
    const int32_t *ids;       // [tokens, picks]
    const float *weights, *shared_weights;
    const bf16 *middle; // [tokens, picks * width + shared_width]
    bf16 *y;            // [tokens, hidden]
    int tokens, hidden, picks, width, shared_width;
};

// A warp's place in the stream: chunk `chunk` of its share of unit (token, tile).
struct down_cursor {
    int unit, chunk;
};

// Of a token's middle row.
static __device__ __forceinline__ int down_chunks(const down_arguments &a)
{
    return (a.picks * a.width + a.shared_width) / CHUNK;
}

// The first chunk of a warp's share.
static __device__ __forceinline__ int down_share(int chunks, int warp)
{
    return chunks * warp / DOWN_WARPS;
}

// Copies the chunk under the cursor to `to` and moves on; always ends one group.
static __device__ __forceinline__ void down_issue(down_cursor *at, const down_arguments &a,
                                                  uint32_t to)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    int tiles = a.hidden / TILE_ROWS, chunks = down_chunks(a), routed = a.width / CHUNK;
    if (at->unit < a.tokens * tiles) {
        int pick = at->chunk / routed, columns = a.width;
        int64_t row = at->unit % tiles * TILE_ROWS + lane / 8;
        int column = at->chunk % routed * CHUNK;
        const bf16 *w = a.w;
        if (pick < a.picks) {
            row +=
                static_cast<int64_t>(__ldcg(a.ids + at->unit / tiles * a.picks + pick)) * a.hidden;
        } else {
            w = a.shared_w;
            columns = a.shared_width;
            column = (at->chunk - a.picks * routed) * CHUNK;
        }
        const bf16 *low = w + row * columns + column + lane % 8 * BF16_VECTOR;
        tile_copy(to, low, low + 8 * columns, 4 * columns);
        if (++at->chunk == down_share(chunks, warp + 1)) {
            at->chunk = down_share(chunks, warp);
            at->unit += static_cast<int>(gridDim.x);
        }
    }
    copy_commit();
}

// grid: at most one block per multiprocessor; shared: rings [warp][stage][vector][lane], then the
// middle rows of all tokens.
static __global__ void __launch_bounds__(DOWN_THREADS, 1)
    experts_down_kernel(const down_arguments a)
{
    extern __shared__ __align__(128) uint4 dynamic[];
    __shared__ float parts[2][DOWN_WARPS][TILE_ROWS];
    constexpr int STAGE_BYTES = WEIGHTS_BYTES;
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    int tiles = a.hidden / TILE_ROWS, chunks = down_chunks(a), routed = a.width / CHUNK;
    uint32_t ring =
        shared_address(dynamic) + static_cast<uint32_t>(warp * DOWN_STAGES * STAGE_BYTES);
    uint32_t copy_to = ring + tile_copy_offset(), read_from = ring + tile_read_offset();
    uint4 *rows = dynamic + DOWN_WARPS * DOWN_STAGES * TILE_WEIGHTS * WARP_THREADS;
    down_cursor cursor = {static_cast<int>(blockIdx.x), down_share(chunks, warp)};
    bool idle = down_share(chunks, warp) == down_share(chunks, warp + 1);
    if (idle)
        cursor.unit = a.tokens * tiles;
        // The picks were written two kernels ago, so weights need not wait.
#pragma unroll
    for (int stage = 0; stage < DOWN_STAGES; stage++)
        down_issue(&cursor, a, copy_to + stage * STAGE_BYTES);
    pdl_wait();
    pdl_trigger();
    int vectors = a.tokens * chunks * (CHUNK / BF16_VECTOR);
    for (int i = static_cast<int>(threadIdx.x); i < vectors; i += DOWN_THREADS)
        rows[i] = reinterpret_cast<const uint4 *>(a.middle)[i];
    __syncthreads();
    int stage = 0, parity = 0;
    for (int unit = static_cast<int>(blockIdx.x); unit < a.tokens * tiles;
         unit += static_cast<int>(gridDim.x)) {
        int token = unit / tiles;
        float low = 0, high = 0;
        for (int chunk = down_share(chunks, warp); chunk < down_share(chunks, warp + 1); chunk++) {
            uint4 weights[TILE_WEIGHTS], inputs[TILE_INPUTS] = {};
            float4 sums = {};
            int pick = chunk / routed;
            float scale =
                pick < a.picks ? a.weights[token * a.picks + pick] : a.shared_weights[token];
            copy_wait<DOWN_STAGES - 1>();
            __syncwarp();
            tile_read_weights(weights, read_from + stage * STAGE_BYTES);
            if (lane < 4) {
                const uint4 *row = rows + (token * chunks + chunk) * (CHUNK / BF16_VECTOR) + lane;
                inputs[0] = row[0];
                inputs[1] = row[PIECE / BF16_VECTOR];
            }
            tile_add(sums, weights, inputs);
            low += scale * sums.x;
            high += scale * sums.z;
            __syncwarp();
            down_issue(&cursor, a, copy_to + stage * STAGE_BYTES);
            stage = stage + 1 == DOWN_STAGES ? 0 : stage + 1;
        }
        if (lane % 4 == 0) { // token 0 of the tile
            parts[parity][warp][lane / 4] = low;
            parts[parity][warp][lane / 4 + 8] = high;
        }
        __syncthreads();
        if (threadIdx.x < TILE_ROWS) {
            float sum = 0;
            for (int w = 0; w < DOWN_WARPS; w++)
                sum += parts[parity][w][threadIdx.x];
            a.y[static_cast<int64_t>(token) * a.hidden + unit % tiles * TILE_ROWS + threadIdx.x] =
                bf16_from_float(sum);
        }
        parity ^= 1;
    }
}

// Queues y of all tokens; down_serves(a).
static void down_launch(cudaStream_t stream, const down_arguments &a)
{
    static bool prepared = false;
    constexpr size_t RING_BYTES =
        DOWN_WARPS * DOWN_STAGES * TILE_WEIGHTS * WARP_THREADS * VECTOR_BYTES;
    size_t row_bytes = static_cast<size_t>(a.picks * a.width + a.shared_width) * 2;
    size_t bytes = RING_BYTES + static_cast<size_t>(a.tokens) * row_bytes;
    int units = a.tokens * (a.hidden / TILE_ROWS);
    if (!prepared)
        CUDA_CHECK(cudaFuncSetAttribute(experts_down_kernel,
                                        cudaFuncAttributeMaxDynamicSharedMemorySize, 224 << 10));
    prepared = true;
    int blocks = units < multiprocessors() ? units : multiprocessors();
    launch_chained(experts_down_kernel, dim3(static_cast<unsigned>(blocks)), dim3(DOWN_THREADS),
                   bytes, stream, a);
}

// Whether down_launch serves the shape.
static inline bool down_serves(const down_arguments &a)
{
    return a.tokens <= DOWN_TOKENS_MAX && a.hidden % TILE_ROWS == 0 && a.width % CHUNK == 0 &&
           a.shared_width % CHUNK == 0 && a.picks * a.width + a.shared_width <= 12 << 10;
}
