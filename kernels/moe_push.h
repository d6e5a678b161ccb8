// SPDX-License-Identifier: Apache-2.0
// moe_push.h -- op: routed experts and the shared expert on own columns, combined, pushed
//
//   shape   x [tokens, hidden] bf16; gate_up [experts * 2 * width, hidden]; down [experts *
//           hidden, width]; shared_gate_up [2 * shared_width, hidden]; shared_down [hidden,
//           shared_width]; ids and weights as moe_route gives them
//   needs   tokens * hidden * 2 <= the exchange's lane_bytes
//   launch  a warp per middle column of a token, then a warp per output
//   moves   weights of the distinct experts picked + tokens * hidden * (1 + ranks) * 2 bytes
//   limit   HBM at one token: 8 experts of [2048, 512] move 50.3 MB, 10.9 us at 4.6 TB/s
//   error   silu(gate) * up is rounded to bf16; a token's sum over its experts runs in the order of
//           its picks, then the shared expert, unrounded, and is rounded to bf16 once
//   source  Qwen3_5MoeSparseMoeBlock of HF transformers
#pragma once

#include "kernels/exchange.h"
#include "kernels/runtime.h"
#include "kernels/weight.h"

struct moe_push {
    struct exchange *push;
    const bf16 *x;
    int tokens, hidden, experts, picks;
    const int32_t *expert_ids;
    const float *expert_weights;
    const float *shared_weights;
    struct weight gate_up, down;
    int width; // expert_intermediate of this rank
    struct weight shared_gate_up, shared_down;
    int shared_width;
    bf16 *partial; // [tokens, hidden] workspace
    bf16 *middle;  // [tokens, picks * width + shared_width] workspace
};

void moe_push(struct stream *stream, const struct moe_push *op);
