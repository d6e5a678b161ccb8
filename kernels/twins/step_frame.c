// SPDX-License-Identifier: Apache-2.0
// step_frame.c -- copies between a ring and a step's memory on the CPU. Owns nothing.
#include "kernels/step_frame.h"

#include <string.h>

#include "kernels/runtime_cpu.h"

static uint64_t number_of(const struct step_frame *op)
{
    uint64_t step;
    memcpy(&step, op->up_dev, sizeof step);
    return step;
}

static void run_fetch(const void *arguments)
{
    const struct step_frame *op = arguments;
    uint64_t step = number_of(op) + 1;
    memcpy(op->up_dev, op->up[step % STEP_FRAME_RING], op->up_bytes);
    ASSERT(number_of(op) == step);
}

static void run_report(const void *arguments)
{
    const struct step_frame *op = arguments;
    memcpy(op->down[number_of(op) % STEP_FRAME_RING], op->down_dev, op->down_bytes);
}

void step_frame_fetch(struct stream *stream, const struct step_frame *op)
{
    ASSERT(op->up_bytes >= sizeof(uint64_t) && op->up_bytes % 16 == 0);
    stream_run(stream, run_fetch, op, sizeof *op);
}

void step_frame_report(struct stream *stream, const struct step_frame *op)
{
    ASSERT(op->down_bytes % 16 == 0);
    stream_run(stream, run_report, op, sizeof *op);
}
