// SPDX-License-Identifier: Apache-2.0
// reduce.cuh -- sums over a warp and a block in one fixed order: a row's bits depend on the row
// alone, never on how many run beside it.
#pragma once

enum { WARP_THREADS = 32 };

// The sum of all lanes, in every lane.
static __device__ __forceinline__ float warp_sum(float value)
{
#pragma unroll
    for (int offset = WARP_THREADS / 2; offset > 0; offset /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, offset);
    return value;
}

// The sum of all threads of a block of `THREADS`, in every thread. shared [THREADS / 32].
template <int THREADS> static __device__ __forceinline__ float block_sum(float value, float *shared)
{
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    value = warp_sum(value);
    __syncthreads(); // of an earlier use of shared
    if (threadIdx.x % WARP_THREADS == 0)
        shared[warp] = value;
    __syncthreads();
    float sum = 0;
#pragma unroll
    for (int i = 0; i < THREADS / WARP_THREADS; i++)
        sum += shared[i];
    return sum;
}
