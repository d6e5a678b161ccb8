// SPDX-License-Identifier: Apache-2.0
// types.h -- bf16 as plain bits, the same on the host and in kernels. Not an op.
#pragma once

#include <stdint.h>
#include <string.h>

// Brain floating point: the upper half of an IEEE binary32.
typedef struct {
    uint16_t bits;
} bf16;

// Exact.
static inline float bf16_to_float(bf16 value)
{
    uint32_t bits = (uint32_t)value.bits << 16;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

// Rounds to nearest, ties to even; NaN stays NaN.
static inline bf16 bf16_from_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (bf16){(uint16_t)((bits >> 16) | 0x40u)};
    return (bf16){(uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

// One rounding from double to bf16 would differ from two (double to float to bf16) on ties only;
// the ops' contracts allow the two.
static inline bf16 bf16_from_double(double value)
{
    return bf16_from_float((float)value);
}
