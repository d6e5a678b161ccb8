// SPDX-License-Identifier: Apache-2.0
// exchange.cu -- the kernel of kernels/exchange_cuda.h: packets out to all ranks, packets in, sum.
#include "kernels/device/bf16.cuh"
#include "kernels/device/clock.cuh"
#include "kernels/device/launch.cuh"

extern "C" {
#include "kernels/exchange_cuda.h"
}

#ifdef DELTAMESH_NCCL
#include <nccl.h>
#include <nccl_device.h>
#endif

enum {
    EXCHANGE_THREADS = 256,
    EXCHANGE_BLOCKS_MAX = 128, // all of them run at once: they wait for one another's peers
    EPOCHS_PER_REPORT = 64,    // a write to the host costs the kernel's end
    LOOKS_PER_CLOCK = 256,     // at a packet between two looks at the clock
    HOST_LOOK_NS = 100000,     // between two looks of this GPU at the abort word
};

size_t exchange_cuda_inbox_bytes(int ranks)
{
    return 2 * static_cast<size_t>(ranks) * 2 * EXCHANGE_PACKETS_BYTES_MAX;
}

void *exchange_cuda_stream(struct stream *stream)
{
    return stream->handle;
}

static __device__ __forceinline__ void write_packet(uint8_t *to, uint2 data, uint32_t flag)
{
    asm volatile("st.volatile.global.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(to), "r"(data.x), "r"(flag),
                 "r"(data.y), "r"(flag)
                 : "memory");
}

static __device__ __forceinline__ uint4 read_packet(const uint8_t *from)
{
    uint4 packet;
    asm volatile("ld.volatile.global.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(packet.x), "=r"(packet.y), "=r"(packet.z), "=r"(packet.w)
                 : "l"(from)
                 : "memory");
    return packet;
}

// Whether the group has been given up. One thread of the GPU at a time asks the host and tells the
// others: when all that waited asked, their reads took a millisecond of PCIe, packets lay unread
// for as long, the rank came late to its next exchange, its peer asked there, and so on: 80
// exchanges of a prompt on two H200s took 85 ms longer, where one rank began 0.2 ms late.
static __device__ bool given_up(const exchange_cuda &exchange, uint64_t now)
{
    auto *look = reinterpret_cast<unsigned long long *>(exchange.look_dev);
    unsigned long long due = *static_cast<volatile unsigned long long *>(look);
    if (now >= due && atomicCAS(look, due, now + HOST_LOOK_NS) == due &&
        *static_cast<volatile uint32_t *>(exchange.abort_word_dev) != 0)
        *static_cast<volatile uint32_t *>(exchange.failed_dev) = 1;
    return *static_cast<volatile uint32_t *>(exchange.failed_dev) != 0;
}

// False when the wait ended without the packet; then the report says so.
static __device__ bool await_packet(uint2 *data, const uint8_t *from, uint32_t flag, int source,
                                    const exchange_cuda &exchange)
{
    uint64_t deadline = 0;
    for (uint32_t looks = 1;; looks++) {
        uint4 packet = read_packet(from);
        if (packet.y == flag && packet.w == flag) {
            *data = make_uint2(packet.x, packet.z);
            return true;
        }
        if (looks % LOOKS_PER_CLOCK != 0)
            continue;
        uint64_t now = clock_ns();
        bool aborted = given_up(exchange, now);
        deadline = deadline == 0 ? now + exchange.wait_ns_max : deadline;
        if (!aborted && now < deadline)
            continue;
        if (!aborted) {
            // Of this GPU's threads alone: PCIe knows no OR on the host's memory.
            atomicOr(&exchange.report_dev->missing, 1u << source);
            __threadfence_system(); // who sees the word below sees who is missing
            *static_cast<volatile uint32_t *>(exchange.abort_word_dev) = 1;
        }
        *static_cast<volatile uint32_t *>(&exchange.report_dev->failed) = 1;
        *static_cast<volatile uint32_t *>(exchange.failed_dev) = 1;
        return false;
    }
}

static __device__ __forceinline__ uint32_t bf16_bits(float low, float high)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t *>(&pair);
}

static __device__ __forceinline__ void add(float (&sums)[4], uint2 data)
{
    sums[0] += __uint_as_float(data.x << 16);
    sums[1] += __uint_as_float(data.x & 0xffff0000u);
    sums[2] += __uint_as_float(data.y << 16);
    sums[3] += __uint_as_float(data.y & 0xffff0000u);
}

// The last block to end counts the exchange, for the next one on the stream and for the heartbeat.
static __device__ void count_epoch(const exchange_cuda &exchange, uint64_t epoch)
{
    __syncthreads();
    if (threadIdx.x != 0 || atomicAdd(exchange.ticket_dev, 1u) != gridDim.x - 1)
        return;
    *exchange.ticket_dev = 0;
    *exchange.epoch_dev = epoch;
    if (epoch % EPOCHS_PER_REPORT == 0)
        *static_cast<volatile uint64_t *>(&exchange.report_dev->epoch) = epoch;
}

struct exchange_arguments {
    exchange_cuda exchange;
    const uint2 *in;
    uint2 *out; // GATHER: [ranks, packets]; else the sum, may be `in`
    int packets;
};

