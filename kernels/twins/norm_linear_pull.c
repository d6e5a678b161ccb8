// SPDX-License-Identifier: Apache-2.0
// norm_linear_pull.c -- pull, residual, RMSNorm and product on the CPU. Owns nothing.
#include "kernels/norm_linear_pull.h"

#include <math.h>

#include "kernels/runtime_cpu.h"
#include "kernels/twins/linear.h"
#include "kernels/twins/twins.h"
#include "kernels/twins/vector.h"

// 1 / sqrt(mean(x^2) + eps).
VECTOR_CLONES
static double norm_scale(const bf16 *x, double eps, int width)
{
    vector_reads(x, (size_t)width * sizeof *x);
    return 1 / sqrt(vector_sum_squares(x, width) / width + eps);
}

void norm_row_twin(double *y, const bf16 *x, const float *norm, double eps, int width)
{
    double scale = norm_scale(x, eps, width);
    for (int i = 0; i < width; i++)
        y[i] = (double)bf16_to_float(x[i]) * scale * (1 + (double)norm[i]);
}

void norm_row_bf16(bf16 *y, const bf16 *x, const float *norm, double eps, int width)
{
    double scale = norm_scale(x, eps, width);
    for (int i = 0; i < width; i++)
        y[i] = bf16_from_double((double)bf16_to_float(x[i]) * scale * (1 + (double)norm[i]));
}

// residual += what all ranks pushed, in f32 and in rank order: the bits that every rank gets.
VECTOR_CLONES
static void add_lanes(bf16 *residual, const uint8_t *const *lanes, int ranks, size_t count)
{
    enum { BLOCK = 256 };
    float sums[BLOCK];
    vector_writes(residual, count * sizeof *residual);
    for (int rank = 0; rank < ranks; rank++)
        vector_reads(lanes[rank], count * sizeof *residual);
    for (size_t first = 0; first < count; first += BLOCK) {
        size_t values = count - first < BLOCK ? count - first : BLOCK;
        for (size_t i = 0; i < values; i++)
            sums[i] = bf16_to_float(residual[first + i]);
        for (int rank = 0; rank < ranks; rank++) {
#ifdef PLANT_pull_last_first
            // Another order of adding, so other bits.
            const bf16 *lane = (const bf16 *)(const void *)lanes[ranks - 1 - rank] + first;
#else
            const bf16 *lane = (const bf16 *)(const void *)lanes[rank] + first;
#endif
            for (size_t i = 0; i < values; i++)
                sums[i] += bf16_to_float(lane[i]);
        }
        for (size_t i = 0; i < values; i++)
            residual[first + i] = bf16_from_float(sums[i]);
    }
}

static void run(const void *arguments)
{
    const struct norm_linear_pull *op = arguments;
    const uint8_t *lanes[EXCHANGE_RANKS_MAX];
    // A failed pull leaves the residual as it is: whoever drives the stream throws the step away.
    if (op->pull != NULL && exchange_pull(op->pull, lanes))
        add_lanes(op->residual, lanes, op->pull->ranks, (size_t)op->tokens * (size_t)op->hidden);
    for (int token = 0; token < op->tokens; token++) {
        size_t at = (size_t)token * (size_t)op->hidden;
        norm_row_bf16(op->normed + at, op->residual + at, op->norm, (double)op->eps, op->hidden);
    }
    if (op->weight.format == WEIGHT_NONE)
        return;
    struct linear_rows linear = {
        .x = op->normed,
        .x_stride = (size_t)op->hidden,
        .w = weight_bf16(&op->weight),
        .tokens = op->tokens,
        .rows = op->weight.rows,
        .columns = op->hidden,
    };
    if (op->y != NULL)
        linear_rows_bf16(op->y, &linear);
    else
        linear_rows_float(op->y_float, &linear);
}

void norm_linear_pull(struct stream *stream, const struct norm_linear_pull *op)
{
    ASSERT(op->tokens >= 0 && op->hidden > 0 && op->hidden % 2 == 0);
    ASSERT(op->residual != NULL && op->norm != NULL && op->normed != NULL);
    ASSERT(op->weight.format == WEIGHT_NONE || op->weight.format == WEIGHT_BF16);
    if (op->weight.format == WEIGHT_BF16) {
        ASSERT(op->weight.columns == op->hidden && op->weight.rows > 0);
        ASSERT((op->y != NULL) != (op->y_float != NULL));
    }
    if (op->pull != NULL)
        ASSERT((size_t)op->tokens * (size_t)op->hidden * sizeof(bf16) <= op->pull->lane_bytes);
    ASSERT(op->parts == NULL || op->parts->products == NULL);
    stream_run(stream, run, op, sizeof *op);
}
