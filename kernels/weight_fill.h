// SPDX-License-Identifier: Apache-2.0
// weight_fill.h -- op: a rectangle of a tensor filled with made-up values, where they are used: no
// file, no copy. What dummy weights (parallel/dummy.h) are is decided there; this is its formula.
//
//   shape   out [rows, columns], packed; of the whole tensor's rows row.. and columns column..
//   needs   nothing
//   launch  a thread per 8 values
//   moves   rows * columns * 2 bytes (4 as f32)
//   limit   HBM writes: 70 GB in 20 ms at 3.5 TB/s; the hash, about 30 integer operations a value,
//           bounds it at about 100 ms
//   error   exact
//   source  splitmix64: Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, 2014
//
// The value at index i = row * tensor_columns + column of the whole tensor:
// z = splitmix64 finaliser of seed + (i + 1) * 0x9E3779B97F4A7C15; n = (z >> 40) - 2^23;
// value = bf16(centre + (float)n * step), two float operations, each rounded.
#pragma once

#include "kernels/runtime.h"
#include "kernels/types.h"

struct weight_fill {
    void *out;   // bf16, or f32 with the values of bf16
    bool is_f32; // what out holds
    uint64_t seed;
    float centre, step;
    int64_t row, rows, column, columns;
    int64_t tensor_columns;
};

void weight_fill(struct stream *stream, const struct weight_fill *op);
