// SPDX-License-Identifier: Apache-2.0
// embed.h -- op: y[t] = table[ids[t]]
//
//   shape   ids [tokens] int32; table [vocab, hidden] bf16; y [tokens, hidden] bf16
//   needs   0 <= id < vocab, or id < 0: the row becomes zero (inert)
//   launch  grid tokens; block 128; 16 bytes a thread and turn; no shared memory
//   moves   2 * tokens * hidden * 2 bytes
//   limit   HBM: a token of hidden 2048 moves 8 KiB, 1.8 ns at the 4.6 TB/s an H200 reads
//   error   exact
//   source  none
#pragma once

#include "kernels/runtime.h"
#include "kernels/weight.h"

void embed(struct stream *stream, bf16 *y, const int32_t *ids, const struct weight *table,
           int tokens);
