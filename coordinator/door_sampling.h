// SPDX-License-Identifier: Apache-2.0
// door_sampling.h -- how a request's sampling becomes the core's, at every door: what is absent is
// filled in, the ids that end an answer are added, and who brought no seed gets one. Knows no wire
// format.
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

// What a request asked for, as its door read it. Borrowed.
struct door_sampling_wish {
    double temperature, top_p, min_p, repetition; // -1 = absent
    int32_t top_k;                                // 0 = off, -1 = absent
    double frequency, presence;
    int32_t min_tokens, max_tokens, logprobs, prompt_logprobs, drafts; // as in coord_sampling
    const int32_t *stop_ids;
    int32_t stop_count;
    bool ignore_eos;
};

// What a door's model says of every request. Borrowed.
struct door_sampling_rules {
    const struct coord_sampling *defaults; // of what is absent
    const struct model_config *config;     // its eos ids end an answer, unless ignore_eos
    const struct tokenizer *tokenizer;     // so do its own; NULL: none
    int32_t vocab_real;
};

// *out: all but its seed and the counts of its lists, which stay those of rules->defaults. E_INPUT:
// a stop id that the model has not; E_LIMIT: more than STEP_STOP_IDS_MAX with the model's own. The
// text names stop_token_ids.
enum status door_sampling_fill(struct coord_sampling *out, const struct door_sampling_wish *wish,
                               const struct door_sampling_rules *rules,
                               struct error *error) MUST_CHECK;
