// SPDX-License-Identifier: Apache-2.0
// mtp_input.h -- op: what enters the layer of the multi-token-prediction head
//
//   shape   embedding [vocab, hidden] bf16; ids [tokens] int32; hidden_rows [tokens, hidden] bf16:
//           row t is the model's hidden state after the final norm of the position before ids[t];
//           embedding_norm, hidden_norm [hidden] f32 zero-centred; fc [hidden, 2 * hidden],
//           embedding half first; joined [tokens, 2 * hidden] workspace; y [tokens, hidden] bf16
//   needs   id < 0: the row becomes zero
//   launch  a block of 256 per half and token; then the product
//   moves   2 * hidden * hidden * 2 + tokens * hidden * 8 bytes
//   limit   HBM at few tokens: [2048, 4096] moves 16.8 MB, 3.6 us at 4.6 TB/s
//   error   each normalised half is rounded to bf16; the product is rounded to bf16 once
//   source  Qwen3_5MTP of vLLM (qwen3_5_mtp.py): fc [norm(embed(t)); norm(h)]
#pragma once

#include "kernels/runtime.h"
#include "kernels/weight.h"

struct mtp_input {
    const int32_t *ids;
    const bf16 *hidden_rows;
    struct weight embedding, fc;
    const float *embedding_norm, *hidden_norm;
    float eps;
    int tokens, hidden;
    bf16 *joined;
    bf16 *y;
};

void mtp_input(struct stream *stream, const struct mtp_input *op);
