// SPDX-License-Identifier: Apache-2.0
// linear_push.h -- op: pushes this rank's partial sums of x W^T to every rank
//
//   shape   x [tokens, columns] bf16 with row stride x_stride; weight [rows, columns];
//           pushed [tokens, rows] bf16. With a gate (GDN): x is o [tokens, heads, dim], gate is z
//           [tokens, heads, dim] with row stride gate_stride, norm [dim] f32 plain weight, and the
//           product takes bf16(norm(o) * silu(z)) instead of x
//   needs   tokens * rows * 2 <= the exchange's lane_bytes; columns = heads * dim when gated
//   launch  one token: one persistent kernel; beyond, with a gate half a warp per head and token,
//           then the product as norm_linear_pull's
//   moves   rows * columns * weight bytes + tokens * (columns + rows * ranks) * 2 bytes
//   limit   HBM at few tokens: [2048, 4096] moves 16.8 MB, 3.6 us at 4.6 TB/s
//   error   the gated row is rounded to bf16 once; the partial sum is rounded to bf16 once
//   source  Qwen3_5RMSNormGated of HF transformers: norm before gate, per value head
#pragma once

#include "kernels/exchange.h"
#include "kernels/runtime.h"
#include "kernels/weight.h"

struct linear_push {
    struct exchange *push;
    const bf16 *x;
    int x_stride; // values from one token to the next
    struct weight weight;
    int tokens;
    bf16 *partial; // [tokens, rows] workspace
    // Gated RMSNorm folded in; gate NULL when there is none.
    const bf16 *gate;
    int gate_stride;
    const float *norm;
    float eps;
    int heads, dim;
    bf16 *gated; // [tokens, columns] workspace when gated
};

void linear_push(struct stream *stream, const struct linear_push *op);
