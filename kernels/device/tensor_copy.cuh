// SPDX-License-Identifier: Apache-2.0
// tensor_copy.cuh -- Hopper's copies of boxes of a matrix by the tensor engine, in the swizzle that
// wgmma.cuh reads, and the barriers in shared memory that count them and other threads' copies.
// Source: PTX ISA, mbarrier and cp.async.bulk.tensor; CUDA driver API, tensor map objects.
#pragma once

#include <cuda.h>

#include "kernels/device/sm90.cuh"
#include "kernels/device/tile.cuh"

// Once, by one thread, before anyone uses the barrier; then box_barriers_ready, then a block
// barrier before other threads use it.
static __device__ __forceinline__ void box_barrier_init(uint64_t *barrier, int arrivals)
{
    ASM_SM90("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals)
             : "memory");
}

// What this thread initialised is seen by the tensor engine.
static __device__ __forceinline__ void box_barriers_ready()
{
    ASM_SM90("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// Arrives.
static __device__ __forceinline__ void box_barrier_arrive(uint64_t *barrier)
{
    ASM_SM90("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

// Arrives and tells the barrier how many bytes of boxes its phase waits for.
static __device__ __forceinline__ void box_barrier_expect(uint64_t *barrier, int bytes)
{
    ASM_SM90("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
             "r"(bytes)
             : "memory");
}

// Arrives when what this thread started by copy_async has come.
static __device__ __forceinline__ void box_barrier_arrive_copied(uint64_t *barrier)
{
    ASM_SM90("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(shared_address(barrier))
             : "memory");
}

// Returns when the phase of that parity has ended; a fresh barrier's phase of parity 1 has.
static __device__ __forceinline__ void box_barrier_wait(uint64_t *barrier, uint32_t parity)
{
    jitter();
    ASM_SM90("{\n"
             ".reg .pred done;\n"
             "again:\n"
             "mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
             "@done bra ended;\n"
             "bra again;\n"
             "ended:\n"
             "}" ::"r"(shared_address(barrier)),
             "r"(parity)
             : "memory");
}

// Weights are read once: what they take of the L2 goes first.
static const uint64_t BOX_EVICT_FIRST = 0x12f0000000000000;

// Starts the copy of the box at (column, row) of a matrix.
static __device__ __forceinline__ void box_copy(uint32_t to, const CUtensorMap *map, int column,
                                                int row, uint64_t *barrier)
{
    ASM_SM90("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
             ".L2::cache_hint [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
             "l"(map), "r"(column), "r"(row), "r"(shared_address(barrier)), "l"(BOX_EVICT_FIRST)
             : "memory");
}

// The same of pairs of matrices: eight rows of one, the same of the other, the next eight and so on
// from `row` of pair `pair` on.
static __device__ __forceinline__ void
box_copy_pair(uint32_t to, const CUtensorMap *map, int column, int row, int pair, uint64_t *barrier)
{
    ASM_SM90("cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes"
             ".L2::cache_hint [%0], [%1, {%2, %3, %3, %4, %5}], [%6], %7;" ::"r"(to),
             "l"(map), "r"(column), "r"(0), "r"(row / 8), "r"(pair), "r"(shared_address(barrier)),
             "l"(BOX_EVICT_FIRST)
             : "memory");
}

// ---- maps, on the host ----

// The map of either kind: sizes in values, strides in bytes, from the second dimension on.
static void box_encode(CUtensorMap *map, const void *matrix, unsigned rank, const cuuint64_t *sizes,
                       const cuuint64_t *strides, const cuuint32_t *box)
{
    static void *encode = NULL;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSuccess;
    const cuuint32_t steps[5] = {1, 1, 1, 1, 1};
    if (encode == NULL)
        CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000,
                                                    cudaEnableDefault, &found));
    if (encode == NULL)
        DIE("the driver has no cuTensorMapEncodeTiled: %d", static_cast<int>(found));
    CUresult result = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(encode)(
        map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, rank, const_cast<void *>(matrix), sizes, strides,
        box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    ASSERT(result == CUDA_SUCCESS);
}

// Boxes of box_rows x CHUNK of a matrix [rows, columns] of bf16.
static void box_map(CUtensorMap *map, const void *matrix, int64_t rows, int columns, int box_rows)
{
    const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
    const cuuint64_t strides[1] = {sizes[0] * 2}; // bytes
    const cuuint32_t box[2] = {CHUNK, static_cast<cuuint32_t>(box_rows)};
    box_encode(map, matrix, 2, sizes, strides, box);
}

// Boxes of box_rows / 2 rows x CHUNK of each matrix of a pair; pairs [pairs, 2, rows, columns].
static void box_map_pairs(CUtensorMap *map, const void *matrix, int pairs, int rows, int columns,
                          int box_rows)
{
    cuuint64_t row = static_cast<cuuint64_t>(columns) * 2; // bytes
    cuuint64_t matrix_bytes = row * static_cast<cuuint64_t>(rows);
    const cuuint64_t sizes[5] = {static_cast<cuuint64_t>(columns), 8, 2,
                                 static_cast<cuuint64_t>(rows / 8), static_cast<cuuint64_t>(pairs)};
    const cuuint64_t strides[4] = {row, matrix_bytes, 8 * row, 2 * matrix_bytes};
    const cuuint32_t box[5] = {CHUNK, 8, 2, static_cast<cuuint32_t>(box_rows / 16), 1};
    box_encode(map, matrix, 5, sizes, strides, box);
}
