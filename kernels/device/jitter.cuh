// SPDX-License-Identifier: Apache-2.0
// jitter.cuh -- random pauses about the waits for the kernel before, at barriers of some warps and
// of copies, in builds with DELTAMESH_JITTER alone: what is right only by timing shows there as
// other bytes (tests/gpu.sh jitter).
#pragma once

// Up to a microsecond, one time in four; any lanes of a warp.
static __device__ __forceinline__ void jitter()
{
#ifdef DELTAMESH_JITTER
    unsigned now;
    asm volatile("mov.u32 %0, %%clock;" : "=r"(now));
    unsigned dice = (now ^ blockIdx.x * 0x9e3779b1u ^ threadIdx.x / 32 * 0x85ebca6bu) * 2654435761u;
    if (dice >> 30 == 0)
        __nanosleep(dice >> 20 & 1023);
    __syncwarp(__activemask());
#endif
}
