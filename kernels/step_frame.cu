// SPDX-License-Identifier: Apache-2.0
// step_frame.cu -- one block reads or writes the host's memory, 16 bytes a thread and turn.
#include "kernels/device/launch.cuh"

extern "C" {
#include "kernels/step_frame.h"
}

enum { FRAME_THREADS = 512, FRAME_WORD_BYTES = 16 };

// Past the caches: the ring's memory changes behind them.
static __device__ void copy_words(uint8_t *to, const uint8_t *from, size_t bytes)
{
    size_t words = bytes / FRAME_WORD_BYTES;
    for (size_t i = threadIdx.x; i < words; i += FRAME_THREADS)
        reinterpret_cast<uint4 *>(to)[i] = __ldcv(reinterpret_cast<const uint4 *>(from) + i);
}

static __global__ void fetch_kernel(const struct step_frame op)
{
    pdl_wait();
    pdl_trigger();
    uint64_t step = *reinterpret_cast<const uint64_t *>(op.up_dev) + 1;
    __syncthreads(); // all know it before it is overwritten
    copy_words(op.up_dev, op.up[step % STEP_FRAME_RING], op.up_bytes);
}

static __global__ void report_kernel(const struct step_frame op)
{
    pdl_wait();
    pdl_trigger();
    uint64_t step = *reinterpret_cast<const uint64_t *>(op.up_dev);
    copy_words(op.down[step % STEP_FRAME_RING], op.down_dev, op.down_bytes);
}

extern "C" void step_frame_fetch(struct stream *stream, const struct step_frame *op)
{
    ASSERT(op->up_bytes >= sizeof(uint64_t) && op->up_bytes % FRAME_WORD_BYTES == 0);
    launch_chained(fetch_kernel, dim3(1), dim3(FRAME_THREADS), 0, stream->handle, *op);
}

extern "C" void step_frame_report(struct stream *stream, const struct step_frame *op)
{
    ASSERT(op->down_bytes % FRAME_WORD_BYTES == 0);
    launch_chained(report_kernel, dim3(1), dim3(FRAME_THREADS), 0, stream->handle, *op);
}
