// SPDX-License-Identifier: Apache-2.0
// door_sampling.h -- what every door adds to a request's sampling: the ids that end an answer, and
// a seed for who brought none. Knows no wire format.
#pragma once

#include "coordinator/core.h"
#include "coordinator/text/tokenizer.h"

// Where a door's seeds come from.
struct door_seeds {
    bool has_seed; // --seed was given: seeds are hashes of it, the door and their number
    uint64_t seed;
    int link_index;
    uint64_t given;
};

// The next one; without --seed, and where the system has randomness, random.
uint64_t door_sampling_seed(struct door_seeds *seeds);

// The seed of choice `index` of a request's n answers: a hash of both; the first keeps the seed.
uint64_t door_sampling_choice_seed(uint64_t seed, int32_t index);

// Sets the ids that end an answer: stop_ids[stop_count] and, unless ignore_eos, those of config and
// tokenizer (NULL: none). E_LIMIT: more than STEP_STOP_IDS_MAX.
enum status door_sampling_stops(struct coord_sampling *sampling, const int32_t *stop_ids,
                                int32_t stop_count, bool ignore_eos,
                                const struct model_config *config,
                                const struct tokenizer *tokenizer) MUST_CHECK;
