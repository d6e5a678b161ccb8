// SPDX-License-Identifier: Apache-2.0
// accept_synthetic.h -- op: decides by chance instead of by the model how many drafts of a verify
// row are accepted. For benchmarks of speed with weights that mean nothing.
// The first draft is accepted with the first probability, the second, when the first was, with the
// second, and so on; an accepted draft takes the place of the sample before it.
//
//   shape   sampled [samples_count] int32, changed in place; probabilities [ROW_VERIFY_MAX - 1]
//   needs   after sample_pick and before slots_end, alike on all ranks
//   launch  a thread per row
//   moves   a few bytes a row: latency only
//   limit   latency: about 2 us a kernel
//   error   integers: exact; chance is a function of the slot's seed and the position
//   source  SplitMix64: Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, 2014
#pragma once

#include "kernels/runtime.h"
#include "kernels/slots.h"
#include "kernels/types.h"

struct accept_synthetic {
    struct step_tables tables;
    struct slots slots;
    float probabilities[ROW_VERIFY_MAX - 1];
    int vocab_real; // a rejected draft that equals its sample is answered by the next id
    int32_t *sampled;
};

// Queued. Rows without drafts, and samples behind a rejected draft, stay as they are.
void accept_synthetic(struct stream *stream, const struct accept_synthetic *op);

// Uniform in [0, 1), a function of its arguments alone.
ON_BOTH_SIDES static inline double accept_synthetic_chance(uint64_t seed, int32_t position)
{
    uint64_t z = seed + ((uint64_t)(uint32_t)position + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return (double)(z >> 11) * 0x1p-53;
}

// What row r has instead of its samples: the whole op for one row.
ON_BOTH_SIDES static inline void accept_synthetic_row(const struct accept_synthetic *op, int r)
{
    const struct step_row *row = &op->tables.rows[r];
    if (row->kind != ROW_DECODE)
        return;
    const struct slot *slot = &op->slots.slots[row->slot];
    const int32_t *ids = op->tables.token_ids + row->token_first;
    int32_t *sampled = op->sampled + row->sample_first;
    for (int i = 1; i < op->tables.active_count[r]; i++) {
        double chance = accept_synthetic_chance(slot->sampling.seed, slot->position + i);
        if (chance < (double)op->probabilities[i - 1]) {
            sampled[i - 1] = ids[i];
            continue;
        }
        if (sampled[i - 1] == ids[i])
            sampled[i - 1] = (ids[i] + 1) % op->vocab_real;
        return;
    }
}
