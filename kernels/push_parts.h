// SPDX-License-Identifier: Apache-2.0
// push_parts.h -- what an op was to push, still apart: the products of a token's experts, which on
// a GPU the kernel adds up that pulls them. Not an op.
#pragma once

#include <stdbool.h>

#include "kernels/types.h"

// A token's push is the sum of weights[pick] * products[pick] in the order of picks, then of the
// shared expert's, in f32, rounded to bf16 once. In the launchers of one stream: what the op that
// pushes queues fills it, the op that pulls reads it.
struct push_parts {
    const void *products;        // [tokens, picks + 1, hidden] f32 or bf16; NULL: nothing is apart
    const float *weights;        // [tokens, picks]
    const float *shared_weights; // [tokens]
    int picks;
    bool rounded; // products are bf16
};
