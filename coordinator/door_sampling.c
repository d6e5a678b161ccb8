// SPDX-License-Identifier: Apache-2.0
// door_sampling.c -- sets of ids and a hash.
#include "coordinator/door_sampling.h"

#include <sys/random.h>

// splitmix64's output function.
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

uint64_t door_sampling_choice_seed(uint64_t seed, int32_t index)
{
    return index == 0 ? seed : mix(mix(seed) + (uint64_t)index * 0x9E3779B97F4A7C15u);
}

uint64_t door_sampling_seed(struct door_seeds *seeds)
{
    uint64_t seed;
    if (!seeds->has_seed && getrandom(&seed, sizeof seed, 0) == (ssize_t)sizeof seed)
        return seed;
    uint64_t number = (uint64_t)seeds->link_index << 56 | ++seeds->given;
    return mix(seeds->seed + number * 0x9E3779B97F4A7C15u);
}

static enum status add_stop(struct coord_sampling *sampling, int32_t id)
{
    for (int32_t i = 0; i < sampling->stop_count; i++) {
        if (sampling->stop_ids[i] == id)
            return OK;
    }
    if (sampling->stop_count == STEP_STOP_IDS_MAX)
        return E_LIMIT;
    sampling->stop_ids[sampling->stop_count++] = id;
    return OK;
}

enum status door_sampling_stops(struct coord_sampling *sampling, const int32_t *stop_ids,
                                int32_t stop_count, bool ignore_eos,
                                const struct model_config *config,
                                const struct tokenizer *tokenizer)
{
    sampling->stop_count = 0;
    for (int32_t i = 0; i < stop_count; i++)
        TRY(add_stop(sampling, stop_ids[i]));
    for (int i = 0; i < config->eos_count && !ignore_eos; i++)
        TRY(add_stop(sampling, config->eos_ids[i]));
    for (uint32_t i = 0; tokenizer != NULL && i < tokenizer->eos_count && !ignore_eos; i++)
        TRY(add_stop(sampling, (int32_t)tokenizer->eos_ids[i]));
    return OK;
}
