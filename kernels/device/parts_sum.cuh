// SPDX-License-Identifier: Apache-2.0
// parts_sum.cuh -- the sum that parts of a push stand for (kernels/push_parts.h).
#pragma once

#include "kernels/device/bf16.cuh"
#include "kernels/device/load.cuh"

extern "C" {
#include "kernels/push_parts.h"
}

// Eight values as they lie in memory; others are bf16x8.
struct parts_float {
    float4 low, high;
};

// Eight values of `products`, which are read once.
static __device__ __forceinline__ void parts_load(bf16x8 *to, const void *products, int64_t vector)
{
    to->bits = load_once_here(static_cast<const uint4 *>(products) + vector);
}

// The same of f32.
static __device__ __forceinline__ void parts_load(parts_float *to, const void *products,
                                                  int64_t vector)
{
    const uint4 *from = static_cast<const uint4 *>(products) + 2 * vector;
    to->low = float_of(load_once_here(from));
    to->high = float_of(load_once_here(from + 1));
}

// As floats; exact.
static __device__ __forceinline__ void parts_values(float (&to)[BF16_VECTOR], const bf16x8 &from)
{
    bf16x8_to_float(to, from);
}

// The same of f32.
static __device__ __forceinline__ void parts_values(float (&to)[BF16_VECTOR],
                                                    const parts_float &from)
{
    const float values[BF16_VECTOR] = {from.low.x,  from.low.y,  from.low.z,  from.low.w,
                                       from.high.x, from.high.y, from.high.z, from.high.w};
#pragma unroll
    for (int k = 0; k < BF16_VECTOR; k++)
        to[k] = values[k];
}

// sums += weight * product.
template <typename VALUES>
static __device__ __forceinline__ void parts_add(float (&sums)[BF16_VECTOR], float weight,
                                                 const VALUES &product)
{
    float values[BF16_VECTOR];
    parts_values(values, product);
#pragma unroll
    for (int k = 0; k < BF16_VECTOR; k++)
        sums[k] += weight * values[k];
}

// Adds the weighted products of a token at vector `at` of its row; VALUES: eight of them. PICKS
// products are on their way at once, 0: one after another. Only a kernel with a bound of one block
// a multiprocessor holds so many.
template <typename VALUES, int PICKS>
static __device__ __forceinline__ void parts_sum(float (&sums)[BF16_VECTOR],
                                                 const struct push_parts &parts, int64_t token,
                                                 int hidden, int at)
{
    int64_t row = hidden / BF16_VECTOR;
    if constexpr (PICKS > 0) {
        VALUES products[PICKS + 1];
#pragma unroll
        for (int pick = 0; pick <= PICKS; pick++)
            parts_load(&products[pick], parts.products, (token * (PICKS + 1) + pick) * row + at);
#pragma unroll
        for (int pick = 0; pick < PICKS; pick++)
            parts_add(sums, parts.weights[token * PICKS + pick], products[pick]);
        parts_add(sums, parts.shared_weights[token], products[PICKS]);
    } else {
        for (int pick = 0; pick <= parts.picks; pick++) {
            VALUES product;
            parts_load(&product, parts.products, (token * (parts.picks + 1) + pick) * row + at);
            parts_add(sums,
                      pick < parts.picks ? parts.weights[token * parts.picks + pick]
                                         : parts.shared_weights[token],
                      product);
        }
    }
}
