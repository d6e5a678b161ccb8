// SPDX-License-Identifier: Apache-2.0
// dice.c -- SplitMix64. Owns nothing.
#include "tests/sim/dice.h"

#include "parallel/base/status.h"

uint64_t dice_mix(uint64_t value)
{
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9u;
    value = (value ^ (value >> 27)) * 0x94D049BB133111EBu;
    return value ^ (value >> 31);
}

uint64_t dice_next(struct dice *dice)
{
    dice->state += 0x9E3779B97F4A7C15u;
    return dice_mix(dice->state);
}

int64_t dice_between(struct dice *dice, int64_t low, int64_t high)
{
    ASSERT(low <= high);
    uint64_t range = (uint64_t)(high - low) + 1;
    return low + (int64_t)(dice_next(dice) % range);
}

bool dice_chance(struct dice *dice, double probability)
{
    return (double)(dice_next(dice) >> 11) * 0x1p-53 < probability;
}
