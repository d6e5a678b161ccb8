// SPDX-License-Identifier: Apache-2.0
// runtime_cuda.cu -- kernels/runtime.h over the CUDA runtime: one device per process, streams that
// do not synchronise with the default stream, events without timing.
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

#include "kernels/device/launch.cuh"
#include "kernels/device/library.cuh"

extern "C" {
#include "kernels/runtime.h"
}

struct event {
    cudaEvent_t handle;
};

static char device_name[160] = "no CUDA device opened";
static char pci_id[32] = "";

// From now on this process sees that device alone, as device 0, in all of its threads: the current
// device belongs to a thread, and new ones begin with device 0. Before the driver is asked
// anything.
static enum status see_only(int device, struct error *error)
{
    const char *list = getenv("CUDA_VISIBLE_DEVICES");
    char one[128];
    snprintf(one, sizeof one, "%d", device);
    if (list != NULL) {
        const char *item = list;
        for (int i = 0; i < device && item != NULL; i++) {
            item = strchr(item, ',');
            item = item != NULL ? item + 1 : NULL;
        }
        if (item == NULL || *item == '\0')
            return error_set(error, E_SYSTEM, "CUDA device %d: CUDA_VISIBLE_DEVICES=%s has no such",
                             device, list);
        snprintf(one, sizeof one, "%.*s", static_cast<int>(strcspn(item, ",")), item);
    }
    if (setenv("CUDA_VISIBLE_DEVICES", one, 1) != 0)
        return error_set(error, E_SYSTEM, "no memory for the environment");
    return OK;
}

extern "C" enum status runtime_open(int device, struct error *error)
{
    int count = 0;
    cudaDeviceProp properties;
    enum status status = see_only(device, error);
    if (status != OK)
        return status;
    cudaError_t found = cudaGetDeviceCount(&count);
    if (found != cudaSuccess || count == 0) {
        return error_set(error, E_SYSTEM, "CUDA device %d: %s", device,
                         found != cudaSuccess ? cudaGetErrorString(found) : "there is none");
    }
    CUDA_CHECK(cudaSetDevice(0));
    library_open();
    CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
    const unsigned char *id = reinterpret_cast<const unsigned char *>(properties.uuid.bytes);
    snprintf(device_name, sizeof device_name, "%.100s GPU-%02x%02x%02x%02x", properties.name, id[0],
             id[1], id[2], id[3]);
    if (cudaDeviceGetPCIBusId(pci_id, sizeof pci_id, 0) != cudaSuccess)
        pci_id[0] = '\0';
    (void)cudaGetLastError(); // that would be no fault
    for (char *letter = pci_id; *letter != '\0'; letter++)
        *letter = static_cast<char>(tolower(static_cast<unsigned char>(*letter)));
    return OK;
}

extern "C" void runtime_close(void)
{
}

extern "C" const char *runtime_backend(void)
{
    return "cuda";
}

extern "C" uint64_t runtime_bytes_free(void)
{
    size_t bytes_free, bytes_total;
    CUDA_CHECK(cudaMemGetInfo(&bytes_free, &bytes_total));
    return bytes_free;
}

extern "C" const char *runtime_pci_id(void)
{
    return pci_id;
}

extern "C" const char *runtime_device_name(void)
{
    return device_name;
}

// Out of memory is the caller's to report; it must not stick as the thread's last error.
static void *allocated(cudaError_t error, void *memory)
{
    if (error == cudaSuccess)
        return memory;
    if (error != cudaErrorMemoryAllocation)
        DIE("allocation: %s", cudaGetErrorString(error));
    (void)cudaGetLastError();
    return NULL;
}

extern "C" void *runtime_alloc(size_t bytes)
{
    void *memory = NULL;
    cudaError_t error = cudaMalloc(&memory, bytes > 0 ? bytes : 1);
    return allocated(error, memory);
}

extern "C" void runtime_free(void *memory_dev)
{
    CUDA_CHECK(cudaFree(memory_dev));
}

extern "C" void *runtime_alloc_host(size_t bytes)
{
    void *memory = NULL;
    cudaError_t error = cudaHostAlloc(&memory, bytes > 0 ? bytes : 1, cudaHostAllocDefault);
    return allocated(error, memory);
}

extern "C" void runtime_free_host(void *memory)
{
    CUDA_CHECK(cudaFreeHost(memory));
}

extern "C" enum status stream_open(struct stream **out, struct error *error)
{
    struct stream *stream = static_cast<struct stream *>(malloc(sizeof *stream));
    if (stream == NULL)
        return error_set(error, E_SYSTEM, "no memory for a stream");
    CUDA_CHECK(cudaStreamCreateWithFlags(&stream->handle, cudaStreamNonBlocking));
    *out = stream;
    return OK;
}

