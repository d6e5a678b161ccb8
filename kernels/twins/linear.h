// SPDX-License-Identifier: Apache-2.0
// linear.h -- x W^T for the twins: the product inside norm_linear_pull, linear_push, moe_route,
// moe_push, lm_head and mtp_input. Not an op; owns nothing.
//
// Every sum has one order (blocks of 256 columns, eight lanes in a block, blocks in sequence), so
// a row of the result depends on its own row of x alone: one token or a thousand, same bits.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/weight.h"

enum {
    LINEAR_TILE_TOKENS = 16,
    LINEAR_TILE_ROWS = 64,
};

// Up to 16 rows of x, anywhere, against up to 64 consecutive rows of W.
struct linear_tile {
    const bf16 *x[LINEAR_TILE_TOKENS]; // [columns] each
    const bf16 *w;                     // [rows, columns]
    int tokens, rows, columns;
};

// sums[t][r] = x[t] . w[r], products exact, sum in double. Entries past tokens and rows are not
// written.
void linear_tile_sum(double sums[LINEAR_TILE_TOKENS][LINEAR_TILE_ROWS],
                     const struct linear_tile *tile);

// All of a product: x row t is x + (gather ? gather[t] : t) * x_stride.
struct linear_rows {
    const bf16 *x;
    size_t x_stride;       // values
    const int32_t *gather; // [tokens], or NULL
    const bf16 *w;         // [rows, columns]
    int tokens, rows, columns;
};

// y [tokens, rows], unrounded or rounded once.
void linear_rows_double(double *y, const struct linear_rows *linear);
void linear_rows_float(float *y, const struct linear_rows *linear);
void linear_rows_bf16(bf16 *y, const struct linear_rows *linear);
