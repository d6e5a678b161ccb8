// SPDX-License-Identifier: Apache-2.0
// clock.cuh -- the time on the device, for waits that must end.
#pragma once

#include <stdint.h>

// Of one GPU; its resolution is about a microsecond.
static __device__ __forceinline__ uint64_t clock_ns()
{
    uint64_t now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    return now;
}
