// SPDX-License-Identifier: Apache-2.0
// accept_synthetic.c -- synthetic acceptance on the CPU. Owns nothing.
#include "kernels/accept_synthetic.h"

#include "kernels/runtime_cpu.h"

static void run(const void *arguments)
{
    const struct accept_synthetic *op = arguments;
    for (int r = 0; r < op->tables.rows_count; r++)
        accept_synthetic_row(op, r);
}

void accept_synthetic(struct stream *stream, const struct accept_synthetic *op)
{
    ASSERT(op->sampled != NULL && op->vocab_real > 0);
    stream_run(stream, run, op, sizeof *op);
}
