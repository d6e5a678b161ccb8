// SPDX-License-Identifier: Apache-2.0
// oracle.c -- hashes. Owns nothing.
#include "tests/sim/oracle.h"

#include <stdbool.h>

#include "tests/sim/dice.h"

static uint64_t mix_two(uint64_t a, uint64_t b)
{
    return dice_mix(dice_mix(a + 0x9E3779B97F4A7C15u) + b);
}

int32_t oracle_prompt_token(uint64_t seed, int32_t position, int32_t vocab)
{
    static const int32_t alike[] = {0, 64, 100, 200, 320, 700, 5000, 5000};
    uint64_t hash = dice_mix(seed ^ 0x66616D696C79u);
    uint64_t family = hash % 2;
    uint64_t text = position < alike[(hash >> 8) % 8] ? family : seed;
    return (int32_t)(mix_two(text ^ 0x70726F6D7074u, (uint64_t)position) % (uint64_t)vocab);
}

uint64_t oracle_fold(uint64_t state, int32_t token)
{
    return mix_two(state, (uint64_t)(uint32_t)token);
}

int32_t oracle_probe(uint64_t seed, int32_t position, int which)
{
    uint64_t hash = mix_two(seed + (uint64_t)which, (uint64_t)position);
    return (int32_t)(hash % (uint64_t)position);
}

int32_t oracle_draw(uint64_t seed, int32_t position, uint64_t state,
                    const int32_t probed[ORACLE_PROBES], int32_t vocab)
{
    uint64_t hash = mix_two(mix_two(seed, (uint64_t)position), state);
    for (int i = 0; i < ORACLE_PROBES; i++)
        hash = mix_two(hash, (uint64_t)(uint32_t)probed[i]);
    return (int32_t)(hash % (uint64_t)vocab);
}

static bool is_one_of(int32_t token, const int32_t *ids, int32_t ids_count)
{
    for (int32_t i = 0; i < ids_count; i++) {
        if (ids[i] == token)
            return true;
    }
    return false;
}

int32_t oracle_avoid(int32_t token, const int32_t *ids, int32_t ids_count, int32_t vocab)
{
    while (is_one_of(token, ids, ids_count)) // fewer ids than the vocabulary has
        token = (token + 1) % vocab;
    return token;
}
