// SPDX-License-Identifier: Apache-2.0
// frame_check.cu -- step_frame, and what it is for: how long the device waits between the graphs of
// two steps for copies of rows and results, or when kernels read and write the host's memory.
#include <stdio.h>
#include <string.h>

#include "tests/gpu/check.cuh"

extern "C" {
#include "kernels/step_frame.h"
}

enum { KERNELS = 100, FRAMES = 400, ROWS_BYTES = 32 * 64 + 256, RESULTS_BYTES = 36 * 64 + 256 };

// As long as a small kernel of a step.
static __global__ void filler_kernel(int *sink)
{
    pdl_wait();
    pdl_trigger();
    if (threadIdx.x == 0)
        sink[blockIdx.x] = static_cast<int>(clock64());
}

// One block copies `words` 16-byte words; either side may be the host's.
static __global__ void copy_kernel(uint4 *to, const uint4 *from, int words)
{
    pdl_wait();
    pdl_trigger();
    for (int i = static_cast<int>(threadIdx.x); i < words; i += 256)
        to[i] = from[i];
}

struct frame {
    uint8_t *host, *dev;
    int *sink;
    bool copies,
        kernels; // how rows come and results go: by the copy engine, by kernels, not at all
};

static struct graph *record(struct stream *stream, const struct frame &frame)
{
    struct graph *graph;
    struct error error;
    uint4 *host = reinterpret_cast<uint4 *>(frame.host),
          *dev = reinterpret_cast<uint4 *>(frame.dev);
    stream_capture_begin(stream);
    if (frame.kernels)
        launch_chained(copy_kernel, dim3(1), dim3(256), 0, stream->handle, dev, host,
                       ROWS_BYTES / 16);
    for (int i = 0; i < KERNELS; i++)
        launch_chained(filler_kernel, dim3(132), dim3(128), 0, stream->handle, frame.sink);
    if (frame.kernels)
        launch_chained(copy_kernel, dim3(1), dim3(256), 0, stream->handle, host, dev,
                       RESULTS_BYTES / 16);
    if (stream_capture_end(stream, &graph, &error) != OK)
        DIE("%s", error.text);
    return graph;
}

static double us_per_frame(struct stream *stream, const struct frame &frame, bool event)
{
    struct graph *graph = record(stream, frame);
    struct error error;
    struct event *ended;
    cudaEvent_t first, last;
    float ms;
    if (event_open(&ended, &error) != OK)
        DIE("%s", error.text);
    CUDA_CHECK(cudaEventCreate(&first));
    CUDA_CHECK(cudaEventCreate(&last));
    graph_launch(graph, stream);
    CUDA_CHECK(cudaEventRecord(first, stream->handle));
    for (int i = 0; i < FRAMES; i++) {
        if (frame.copies)
            stream_copy_to_device(stream, frame.dev, frame.host, ROWS_BYTES);
        graph_launch(graph, stream);
        if (frame.copies)
            stream_copy_to_host(stream, frame.host, frame.dev, RESULTS_BYTES);
        if (event)
            event_record(ended, stream);
    }
    CUDA_CHECK(cudaEventRecord(last, stream->handle));
    stream_synchronize(stream);
    CUDA_CHECK(cudaEventElapsedTime(&ms, first, last));
    CUDA_CHECK(cudaEventDestroy(first));
    CUDA_CHECK(cudaEventDestroy(last));
    event_close(ended);
    graph_close(graph);
    return ms * 1000.0 / FRAMES;
}

BENCH(frame)
{
    struct stream *stream;
    struct error error;
    struct frame frame = {};
    if (stream_open(&stream, &error) != OK)
        DIE("%s", error.text);
    frame.host = static_cast<uint8_t *>(runtime_alloc_host(1 << 16));
    frame.dev = static_cast<uint8_t *>(bench_memory(1 << 16, 1));
    frame.sink = static_cast<int *>(bench_memory(132 * sizeof(int), 1));
    double plain = us_per_frame(stream, frame, false);
    double event = us_per_frame(stream, frame, true);
    frame.copies = true;
    double copies = us_per_frame(stream, frame, true);
    frame.copies = false;
    frame.kernels = true;
    double kernels = us_per_frame(stream, frame, true);
    printf("{\"op\": \"frame\", \"shape\": \"graph of %d kernels\", \"us\": %.2f, "
           "\"event_us\": %.2f, \"copies_us\": %.2f, \"kernels_us\": %.2f}\n",
           KERNELS, plain, event - plain, copies - plain, kernels - plain);
    runtime_free_host(frame.host);
    stream_close(stream);
}

static void launch_frame(struct stream *stream, const void *op)
{
    step_frame_fetch(stream, static_cast<const struct step_frame *>(op));
    step_frame_report(stream, static_cast<const struct step_frame *>(op));
}

// The ring is device memory here; what is read and written is the same.
static void check_frame(uint64_t step)
{
    check_begin("step_frame step %d", static_cast<int>(step));
    struct step_frame op = {}, dev;
    op.up_bytes = 16 * (1 + 100 * step);
    op.down_bytes = 16 * 700;
    op.up_dev = static_cast<uint8_t *>(check_array(ARRAY_STATE, op.up_bytes));
    op.down_dev = static_cast<uint8_t *>(check_array(ARRAY_INPUT, op.down_bytes));
    uint64_t before = step - 1;
    memcpy(op.up_dev, &before, sizeof before);
    check_fill(reinterpret_cast<float *>(op.down_dev), op.down_bytes / 4, 1);
    dev = op;
    check_to_dev(dev.up_dev, dev.down_dev);
    for (int i = 0; i < STEP_FRAME_RING; i++) {
        bool own = static_cast<uint64_t>(i) == step % STEP_FRAME_RING;
        uint8_t *up = static_cast<uint8_t *>(check_array(ARRAY_INPUT, op.up_bytes));
        op.down[i] =
            static_cast<uint8_t *>(check_array(own ? ARRAY_OUTPUT : ARRAY_INPUT, op.down_bytes));
        check_fill(reinterpret_cast<float *>(up), op.up_bytes / 4, 1);
        memcpy(up, &step, sizeof step);
        op.up[i] = up;
        dev.up[i] = check_dev(up);
        dev.down[i] = check_dev(op.down[i]);
    }
    check_run(launch_frame, &dev);
    int own = static_cast<int>(step % STEP_FRAME_RING);
    check_equal("up", op.up_dev, op.up[own], op.up_bytes, 1);
    check_equal("down", op.down[own], op.down_dev, op.down_bytes, 1);
    check_end();
}

CHECK(step_frame)
{
    for (uint64_t step = 1; step <= 8; step++)
        check_frame(step);
}

SMALL(step_frame)
{
    check_frame(1);
    check_frame(2);
}
