// SPDX-License-Identifier: Apache-2.0
// wgmma_any.cuh -- Hopper's product of 64 x N x 16 with both factors in shared memory, for N a
// multiple of 16 up to 160.
// Source: PTX ISA, asynchronous warpgroup level matrix instructions.
#pragma once

#include "kernels/device/wgmma.cuh"

// sums += a b^T. Thread t of the four warps: rows t / 32 * 16 + lane / 4 (+ 8),
// columns 8 j + lane % 4 * 2 (+ 1) in sums[4 j ..].
template <int N>
static __device__ __forceinline__ void wgmma_any(float (&sums)[N / 2], uint64_t a, uint64_t b);

// The names of sums i .. i + 7.
#define WGMMA_NAME_8(a, b, c, d, e, f, g, h)                                                       \
    "%" #a ",%" #b ",%" #c ",%" #d ",%" #e ",%" #f ",%" #g ",%" #h
#define WGMMA_NAMES_N16    WGMMA_NAME_8(0, 1, 2, 3, 4, 5, 6, 7)
#define WGMMA_NAMES_N32    WGMMA_NAMES_N16 "," WGMMA_NAME_8(8, 9, 10, 11, 12, 13, 14, 15)
#define WGMMA_NAMES_N48    WGMMA_NAMES_N32 "," WGMMA_NAME_8(16, 17, 18, 19, 20, 21, 22, 23)
#define WGMMA_NAMES_N64    WGMMA_NAMES_N48 "," WGMMA_NAME_8(24, 25, 26, 27, 28, 29, 30, 31)
#define WGMMA_NAMES_N80    WGMMA_NAMES_N64 "," WGMMA_NAME_8(32, 33, 34, 35, 36, 37, 38, 39)
#define WGMMA_NAMES_N96    WGMMA_NAMES_N80 "," WGMMA_NAME_8(40, 41, 42, 43, 44, 45, 46, 47)
#define WGMMA_NAMES_N112   WGMMA_NAMES_N96 "," WGMMA_NAME_8(48, 49, 50, 51, 52, 53, 54, 55)
#define WGMMA_NAMES_N128   WGMMA_NAMES_N112 "," WGMMA_NAME_8(56, 57, 58, 59, 60, 61, 62, 63)
#define WGMMA_NAMES_N144   WGMMA_NAMES_N128 "," WGMMA_NAME_8(64, 65, 66, 67, 68, 69, 70, 71)
#define WGMMA_NAMES_N160   WGMMA_NAMES_N144 "," WGMMA_NAME_8(72, 73, 74, 75, 76, 77, 78, 79)
#define WGMMA_ROW_16(d, i) WGMMA_ROW_8(d, i), WGMMA_ROW_8(d, i + 8)
#define WGMMA_ROW_64(d, i) WGMMA_ROW_32(d, i), WGMMA_ROW_32(d, i + 32)

// n: columns; a, b: the names of the descriptors, n / 2 and the next.
#define WGMMA_ANY(n, a, b, ...)                                                                    \
    template <>                                                                                    \
    __device__ __forceinline__ void wgmma_any<n>(float(&sums)[n / 2], uint64_t x, uint64_t y)      \
    {                                                                                              \
        ASM_SM90("wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" WGMMA_NAMES_N##n     \
                 "}, %" #a ", %" #b ", 1, 1, 1, 0, 0;"                                             \
                 : __VA_ARGS__                                                                     \
                 : "l"(x), "l"(y));                                                                \
    }

WGMMA_ANY(16, 8, 9, WGMMA_ROW_8(sums, 0))
WGMMA_ANY(32, 16, 17, WGMMA_ROW_16(sums, 0))
WGMMA_ANY(48, 24, 25, WGMMA_ROW_16(sums, 0), WGMMA_ROW_8(sums, 16))
WGMMA_ANY(64, 32, 33, WGMMA_ROW_32(sums, 0))
WGMMA_ANY(80, 40, 41, WGMMA_ROW_32(sums, 0), WGMMA_ROW_8(sums, 32))
WGMMA_ANY(96, 48, 49, WGMMA_ROW_32(sums, 0), WGMMA_ROW_16(sums, 32))
WGMMA_ANY(112, 56, 57, WGMMA_ROW_32(sums, 0), WGMMA_ROW_16(sums, 32), WGMMA_ROW_8(sums, 48))
WGMMA_ANY(128, 64, 65, WGMMA_ROW_64(sums, 0))
WGMMA_ANY(144, 72, 73, WGMMA_ROW_64(sums, 0), WGMMA_ROW_8(sums, 64))
WGMMA_ANY(160, 80, 81, WGMMA_ROW_64(sums, 0), WGMMA_ROW_16(sums, 64))
