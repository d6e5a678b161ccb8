// SPDX-License-Identifier: Apache-2.0
// silu_mul.cu -- eight outputs a thread, f32 inside, one rounding.
#include "kernels/device/bf16.cuh"
#include "kernels/device/launch.cuh"

extern "C" {
#include "kernels/silu_mul.h"
}

enum { SILU_THREADS = 256 };

// One thread per vector of y [tokens, width]; gate_up [tokens, 2 * width], width % 8 == 0.
static __global__ void silu_mul_kernel(bf16x8 *y, const bf16x8 *gate_up, int64_t vectors_all,
                                       int vectors)
{
    int64_t i = static_cast<int64_t>(blockIdx.x) * SILU_THREADS + threadIdx.x;
    if (i >= vectors_all)
        return;
    int64_t row = i / vectors, column = i % vectors;
    float gate[BF16_VECTOR], up[BF16_VECTOR];
    bf16x8_to_float(gate, gate_up[row * 2 * vectors + column]);
    bf16x8_to_float(up, gate_up[row * 2 * vectors + vectors + column]);
#pragma unroll
    for (int k = 0; k < BF16_VECTOR; k++)
        gate[k] = gate[k] / (1.0f + expf(-gate[k])) * up[k];
    y[i] = bf16x8_from_float(gate);
}

extern "C" void silu_mul(struct stream *stream, bf16 *y, const bf16 *gate_up, int tokens, int width)
{
    ASSERT(width % BF16_VECTOR == 0);
    int vectors = width / BF16_VECTOR;
    int64_t all = static_cast<int64_t>(tokens) * vectors;
    if (all == 0)
        return;
    unsigned blocks = static_cast<unsigned>((all + SILU_THREADS - 1) / SILU_THREADS);
    silu_mul_kernel<<<blocks, SILU_THREADS, 0, stream->handle>>>(
        reinterpret_cast<bf16x8 *>(y), reinterpret_cast<const bf16x8 *>(gate_up), all, vectors);
    LAUNCH_CHECK();
}
