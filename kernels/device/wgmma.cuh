// SPDX-License-Identifier: Apache-2.0
// wgmma.cuh -- Hopper's products by a group of four warps: what all of them need. Factors lie in
// shared memory as rows of 64 bf16 (128 bytes) whose eight 16-byte pieces are swizzled by the row.
// Source: PTX ISA, asynchronous warpgroup level matrix instructions.
#pragma once

#include <stdint.h>

#include "kernels/device/sm90.cuh"

enum {
    WGMMA_ROWS = 64,  // of the first factor
    WGMMA_DEPTH = 16, // k of one instruction
    WGMMA_ROW_BYTES = 128,
};

// Where piece `piece` of row `row` lies in a tile that begins on a multiple of 1024 bytes.
static __device__ __forceinline__ uint32_t wgmma_swizzled(int row, int piece)
{
    return static_cast<uint32_t>(row * WGMMA_ROW_BYTES + ((piece ^ (row & 7)) << 4));
}

// The descriptor of a tile: rows of 128 bytes, groups of 8 rows 1024 bytes apart, 128-byte swizzle.
static __device__ __forceinline__ uint64_t wgmma_descriptor(uint32_t shared)
{
    return static_cast<uint64_t>((shared & 0x3ffffu) >> 4) | (uint64_t)1 << 16 |
           (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

// Before the first product that follows other uses of the sums' registers.
static __device__ __forceinline__ void wgmma_begin()
{
    ASM_SM90("wgmma.fence.sync.aligned;" ::: "memory");
}

// Ends a group of products.
static __device__ __forceinline__ void wgmma_commit()
{
    ASM_SM90("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Until at most LEFT committed groups run; the sums of those may not be touched yet.
template <int LEFT> static __device__ __forceinline__ void wgmma_wait()
{
    ASM_SM90("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

// What this thread wrote to shared memory before is seen by products after.
static __device__ __forceinline__ void wgmma_publish()
{
    ASM_SM90("fence.proxy.async.shared::cta;" ::: "memory");
}

// The names of 32 operands of an instruction, from %0, %32, .. on, and the sums that they stand
// for, which a thread has in fours, d[i][4], or in a row, d[i].
#define WGMMA_NAMES_0                                                                              \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,"           \
    "%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define WGMMA_NAMES_32                                                                             \
    "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,"         \
    "%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define WGMMA_NAMES_64                                                                             \
    "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,"         \
    "%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define WGMMA_NAMES_96                                                                             \
    "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,"            \
    "%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define WGMMA_SUMS_4(d, i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define WGMMA_SUMS_32(d, i)                                                                        \
    WGMMA_SUMS_4(d, i), WGMMA_SUMS_4(d, i + 1), WGMMA_SUMS_4(d, i + 2), WGMMA_SUMS_4(d, i + 3),    \
        WGMMA_SUMS_4(d, i + 4), WGMMA_SUMS_4(d, i + 5), WGMMA_SUMS_4(d, i + 6),                    \
        WGMMA_SUMS_4(d, i + 7)
#define WGMMA_ROW_8(d, i)                                                                          \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]),    \
        "+f"(d[i + 6]), "+f"(d[i + 7])
#define WGMMA_ROW_32(d, i)                                                                         \
    WGMMA_ROW_8(d, i), WGMMA_ROW_8(d, i + 8), WGMMA_ROW_8(d, i + 16), WGMMA_ROW_8(d, i + 24)
