// SPDX-License-Identifier: Apache-2.0
// experts_many.cuh -- products of a mixture of experts for many tokens, on Hopper's warpgroup
// products. Not an op: moe_push.cu queues it.
#pragma once

#include "kernels/device/linear.cuh"

extern "C" {
#include "kernels/moe_push.h"
}

// Whether experts_many takes the shape, whatever the number of tokens.
bool experts_many_serves(const struct moe_push *op);

// Queues both products of all experts, x to op->middle to op->products: [tokens, picks + 1, hidden]
// as bf16.
void experts_many(cudaStream_t stream, const struct moe_push *op);

// The product of linear.cuh into f32, for numbers of rows that cuBLASLt is slow at (a router's 257:
// 235 us for 8192 tokens). columns a multiple of 64, no gather.
void linear_many(cudaStream_t stream, const linear_shape &shape);
