// SPDX-License-Identifier: Apache-2.0
// launch.cuh -- what every launcher needs: the stream's CUDA handle and the check after a launch.
// A CUDA error is a fault of the process, which ends; it is replaced.
#pragma once

#include <cuda_runtime.h>
#include <string.h>

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
