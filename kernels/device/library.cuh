// SPDX-License-Identifier: Apache-2.0
// library.cuh -- products by cuBLASLt, for many tokens. It gets no workspace, so that it cannot
// allocate and its sums are not split; the algorithm of a shape is chosen once, the first time that
// a count of tokens of its bucket comes (runtime_tokens_bucket), by the library's own ranking for
// the bucket's count: the same in every run on one kind of device.
#pragma once

#include "kernels/device/linear.cuh"

// Makes the library's handle, which allocates: before anything is served.
void library_open();

// Whether library_linear takes the shape (alignments; gather is not served).
bool library_serves(const linear_shape &shape);

// Queues the product: bf16 in, f32 sums, rounded once.
void library_linear(cudaStream_t stream, const linear_shape &shape);
