// SPDX-License-Identifier: Apache-2.0
// moe_push.h -- op: routed experts and the shared expert on own columns, combined, pushed
//
//   shape   x [tokens, hidden] bf16; gate_up [experts * 2 * width, hidden]; down [experts *
//           hidden, width]; shared_gate_up [2 * shared_width, hidden]; shared_down [hidden,
//           shared_width]; ids and weights as moe_route gives them
//   needs   tokens * hidden * 2 <= the exchange's lane_bytes; a token's ids are distinct; with
//           parts what was pushed may stand there instead of in the lane, for norm_linear_pull with
//           these parts to pull
//   launch  to 4 tokens two persistent kernels; to 256 experts' slots are grouped, each expert's
//           weights are streamed once, and a third kernel adds a token's products, unless it
//           leaves that to the norm by parts; on Hopper from
//           65 to 512 one block groups the slots and both products are one kernel; beyond, the
//           slots are sorted and multiplied in tiles of 256 rows of W by up to 160 slots
//   moves   weights of the distinct experts picked + tokens * hidden * (1 + ranks) * 2 bytes
//   limit   HBM at one token: 8 experts of [2048, 512] move 50.3 MB, 10.9 us at 4.6 TB/s
//   error   silu(gate) * up is rounded to bf16; a token's sum over its experts runs in the order of
//           its picks, then the shared expert, unrounded, and is rounded to bf16 once; on a GPU in
//           steps of more than MOE_FLOAT_TOKENS_MAX tokens an expert's product is rounded to bf16
//           before it is weighted, as the source does
//   source  Qwen3_5MoeSparseMoeBlock of HF transformers
#pragma once

#include "kernels/exchange.h"
#include "kernels/push_parts.h"
#include "kernels/runtime.h"
#include "kernels/weight.h"

// The products of an expert stay apart before they are combined: f32 in steps of up to so many
// tokens, bf16 in longer ones.
enum { MOE_FLOAT_TOKENS_MAX = 256 };

// Bytes of `products` for steps of up to `tokens` tokens.
static inline uint64_t moe_products_bytes(int tokens, int picks, int hidden)
{
    uint64_t rows = (uint64_t)(picks + 1) * (uint64_t)hidden, as_bf16 = (uint64_t)tokens * rows * 2;
    uint64_t as_float =
        (uint64_t)(tokens < MOE_FLOAT_TOKENS_MAX ? tokens : MOE_FLOAT_TOKENS_MAX) * rows * 4;
    return as_bf16 > as_float ? as_bf16 : as_float;
}

// Values of `lists`: slots by expert, offsets and tiles.
static inline uint64_t moe_lists_count(int tokens, int picks, int experts)
{
    return (uint64_t)tokens * (uint64_t)picks + 2 * ((uint64_t)experts + 1);
}

struct moe_push {
    struct exchange *push;
    struct push_parts *parts; // out, or NULL: the lane gets all
    const bf16 *x;
    int tokens, hidden, experts, picks;
    const int32_t *expert_ids;
    const float *expert_weights;
    const float *shared_weights;
    struct weight gate_up, down;
    int width; // expert_intermediate of this rank
    struct weight shared_gate_up, shared_down;
    int shared_width;
    bf16 *partial;  // [tokens, hidden] workspace, on a GPU of counters
    bf16 *middle;   // [tokens, picks * width + shared_width] workspace
    void *products; // moe_products_bytes: [tokens, picks + 1, hidden]; CUDA only
    int32_t *lists; // moe_lists_count: slots sorted by expert, offsets, tiles; CUDA only
};

// Queues the op.
void moe_push(struct stream *stream, const struct moe_push *op);
