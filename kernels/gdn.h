// SPDX-License-Identifier: Apache-2.0
// gdn.h -- op: Gated DeltaNet over the rows of a step: causal convolution and SiLU, l2 norm,
// gates, the fold of pending rows, the recurrence. The recurrent state is never speculative: a
// decode row leaves (k, u, g) of its tokens in a ring of its slot and its conv inputs beside it,
// and the next rows of that slot, of any kind, first fold as many of them as were accepted: in
// their registers, and in memory when GDN_WAITING_MAX would be too few. So most decode rows read
// the state and write none.
//
//   shape   projected [tokens, projected_stride] bf16 = [q | k | v | z | b | a] of own heads;
//           o [tokens, value_heads, value_dim] bf16; the rest in struct gdn_state
//   needs   key_dim = value_dim = 128, conv_width = 4, value_heads % key_heads == 0
//   launch  token by token: blocks of 256, each with 64 or 128 value dimensions of a head and
//           row; decode rows alone, 640 heads of them and more: two blocks of 256 a processor, each
//           a head of every so many rows, one after the other. Prefill rows of 24 tokens and more:
//           a block of 384 per chunk of 64 tokens and key head, of few chunks per value head; then
//           two warpgroups per row, value head and 64 value dimensions, through the chunks; after
//           either a block per row and 128 channels
//   moves   per row value_heads * 64 KiB of state, twice where it folds: one decode row in eight of
//           one token, one in two of four; half of it if it is bf16; 24 KiB of k and u for each
//           row that waits (16 + 32 heads); per token the projections, per chunk its tiles twice
//   limit   decode HBM: 32 value heads read 2.1 MB a row, 0.46 us at 4.6 TB/s, and write as much in
//           one row of eight; with verified tokens as much time in instructions; prefill of one
//           sequence latency and tensor cores
//   error   token by token: state, k, u, g are f32, rounded at every token; o is rounded to bf16
//           once. By chunks: state f32, but what is read of it, u and the solved system are
//           rounded to bf16 (2^-9 each) before they are multiplied. A bf16 state: see below
//   source  Yang, Kautz, Hatamizadeh, Gated Delta Networks, 2024, eq. 10; the fold: the state
//           after j rows is exp(G_j) S + sum exp(G_j - G_i) k_i u_i^T, applied row by row
//
// Per value head, with alpha = exp(g), beta = sigmoid(b), g = -exp(A_log) softplus(a + dt_bias):
//   S <- alpha S;  u = beta (v - S^T k);  S <- S + k u^T;  o = S^T q / sqrt(key_dim).
// S is stored V-major: [value_dim, key_dim], so that both dots run over contiguous memory.
// The convolution's SiLU output (q, k, v) is rounded to bf16; q and k are then l2-normalised,
// x * rsqrt(sum x^2 + 1e-6), and kept as f32. g and u are rounded to f32, and S once per token,
// as f32(alpha S + k u): a fold of stored (k, u, g) repeats exactly that, so folding j rows gives
// the bits that running them gave. o reads the rounded S; a kernel may form the same sum from the
// state before, alpha S^T q + u (k . q).
//
// The rows that wait when a row begins: waiting[parity] of its slot and, behind those, the accepted
// ones of the last step. A decode row writes its tokens' (k, u, g) behind them in the ring, its raw
// columns, behind the three columns before them, and how many rows waited to the other parity; and
// the state, without its own tokens, only when it folds: where the rows that wait and its tokens
// are more than GDN_WAITING_MAX, and where it begins at its pause_at, for a checkpoint. A prefill
// row writes state and conv with its tokens and leaves nothing pending; tables.saves says after how
// many of its tokens it also writes them to checkpoints: the bits that a row would leave that ended
// there, with all that waited before it folded in. slots_end then changes parity and pending. So no
// decode row overwrites what another block of the same row still reads. Tokens that do not run
// leave zeros in o. State, conv and pending rows are read before this op's predecessor on the
// stream has ended (kernels/device/launch.cuh): whatever wrote them lies further back than that.
//
// With bf16_state the state in memory, checkpoints' too, is bf16, to nearest, ties to even; what is
// computed with it is f32 as before. It is rounded after every GDN_ROUND_TOKENS-th token of the
// sequence, counted from position 0, wherever rows begin and end, and is written there and nowhere
// else: a row that has come to such a position folds what waits up to it, and all behind it waits
// on, a prefill row's tokens as well. So a sequence's bits still do not depend on how it is cut,
// drafted or gone on with. Saves, and pause_at, name positions that are multiples of
// GDN_ROUND_TOKENS. Rows that are served by chunks round at each chunk's end and at their own
// instead, and leave nothing waiting. Rounding eight times as often would be as simple, and eight
// times as large a decay would be lost: a product alpha S with 1 - alpha < 2^-9 rounds back to S.
#pragma once

#include "kernels/runtime.h"
#include "kernels/slots.h"
#include "kernels/types.h"

