// SPDX-License-Identifier: Apache-2.0
// moe_route.h -- op: router of a mixture of experts over already normalised rows
//
//   shape   x [tokens, hidden] bf16; router [experts + 1, hidden], last row = shared expert's gate;
//           logits [tokens, experts + 1] f32 workspace; or the product itself when router is
//           WEIGHT_NONE: norm_linear_pull made it on the way; expert_ids, expert_weights [tokens,
//           picks]; shared_weights [tokens]
//   needs   picks <= 16, experts <= 1024
//   launch  the product of device/linear.cuh; then a warp per token
//   moves   (experts + 1) * hidden * 2 + tokens * hidden * 2 bytes
//   limit   latency: [257, 2048] moves 1.05 MB, 0.23 us at 4.6 TB/s
//   error   logits f32; weights: softmax over the picked logits, f32; ties go to the lowest id,
//           NaN last: ids are always valid and distinct
//   source  Qwen3_5MoeTopKRouter of HF transformers: softmax over all, top-k, renormalise, which
//           equals softmax over the picked; shared = sigmoid(gate x)
#pragma once

#include "kernels/runtime.h"
#include "kernels/weight.h"

enum { MOE_PICKS_MAX = 16 };

struct moe_route {
    const bf16 *x;
    struct weight router; // WEIGHT_NONE: logits are there, x is not read
    int tokens, hidden, experts, picks;
    float *logits;
    int32_t *expert_ids; // sorted by weight, largest first
    float *expert_weights;
    float *shared_weights;
};

void moe_route(struct stream *stream, const struct moe_route *op);
