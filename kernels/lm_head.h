// SPDX-License-Identifier: Apache-2.0
// lm_head.h -- op: logits of the sampled rows on this rank's vocabulary rows
//
//   shape   hidden_rows [tokens, hidden] bf16, after the final norm; sample_tokens [samples];
//           weight [vocab own, hidden]; logits [samples, vocab own] f32; gathered [samples,
//           hidden] bf16, scratch of the kernel
//   needs   0 <= sample_tokens[i] < tokens
//   launch  a product of device/linear.cuh; beyond 16 samples their rows are put together first
//   moves   vocab * hidden * weight bytes + samples * vocab * 4 bytes
//   limit   HBM: [248320, 2048] moves 1.02 GB, 221 us at 4.6 TB/s
//   error   a sum of exact products rounded once to f32
//   source  none
#pragma once

#include "kernels/runtime.h"
#include "kernels/weight.h"

void lm_head(struct stream *stream, float *logits, const bf16 *hidden_rows,
             const int32_t *sample_tokens, const struct weight *weight, int samples,
             bf16 *gathered);
