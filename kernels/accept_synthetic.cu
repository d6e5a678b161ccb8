// SPDX-License-Identifier: Apache-2.0
// accept_synthetic.cu -- a thread per row.
#include "kernels/device/launch.cuh"

extern "C" {
#include "kernels/accept_synthetic.h"
}

enum { ACCEPT_THREADS = 128 };

static __global__ void accept_kernel(struct accept_synthetic op)
{
    pdl_wait();
    pdl_trigger();
    int r = static_cast<int>(blockIdx.x * ACCEPT_THREADS + threadIdx.x);
    if (r < op.tables.rows_count)
        accept_synthetic_row(&op, r);
}

extern "C" void accept_synthetic(struct stream *stream, const struct accept_synthetic *op)
{
    ASSERT(op->sampled != NULL && op->vocab_real > 0);
    if (op->tables.rows_count == 0)
        return;
    unsigned blocks = static_cast<unsigned>(op->tables.rows_count + ACCEPT_THREADS - 1) /
                      static_cast<unsigned>(ACCEPT_THREADS);
    launch_chained(accept_kernel, dim3(blocks), dim3(ACCEPT_THREADS), 0, stream->handle, *op);
}
