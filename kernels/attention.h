// SPDX-License-Identifier: Apache-2.0
// attention.h -- op: gated full attention over the rows of a step: q and k norm, partial rotary,
// append to the KV pages, causal softmax over the pages, sigmoid gate.
//
//   shape   projected [tokens, projected_stride] bf16 = [q | gate | k | v] of own heads;
//           k_pages, v_pages [pages, kv_heads, 64, head_dim] bf16; y [tokens, heads * head_dim]
//   needs   heads % kv_heads == 0, head_dim <= 256, rotary_dim even, <= head_dim
//   launch  a block of 128 per KV head and token appends; a block of 128 per head and token
//   moves   per row (position + tokens) * kv_heads * head_dim * 4 bytes of KV
//   limit   HBM: 4,096 tokens of 2 KV heads are 8.4 MB, 1.8 us at 4.6 TB/s
//   error   k is rounded to bf16 once when appended, q is not rounded; softmax and the gated sum
//           are rounded to bf16 once
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

enum { ATTENTION_PAGE_TOKENS = 64 };

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
};

void attention(struct stream *stream, const struct attention *op);
