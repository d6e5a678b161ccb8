// SPDX-License-Identifier: Apache-2.0
// types.h -- bf16 as plain bits, the same on the host and in kernels. Not an op.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

// For functions that kernels call, too. On the host they are inlined always: also where the thread
// sanitizer looks at the caller in another way than at others (kernels/twins/vector.h).
#ifdef __CUDACC__
#define ON_BOTH_SIDES __host__ __device__
#else
#define ON_BOTH_SIDES __attribute__((always_inline))
#endif

// Brain floating point: the upper half of an IEEE binary32.
typedef struct {
    uint16_t bits;
} bf16;

// Exact.
ON_BOTH_SIDES static inline float bf16_to_float(bf16 value)
{
    uint32_t bits = (uint32_t)value.bits << 16;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

// Rounds to nearest, ties to even; NaN stays NaN.
ON_BOTH_SIDES static inline bf16 bf16_from_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bool quiet = (bits & 0x7fffffffu) > 0x7f800000u;
    uint32_t upper = (bits >> 16) | 0x40u;
    bf16 rounded = {(uint16_t)(quiet ? upper : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
    return rounded;
}

// One rounding from double to bf16 would differ from two (double to float to bf16) on ties only;
// the ops' contracts allow the two.
ON_BOTH_SIDES static inline bf16 bf16_from_double(double value)
{
    return bf16_from_float((float)value);
}
