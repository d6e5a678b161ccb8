// SPDX-License-Identifier: Apache-2.0
// slots.h -- op: per-sequence state on the device, and the ops that open a slot, begin a step
// (row list -> token list) and end it (samples -> state). The host names slots; what a slot
// contains (position, last token, whether it has stopped) it learns only from results.
//
//   shape   slots [slots_count]; block_table [slots_count, pages_per_sequence];
//           rows [rows_count]; tokens [tokens_count]
//   needs   a slot at most once in a step's rows; rows sorted: decode rows first
//   launch  a block per row or list of pages; a thread per row that ends
//   moves   a few bytes a row: latency only
//   limit   latency: about 2 us a kernel
//   error   integers: exact
//   source  none
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "kernels/runtime.h"

enum {
    SLOT_STOP_IDS_MAX = 16,
    ROW_VERIFY_MAX = 6,  // the known token and up to 5 drafts
    SLOT_RECENT_MAX = 7, // sample_lists.h
};

enum row_kind {
    ROW_DECODE,  // 1 + drafts tokens that the device knows; left pending until accepted
    ROW_PREFILL, // tokens from the plan; committed at once
    ROW_NONE,    // of no sequence, inert: fills a step up to a size that is run often; samples all
                 // of its tokens or (sample_first -1) none
};

// Why a slot no longer runs; the words of the wire's finish_reason.
enum slot_end {
    SLOT_RUNS = 0,
    SLOT_STOP,
    SLOT_LENGTH,
    SLOT_BROKEN, // nothing could be drawn: no logit was finite
};

// Sampling as the kernels see it; set when a slot opens, constant for its life.
struct slot_sampling {
    float temperature;     // 0 = greedy
    int32_t top_k;         // 0 = off
    float top_p;           // 0 or 1 = off
    float min_p;           // 0 = off
    float repetition;      // 0 or 1 = off
    float frequency;       // 0 = off
    float presence;        // 0 = off
    int32_t prompt_tokens; // of the original prompt: what lies before counts as prompt
    int32_t stops_from;    // position from which stop ids may be drawn (min_tokens), 0 = any
    int32_t logprobs;      // told of drawn tokens: 0 = none, else 1 + alternatives; for the host
    int32_t drafts;        // made at a time: 0 = as many as a step makes, else 1 + the most
    int32_t bias_count, allowed_count, words_count; // of the slot's lists (sample_lists.h), 0 = off
    uint64_t seed;
    int32_t tokens_end; // position at which output must end: prompt length + max_tokens
    int32_t stop_count; // ids in stop_ids
    int32_t stop_ids[SLOT_STOP_IDS_MAX];
};

struct slot {
    int32_t position;    // tokens committed to KV and recurrent state, pending rows included
    int32_t pending;     // rows of the pending buffers that the next step folds into the state
    int32_t parity;      // which pending buffer the last decode step wrote
    int32_t token_next;  // known, not yet run: the first token of the next decode row; -1 none
    int32_t page_tokens; // tokens that the block table row has room for
    int32_t end;         // enum slot_end
    int32_t drafts[ROW_VERIFY_MAX - 1]; // guesses after token_next, -1 from the first one missing
    struct slot_sampling sampling;
};

// One entry of `opens`: a slot that starts at `position` (0, or a checkpoint's) with nothing
// pending, no known token, no drafts, no pages.
struct slot_opening {
    int32_t slot;
    int32_t position;
    int32_t lists_first;             // of its lists in a common array
    int32_t recent[SLOT_RECENT_MAX]; // what was drawn last, newest first, -1 = nothing
    struct slot_sampling sampling;
};

// One entry of `pages`: block_table[slot][first ..] = ids[0 .. count). ids_first indexes a common
// array of ids. The row's room becomes (first + count) * 64 tokens.
struct slot_pages {
    int32_t slot;
    int32_t first, count;
    int32_t ids_first;
};

