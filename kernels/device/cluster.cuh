// SPDX-License-Identifier: Apache-2.0
// cluster.cuh -- kernels of clusters: their launch; blocks of one send values into one another's
// shared memory, counted by a barrier there (Hopper). No fence: what a thread has stored to global
// memory or has on its way from there is not waited for.
// Source: PTX ISA, barrier.cluster, mapa, st.async.
#pragma once

#include "kernels/device/barrier.cuh"

// All threads of a cluster, first this, after fences of what was initialised, then cluster_ready;
// then all blocks run, and may be sent to. A block may end when all that it is sent has come.
static __device__ __forceinline__ void cluster_arrive()
{
    ASM_SM90("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}

// Ends what cluster_arrive began.
static __device__ __forceinline__ void cluster_ready()
{
    ASM_SM90("barrier.cluster.wait.aligned;" ::: "memory");
    jitter();
}

// Once, by one thread, between barrier_init and cluster_arrive.
static __device__ __forceinline__ void cluster_barriers_ready()
{
    ASM_SM90("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// Where block `rank` of the cluster has what this one has at a shared address.
static __device__ __forceinline__ uint32_t cluster_address(uint32_t shared, uint32_t rank)
{
    uint32_t address = 0;
    ASM_SM90("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared), "r"(rank));
    return address;
}

// Sends to a cluster_address; `barrier`, one in the same block, counts the bytes.
static __device__ __forceinline__ void cluster_send(uint32_t to, float value, uint32_t barrier)
{
    ASM_SM90(
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %1, [%2];" ::"r"(to),
        "f"(value), "r"(barrier)
        : "memory");
}

// The same of four values, 16-byte aligned.
static __device__ __forceinline__ void cluster_send(uint32_t to, float4 value, uint32_t barrier)
{
    ASM_SM90("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, "
             "%3, %4}, [%5];" ::"r"(to),
             "f"(value.x), "f"(value.y), "f"(value.z), "f"(value.w), "r"(barrier)
             : "memory");
}

// Returns when the phase of that parity has ended, and with it what was sent.
static __device__ __forceinline__ void cluster_barrier_wait(uint64_t *barrier, uint32_t parity)
{
    jitter();
    ASM_SM90("{\n"
             ".reg .pred done;\n"
             "again:\n"
             "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
             "@done bra.uni ended;\n"
             "bra.uni again;\n"
             "ended:\n"
             "}" ::"r"(barrier_address(barrier)),
             "r"(parity)
             : "memory");
}

// launch_chained, in clusters of `cluster` blocks.
template <typename... Parameters, typename... Arguments>
static void launch_clustered(void (*kernel)(Parameters...), unsigned cluster, dim3 grid, dim3 block,
                             size_t shared_bytes, cudaStream_t stream, Arguments... arguments)
{
    cudaLaunchAttribute attributes[2] = {};
    cudaLaunchConfig_t config = {};
    attributes[0].id = cudaLaunchAttributeClusterDimension;
    attributes[0].val.clusterDim = {cluster, 1, 1};
    attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[1].val.programmaticStreamSerializationAllowed = 1;
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = attributes;
    config.numAttrs = pdl_enabled() ? 2 : 1;
    CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
}
