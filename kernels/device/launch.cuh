// SPDX-License-Identifier: Apache-2.0
// launch.cuh -- what every launcher needs: the stream's CUDA handle and the check after a launch.
// A CUDA error is a fault of the process, which ends; it is replaced.
#pragma once

#include <cstdlib>
#include <cuda_runtime.h>
#include <string.h>

#include "kernels/device/jitter.cuh"

extern "C" {
#include "kernels/types.h"
#include "parallel/base/status.h"
}

// kernels/runtime.h's stream in the CUDA build.
struct stream {
    cudaStream_t handle;
};

#define CUDA_CHECK(call)                                                                           \
    do {                                                                                           \
        cudaError_t cuda_error_ = (call);                                                          \
        if (cuda_error_ != cudaSuccess)                                                            \
            DIE("%s: %s", #call, cudaGetErrorString(cuda_error_));                                 \
    } while (0)

// Right after <<<>>>: an impossible launch is our bug or a dead GPU.
#define LAUNCH_CHECK() CUDA_CHECK(cudaGetLastError())

// ---- programmatic dependent launch ----
// A chained kernel may start while the one before it on the stream still runs. Rule, kept by every
// kernel that is launched so: it executes pdl_wait() before its first global write and before it
// reads anything that a kernel before it wrote in this step, and pdl_trigger() only after that.
// Then at most two kernels overlap, and before its wait a kernel may read weights and whatever was
// written two or more kernels earlier. A kernel that never waits must not be launched so.
// Source: CUDA programming guide, programmatic dependent launch.

// Returns when all kernels before this one have ended and their writes are seen.
static __device__ __forceinline__ void pdl_wait()
{
    jitter();
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
    jitter();
}

// Lets the next kernel begin once every block has said so or ended.
static __device__ __forceinline__ void pdl_trigger()
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
    jitter();
}

// Of the device that this process opened: 9 for Hopper.
static inline int compute_capability_major()
{
    static int major = 0;
    int device;
    if (major > 0)
        return major;
    CUDA_CHECK(cudaGetDevice(&device));
    CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    return major;
}

// False on devices before Hopper, which have no such launches, and in a process that was asked for
// plain edges (DELTAMESH_PDL=0), for comparing bytes.
static inline bool pdl_enabled()
{
    static const bool asked = getenv("DELTAMESH_PDL") == NULL || *getenv("DELTAMESH_PDL") != '0';
    return asked && compute_capability_major() >= 9;
}

// Launches a kernel that keeps the rule above.
template <typename... Parameters, typename... Arguments>
static void launch_chained(void (*kernel)(Parameters...), dim3 grid, dim3 block,
                           size_t shared_bytes, cudaStream_t stream, Arguments... arguments)
{
    cudaLaunchAttribute attribute = {};
    cudaLaunchConfig_t config = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = pdl_enabled() ? 1 : 0;
    CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
}

// Of the device that this process opened.
static inline int multiprocessors()
{
    static int count = 0;
    int device;
    if (count > 0)
        return count;
    CUDA_CHECK(cudaGetDevice(&device));
    CUDA_CHECK(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
    return count;
}
