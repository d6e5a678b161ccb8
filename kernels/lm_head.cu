// SPDX-License-Identifier: Apache-2.0
// lm_head.cu -- the product into f32, over gathered rows; many rows are put together first.
#include "kernels/device/bf16.cuh"
#include "kernels/device/linear.cuh"

extern "C" {
#include "kernels/lm_head.h"
}

enum {
    GATHER_THREADS = 256,
    GATHER_IN_PLACE_MAX = 16, // the product for few tokens finds its rows itself
};

// grid samples; rows of `vectors` vectors.
static __global__ void gather_kernel(bf16x8 *gathered, const bf16x8 *hidden_rows,
                                     const int32_t *sample_tokens, int vectors)
{
    int64_t sample = blockIdx.x;
    pdl_wait();
    pdl_trigger();
    int64_t token = sample_tokens[sample];
    for (int i = static_cast<int>(threadIdx.x); i < vectors; i += GATHER_THREADS)
        gathered[sample * vectors + i] = hidden_rows[token * vectors + i];
}

extern "C" void lm_head(struct stream *stream, float *logits, const bf16 *hidden_rows,
                        const int32_t *sample_tokens, const struct weight *weight, int samples,
                        bf16 *gathered)
{
    ASSERT(weight->format == WEIGHT_BF16 && weight->columns % BF16_VECTOR == 0);
    linear_shape shape = {hidden_rows,         sample_tokens, weight->columns,
                          weight_bf16(weight), samples,       weight->rows,
                          weight->columns,     NULL,          logits};
    if (samples > GATHER_IN_PLACE_MAX) {
        launch_chained(gather_kernel, dim3(static_cast<unsigned>(samples)), dim3(GATHER_THREADS), 0,
                       stream->handle, reinterpret_cast<bf16x8 *>(gathered),
                       reinterpret_cast<const bf16x8 *>(hidden_rows), sample_tokens,
                       weight->columns / BF16_VECTOR);
        shape.x = gathered;
        shape.gather = NULL;
    }
    linear_launch(stream->handle, shape);
}
