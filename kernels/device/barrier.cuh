// SPDX-License-Identifier: Apache-2.0
// barrier.cuh -- Hopper's barriers in shared memory, which count threads and bytes that arrive.
// Source: PTX ISA, mbarrier.
#pragma once

#include <stdint.h>

#include "kernels/device/jitter.cuh"
#include "kernels/device/sm90.cuh"

// As instructions take it.
static __device__ __forceinline__ uint32_t barrier_address(const uint64_t *barrier)
{
    return static_cast<uint32_t>(__cvta_generic_to_shared(barrier));
}

// Once, by one thread, before anyone uses the barrier; then a fence and a block barrier.
static __device__ __forceinline__ void barrier_init(uint64_t *barrier, int arrivals)
{
    ASM_SM90("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier_address(barrier)), "r"(arrivals)
             : "memory");
}

// Arrives and tells the barrier how many bytes its phase waits for.
static __device__ __forceinline__ void barrier_expect(uint64_t *barrier, int bytes)
{
    ASM_SM90("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier_address(barrier)),
             "r"(bytes)
             : "memory");
}

// Arrives.
static __device__ __forceinline__ void barrier_arrive(uint64_t *barrier)
{
    ASM_SM90("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(barrier_address(barrier)) : "memory");
}

// Arrives when what this thread copies by cp.async until now has come.
static __device__ __forceinline__ void barrier_arrive_copied(uint64_t *barrier)
{
    ASM_SM90("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(barrier_address(barrier))
             : "memory");
}

// Returns when the phase of that parity has ended.
static __device__ __forceinline__ void barrier_wait(uint64_t *barrier, uint32_t parity)
{
    jitter();
    ASM_SM90("{\n"
             ".reg .pred done;\n"
             "again:\n"
             "mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
             "@done bra.uni ended;\n"
             "bra.uni again;\n"
             "ended:\n"
             "}" ::"r"(barrier_address(barrier)),
             "r"(parity)
             : "memory");
}
