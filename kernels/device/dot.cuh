// SPDX-License-Identifier: Apache-2.0
// dot.cuh -- one warp's dot product of two bf16 rows: lane l takes the vectors l, l + 32, ..., in
// f32. The order is the same for any number of rows run together.
#pragma once

#include "kernels/device/bf16.cuh"
#include "kernels/device/reduce.cuh"

// In every lane. Both rows are 16-byte aligned, columns a multiple of 8.
static __device__ __forceinline__ float warp_dot(const bf16x8 *x, const bf16x8 *w, int columns)
{
    float sum = 0;
    for (int i = static_cast<int>(threadIdx.x) % WARP_THREADS; i < columns / BF16_VECTOR;
         i += WARP_THREADS) {
        float a[BF16_VECTOR], b[BF16_VECTOR];
        bf16x8_to_float(a, x[i]);
        bf16x8_to_float(b, w[i]);
#pragma unroll
        for (int k = 0; k < BF16_VECTOR; k++)
            sum += a[k] * b[k];
    }
    return warp_sum(sum);
}
