// SPDX-License-Identifier: Apache-2.0
// norm_linear_pull.h -- op: residual += sum over ranks of the last push; y = norm(residual) W^T
//
//   shape   residual [tokens, hidden] bf16, updated in place; norm [hidden] f32, zero-centred;
//           weight [rows, hidden]; y [tokens, rows] bf16 or f32
//   needs   hidden even; pull is NULL when nothing was pushed since residual was last complete;
//           parts: what moe_push left of the push that is pulled, or NULL
//   launch  to 4 tokens one persistent kernel; beyond, a block of 128 per token with the row in its
//           registers, then the product of device/linear.cuh: to 32 tokens streamed, else cuBLASLt;
//           of parts a block per token with a vector a thread adds them up first
//   moves   rows * hidden * weight bytes + tokens * (hidden * (ranks + 2) + rows) * 2 bytes
//   limit   HBM at few tokens: [12352, 2048] moves 50.6 MB, 11.0 us at the 4.6 TB/s an H200 reads
//   error   pull: f32(residual + rank 0 + rank 1 + ..) in that order, rounded to bf16 once; the
//           normalised row is rounded to bf16; the product is a sum of exact products rounded
//           once to y's type
//   source  zero-centred RMSNorm: x * rsqrt(mean(x^2) + eps) * (1 + w), Qwen3_5RMSNorm of HF
//           transformers; push and pull: kernels/exchange.h
//
// When the pull fails the residual is left as it is and the op goes on: see exchange_failed.
#pragma once

#include "kernels/exchange.h"
#include "kernels/push_parts.h"
#include "kernels/runtime.h"
#include "kernels/weight.h"

struct norm_linear_pull {
    struct exchange *pull;          // NULL: the residual is complete
    const struct push_parts *parts; // or NULL; CUDA only
    bf16 *residual;                 // [tokens, hidden]
    const float *norm;              // [hidden]
    float eps;
    int tokens, hidden;
    bf16 *normed;         // [tokens, hidden] workspace; holds the normalised rows afterwards
    struct weight weight; // WEIGHT_NONE: only pull and normalise (y is not written)
    bf16 *y;              // [tokens, rows] bf16, or NULL
    float *y_float;       // [tokens, rows] f32, or NULL; exactly one of the two unless WEIGHT_NONE
};

void norm_linear_pull(struct stream *stream, const struct norm_linear_pull *op);
