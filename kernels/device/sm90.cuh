// SPDX-License-Identifier: Apache-2.0
// sm90.cuh -- code for Hopper (sm_90a) in a build for several architectures. Kernels with such
// instructions are compiled for all, without them they are worth nothing: a launcher asks
// device_is_sm90 and has another way. kernels/cuda.cmake sees to it that what runs on Hopper is
// code for 90a.
#pragma once

#include "kernels/device/launch.cuh"

// An asm statement of instructions that sm_90a alone has; elsewhere it ends the kernel.
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define ASM_SM90(...) asm volatile(__VA_ARGS__)
#else
#define ASM_SM90(...) __trap()
#endif

// Whether the device that this process opened runs them.
static inline bool device_is_sm90()
{
    return compute_capability_major() == 9;
}
