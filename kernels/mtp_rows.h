// SPDX-License-Identifier: Apache-2.0
// mtp_rows.h -- op: which hidden row meets which token in the multi-token-prediction head, and the
// tables of its drafting passes. The head joins token t_i with the model's hidden row h_{i-1}; its
// KV row of that pair lies at position i, so a page depends on its own tokens alone.
//
//   shape   hidden_rows, shifted [tokens, hidden] bf16; slot_hidden [slots, hidden] bf16: h of the
//           last committed token of each slot; ids [tokens]; drafts: a struct step_tables with room
//           for a token and a sample per row of the step
//   needs   hidden a multiple of 8; rows, slots and results of one step
//   launch  a block of 128 per token or row
//   moves   2 * tokens * hidden * 2 bytes
//   limit   HBM: 8,192 rows of 2,048 are 67 MB, 15 us at 4.6 TB/s
//   error   copies and integers: exact
//   source  Qwen3_5MTP of vLLM (qwen3_5_mtp.py); Leviathan et al., Fast Inference from Transformers
//           via Speculative Decoding, 2023
//
// A draft may be any guess: the step that verifies it takes it only where it equals the sample. So
// drafts are drawn as samples are, with the same noise at the same position: a head that agrees
// with the model then guesses its draws, too, not only its largest logits.
#pragma once

#include "kernels/runtime.h"
#include "kernels/slots.h"
#include "kernels/types.h"

struct mtp_rows {
    struct step_tables tables; // of the step
    struct slots slots;
    int hidden;
    const bf16 *hidden_rows; // [tokens, hidden] of the model, after the final norm
    bf16 *slot_hidden;
    // Of the known pairs.
    int32_t *ids;  // [tokens]
    bf16 *shifted; // [tokens, hidden]
    // Of a drafting pass.
    struct step_tables drafts;   // counts are the step's rows
    struct step_row *draft_rows; // what drafts.rows points to
    bf16 *draft_hidden;          // [rows, hidden]
};

// After slots_begin and the forward pass: ids[t] and shifted[t] are t_i and h_{i-1} of every token
// that runs at a position i >= 1. Others get id -1 and zeros.
void mtp_rows_shift(struct stream *stream, const struct mtp_rows *op);

// After slots_end: slot_hidden of every row that ran becomes the hidden row of its last committed
// token; a row that broke at its first draw has none and changes nothing.
void mtp_rows_keep(struct stream *stream, const struct mtp_rows *op,
                   const struct row_result *results);

// Fills the tables of drafting pass `pass`, 0 .. ROW_VERIFY_MAX - 2: row r of the step has token r,
// the slot's next known token (pass 0) or its last draft, at the position where it will run. It is
// inert when the row drew nothing (a prompt's chunk), when the slot has ended, knows no token, has
// no draft before or drafts enough, or when what would be drawn could not run: beyond its pages, at
// the end of its output. Pass 0 also writes draft_hidden from slot_hidden.
void mtp_rows_draft_begin(struct stream *stream, const struct mtp_rows *op, int pass);

// The pass's picks [rows] become draft `pass` of their slots; nothing where the row was inert.
void mtp_rows_draft_take(struct stream *stream, const struct mtp_rows *op, const int32_t *picks,
                         int pass);
