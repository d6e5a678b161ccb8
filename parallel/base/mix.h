// SPDX-License-Identifier: Apache-2.0
// mix.h -- numbers that look random and are a function of a seed and a count alone. Not for
// secrets. Kernels have their own copies: this header is the host's. Pure.
#pragma once

#include <stdint.h>

// Number `which` of SplitMix64 started at `seed`; 1 is its first, 0 the seed itself, mixed. Every
// bit of the result depends on every bit of both. Nothing can fail.
// Source: Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, 2014; the mixer is
// Stafford's variant 13.
static inline uint64_t mix_at(uint64_t seed, uint64_t which)
{
    uint64_t z = seed + which * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}
