// SPDX-License-Identifier: Apache-2.0
// attention.h -- op: gated full attention over the rows of a step: q and k norm, partial rotary,
// append to the KV pages, causal softmax over the pages, sigmoid gate.
//
//   shape   projected [tokens, projected_stride] bf16 = [q | gate | k | v] of own heads;
//           k_pages, v_pages [pages, kv_heads, 64, head_dim] bf16; y [tokens, heads * head_dim]
//   needs   heads % kv_heads == 0, head_dim <= 256, rotary_dim even, <= head_dim
//   launch  heads of 256: decode rows by a block a multiprocessor that share all pages evenly, and
//           a kernel that merges; prefill rows by an append and by tiles of 128 queries of a KV
//           head: on Hopper a block a multiprocessor takes tile after tile, else a block per tile.
//           Other heads: a block of 128 per head and token. Chained: before its wait the first
//           kernel reads the step's tables, the block table and keys and values of earlier steps,
//           so at least one kernel lies between this op and whatever wrote those
//   moves   per row (position + tokens) * kv_heads * head_dim * 4 bytes of KV
//   limit   decode: HBM, 4,096 tokens of 2 KV heads are 8.4 MB, 1.8 us at 4.6 TB/s. Prefill: the
//           products, 8,192 tokens of 16 heads are 0.55 TFLOP, 833 us at 660 TFLOP/s
//   error   k is rounded to bf16 once when appended, q once after its rotation; the gated sum is
//           rounded to bf16 once. Tensor cores also round the weights of values, relative to the
//           largest, to bf16 once: 2^-9 of the sum of weight x |value|
//   angles  f32(position * inverse frequency), then cos and sin of it, times rotary_scale
//   keys    position_first .. own position; a token that sees none gets zeros
//   source  Qwen3_5Attention of HF transformers (zero-centred q/k norm, rotate-half on the first
//           rotary_dim dimensions, scale head_dim^-0.5, output gate); pages: Kwon et al. 2023
//
// Positions come from tables.token_positions, pages from the slot's row of the block table; pages
// beyond a token's position are never used. Tokens that do not run leave zeros in y and append
// nothing.
#pragma once

#include "kernels/runtime.h"
#include "kernels/slots.h"
#include "kernels/types.h"

enum {
    ATTENTION_PAGE_TOKENS = 64,
    ATTENTION_PARTS_MAX = 160, // blocks that share the pages of a step's decode rows
    ATTENTION_PART_ROWS = 48,  // queries of a part: 8 heads x 6 tokens
    ATTENTION_BORDER_BYTES = 32,
};

// What the blocks of a step leave for the kernel that merges them; of no meaning between steps.
// Used with heads of 256.
struct attention_workspace {
    float *sums;   // [2 * ATTENTION_PARTS_MAX, ATTENTION_PART_ROWS, head_dim] of weight x value
    float *scales; // [2 * ATTENTION_PARTS_MAX, ATTENTION_PART_ROWS, 2] largest score, weights
    void *borders; // [ATTENTION_PARTS_MAX, ATTENTION_BORDER_BYTES]
};

struct attention {
    struct step_tables tables;
    struct slots slots;
    bf16 *k_pages, *v_pages; // of this layer
    const bf16 *projected;
    int projected_stride;
    const float *q_norm, *k_norm; // [head_dim], zero-centred
    float eps;
    const float *inverse_frequencies; // [rotary_dim / 2]
    float rotary_scale;               // multiplies cos and sin (YaRN), else 1
    int heads, kv_heads, head_dim, rotary_dim;
    int position_first; // keys from here on: 0; 1 for the MTP head, whose position 0 has no pair
    bf16 *y;
    struct attention_workspace workspace; // not used by the twin
};

void attention(struct stream *stream, const struct attention *op);

// Appends only: projected is [k | v], nothing is attended, y is not written. On the CPU bits are as
// attention's; a kernel may add up a key's norm in another order.
void attention_append(struct stream *stream, const struct attention *op);
