// SPDX-License-Identifier: Apache-2.0
// moe_route.h -- op: residual += the last push; x = norm(residual); router of a mixture of experts
//
//   shape   residual [tokens, hidden] bf16, updated in place; norm [hidden] f32, zero-centred; x
//           [tokens, hidden] bf16, written, or read as it is where norm is NULL; router
//           [experts + 1, hidden], last row = shared expert's gate; logits [tokens, experts + 1]
//           f32; expert_ids, expert_weights [tokens, picks]; shared_weights [tokens]
//   needs   picks <= 16, experts <= 1024; pull is NULL when nothing was pushed since residual was
//           last complete, and without a norm
//   launch  [257, 2048] on Hopper, 17 to 1024 tokens: one kernel of clusters of eight blocks, a
//           cluster for 16, 32 or 64 tokens; else norm_linear_pull or the product of
//           device/linear.cuh, and a warp per token that picks
//   moves   (experts + 1) * hidden * 2 + tokens * hidden * 2 * (2 + 2 with a pull) bytes
//   limit   latency: [257, 2048] moves 1.05 MB, 0.23 us at 4.6 TB/s
//   error   residual and x as norm_linear_pull's; logits f32; weights: softmax over the picked
//           logits, f32; ties go to the lowest id, NaN last: ids are always valid and distinct
//   source  Qwen3_5MoeTopKRouter of HF transformers: softmax over all, top-k, renormalise, which
//           equals softmax over the picked; shared = sigmoid(gate x)
//
// When the pull fails the residual is left as it is and the op goes on: see exchange_failed.
#pragma once

#include "kernels/exchange.h"
#include "kernels/runtime.h"
#include "kernels/weight.h"

enum { MOE_PICKS_MAX = 16 };

struct moe_route {
    struct exchange *pull; // NULL: the residual is complete
    bf16 *residual;        // [tokens, hidden]; NULL without a norm
    const float *norm;     // [hidden]; NULL: x is normalised already
    float eps;
    bf16 *x; // [tokens, hidden]
    struct weight router;
    int tokens, hidden, experts, picks;
    float *logits;
    int32_t *expert_ids; // sorted by weight, largest first
    float *expert_weights;
    float *shared_weights;
};

void moe_route(struct stream *stream, const struct moe_route *op);
