// SPDX-License-Identifier: Apache-2.0
// gdn_wgmma.cuh -- matrix instructions of a warpgroup, the left operand in registers and the right
// one in shared memory in rows of 128 bytes, swizzled: 16-byte pieces of row r at piece ^ (r & 7),
// tiles on boundaries of 1024 bytes. Warp w has rows 16 w .. of left operand and result, each as in
// gdn_mma.cuh. Source: PTX ISA, wgmma and its matrix descriptor.
#pragma once

#include "kernels/device/gdn_mma.cuh"
#include "kernels/device/wgmma.cuh"

// The right operand from `tile` on. along_k: a row of the tile is a column of the operand (its
// values run along the summed dimension); else a row is a row, and columns 64 .. stand `next`
// bytes behind the first 64.
static __device__ __forceinline__ uint64_t wgmma_operand(const void *tile, bool along_k, int next)
{
    uint64_t address = shared_address(tile) >> 4 & 0x3fff;
    uint64_t leading = along_k ? 1 : static_cast<uint64_t>(next) >> 4;
    return address | leading << 16 | static_cast<uint64_t>(1024 >> 4) << 32 |
           static_cast<uint64_t>(1) << 62;
}

// Returns when all that was issued has ended.
static __device__ __forceinline__ void wgmma_end()
{
    wgmma_commit();
    wgmma_wait<0>();
}

// c [64, 64] = (adds ? c : 0) + a [64, 16] b [16, 64], b along the summed dimension.
static __device__ __forceinline__ void wgmma_64(float c[8][4], const uint32_t a[4], uint64_t b,
                                                int adds)
{
    ASM_SM90("{\n"
             ".reg .pred adds;\n"
             "setp.ne.b32 adds, %37, 0;\n"
             "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" WGMMA_NAMES_0 "}, "
             "{%32, %33, %34, %35}, %36, adds, 1, 1, 0;\n"
             "}"
             : WGMMA_SUMS_32(c, 0)
             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(adds));
}

// c [64, 128] += a [64, 16] b [16, 128], the rows of b as they stand.
static __device__ __forceinline__ void wgmma_128(float c[16][4], const uint32_t a[4], uint64_t b)
{
    ASM_SM90("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" WGMMA_NAMES_0
             "," WGMMA_NAMES_32 "}, "
             "{%64, %65, %66, %67}, %68, 1, 1, 1, 1;\n"
             : WGMMA_SUMS_32(c, 0), WGMMA_SUMS_32(c, 8)
             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
