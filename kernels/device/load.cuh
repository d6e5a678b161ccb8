// SPDX-License-Identifier: Apache-2.0
// load.cuh -- loads of 16 bytes that are requested where they stand in the source: left to itself
// the compiler moves them to their use, one after another, to hold fewer registers; and those of
// ld.global.nc behind the wait for the kernel before.
#pragma once

#include <stdint.h>

// Aligned to 16 bytes.
static __device__ __forceinline__ uint4 load_here(const void *from)
{
    uint4 v;
    asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from)
                 : "memory");
    return v;
}

// The same of what is read once.
static __device__ __forceinline__ uint4 load_once_here(const void *from)
{
    uint4 v;
    asm volatile("ld.global.cs.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from)
                 : "memory");
    return v;
}

// As four floats.
static __device__ __forceinline__ float4 float_of(uint4 v)
{
    return make_float4(__uint_as_float(v.x), __uint_as_float(v.y), __uint_as_float(v.z),
                       __uint_as_float(v.w));
}
