// SPDX-License-Identifier: Apache-2.0
// experts_stream.cuh -- products of a mixture of experts for some dozen to some hundred tokens, on
// Hopper's warpgroup products with tokens on the short side. Not an op: moe_push.cu queues it.
#pragma once

extern "C" {
#include "kernels/moe_push.h"
}

#include "kernels/device/launch.cuh"

// Whether experts_stream takes the op.
bool experts_stream_serves(const struct moe_push *op);

// Queues both products of all experts, x to op->middle to op->products: [tokens, picks + 1, hidden]
// as f32 to MOE_FLOAT_TOKENS_MAX tokens, as bf16 beyond.
void experts_stream(cudaStream_t stream, const struct moe_push *op);
