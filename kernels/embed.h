// SPDX-License-Identifier: Apache-2.0
// embed.h -- op: y[t] = table[ids[t]]
//
//   shape   ids [tokens] int32; table [vocab, hidden] bf16; y [tokens, hidden] bf16
//   needs   0 <= id < vocab, or id < 0: the row becomes zero (inert)
//   moves   2 * tokens * hidden * 2 bytes
//   error   exact
//   source  none
#pragma once

#include "kernels/runtime.h"
#include "kernels/weight.h"

void embed(struct stream *stream, bf16 *y, const int32_t *ids, const struct weight *table,
           int tokens);
