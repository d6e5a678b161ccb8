// SPDX-License-Identifier: Apache-2.0
// lm_head.c -- logits of sampled rows on the CPU. Owns nothing.
#include "kernels/lm_head.h"

#include "kernels/runtime_cpu.h"
#include "kernels/twins/linear.h"

struct lm_head_arguments {
    float *logits;
    const bf16 *hidden_rows;
    const int32_t *sample_tokens;
    struct weight weight;
    int samples;
};

static void run(const void *arguments)
{
    const struct lm_head_arguments *op = arguments;
    for (int sample = 0; sample < op->samples; sample++)
        ASSERT(op->sample_tokens[sample] >= 0);
    struct linear_rows linear = {
        .x = op->hidden_rows,
        .x_stride = (size_t)op->weight.columns,
        .gather = op->sample_tokens,
        .w = weight_bf16(&op->weight),
        .tokens = op->samples,
        .rows = op->weight.rows,
        .columns = op->weight.columns,
    };
    linear_rows_float(op->logits, &linear);
}

void lm_head(struct stream *stream, float *logits, const bf16 *hidden_rows,
             const int32_t *sample_tokens, const struct weight *weight, int samples, bf16 *gathered)
{
    (void)gathered; // rows are read where they are
    ASSERT(logits != NULL && hidden_rows != NULL && sample_tokens != NULL && samples >= 0);
    ASSERT(weight->format == WEIGHT_BF16 && weight->rows > 0 && weight->columns > 0);
    struct lm_head_arguments arguments = {logits, hidden_rows, sample_tokens, *weight, samples};
    stream_run(stream, run, &arguments, sizeof arguments);
}
