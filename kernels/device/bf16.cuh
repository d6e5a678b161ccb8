// SPDX-License-Identifier: Apache-2.0
// bf16.cuh -- eight bf16 values as one 16-byte access, and their conversion. Bits are those of
// kernels/types.h.
#pragma once

#include <cuda_bf16.h>
#include <stdint.h>

extern "C" {
#include "kernels/types.h"
}

enum { BF16_VECTOR = 8 };

// Eight consecutive values; the address is 16-byte aligned.
struct bf16x8 {
    uint4 bits;
};

// Exact.
static __device__ __forceinline__ void bf16x8_to_float(float out[BF16_VECTOR], bf16x8 vector)
{
    const uint32_t words[4] = {vector.bits.x, vector.bits.y, vector.bits.z, vector.bits.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        out[2 * i] = __uint_as_float(words[i] << 16);
        out[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
}

// Rounds to nearest, ties to even.
static __device__ __forceinline__ bf16x8 bf16x8_from_float(const float in[BF16_VECTOR])
{
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        __nv_bfloat162 pair = __floats2bfloat162_rn(in[2 * i], in[2 * i + 1]);
        words[i] = *reinterpret_cast<uint32_t *>(&pair);
    }
    return {make_uint4(words[0], words[1], words[2], words[3])};
}

// COUNT values as one access where they are eight; both addresses are aligned to that.
template <int COUNT> static __device__ __forceinline__ void copy_values(bf16 *to, const bf16 *from)
{
    if (COUNT == BF16_VECTOR) {
        *reinterpret_cast<uint4 *>(to) = *reinterpret_cast<const uint4 *>(from);
    } else {
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            to[i] = from[i];
    }
}
