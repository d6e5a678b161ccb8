// SPDX-License-Identifier: Apache-2.0
// gdn_mma.cuh -- warp-wide matrix instructions and asynchronous copies as the chunked GDN kernels
// use them. Lane l of a warp is (g, t) = (l / 4, l % 4). Source: PTX ISA, mma, ldmatrix,
// movmatrix, cp.async.bulk.
#pragma once

#include <cstdint>

#include "kernels/device/barrier.cuh"

// The thread, read anew wherever it is needed, as registers are few.
static __device__ __forceinline__ int thread_of_block()
{
    int thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return thread;
}

// As thread_of_block.
static __device__ __forceinline__ int lane_of_warp()
{
    int lane;
    asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
    return lane;
}

// An address in shared memory as instructions take it.
static __device__ __forceinline__ uint32_t shared_address(const void *pointer)
{
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Two values rounded to bf16, the first in the lower half.
static __device__ __forceinline__ uint32_t pack_bf16(float low, float high)
{
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

// Four 8 x 8 matrices of 16-bit values; lanes 8 i .. 8 i + 7 name the rows of matrix i, of which
// lane (g, t) gets row g, columns 2 t and 2 t + 1; transposed: rows 2 t and 2 t + 1 of column g.
static __device__ __forceinline__ void load_matrices(uint32_t to[4], uint32_t row_address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row_address));
}

// As load_matrices, transposed.
static __device__ __forceinline__ void load_transposed(uint32_t to[4], uint32_t row_address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row_address));
}

// An 8 x 8 matrix of 16-bit values, transposed across the warp.
static __device__ __forceinline__ uint32_t transpose_matrix(uint32_t from)
{
    uint32_t to;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(to) : "r"(from));
    return to;
}

// c (16 x 8) += a (16 x 8) b (8 x 8) in tf32. Lane (g, t) has c at (g, 2 t), (g, 2 t + 1),
// (g + 8, ..), ..; a at (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4); b at (t, g), (t + 4, g).
// The instruction cuts the last 13 bits off: half of what they could be is added, so that finite
// values are rounded to nearest.
static __device__ __forceinline__ void multiply_add_tf32(float c[4], const float a[4],
                                                         const float b[2])
{
    uint32_t x[6];
#pragma unroll
    for (int i = 0; i < 6; i++)
        x[i] = __float_as_uint(i < 4 ? a[i] : b[i - 4]) + 0x1000u;
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, "
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(x[4]), "r"(x[5]));
}

// ---- copies by the bulk engine, counted by barriers in shared memory (barrier.cuh) ----

// Global to shared memory, bytes a multiple of 16, counted by `barrier`.
static __device__ __forceinline__ void copy_bulk(void *to, const void *from, int bytes,
                                                 uint64_t *barrier)
{
    ASM_SM90("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, "
             "[%3];" ::"r"(shared_address(to)),
             "l"(from), "r"(bytes), "r"(shared_address(barrier))
             : "memory");
}

// Shared to global memory, bytes a multiple of 16.
static __device__ __forceinline__ void store_bulk(void *to, const void *from, int bytes)
{
    ASM_SM90("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;\n"
             "cp.async.bulk.commit_group;" ::"l"(to),
             "r"(shared_address(from)), "r"(bytes)
             : "memory");
}

// Returns when the stores of this thread are done.
static __device__ __forceinline__ void wait_bulk()
{
    ASM_SM90("cp.async.bulk.wait_group 0;" ::: "memory");
}
