// SPDX-License-Identifier: Apache-2.0
// tile.cuh -- a warp's part of y = x W^T on tensor cores for few tokens: 16 rows of W stand on the
// M side of m16n8k16, up to 8 tokens per tile on the N side. Weights stream through a ring in
// shared memory that belongs to the warp alone: it needs no barrier, only the lanes' copy groups
// and a meeting of the warp before a slot is read and before it is filled again.
//
// Which lane holds what. Lane (g = lane / 4, c = lane % 4) multiplies rows g and g + 8 of a tile
// and token g. The order of k inside a product is free as long as W and x agree: of 64 consecutive
// k a lane takes the 16-byte pieces c and c + 4, and four products use them in halves. So rows are
// read as they lie in memory: eight lanes copy 128 bytes of a row, a whole line, and every second
// row lies with its halves exchanged so that reading hits all banks.
#pragma once

#include "kernels/device/bf16.cuh"
#include "kernels/device/jitter.cuh"
#include "kernels/device/reduce.cuh"

enum {
    CHUNK = 64,             // k values of a row that one turn of the ring takes
    TILE_ROWS = 16,         // rows of a product
    TILE_TOKENS = 8,        // tokens of a product
    TILE_WEIGHTS = 4,       // 16-byte vectors of a lane per chunk and 16 rows
    TILE_INPUTS = 2,        // and per chunk and 8 tokens
    LINE_BYTES = CHUNK * 2, // of a row in a slot
    WEIGHTS_BYTES = TILE_ROWS * LINE_BYTES,
    INPUTS_BYTES = TILE_TOKENS * LINE_BYTES,
    PIECE = CHUNK / 2, // values from a lane's first piece to its second
    VECTOR_BYTES = 16,
};

// Starts a copy of 16 bytes past the first-level cache; zeros when !present.
static __device__ __forceinline__ void copy_async(uint32_t to_shared, const void *from,
                                                  bool present = true)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to_shared), "l"(from),
                 "r"(present ? 16 : 0)
                 : "memory");
}

// Ends a group of this thread's copies, which may be empty.
static __device__ __forceinline__ void copy_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Until at most PENDING groups of this thread are on their way.
template <int PENDING> static __device__ __forceinline__ void copy_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
    jitter();
}

// As PTX names shared memory.
static __device__ __forceinline__ uint32_t shared_address(const void *shared)
{
    return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// 16 aligned bytes.
static __device__ __forceinline__ uint4 shared_load(uint32_t at)
{
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(at)
                 : "memory");
    return v;
}

// Threads of some warps meet; id 0..15, 0 is __syncthreads's.
static __device__ __forceinline__ void barrier_sync(int id, int threads)
{
    jitter();
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// sums += a b, f32; b two registers.
static __device__ __forceinline__ void mma_m16n8k16(float4 &sums, const uint32_t (&a)[4],
                                                    uint32_t b_low, uint32_t b_high)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(sums.x), "+f"(sums.y), "+f"(sums.z), "+f"(sums.w)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b_low), "r"(b_high));
}

// One chunk of 16 rows and 8 tokens. weights: pieces c and c + 4 of row g, then of row g + 8;
// inputs: the same pieces of token g. sums.x, .y: row g, tokens 2c and 2c + 1; .z, .w: row g + 8.
static __device__ __forceinline__ void tile_add(float4 &sums, const uint4 weights[TILE_WEIGHTS],
                                                const uint4 inputs[TILE_INPUTS])
{
#pragma unroll
    for (int i = 0; i < TILE_INPUTS; i++) {
        const uint4 &low = weights[i], &high = weights[TILE_INPUTS + i];
        mma_m16n8k16(sums, {low.x, high.x, low.y, high.y}, inputs[i].x, inputs[i].y);
        mma_m16n8k16(sums, {low.z, high.z, low.w, high.w}, inputs[i].z, inputs[i].w);
    }
}

// Where a lane copies to (row lane / 8, piece lane % 8) in a slot; four rows further the same.
static __device__ __forceinline__ uint32_t tile_copy_offset()
{
    uint32_t lane = threadIdx.x % WARP_THREADS, row = lane / 8, piece = lane % 8;
    return row * LINE_BYTES + (piece ^ (row & 1) << 2) * VECTOR_BYTES;
}

// Where it reads piece c of row g from; piece c + 4 is at ^ 64, row g + 8 eight lines further.
static __device__ __forceinline__ uint32_t tile_read_offset()
{
    uint32_t lane = threadIdx.x % WARP_THREADS, row = lane / 4, piece = lane % 4;
    return row * LINE_BYTES + (piece ^ (row & 1) << 2) * VECTOR_BYTES;
}

// Starts copying a lane's vectors of 16 rows; low and high: its pieces of rows lane / 8 and 8 +
// lane / 8; four: values from a row to the fourth after it.
static __device__ __forceinline__ void tile_copy(uint32_t to, const bf16 *low, const bf16 *high,
                                                 int64_t four)
{
    copy_async(to, low);
    copy_async(to + 4 * LINE_BYTES, low + four);
    copy_async(to + 8 * LINE_BYTES, high);
    copy_async(to + 12 * LINE_BYTES, high + four);
}

// What tile_add multiplies, from a slot's read address.
static __device__ __forceinline__ void tile_read_weights(uint4 (&weights)[TILE_WEIGHTS],
                                                         uint32_t at)
{
    weights[0] = shared_load(at);
    weights[1] = shared_load(at ^ 64);
    weights[2] = shared_load(at + 8 * LINE_BYTES);
    weights[3] = shared_load((at ^ 64) + 8 * LINE_BYTES);
}

// The largest power of two that divides `chunks` and is at most `warps`: how many warps share the
// columns of a tile.
static inline int tile_split(int chunks, int warps)
{
    int split = 1;
    while (2 * split <= warps && chunks % (2 * split) == 0)
        split *= 2;
    return split;
}
