// SPDX-License-Identifier: Apache-2.0
// sample_logprobs.h -- op: log-probabilities of a token and of the likeliest others, from sharded
// logits, alike on every rank
//
// logprob(t) = logit(t) - log sum over all real ids of exp(logit). Each shard gives its maximum,
// its sum against that maximum, the token's logit if it is its own, and its likeliest ids; the
// parts of all ranks are gathered and merged. The logits are to be the model's own: before
// penalties, biases, temperature and cuts.
//
//   shape   logits [rows of any number, vocab own] f32; rows, token_rows, tops [rows_count];
//           parts [rows_count]; gathered [ranks, rows_count]; results [rows_count]
//   needs   tops[i] <= SAMPLE_LOGPROBS_TOP_MAX. An entry with tops -1, or whose token is -1, is
//           skipped: its result is empty (id -1), so that a captured list may be padded
//   launch  a block of 1,024 per entry for parts, a thread per entry for the merge; of the
//           sampler class "logprobs" alone
//   moves   rows_count * vocab own * 4 bytes, twice, and 1/32 of it again per alternative
//   limit   HBM: 248,320 logits are 1 MB a row, 0.2 us at 4.6 TB/s
//   error   the sum in f64, the result rounded to f32 once: any sharding agrees to 1 ulp; a
//           kernel sums f32 exponentials in f64, 2^-22 of the sum, so 2.4e-7 of the result
//   source  none
#pragma once

#include "kernels/runtime.h"

enum { SAMPLE_LOGPROBS_TOP_MAX = 20 };

// One shard's share of an entry. An id of the shard is -1 from top_count on.
struct sample_logprob_part {
    double sum;    // of exp(logit - maximum) over the shard's real rows
    float maximum; // -infinity for a shard without a finite logit
    float chosen;  // the token's logit, -infinity when it is of another shard
    int32_t top_count;
    int32_t top_ids[SAMPLE_LOGPROBS_TOP_MAX]; // by falling logit, equal ones by rising id
    float top_logits[SAMPLE_LOGPROBS_TOP_MAX];
    int32_t reserved;
};

struct sample_logprob {
    int32_t id;    // the token, -1 of a skipped entry
    float logprob; // of id
    int32_t top_count;
    int32_t top_ids[SAMPLE_LOGPROBS_TOP_MAX]; // in the order of the parts
    float top_logprobs[SAMPLE_LOGPROBS_TOP_MAX];
};

struct sample_logprobs {
    const float *logits;
    int vocab_first, vocab_count, vocab_real; // of this rank, of the model
    int rows_count;
    const int32_t *rows;       // row of logits of each entry; NULL: entry i has row i
    const int32_t *tokens;     // entry i is about tokens[token_rows[i]]
    const int32_t *token_rows; // NULL: tokens[i]
    const int32_t *tops;       // alternatives wanted
    struct sample_logprob_part *parts;
};

// This shard's parts.
void sample_logprobs_shard(struct stream *stream, const struct sample_logprobs *op);

// results[i] from gathered [ranks, rows_count]; only tokens, token_rows, tops and rows_count of op
// are read.
void sample_logprobs_merge(struct stream *stream, struct sample_logprob *results,
                           const struct sample_logprob_part *gathered, int ranks,
                           const struct sample_logprobs *op);
