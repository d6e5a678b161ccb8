// SPDX-License-Identifier: Apache-2.0
// linear.cuh -- y = x W^T for the ops that end in a product: which kernel serves how many tokens is
// decided in linear.cu.
#pragma once

#include "kernels/device/launch.cuh"

extern "C" {
#include "kernels/weight.h"
}

struct linear_shape {
    const bf16 *x;         // row t at x + gather(t) * x_stride
    const int32_t *gather; // [tokens] or NULL: row t
    int64_t x_stride;      // values
    const bf16 *w;         // [rows, columns]
    int tokens, rows, columns;
    bf16 *y;        // [tokens, rows], or NULL
    float *y_float; // [tokens, rows], or NULL
};

// Queues the product, rounded once to the output's type. columns % 8 == 0, rows of x and W 16-byte
// aligned.
void linear_launch(cudaStream_t stream, const linear_shape &shape);
