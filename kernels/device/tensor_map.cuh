// SPDX-License-Identifier: Apache-2.0
// tensor_map.cuh -- tensor copies: a box of a matrix's rows, 64 columns of them, comes to shared
// memory in the swizzled layout that wgmma.cuh describes, without threads.
// Source: CUDA driver API, tensor maps; PTX ISA, cp.async.bulk.tensor.
#pragma once

#include <cuda.h>

#include "kernels/device/barrier.cuh"

enum { TENSOR_COLUMNS = 64 }; // of a box

// The map of w [rows, columns] for boxes of box_rows rows; past the matrix they are zeros.
static inline CUtensorMap tensor_map(const bf16 *w, int64_t rows, int columns, int box_rows)
{
    typedef decltype(&cuTensorMapEncodeTiled) encode;
    static encode call = NULL;
    if (call == NULL) {
        void *found = NULL;
        cudaDriverEntryPointQueryResult result;
        CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                                    cudaEnableDefault, &result));
        if (result != cudaDriverEntryPointSuccess)
            DIE("the driver has no cuTensorMapEncodeTiled: %d", static_cast<int>(result));
        call = reinterpret_cast<encode>(found);
    }
    CUtensorMap map;
    cuuint64_t sizes[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
    cuuint64_t stride = sizes[0] * sizeof(bf16);
    cuuint32_t box[2] = {TENSOR_COLUMNS, static_cast<cuuint32_t>(box_rows)}, ones[2] = {1, 1};
    CUresult result =
        call(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<bf16 *>(w), sizes, &stride, box,
             ones, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS)
        DIE("cuTensorMapEncodeTiled: %d", static_cast<int>(result));
    return map;
}

// Starts the copy of a box that begins at that row and column; `to` is a multiple of 1024. map lies
// in a kernel's parameters. The bytes of a whole box are counted by `barrier`.
static __device__ __forceinline__ void tensor_copy(uint32_t to, const CUtensorMap *map, int row,
                                                   int column, uint64_t *barrier)
{
    ASM_SM90("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], "
             "[%1, {%2, %3}], [%4];" ::"r"(to),
             "l"(map), "r"(column), "r"(row), "r"(barrier_address(barrier))
             : "memory");
}
