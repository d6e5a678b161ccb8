// SPDX-License-Identifier: Apache-2.0
// lm_head.cu -- the product over gathered rows, into f32.
#include "kernels/device/linear.cuh"

extern "C" {
#include "kernels/lm_head.h"
}

extern "C" void lm_head(struct stream *stream, float *logits, const bf16 *hidden_rows,
                        const int32_t *sample_tokens, const struct weight *weight, int samples)
{
    ASSERT(weight->format == WEIGHT_BF16);
    linear_shape shape = {hidden_rows,         sample_tokens, weight->columns,
                          weight_bf16(weight), samples,       weight->rows,
                          weight->columns,     NULL,          logits};
    linear_launch(stream->handle, shape);
}
