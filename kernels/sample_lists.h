// SPDX-License-Identifier: Apache-2.0
// sample_lists.h -- op: a request's own biases and masks on the logits of its sampled rows: biases
// by id, the only ids allowed, and ids that would complete a banned sequence
//
// logit(id) += bias(id); then logits of ids that are not allowed, if there is a list of those that
// are, become -infinity; then, of every banned word, its last id, if the tokens drawn before are
// its others. Drawn tokens are those behind the original prompt, drafts before the row among them.
// Before penalties. A row of which nothing is left draws its lowest id.
//
//   shape   logits [samples, vocab own] f32, changed in place; lists [slots, SAMPLE_LISTS_MAX] and
//           recent [slots, SAMPLE_RECENT_MAX] int32; rows [rows_count] index of the sampled rows
//           that have lists, -1 = none (so that a captured list may be padded)
//   needs   ids of a list at most once in biases and once in allowed; lengths of words 1 to
//           SAMPLE_WORD_TOKENS_MAX; a slot opened with its lists
//   launch  a block of 256 per sampled row, one thread a row of the step for recent; of the sampler
//           class "lists" alone
//   moves   rows_count * vocab own * 4 bytes where ids are allowed, else a few KB a row
//   limit   HBM: 248,320 logits are 1 MB a row, 0.2 us at 4.6 TB/s
//   error   exact but for the f32 rounding of the addition
//   source  order and meaning: SamplingParams and v1/sample of vLLM (logit_bias, allowed_token_ids,
//           bad_words)
#pragma once

#include "kernels/slots.h"

enum {
    SAMPLE_BIASES_MAX = 300,
    SAMPLE_ALLOWED_MAX = 1024,
    SAMPLE_WORDS_MAX = 512, // numbers of all banned words: each is its length, then its ids
    SAMPLE_WORD_TOKENS_MAX = 1 + SLOT_RECENT_MAX,
    SAMPLE_RECENT_MAX = SLOT_RECENT_MAX,
    SAMPLE_LISTS_MAX = 2 * SAMPLE_BIASES_MAX + SAMPLE_ALLOWED_MAX + SAMPLE_WORDS_MAX,
};

struct sample_lists {
    struct step_tables tables;
    struct slots slots;
    float *logits;
    int vocab_first, vocab_count; // of this rank
    const int32_t *rows;
    int rows_count;
    // A slot's lists, their counts in its sampling: ids of biases, the bits of these as f32,
    // allowed ids, banned words.
    int32_t *lists;
    int32_t *recent; // what was drawn last, newest first, -1 = nothing
};

// Whether a slot has lists, and whether its rows need to know what was drawn before.
bool sample_lists_needed(const struct slot_sampling *sampling);
bool sample_lists_recent(const struct slot_sampling *sampling);

// Of slots that open: copies pool[lists_first ..] to their lists and begins recent with the
// opening's. openings as in slots_open.
void sample_lists_open(struct stream *stream, const struct sample_lists *op, const int32_t *pool,
                       const struct slot_opening *openings, int openings_count);

// After slots_begin: notes tokens of the step's prefill rows that lie behind the original prompt.
void sample_lists_prompt(struct stream *stream, const struct sample_lists *op);

// Changes the logits of the rows.
void sample_lists(struct stream *stream, const struct sample_lists *op);

// After slots_end: notes what was drawn. results [rows of the step] as slots_end wrote them.
void sample_lists_drawn(struct stream *stream, const struct sample_lists *op,
                        const struct row_result *results);