// A grid-stride loop writes all of a thread's packets before it waits for the first, so no rank
// waits for a packet that waits for it.
template <bool GATHER>
static __global__ void __launch_bounds__(EXCHANGE_THREADS)
    exchange_kernel(const exchange_arguments a)
{
    const exchange_cuda &exchange = a.exchange;
    int stride = static_cast<int>(gridDim.x) * EXCHANGE_THREADS, ranks = exchange.ranks;
    int first = static_cast<int>(blockIdx.x) * EXCHANGE_THREADS + static_cast<int>(threadIdx.x);
    const int64_t lane_bytes = 2 * static_cast<int64_t>(EXCHANGE_PACKETS_BYTES_MAX);
    pdl_wait();
    pdl_trigger();
    // After a failure nobody's memory is to be touched: a communicator that is aborted unmaps it.
    bool whole = *static_cast<volatile uint32_t *>(exchange.failed_dev) == 0;
    uint64_t epoch = *static_cast<volatile uint64_t *>(exchange.epoch_dev) + 1;
    uint32_t flag = static_cast<uint32_t>(epoch % 0xffffffffu) + 1; // never 0: memory begins so
    int64_t parity = static_cast<int64_t>(epoch & 1) * ranks;
    for (int i = first; i < a.packets && whole; i += stride) {
        uint2 own = a.in[i];
        for (int k = 1; k < ranks; k++) { // the next rank first: not all write to the same inbox
            int to = (exchange.rank + k) % ranks;
            write_packet(exchange.inboxes_dev[to] + (parity + exchange.rank) * lane_bytes +
                             static_cast<int64_t>(i) * EXCHANGE_PACKET_BYTES,
                         own, flag);
        }
    }
    for (int i = first; i < a.packets; i += stride) {
        float sums[4] = {};
        uint2 own = a.in[i];
        for (int source = 0; source < ranks; source++) {
            const uint8_t *from = exchange.inboxes_dev[exchange.rank] +
                                  (parity + source) * lane_bytes +
                                  static_cast<int64_t>(i) * EXCHANGE_PACKET_BYTES;
            uint2 data = own;
            if (source != exchange.rank) {
                whole = whole && await_packet(&data, from, flag, source, exchange);
                data = whole ? data : make_uint2(0, 0);
            }
            if (GATHER)
                a.out[static_cast<int64_t>(source) * a.packets + i] = data;
            else
                add(sums, data);
        }
        if (!GATHER)
            a.out[i] = make_uint2(bf16_bits(sums[0], sums[1]), bf16_bits(sums[2], sums[3]));
    }
    count_epoch(exchange, epoch);
}

template <bool GATHER>
static void exchange_launch(struct stream *stream, const struct exchange_cuda *exchange, void *out,
                            const void *in, size_t bytes)
{
    ASSERT(bytes % 8 == 0 && bytes <= EXCHANGE_PACKETS_BYTES_MAX);
    exchange_arguments a = {*exchange, static_cast<const uint2 *>(in), static_cast<uint2 *>(out),
                            static_cast<int>(bytes / 8)};
    int blocks = (a.packets + EXCHANGE_THREADS - 1) / EXCHANGE_THREADS;
    blocks = blocks < EXCHANGE_BLOCKS_MAX ? blocks : static_cast<int>(EXCHANGE_BLOCKS_MAX);
    launch_chained(exchange_kernel<GATHER>, dim3(static_cast<unsigned>(blocks)),
                   dim3(EXCHANGE_THREADS), 0, stream->handle, a);
}

void exchange_cuda_add(struct stream *stream, const struct exchange_cuda *exchange, void *lane_dev,
                       size_t bytes)
{
    cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    if (bytes > EXCHANGE_CHUNKED_BYTES_MAX)
        CUDA_CHECK(cudaStreamIsCapturing(stream->handle, &capture));
    if (bytes > EXCHANGE_CHUNKED_BYTES_MAX && capture == cudaStreamCaptureStatusNone) {
        exchange->add_large(exchange->context, lane_dev, bytes, stream);
        return;
    }
    if (bytes > EXCHANGE_CHUNKED_BYTES_MAX && exchange->load_only)
        return;
    for (size_t at = 0; at < bytes; at += EXCHANGE_PACKETS_BYTES_MAX) {
        char *chunk = static_cast<char *>(lane_dev) + at;
        size_t rest = bytes - at;
        exchange_launch<false>(stream, exchange, chunk, chunk,
                               rest < EXCHANGE_PACKETS_BYTES_MAX ? rest
                                                                 : EXCHANGE_PACKETS_BYTES_MAX);
    }
}

void exchange_cuda_gather(struct stream *stream, const struct exchange_cuda *exchange,
                          void *out_dev, const void *in_dev, size_t bytes)
{
    if (bytes > 0)
        exchange_launch<true>(stream, exchange, out_dev, in_dev, bytes);
}

#ifdef DELTAMESH_NCCL
static __global__ void addresses_kernel(uint8_t **out, ncclWindow_t window, int ranks)
{
    for (int rank = 0; rank < ranks; rank++)
        out[rank] = static_cast<uint8_t *>(ncclGetLsaPointer(window, 0, rank));
}

void exchange_cuda_addresses(struct stream *stream, void *window, int ranks,
                             uint8_t *addresses_dev[EXCHANGE_RANKS_MAX])
{
    uint8_t **out;
    size_t bytes = static_cast<size_t>(ranks) * sizeof *out;
    CUDA_CHECK(cudaMalloc(&out, bytes));
    addresses_kernel<<<1, 1, 0, stream->handle>>>(out, static_cast<ncclWindow_t>(window), ranks);
    LAUNCH_CHECK();
    CUDA_CHECK(cudaMemcpyAsync(addresses_dev, out, bytes, cudaMemcpyDeviceToHost, stream->handle));
    CUDA_CHECK(cudaStreamSynchronize(stream->handle));
    CUDA_CHECK(cudaFree(out));
}
#endif
