// SPDX-License-Identifier: Apache-2.0
// dice.h -- the only source of chance in a simulated run: one generator, seeded once, so that a
// seed replays a run exactly.
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct dice {
    uint64_t state;
};

// SplitMix64's finalizer: a bijection that looks random. Also used as a hash.
uint64_t dice_mix(uint64_t value);

// The next 64 random bits (SplitMix64: Steele, Lea, Flood, Fast splittable pseudorandom number
// generators, 2014).
uint64_t dice_next(struct dice *dice);

// A whole number of [low, high], both ends included.
int64_t dice_between(struct dice *dice, int64_t low, int64_t high);

// True with this probability.
bool dice_chance(struct dice *dice, double probability);