// One row of a step as uploaded.
struct step_row {
    int32_t slot;         // of kind none: one that is never opened
    int32_t kind;         // enum row_kind
    int32_t token_first;  // index of its first token in the step's token list
    int32_t token_count;  // decode: the step's verify; prefill: tokens of the chunk
    int32_t token_next;   // prefill: the token after the chunk, -1 when nobody knows it yet
    int32_t sample;       // prefill: 1 = sample after the last token
    int32_t sample_first; // index of its first sampled row in [samples], -1 when none
    int32_t pause_at;     // decode: a position that its tokens do not cross, 0 = none
};

// A checkpoint of what a prefill row's sequence carries after the row's first `tokens` tokens: a
// multiple of 64 or all of them.
struct row_save {
    int32_t checkpoint;
    int32_t row, tokens;
    int32_t token_last; // index of the last of them in the step's token list
};

// What the ops of a step read: filled by slots_begin on the device. An inert row has count 0 in
// active_count: no op may touch state for it. Tokens that do not run (of an inert row, past the
// active count of a decode row, of no row) have id and position -1, their samples position -1.
struct step_tables {
    const struct step_row *rows;  // [rows_count]
    int32_t *active_count;        // [rows_count] tokens of the row that run, 0 when inert
    int32_t *token_ids;           // [tokens_count] prefill ids from the plan, decode ids filled in
    int32_t *token_positions;     // [tokens_count]
    int32_t *token_rows;          // [tokens_count] index of the row, -1 of no row
    int32_t *sample_tokens;       // [samples_count] index of the token whose hidden row is sampled
    int32_t *sample_positions;    // [samples_count] position of the token to be drawn, -1 inert
    int32_t *sample_slots;        // [samples_count] -1 of no row or of kind none
    const struct row_save *saves; // [saves_count] by row, then by tokens
    int rows_count, tokens_count, samples_count, saves_count;
    // Known to the host: rows [0, decode_rows) are of kind decode or none, of up to
    // `verify` tokens each.
    int decode_rows, verify;
};

// What a step reports for one row. A row that was inert from the start has count 0 and end 0.
struct row_result {
    int32_t slot;
    int32_t count; // tokens accepted, 0..ROW_VERIFY_MAX
    int32_t end;   // enum slot_end after these tokens
    int32_t tokens[ROW_VERIFY_MAX];
};

// Device memory of all slots; owned by the worker.
struct slots {
    struct slot *slots;   // [slots_count]
    int32_t *block_table; // [slots_count, pages_per_sequence]
    int slots_count, pages_per_sequence;
};

// Queued; the arrays are device copies made by the caller. Opening sets every field of the slot;
// the state and conv columns of an opened slot are zeroed by gdn_open.
void slots_open(struct stream *stream, const struct slots *slots,
                const struct slot_opening *openings, int openings_count);
void slots_set_pages(struct stream *stream, const struct slots *slots,
                     const struct slot_pages *pages, int pages_count, const int32_t *ids);

// Fills the tables. A decode row runs token_next and the drafts there are, at most token_count, cut
// to the room in its pages, to tokens_end (the output's last token is drawn, never run) and, before
// pause_at, to that; it is inert when this leaves nothing, when its slot has ended or when no token
// is known. So a sequence whose rows name a position P until it has passed it begins a row at P,
// unless it ends before. Cutting drafts changes no output. A prefill row is inert only when its
// slot has ended; its room is the plan's duty. Rows of kind none, and what no row claims, are
// inert.
void slots_begin(struct stream *stream, const struct slots *slots,
                 const struct step_tables *tables);

// Takes the sampled ids [samples_count] and commits: a decode row accepts its drafts while each
// equals the sample before it, keeps the sample after the last accepted as token_next, and ends
// at the first stop id, at tokens_end, or broken where a sample is -1, which is no token; a prefill
// row commits its tokens and, when it sampled, behaves like a decode row of one, else takes the
// row's token_next as known. results [rows_count], unused tokens -1. Decode rows turn their parity
// and leave their accepted rows pending; prefill rows leave none. Drafts are used up (-1): whoever
// drafts writes new ones.
void slots_end(struct stream *stream, const struct slots *slots, const struct step_tables *tables,
               const int32_t *sampled, struct row_result *results);
