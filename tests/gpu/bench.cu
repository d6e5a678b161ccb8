// SPDX-License-Identifier: Apache-2.0
// bench.cu -- times launches from a graph and prints them beside the machine's limits.
#include <math.h>
#include <stdio.h>

#include "tests/gpu/check_state.cuh"

// Measured on an H200: reads by a chain of kernels; sustained bf16 products on a warm card.
static const double READ_BYTES_PER_S = 4.6e12, FLOPS_PER_S = 660e12;
static const size_t COLD_BYTES = 180u << 20; // three times the L2
enum { MEMORIES_MAX = 1024, FILL_THREADS = 256 };

static void *memories[MEMORIES_MAX];
static int memories_count;

int bench_turns(size_t bytes)
{
    size_t turns = COLD_BYTES / (bytes > 0 ? bytes : 1) + 1;
    return turns < 8 ? 8 : turns > 256 ? 256 : static_cast<int>(turns);
}

// Zeros would flatter: power depends on the bits that change.
static __global__ void fill_kernel(bf16 *values, size_t count, float deviation, uint32_t seed)
{
    size_t stride = static_cast<size_t>(gridDim.x) * FILL_THREADS;
    for (size_t i = blockIdx.x * static_cast<size_t>(FILL_THREADS) + threadIdx.x; i < count;
         i += stride) {
        uint32_t z = static_cast<uint32_t>(i) * 0x9e3779b9u + seed;
        z = (z ^ (z >> 16)) * 0x85ebca6bu;
        z = (z ^ (z >> 13)) * 0xc2b2ae35u;
        z ^= z >> 16;
        float sum = static_cast<float>(z & 0xffff) + static_cast<float>(z >> 16) - 65535.0f;
        values[i] = bf16_from_float(sum / 26755.0f * deviation); // triangular, variance 1
    }
}

void *bench_memory(size_t bytes, double deviation)
{
    void *memory = runtime_alloc(bytes);
    if (memory == NULL || memories_count == MEMORIES_MAX)
        DIE("no %zu bytes for a benchmark (%d arrays)", bytes, memories_count);
    memories[memories_count++] = memory;
    fill_kernel<<<1024, FILL_THREADS, 0, check_stream()->handle>>>(
        static_cast<bf16 *>(memory), bytes / sizeof(bf16), static_cast<float>(deviation),
        static_cast<uint32_t>(memories_count) * 0x6c078965u);
    LAUNCH_CHECK();
    stream_synchronize(check_stream());
    return memory;
}

void bench_clear()
{
    for (int i = 0; i < memories_count; i++)
        runtime_free(memories[i]);
    memories_count = 0;
}

static float timed_ms(cudaGraphExec_t graph, int times)
{
    cudaEvent_t begin, end;
    float ms = 0;
    cudaStream_t stream = check_stream()->handle;
    CUDA_CHECK(cudaEventCreate(&begin));
    CUDA_CHECK(cudaEventCreate(&end));
    CUDA_CHECK(cudaEventRecord(begin, stream));
    for (int i = 0; i < times; i++)
        CUDA_CHECK(cudaGraphLaunch(graph, stream));
    CUDA_CHECK(cudaEventRecord(end, stream));
    CUDA_CHECK(cudaEventSynchronize(end));
    CUDA_CHECK(cudaEventElapsedTime(&ms, begin, end));
    CUDA_CHECK(cudaEventDestroy(begin));
    CUDA_CHECK(cudaEventDestroy(end));
    return ms;
}

void bench_run(const struct bench_case *what,
               void (*launch)(struct stream *, const void *, int turn), const void *op, int turns)
{
    cudaStream_t stream = check_stream()->handle;
    cudaGraph_t graph;
    cudaGraphExec_t ready;
    CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int turn = 0; turn < turns; turn++)
        launch(check_stream(), op, turn);
    CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
    CUDA_CHECK(cudaGraphInstantiate(&ready, graph, 0));
    timed_ms(ready, 1);
    float once_ms = timed_ms(ready, 1);
    int times = static_cast<int>(fmin(200, 50 / fmax(once_ms, 0.01f))) + 1;
    double us = timed_ms(ready, times) * 1000.0 / times / turns;
    double floor_us = fmax(what->bytes / READ_BYTES_PER_S, what->flops / FLOPS_PER_S) * 1e6;
    printf("{\"op\": \"%s\", \"shape\": \"%s\", \"us\": %.3f, \"bytes\": %.0f, \"flops\": %.0f, "
           "\"floor_us\": %.3f, \"percent_of_limit\": %.1f}\n",
           what->op, what->shape, us, what->bytes, what->flops, floor_us, 100 * floor_us / us);
    fflush(stdout);
    CUDA_CHECK(cudaGraphExecDestroy(ready));
    CUDA_CHECK(cudaGraphDestroy(graph));
}
