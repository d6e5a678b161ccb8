// SPDX-License-Identifier: Apache-2.0
// sample_penalty.h -- op: repetition, frequency and presence penalties and the ban of stop ids
// before min_tokens, on the logits of sampled rows, from per-slot counts on the device
//
// With c = how often a token was drawn: where it stood in the prompt or c > 0, a logit l becomes
// l / repetition (l > 0) or l * repetition; then l -= frequency * c, and l -= presence where c > 0.
// A verify row counts the drafts before it as drawn. Tokens beyond the original prompt that come
// as prompt (a preempted sequence) count as drawn. Tokens that run are also noted beside their KV
// pages: a slot that opens at a position > 0 finds there what it does not run itself.
//
//   shape   logits [samples, vocab own] f32, changed in place; counts [slots, vocab own] uint16;
//           rows [rows_count] index of the sampled rows that have penalties or banned stops;
//           page_tokens [pages, 64]
//   needs   counts zeroed when a slot opens; every token told once
//   launch  blocks of 256 over parts of the sampled rows, one thread per row of the step for
//           counts
//   moves   rows_count * vocab own * 6 bytes
//   limit   HBM: 248,320 logits and counts are 1.5 MB a row, 0.3 us at 4.6 TB/s
//   error   exact but for the f32 rounding of each of the three operations
//   source  repetition: Keskar et al., CTRL, 2019, section 4.1; frequency and presence: OpenAI's
//           API reference, frequency counts drawn tokens only, as vLLM's
#pragma once

#include "kernels/slots.h"

enum {
    SAMPLE_PAGE_TOKENS = 64,
    SAMPLE_COUNT_PROMPT = 0x8000, // bit of a count: the token stood in the prompt
    SAMPLE_COUNT_MAX = 0x7fff,    // drawn more often counts as so often
};

struct sample_penalty {
    struct step_tables tables;
    struct slots slots;
    float *logits;
    int vocab_first, vocab_count; // of this rank
    const int32_t *rows;
    int rows_count;
    uint16_t *counts;
};

// Whether a slot with these parameters needs counts, and whether its rows need the op at all.
bool sample_penalty_counts(const struct slot_sampling *sampling);
bool sample_penalty_needed(const struct slot_sampling *sampling);

// Zeroes the counts of slots that open. openings as in slots_open.
void sample_penalty_open(struct stream *stream, uint16_t *counts, int vocab_count,
                         const struct slot_opening *openings, int openings_count);

// After slots_begin: notes the tokens of the step's prefill rows. rows are not read.
void sample_penalty_prompt(struct stream *stream, const struct sample_penalty *op);

// After slots_begin: notes the tokens that run at their place in page_tokens, whatever the slots'
// sampling. A draft that is not accepted stands there until the token of its position runs. Neither
// logits, rows nor counts are read.
void sample_penalty_note(struct stream *stream, const struct sample_penalty *op,
                         int32_t *page_tokens);

// After sample_penalty_open and slots_set_pages: counts for slots that open at a position > 0 the
// tokens before it as if they had been run, from page_tokens. Logits and rows are not read.
void sample_penalty_recall(struct stream *stream, const struct sample_penalty *op,
                           const int32_t *page_tokens, const struct slot_opening *openings,
                           int openings_count);

// Changes the logits of the rows.
void sample_penalty(struct stream *stream, const struct sample_penalty *op);

// After slots_end: counts what was drawn. results [rows of the step] as slots_end wrote them.
void sample_penalty_drawn(struct stream *stream, const struct sample_penalty *op,
                          const struct row_result *results);
