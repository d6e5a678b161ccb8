// SPDX-License-Identifier: Apache-2.0
// tile.cuh -- a warp's part of y = x W^T on tensor cores for few tokens: 16 rows of W stand on the
// M side of m16n8k16, up to 8 tokens per tile on the N side. Weights stream through a ring in
// shared memory that belongs to the lane alone: a lane copies exactly the bytes that it will
// multiply, so the ring needs no barrier, only the lane's own copy groups.
//
// Which lane holds what. Lane (g = lane / 4, c = lane % 4) holds rows g and g + 8 of a tile and
// token g. The order of k inside a product is free as long as W and x agree: of 64 consecutive k a
// lane takes the 16-byte pieces c and c + 4, and four products use them in halves. So rows are read
// as they lie in memory, 128 bytes of each at a time.
#pragma once

#include "kernels/device/bf16.cuh"
#include "kernels/device/reduce.cuh"

enum {
    CHUNK = 64,        // k values of a row that one turn of the ring takes
    TILE_ROWS = 16,    // rows of a product
    TILE_TOKENS = 8,   // tokens of a product
    TILE_WEIGHTS = 4,  // 16-byte vectors of a lane per chunk and 16 rows
    TILE_INPUTS = 2,   // and per chunk and 8 tokens
    PIECE = CHUNK / 2, // values from a lane's first piece to its second
    VECTOR_BYTES = 16,
};

// Starts a copy of 16 bytes past the first-level cache; zeros when !present.
static __device__ __forceinline__ void copy_async(uint32_t to_shared, const void *from,
                                                  bool present = true)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to_shared),
                 "l"(from), "r"(present ? 16 : 0)
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

// Starts copying this lane's vectors of 16 rows: low points at its piece of row g, high at that of
// row g + 8; they land at `to`, one vector every WARP_THREADS.
static __device__ __forceinline__ void tile_copy(uint32_t to, const bf16 *low, const bf16 *high)
{
    copy_async(to, low);
    copy_async(to + WARP_THREADS * VECTOR_BYTES, low + PIECE);
    copy_async(to + 2 * WARP_THREADS * VECTOR_BYTES, high);
    copy_async(to + 3 * WARP_THREADS * VECTOR_BYTES, high + PIECE);
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
