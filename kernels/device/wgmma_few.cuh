// SPDX-License-Identifier: Apache-2.0
// wgmma_few.cuh -- the product of wgmma.cuh with few columns: 64 x N x 16, both factors in shared
// memory.
// Source: PTX ISA, asynchronous warpgroup level matrix instructions.
#pragma once

#include "kernels/device/wgmma.cuh"

#define WGMMA_FEW_4  "%0,%1,%2,%3"
#define WGMMA_FEW_8  WGMMA_FEW_4 ",%4,%5,%6,%7"
#define WGMMA_FEW_16 WGMMA_FEW_8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define WGMMA_FEW_24 WGMMA_FEW_16 ",%16,%17,%18,%19,%20,%21,%22,%23"

// sums = (add ? sums : 0) + a b^T. Thread t of the four warps: rows t / 32 * 16 + lane / 4 (+ 8),
// columns 8 j + lane % 4 * 2 (+ 1) in sums[4 j ..]. names: of the sums; a, b, add: of the others.
#define WGMMA_FEW(columns, names, x, y, adds, ...)                                                 \
    static __device__ __forceinline__ void wgmma_few(float(&sums)[columns / 2], uint64_t a,        \
                                                     uint64_t b, bool add)                         \
    {                                                                                              \
        ASM_SM90("{\n.reg .pred p;\nsetp.ne.b32 p, %" #adds ", 0;\n"                               \
                 "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32.bf16.bf16 {" names          \
                 "}, %" #x ", %" #y ", p, 1, 1, 0, 0;\n}"                                          \
                 : __VA_ARGS__                                                                     \
                 : "l"(a), "l"(b), "r"(static_cast<int>(add)));                                    \
    }

WGMMA_FEW(8, WGMMA_FEW_4, 4, 5, 6, "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]))
WGMMA_FEW(16, WGMMA_FEW_8, 8, 9, 10, WGMMA_ROW_8(sums, 0))
WGMMA_FEW(32, WGMMA_FEW_16, 16, 17, 18, WGMMA_ROW_8(sums, 0), WGMMA_ROW_8(sums, 8))
WGMMA_FEW(48, WGMMA_FEW_24, 24, 25, 26, WGMMA_ROW_8(sums, 0), WGMMA_ROW_8(sums, 8),
          WGMMA_ROW_8(sums, 16))
WGMMA_FEW(64, WGMMA_NAMES_0, 32, 33, 34, WGMMA_ROW_32(sums, 0))
