// SPDX-License-Identifier: Apache-2.0
// sample.h -- op: draws a token per sampled row from sharded logits, alike on every rank
//
// sample_shard finds the best of this rank's vocabulary rows; the candidates of all ranks are
// gathered; sample_pick takes the best of them. Greedy: the largest logit, ties to the lowest id.
// With a temperature: the largest of logit / T + Gumbel(seed, position, id), which draws exactly
// from softmax(logits / T) and needs no normalisation across shards. Rows >= vocab_real (padding)
// are never chosen.
//
//   shape   logits [samples, vocab own] f32; candidates [samples]; gathered [ranks, samples];
//           tokens [samples] int32
//   needs   vocab_first + vocab own <= vocab of the model
//   launch  blocks of 256 over parts of the rows, so many that they fill the device; one block
//           picks
//   moves   samples * vocab own * 4 bytes
//   limit   HBM: 248,320 logits are 1 MB a row, 0.2 us at 4.6 TB/s
//   error   the value is computed in f64, rounded to f32 and compared so (that makes any sharding
//           agree with the whole); a kernel may differ in ties closer than 1e-6. sum is of f32
//   source  Gumbel-max: Maddison, Tarlow, Minka, A* Sampling, 2014, section 2; Philox4x32-10:
//           Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, 2011
#pragma once

#include "kernels/runtime.h"
#include "kernels/slots.h"
#include "kernels/types.h"

enum {
    SAMPLE_ROWS_MAX = 6144, // sampled in one step
    SAMPLE_PARTS = 1056,    // blocks that look at the rows of a step: 8 on each of 132
    SAMPLE_ROW_PARTS_MAX = 256,
};

// The best of one shard for one row. An inert row, and a shard of padding only, has id -1, value
// -infinity and sum 0. A NaN logit counts as -infinity.
struct sample_candidate {
    float value;   // logit, or the perturbed logit
    int32_t id;    // in the whole vocabulary
    float logit;   // unperturbed, of id
    float maximum; // largest logit of the shard, cut or not
    float sum;     // sum of exp(logit - maximum) over the shard's real rows
    int32_t reserved;
};

struct sample_shard {
    struct step_tables tables; // samples_count, sample_positions, sample_slots
    struct slots slots;
    const float *logits;
    int vocab_first, vocab_count; // of this rank
    int vocab_real;               // number of real token ids of the model
    const float *cuts;            // [samples] logits below are not drawn (sample_cut.h); NULL: none
    struct sample_candidate *candidates;
    struct sample_candidate *parts; // [SAMPLE_PARTS + samples]: see sample_parts; CUDA only
};

// The kernel looks at a row in so many parts of sample_part_width logits each (the last ones may be
// short or empty) and leaves their candidates at parts [samples, sample_parts(samples)].
ON_BOTH_SIDES static inline int sample_parts(int samples)
{
    int parts = samples > 0 ? SAMPLE_PARTS / samples : 1;
    return parts > SAMPLE_ROW_PARTS_MAX ? SAMPLE_ROW_PARTS_MAX : parts < 1 ? 1 : parts;
}
ON_BOTH_SIDES static inline int sample_part_width(int count, int parts)
{
    return ((count + parts - 1) / parts + 3) / 4 * 4; // loads of four stay aligned
}

// Queued; candidates of all samples, and parts.
void sample_shard(struct stream *stream, const struct sample_shard *op);

// tokens[i] = best of gathered[0..ranks)[i] by value, ties to the lowest id; -1 for inert rows and
// where the best has no finite logit: what is NaN or infinite is no choice of the model's.
// hash [1]: the number every rank reports. With m(z) splitmix64's finaliser and s = m(step [1]): s
// plus, for every sample of a slot >= 0, m(m(s + (slot << 32 | position)) + token), modulo 2^64.
void sample_pick(struct stream *stream, int32_t *tokens, uint64_t *hash,
                 const struct sample_candidate *gathered, int ranks,
                 const struct step_tables *tables, const uint64_t *step);

// Uniform in (0, 1), a function of its arguments alone: Philox4x32-10 with key = seed (low word
// first) and counter = {position, token, 0, 0}; the upper 52 bits of (word 1, word 0) and a half,
// times 2^-52. Gumbel = -log(-log(uniform)).
double sample_uniform(uint64_t seed, int32_t position, int32_t token);
