// SPDX-License-Identifier: Apache-2.0
// linear_push.c -- product (with the gated norm of GDN in front) and push on the CPU. Owns nothing.
#include "kernels/linear_push.h"

#include <math.h>

#include "kernels/runtime_cpu.h"
#include "kernels/twins/linear.h"
#include "kernels/twins/twins.h"
#include "kernels/twins/vector.h"

enum { HEAD_DIM_MAX = 256 };

VECTOR_CLONES
static void gate_head(double *y, const bf16 *x, const bf16 *gate, const struct linear_push *op)
{
    size_t dim = (size_t)op->dim;
    vector_reads(x, dim * sizeof *x);
    vector_reads(gate, dim * sizeof *gate);
    vector_writes(y, dim * sizeof *y);
    double scale = 1 / sqrt(vector_sum_squares(x, op->dim) / op->dim + (double)op->eps);
    for (int i = 0; i < op->dim; i++) {
        double z = (double)bf16_to_float(gate[i]);
        double normed = (double)bf16_to_float(x[i]) * scale * (double)op->norm[i];
        y[i] = normed * (z / (1 + exp(-z)));
    }
}

// Where head `head` of token `token` lies, in a row of `stride` values.
static size_t head_at(const struct linear_push *op, int token, int head, int stride)
{
    return (size_t)token * (size_t)stride + (size_t)head * (size_t)op->dim;
}

void linear_push_gated_twin(double *y, const struct linear_push *op)
{
    for (int token = 0; token < op->tokens; token++) {
        for (int head = 0; head < op->heads; head++)
            gate_head(y + head_at(op, token, head, op->weight.columns),
                      op->x + head_at(op, token, head, op->x_stride),
                      op->gate + head_at(op, token, head, op->gate_stride), op);
    }
}

static void gate_rows(const struct linear_push *op)
{
    double y[HEAD_DIM_MAX];
    for (int token = 0; token < op->tokens; token++) {
        for (int head = 0; head < op->heads; head++) {
            gate_head(y, op->x + head_at(op, token, head, op->x_stride),
                      op->gate + head_at(op, token, head, op->gate_stride), op);
            bf16 *to = op->gated + head_at(op, token, head, op->weight.columns);
            for (int i = 0; i < op->dim; i++)
                to[i] = bf16_from_double(y[i]);
        }
    }
}

static void run(const void *arguments)
{
    const struct linear_push *op = arguments;
    if (op->gate != NULL)
        gate_rows(op);
    struct linear_rows linear = {
        .x = op->gate != NULL ? op->gated : op->x,
        .x_stride = (size_t)(op->gate != NULL ? op->weight.columns : op->x_stride),
        .w = weight_bf16(&op->weight),
        .tokens = op->tokens,
        .rows = op->weight.rows,
        .columns = op->weight.columns,
    };
    linear_rows_bf16(op->partial, &linear);
    exchange_push(op->push, op->partial,
                  (size_t)op->tokens * (size_t)op->weight.rows * sizeof(bf16));
}

void linear_push(struct stream *stream, const struct linear_push *op)
{
    ASSERT(op->push != NULL && op->x != NULL && op->partial != NULL);
    ASSERT(op->weight.format == WEIGHT_BF16 && op->weight.rows > 0 && op->weight.columns > 0);
    ASSERT(op->tokens >= 0 && op->x_stride >= op->weight.columns);
    ASSERT((size_t)op->tokens * (size_t)op->weight.rows * sizeof(bf16) <= op->push->lane_bytes);
    if (op->gate != NULL) {
        ASSERT(op->norm != NULL && op->gated != NULL && op->gate_stride >= op->weight.columns);
        ASSERT(op->heads > 0 && op->dim > 0 && op->dim <= HEAD_DIM_MAX);
        ASSERT(op->heads * op->dim == op->weight.columns);
    }
    stream_run(stream, run, op, sizeof *op);
}
