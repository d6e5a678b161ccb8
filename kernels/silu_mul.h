// SPDX-License-Identifier: Apache-2.0
// silu_mul.h -- op: y[t, i] = silu(gate_up[t, i]) * gate_up[t, width + i]
//
//   shape   gate_up [tokens, 2 * width] bf16; y [tokens, width] bf16
//   needs   nothing
//   moves   3 * tokens * width * 2 bytes
//   error   one rounding to bf16
//   source  Shazeer, GLU Variants Improve Transformer, 2020, eq. 6
#pragma once

#include "kernels/runtime.h"
#include "kernels/types.h"

void silu_mul(struct stream *stream, bf16 *y, const bf16 *gate_up, int tokens, int width);
