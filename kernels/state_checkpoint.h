// SPDX-License-Identifier: Apache-2.0
// state_checkpoint.h -- op: copies what a sequence carries besides its KV pages between a slot and
// a checkpoint: of every GDN layer the recurrent state and the conv columns, and the last hidden
// row h_{P-1}, which the multi-token-prediction head needs for its pair (h_{P-1}, t_P). What a
// prefill row leaves on its way is saved by the layers themselves (kernels/gdn.h), but for h_{P-1}
//
//   shape   layers [layers_count]; moves [moves_count]; saves [saves_count]; hidden_rows [tokens,
//           hidden] bf16; checkpoint_hidden [checkpoints, hidden], slot_hidden [slots, hidden] bf16
//   needs   no checkpoint twice in a save or fold, no slot twice in a load; hidden a multiple of 8.
//           save: right after the forward pass of the step whose prefill row reaches P. load:
//           before the slot is opened at P > 0. fold: around a whole step, see below
//   launch  grid (16, layers, moves), of save (saves), of fold_begin (1, 1, moves); block 256; 16
//           bytes a thread and turn; never chained (kernels/device/launch.cuh)
//   moves   2 * moves * (layers * (value_heads * 128 * 128 * 4 + 3 * channels * 2) + hidden * 2)
//           bytes, 2 in place of the 4 with bf16_state; save 4 * saves * hidden
//   limit   HBM: 61.4 MiB of Qwen3.5-35B-A3B, read and written, are 28 us at 4.6 TB/s
//   error   copies: exact
//   source  none
#pragma once

#include "kernels/gdn.h"
#include "kernels/runtime.h"
#include "kernels/slots.h"
#include "kernels/types.h"

// One GDN layer: its slots' memory and the pool's. Sizes as in struct gdn_state.
struct state_checkpoint_layer {
    void *state;              // [slots, value_heads, value_dim, key_dim]
    bf16 *conv;               // [slots, 3, channels]
    const bf16 *pending_conv; // [slots, 2, pending_columns, channels]; only fold reads it
    struct gdn_checkpoints checkpoints;
};

struct state_checkpoint_move {
    int32_t checkpoint, slot;
    // Only fold reads these: index of the row's first token in the step's tokens, and P.
    int32_t token, position;
};

struct state_checkpoint {
    const struct state_checkpoint_layer *layers; // on the device
    int layers_count;
    int key_heads, value_heads;
    bool bf16_state; // as in struct gdn; a fold's position is then a multiple of GDN_ROUND_TOKENS
    bf16 *checkpoint_hidden, *slot_hidden;
    int hidden;
    const struct state_checkpoint_move *moves; // on the device
    int moves_count;
    // Only save reads these.
    const struct row_save *saves; // on the device
    int saves_count;
    // Only fold reads these.
    struct slots slots;
    int pending_columns;
    const int32_t *token_positions; // [tokens] of the step
};

// h_{P-1} of what prefill rows leave; hidden_rows: the step's, after the final norm.
void state_checkpoint_save(struct stream *stream, const struct state_checkpoint *op,
                           const bf16 *hidden_rows);

// Checkpoints into slots, and their hidden rows into slot_hidden.
void state_checkpoint_load(struct stream *stream, const struct state_checkpoint *op);

// ---- fold: a decode row leaves a checkpoint at the position P where it begins ----
//
// A decode row that begins at its pause_at folds all that was pending before it into the slot's
// state and leaves its own tokens pending (kernels/gdn.h); P is the row's pause_at. So after the
// step whose row begins at P, the slot's state is that after P tokens, and the first
// three columns of the pending buffer that the row wrote are those before P. The host does not know
// which step that will be: it lists the move in every step whose row may begin at P, and all but
// that one leave the checkpoint alone. Both functions are queued around the step as a whole,
// recorded or not, so a recorded step need not know of them.
//
// These kernels are never chained and never trigger: each begins after all before it has ended. The
// kernel behind it may begin early, but waits before it writes, and the one behind that begins only
// after this wait; whatever writes states, columns, slots or hidden rows comes later still.

// Before slots_begin: h_{P-1} from slot_hidden, where the slot stands at P.
void state_checkpoint_fold_begin(struct stream *stream, const struct state_checkpoint *op);

// After the step's last op: state and columns, where the row ran and began at P.
void state_checkpoint_fold_end(struct stream *stream, const struct state_checkpoint *op);
