// SPDX-License-Identifier: Apache-2.0
// silu_mul.h -- op: y[t, i] = silu(gate_up[t, i]) * gate_up[t, width + i]
//
//   shape   gate_up [tokens, 2 * width] bf16; y [tokens, width] bf16
//   needs   nothing
//   launch  grid tokens * width / 2048; block 256; eight outputs a thread; no shared memory
//   moves   3 * tokens * width * 2 bytes
//   limit   HBM: [8192, 512] moves 25 MB, 5.5 us at the 4.6 TB/s an H200 reads
//   error   one rounding to bf16
//   source  Shazeer, GLU Variants Improve Transformer, 2020, eq. 6
#pragma once

#include "kernels/runtime.h"
#include "kernels/types.h"

void silu_mul(struct stream *stream, bf16 *y, const bf16 *gate_up, int tokens, int width);
