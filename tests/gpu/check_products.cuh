// SPDX-License-Identifier: Apache-2.0
// check_products.cuh -- what the checks of the ops that end in a product share: an exchange of one
// rank on either side, and the bound of a product's error.
#pragma once

#include <math.h>

#include "tests/gpu/check.cuh"

extern "C" {
#include "kernels/exchange.h"
#include "kernels/twins/linear.h"
}

CPU_FUNCTION(exchange_push);
CPU_FUNCTION(linear_rows_double);

// The exchange of a group of one rank: `host` for the twin, `dev` for the kernel, whose lane is
// the array `lane` [bytes].
struct check_exchange {
    struct exchange host, dev;
    struct exchange_mark marks[2];
    uint32_t abort_word;
    bf16 *lane;
};

// kind OUTPUT: to be pushed to. INPUT: filled by the caller, who then calls check_exchange_pushed.
static inline void check_exchange_open(struct check_exchange *exchange, enum array_kind kind,
                                       size_t bytes)
{
    memset(exchange, 0, sizeof *exchange);
    exchange->lane = static_cast<bf16 *>(check_array(kind, bytes));
    exchange->host.ranks = 1;
    exchange->host.lane_bytes = bytes;
    exchange->host.inboxes[0] = static_cast<uint8_t *>(check_array(ARRAY_SCRATCH, 2 * bytes));
    exchange->host.marks[0] = exchange->marks;
    exchange->host.abort_word = &exchange->abort_word;
    exchange->host.wait_ns_max = 1000000000;
    exchange->dev = exchange->host;
    exchange->dev.inboxes[0] = reinterpret_cast<uint8_t *>(check_dev(exchange->lane));
}

// The twin's next pull finds what the lane holds.
static inline void check_exchange_pushed(struct check_exchange *exchange)
{
    cpu_exchange_push(&exchange->host, exchange->lane, exchange->host.lane_bytes);
}

// Of a sum of `columns` exact products, f32, in some order: each of at most columns / 16 + 48
// additions (16 products at a time on tensor cores, then warps' parts) loses up to 2^-23 of the
// largest intermediate sum, which is below the norms' product. x and w have the deviations given,
// so their rows' norms are close to deviation * sqrt(columns); 2 leaves room for the largest row.
static inline double check_sum_bound(int columns, double x_deviation, double w_deviation)
{
    double norms = 2 * x_deviation * w_deviation * columns;
    return (columns / 16 + 48) * ldexp(1, -23) * norms;
}

// want [tokens, rows] = x w^T in double, of x and w on the host.
static inline double *check_product(const bf16 *x, size_t x_stride, const struct weight *weight,
                                    int tokens)
{
    size_t count = static_cast<size_t>(tokens) * static_cast<size_t>(weight->rows);
    double *want = static_cast<double *>(malloc(count * sizeof(double)));
    struct linear_rows linear = {};
    linear.x = x;
    linear.x_stride = x_stride;
    linear.w = weight_bf16(weight);
    linear.tokens = tokens;
    linear.rows = weight->rows;
    linear.columns = weight->columns;
    cpu_linear_rows_double(want, &linear);
    return want;
}