enum {
    GDN_HEAD_DIM = 128,
    GDN_CONV_WIDTH = 4,
    // Rows that may wait for their fold when a step begins.
    GDN_WAITING_MAX = 8,
    // With bf16_state: tokens between two roundings; as many less one, and a step's, may wait.
    GDN_ROUND_TOKENS = 8,
    GDN_BF16_WAITING_MAX = GDN_ROUND_TOKENS - 1 + ROW_VERIFY_MAX,
    // Chunked prefill.
    GDN_CHUNK_TOKENS = 64,
    // Of a row that is served by chunks; below, token by token is faster (0.8 us each on an H200).
    GDN_CHUNKED_TOKENS_MIN = 24,
    GDN_VALUE_SLICE = 32,                                  // value dimensions of a tile of v
    GDN_TILE_VALUES = 2 * GDN_CHUNK_TOKENS * GDN_HEAD_DIM, // per chunk and head
    GDN_FACTORS = 256,                                     // per chunk and value head
};

// Accepted rows in a slot's ring: `count` of them from place `first`.
struct gdn_waiting {
    int32_t first, count;
};

// Places of a slot's ring where decode rows have up to verify_max tokens, 1 .. ROW_VERIFY_MAX. f32:
// for the rows that may wait, and the step's behind them. bf16: what is behind the last place of
// rounding may wait, and the last step's; behind these a prefill row leaves GDN_ROUND_TOKENS - 1 at
// most, and a decode row no more.
static inline int gdn_pending_rows(bool bf16_state, int verify_max)
{
    return verify_max + (bf16_state ? 2 * (GDN_ROUND_TOKENS - 1) : GDN_WAITING_MAX);
}

// Columns of a parity of theirs: three before, then the row's.
static inline int gdn_pending_columns(int verify_max)
{
    return GDN_CONV_WIDTH - 1 + verify_max;
}

// Of a value of the state.
static inline int gdn_state_bytes(bool bf16_state)
{
    return bf16_state ? 2 : 4;
}

// One GDN layer's memory, all slots of this rank.
struct gdn_state {
    void *state; // [slots, value_heads, value_dim, key_dim] f32 or bf16
    bf16 *conv;  // [slots, 3, channels]: raw projection columns, oldest first; read while nothing
                 // is pending, written by prefill rows
    // Rows that wait for their fold, a ring per slot.
    float *pending_k;            // [slots, pending_rows, key_heads, key_dim], normalised
    float *pending_u;            // [slots, pending_rows, value_heads, value_dim]
    float *pending_g;            // [slots, pending_rows, value_heads], log decay of the row
    struct gdn_waiting *waiting; // [slots, 2]: before the rows of the last step, by parity
    bf16 *pending_conv; // [slots, 2, pending_columns, channels]: 3 columns before, then the rows
    int pending_rows, pending_columns; // by the functions above
};

// Where this layer's part of checkpoints goes, those of tables.saves; without any, NULL.
struct gdn_checkpoints {
    void *state; // [checkpoints, value_heads, value_dim, key_dim], as the slots'
    bf16 *conv;  // [checkpoints, 3, channels]
};

// What the kernels of chunked prefill hand over within one op: per chunk and key head tiles of k
// and q, per chunk and value head tiles of v and two squares of tokens, and factors. Its contents
// matter to nobody outside. A row that finds no room runs token by token, every row when chunks is
// 0 (as the CPU backend always does).
struct gdn_workspace {
    bf16 *tiles;    // [chunks, key_heads + value_heads, GDN_TILE_VALUES], in an order of its own
    float *factors; // [chunks, value_heads, GDN_FACTORS]
    int chunks;
};

// Chunks that a step of so many tokens is given room for: its tokens, and as many ragged ends as a
// quarter of that, one at least.
static inline int gdn_workspace_chunks(int step_tokens)
{
    int whole = step_tokens / GDN_CHUNK_TOKENS;
    return whole + (whole < 4 ? 1 : whole / 4);
}

struct gdn {
    struct step_tables tables;
    struct slots slots;
    struct gdn_state state;
    struct gdn_checkpoints checkpoints;
    struct gdn_workspace workspace;
    const bf16 *projected;
    int projected_stride;
    bool bf16_state;
    const float *conv_weight; // [channels, 4]
    const float *a_log;       // [value_heads]
    const float *dt_bias;     // [value_heads]
    int key_heads, value_heads;
    bf16 *o;
};

// Queues the op. tables.decode_rows and verify are true of the rows.
void gdn(struct stream *stream, const struct gdn *op);

struct gdn_open {
    const struct gdn_state *layers; // [layers_count] all of this rank, on the device
    int layers_count, key_heads, value_heads;
    bool bf16_state;
    const struct slot_opening *openings; // as in slots_open
    int openings_count;
};

// Zeroes state and conv columns of slots opened at position 0; one that opens later has its
// checkpoint copied in before. No row waits in either.
void gdn_open(struct stream *stream, const struct gdn_open *op);
