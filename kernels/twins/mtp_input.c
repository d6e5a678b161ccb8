// SPDX-License-Identifier: Apache-2.0
// mtp_input.c -- the input of the multi-token-prediction head on the CPU. Owns nothing.
#include "kernels/mtp_input.h"

#include <string.h>

#include "kernels/runtime_cpu.h"
#include "kernels/twins/linear.h"
#include "kernels/twins/twins.h"

static void run(const void *arguments)
{
    const struct mtp_input *op = arguments;
    size_t hidden = (size_t)op->hidden;
    for (int token = 0; token < op->tokens; token++) {
        int32_t id = op->ids[token];
        bf16 *to = op->joined + (size_t)token * 2 * hidden;
        ASSERT(id < op->embedding.rows);
        if (id < 0) {
            memset(to, 0, 2 * hidden * sizeof(bf16));
            continue;
        }
        norm_row_bf16(to, weight_bf16(&op->embedding) + (size_t)id * hidden, op->embedding_norm,
                      (double)op->eps, op->hidden);
        norm_row_bf16(to + hidden, op->hidden_rows + (size_t)token * hidden, op->hidden_norm,
                      (double)op->eps, op->hidden);
    }
    struct linear_rows linear = {
        .x = op->joined,
        .x_stride = 2 * hidden,
        .w = weight_bf16(&op->fc),
        .tokens = op->tokens,
        .rows = op->hidden,
        .columns = 2 * op->hidden,
    };
    linear_rows_bf16(op->y, &linear);
}

void mtp_input(struct stream *stream, const struct mtp_input *op)
{
    ASSERT(op->ids != NULL && op->hidden_rows != NULL && op->joined != NULL && op->y != NULL);
    ASSERT(op->embedding_norm != NULL && op->hidden_norm != NULL && op->tokens >= 0);
    ASSERT(op->embedding.format == WEIGHT_BF16 && op->embedding.columns == op->hidden);
    ASSERT(op->fc.format == WEIGHT_BF16 && op->fc.rows == op->hidden);
    ASSERT(op->fc.columns == 2 * op->hidden && op->hidden > 0);
    stream_run(stream, run, op, sizeof *op);
}