extern "C" void stream_close(struct stream *stream)
{
    CUDA_CHECK(cudaStreamSynchronize(stream->handle));
    CUDA_CHECK(cudaStreamDestroy(stream->handle));
    free(stream);
}

extern "C" void stream_synchronize(struct stream *stream)
{
    CUDA_CHECK(cudaStreamSynchronize(stream->handle));
}

extern "C" void stream_copy_to_device(struct stream *stream, void *to_dev, const void *from,
                                      size_t bytes)
{
    CUDA_CHECK(cudaMemcpyAsync(to_dev, from, bytes, cudaMemcpyHostToDevice, stream->handle));
}

extern "C" void stream_copy_to_host(struct stream *stream, void *to, const void *from_dev,
                                    size_t bytes)
{
    CUDA_CHECK(cudaMemcpyAsync(to, from_dev, bytes, cudaMemcpyDeviceToHost, stream->handle));
}

extern "C" void stream_copy_on_device(struct stream *stream, void *to_dev, const void *from_dev,
                                      size_t bytes)
{
    CUDA_CHECK(cudaMemcpyAsync(to_dev, from_dev, bytes, cudaMemcpyDeviceToDevice, stream->handle));
}

extern "C" void stream_zero(struct stream *stream, void *memory_dev, size_t bytes)
{
    CUDA_CHECK(cudaMemsetAsync(memory_dev, 0, bytes, stream->handle));
}

// Runs on a thread of the driver; an eventfd that is full is awake already.
static void write_one(void *argument)
{
    uint64_t one = 1;
    ssize_t written = write(static_cast<int>(reinterpret_cast<intptr_t>(argument)), &one, 8);
    (void)written;
}

extern "C" void stream_notify(struct stream *stream, int fd)
{
    void *argument = reinterpret_cast<void *>(static_cast<intptr_t>(fd));
    CUDA_CHECK(cudaLaunchHostFunc(stream->handle, write_one, argument));
}

// ---- graphs ----

struct graph {
    cudaGraphExec_t ready;
};

extern "C" void stream_capture_begin(struct stream *stream)
{
    CUDA_CHECK(cudaStreamBeginCapture(stream->handle, cudaStreamCaptureModeThreadLocal));
}

extern "C" enum status stream_capture_end(struct stream *stream, struct graph **out,
                                          struct error *error)
{
    cudaGraph_t recorded;
    CUDA_CHECK(cudaStreamEndCapture(stream->handle, &recorded));
    struct graph *graph = static_cast<struct graph *>(malloc(sizeof *graph));
    if (graph == NULL) {
        CUDA_CHECK(cudaGraphDestroy(recorded));
        return error_set(error, E_SYSTEM, "no memory for a graph");
    }
    CUDA_CHECK(cudaGraphInstantiate(&graph->ready, recorded, 0));
    CUDA_CHECK(cudaGraphDestroy(recorded));
    CUDA_CHECK(cudaGraphUpload(graph->ready, stream->handle)); // not at the first launch
    *out = graph;
    return OK;
}

extern "C" void graph_launch(struct graph *graph, struct stream *stream)
{
    CUDA_CHECK(cudaGraphLaunch(graph->ready, stream->handle));
}

extern "C" void graph_close(struct graph *graph)
{
    if (graph == NULL)
        return;
    CUDA_CHECK(cudaGraphExecDestroy(graph->ready));
    free(graph);
}

// ---- events ----

extern "C" void stream_wait(struct stream *stream, struct event *event)
{
    CUDA_CHECK(cudaStreamWaitEvent(stream->handle, event->handle, 0));
}

extern "C" enum status event_open(struct event **out, struct error *error)
{
    struct event *event = static_cast<struct event *>(malloc(sizeof *event));
    if (event == NULL)
        return error_set(error, E_SYSTEM, "no memory for an event");
    CUDA_CHECK(cudaEventCreateWithFlags(&event->handle, cudaEventDisableTiming));
    *out = event;
    return OK;
}

extern "C" void event_close(struct event *event)
{
    CUDA_CHECK(cudaEventDestroy(event->handle));
    free(event);
}

extern "C" void event_record(struct event *event, struct stream *stream)
{
    CUDA_CHECK(cudaEventRecord(event->handle, stream->handle));
}

extern "C" bool event_query(struct event *event)
{
    cudaError_t error = cudaEventQuery(event->handle);
    if (error == cudaErrorNotReady)
        return false;
    CUDA_CHECK(error);
    return true;
}

extern "C" void event_synchronize(struct event *event)
{
    CUDA_CHECK(cudaEventSynchronize(event->handle));
}
