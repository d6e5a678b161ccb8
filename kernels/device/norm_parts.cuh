// SPDX-License-Identifier: Apache-2.0
// norm_parts.cuh -- the norm of rows whose push is still apart (kernels/push_parts.h). Not an op:
// norm_linear_pull.cu queues it.
#pragma once

#include "kernels/device/bf16.cuh"
#include "kernels/device/launch.cuh"

extern "C" {
#include "kernels/norm_linear_pull.h"
}

enum { NORM_PARTS_THREADS_MAX = 512 }; // a row's, each with a vector

// Whether norm_parts takes rows of `hidden` values.
static inline bool norm_parts_serves(int hidden)
{
    return hidden % BF16_VECTOR == 0 && hidden <= NORM_PARTS_THREADS_MAX * BF16_VECTOR;
}

// Queues the op's pull and norm; op->parts has products.
void norm_parts(cudaStream_t stream, const struct norm_linear_pull *op);
