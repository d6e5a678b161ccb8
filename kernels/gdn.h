// SPDX-License-Identifier: Apache-2.0
// gdn.h -- op: Gated DeltaNet over the rows of a step: causal convolution and SiLU, l2 norm,
// gates, the fold of pending rows, the recurrence. The recurrent state is never speculative: a
// decode row leaves (k, u, g) and its conv inputs in a pending buffer of its slot, and the next
// row of that slot, of any kind, first folds as many of them as were accepted.
//
//   shape   projected [tokens, projected_stride] bf16 = [q | k | v | z | b | a] of own heads;
//           o [tokens, value_heads, value_dim] bf16; the rest in struct gdn_state
//   needs   key_dim = value_dim = 128, conv_width = 4, value_heads % key_heads == 0
//   launch  a block of 128 per value head and row, its state in 66 KB of shared memory; then
//           a block of 128 channels per row
//   moves   per row 2 * value_heads * 64 KiB of state, per token the projections
//   limit   HBM: 32 value heads read and write 4.2 MB a row, 0.9 us at 4.6 TB/s
//   error   state, k, u, g are f32, rounded at every token; o is rounded to bf16 once
//   source  Yang, Kautz, Hatamizadeh, Gated Delta Networks, 2024, eq. 10; the fold: the state
//           after j rows is exp(G_j) S + sum exp(G_j - G_i) k_i u_i^T, applied row by row
//
// Per value head, with alpha = exp(g), beta = sigmoid(b), g = -exp(A_log) softplus(a + dt_bias):
//   S <- alpha S;  u = beta (v - S^T k);  S <- S + k u^T;  o = S^T q / sqrt(key_dim).
// S is stored V-major: [value_dim, key_dim], so that both dots run over contiguous memory.
// The convolution's SiLU output (q, k, v) is rounded to bf16; q and k are then l2-normalised,
// x * rsqrt(sum x^2 + 1e-6), and kept as f32. g and u are rounded to f32, and S once per token,
// as f32(alpha S + k u): a fold of stored (k, u, g) repeats exactly that, so folding j rows gives
// the bits that running them gave. o reads the rounded S.
//
// A row reads pending rows from parity `parity` of its slot. A decode row writes its tokens' (k, u,
// g) and raw columns to the other parity, and back to memory only what it folded: state and conv
// columns without its own tokens. A prefill row writes both with its tokens and leaves nothing
// pending. slots_end then changes parity and pending. Tokens that do not run leave zeros in o.
#pragma once

#include "kernels/runtime.h"
#include "kernels/slots.h"
#include "kernels/types.h"

enum {
    GDN_HEAD_DIM = 128,
    GDN_CONV_WIDTH = 4,
    GDN_CHUNK_TOKENS = 64, // of the chunked form
};

// One GDN layer's memory, all slots of this rank.
struct gdn_state {
    float *state; // [slots, value_heads, value_dim, key_dim]
    bf16 *conv;   // [slots, 3, channels]: raw projection columns, oldest first
    // Pending rows of the last decode step, per slot and parity.
    float *pending_k;   // [slots, 2, ROW_VERIFY_MAX, key_heads, key_dim], normalised
    float *pending_u;   // [slots, 2, ROW_VERIFY_MAX, value_heads, value_dim]
    float *pending_g;   // [slots, 2, ROW_VERIFY_MAX, value_heads], log decay of the row
    bf16 *pending_conv; // [slots, 2, ROW_VERIFY_MAX, channels]
};

struct gdn {
    struct step_tables tables;
    struct slots slots;
    struct gdn_state state;
    const bf16 *projected;
    int projected_stride;
    const float *conv_weight; // [channels, 4]
    const float *a_log;       // [value_heads]
    const float *dt_bias;     // [value_heads]
    int key_heads, value_heads;
    bf16 *o;
};

void gdn(struct stream *stream, const struct gdn *op);

// Zeroes state and conv columns of slots opened at position 0; one that opens later has its
// checkpoint copied in before. openings as in slots_open.
void gdn_open(struct stream *stream, const struct gdn_state *state, int key_heads, int value_heads,
              const struct slot_opening *openings, int openings_count);
