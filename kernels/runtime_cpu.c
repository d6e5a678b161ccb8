// SPDX-License-Identifier: Apache-2.0
// runtime_cpu.c -- the CPU as a device: a stream is a bounded queue of calls with a thread of its
// own, device memory is host memory. Knows no op; launchers queue themselves with stream_run.
#include "kernels/runtime_cpu.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/memory_cpu.h"
#include "parallel/base/clock.h"
#include "parallel/base/ring.h"
#include "parallel/base/thread.h"

enum { MEMORY_ALIGN_BYTES = 256, DEVICE_NAME_BYTES_MAX = 128 };

// One op in the queue, with its own copy of the arguments.
struct queued_op {
    void (*function)(const void *arguments);
    _Alignas(16) unsigned char arguments[STREAM_ARGUMENTS_BYTES_MAX];
};

struct stream {
    struct ring ring; // of struct queued_op, written by the caller, read by the thread
    struct queued_op *ops;
    pthread_t thread;
    pthread_mutex_t mutex;  // guards closing; held to sleep and to wake
    pthread_cond_t written; // an op was queued, or closing
    pthread_cond_t read;    // an op has run
    bool closing;
    bool poison;             // the thread's; set by a queued op
    bool poison_queued;      // the caller's copy of poison
    uint64_t jitter;         // the thread's: state of the generator
    uint32_t jitter_us_max;  // the thread's: 0 = off
    struct graph *recording; // the caller's: not NULL while it captures
};

struct graph {
    struct queued_op *ops;
    size_t count, capacity;
};

struct event {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint64_t recorded; // number of event_record calls
    uint64_t passed;   // how many of them have run
};

// ---------------------------------------------------------------- backend and memory

enum status runtime_open(int device, struct error *error)
{
    (void)device;
    (void)error;
    return OK;
}

void runtime_close(void)
{
}

const char *runtime_backend(void)
{
    return "cpu";
}

uint64_t runtime_bytes_free(void)
{
    return memory_cpu_bytes_free("");
}

static char device_name[DEVICE_NAME_BYTES_MAX] = "unknown CPU";

static void read_device_name(void)
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    if (file == NULL)
        return;
    char line[512];
    while (fgets(line, sizeof line, file) != NULL) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || colon == NULL)
            continue;
        colon += 1 + strspn(colon + 1, " ");
        colon[strcspn(colon, "\n")] = '\0';
        snprintf(device_name, sizeof device_name, "%.*s", DEVICE_NAME_BYTES_MAX - 1, colon);
        break;
    }
    fclose(file);
}

const char *runtime_pci_id(void)
{
    return "";
}

const char *runtime_device_name(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, read_device_name);
    return device_name;
}

void *runtime_alloc(size_t bytes)
{
    if (bytes > SIZE_MAX - MEMORY_ALIGN_BYTES)
        return NULL;
    size_t rounded = (bytes + MEMORY_ALIGN_BYTES - 1) / MEMORY_ALIGN_BYTES * MEMORY_ALIGN_BYTES;
    return aligned_alloc(MEMORY_ALIGN_BYTES, rounded == 0 ? MEMORY_ALIGN_BYTES : rounded);
}

void runtime_free(void *memory_dev)
{
    free(memory_dev);
}

// Host allocations are listed so that poisoning never writes to memory that is not staging (a
// mapped model file, a constant).
struct host_block {
    struct host_block *next;
    unsigned char *memory;
    size_t bytes;
};

static pthread_mutex_t host_blocks_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct host_block *host_blocks;

void *runtime_alloc_host(size_t bytes)
{
    struct host_block *block = malloc(sizeof *block);
    void *memory = block == NULL ? NULL : runtime_alloc(bytes);
    if (memory == NULL) {
        free(block);
        return NULL;
    }
    pthread_mutex_lock(&host_blocks_mutex);
    *block = (struct host_block){.next = host_blocks, .memory = memory, .bytes = bytes};
    host_blocks = block;
    pthread_mutex_unlock(&host_blocks_mutex);
    return memory;
}

void runtime_free_host(void *memory)
{
    if (memory == NULL)
        return;
    pthread_mutex_lock(&host_blocks_mutex);
    struct host_block **at = &host_blocks;
    while (*at != NULL && (*at)->memory != memory)
        at = &(*at)->next;
    struct host_block *block = *at;
    ASSERT(block != NULL); // freed twice, or not from runtime_alloc_host
    *at = block->next;
    pthread_mutex_unlock(&host_blocks_mutex);
    free(block);
    runtime_free(memory);
}

// The writable address of `memory` when [memory, memory + bytes) is staging memory, else NULL.
static unsigned char *staging_at(const void *memory, size_t bytes)
{
    unsigned char *found = NULL;
    uintptr_t at = (uintptr_t)memory;
    pthread_mutex_lock(&host_blocks_mutex);
    for (struct host_block *block = host_blocks; block != NULL; block = block->next) {
        uintptr_t first = (uintptr_t)block->memory;
        if (at >= first && at - first <= block->bytes && bytes <= block->bytes - (at - first))
            found = block->memory + (at - first);
    }
    pthread_mutex_unlock(&host_blocks_mutex);
    return found;
}

// ---------------------------------------------------------------- the queue and its thread

static uint64_t next_random(uint64_t *state) // splitmix64
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void sleep_some(struct stream *stream)
{
    uint64_t random = next_random(&stream->jitter);
    if ((random & 1) != 0)
        clock_sleep_ns((random >> 1) % ((uint64_t)stream->jitter_us_max + 1) * CLOCK_NS_PER_US);
}

// The next op to run, or NULL when the stream is closing and all has run.
static const struct queued_op *wait_for_op(struct stream *stream)
{
    const struct queued_op *op = ring_read_begin(&stream->ring);
    if (op != NULL)
        return op;
    pthread_mutex_lock(&stream->mutex);
    while ((op = ring_read_begin(&stream->ring)) == NULL && !stream->closing)
        pthread_cond_wait(&stream->written, &stream->mutex);
    pthread_mutex_unlock(&stream->mutex);
    return op;
}

static void *run_stream(void *argument)
{
    struct stream *stream = argument;
    const struct queued_op *op;
    while ((op = wait_for_op(stream)) != NULL) {
        if (stream->jitter_us_max != 0)
            sleep_some(stream);
        op->function(op->arguments);
        ring_read_end(&stream->ring);
        // The lock orders the wake-up after the sleeper's check; with nobody asleep it is cheap.
        pthread_mutex_lock(&stream->mutex);
        pthread_cond_broadcast(&stream->read);
        pthread_mutex_unlock(&stream->mutex);
    }
    return NULL;
}

enum status stream_open(struct stream **out, struct error *error)
{
    struct stream *stream = aligned_alloc(_Alignof(struct stream), sizeof *stream);
    struct queued_op *ops = calloc(STREAM_QUEUE_MAX, sizeof *ops);
    if (stream == NULL || ops == NULL) {
        free(stream);
        free(ops);
        return error_set(error, E_SYSTEM, "no memory for a stream of %d ops", STREAM_QUEUE_MAX);
    }
    memset(stream, 0, sizeof *stream);
    stream->ops = ops;
    ring_init(&stream->ring, ops, sizeof *ops, STREAM_QUEUE_MAX);
    pthread_mutex_init(&stream->mutex, NULL);
    pthread_cond_init(&stream->written, NULL);
    pthread_cond_init(&stream->read, NULL);
    int problem = thread_start(&stream->thread, "cpu-stream", run_stream, stream);
    if (problem != 0) {
        free(ops);
        free(stream);
        return error_set(error, E_SYSTEM, "cannot start a stream's thread: %s", strerror(problem));
    }
    *out = stream;
    return OK;
}

void stream_close(struct stream *stream)
{
    if (stream == NULL)
        return;
    pthread_mutex_lock(&stream->mutex);
    stream->closing = true;
    pthread_cond_signal(&stream->written);
    pthread_mutex_unlock(&stream->mutex);
    pthread_join(stream->thread, NULL);
    pthread_cond_destroy(&stream->read);
    pthread_cond_destroy(&stream->written);
    pthread_mutex_destroy(&stream->mutex);
    free(stream->ops);
    free(stream);
}

// Keeps the op instead of queuing it. What does not fit is counted, and told at the end.
static void record(struct graph *graph, void (*function)(const void *arguments),
                   const void *arguments, size_t arguments_bytes)
{
    if (graph->count >= graph->capacity) {
        size_t capacity = graph->capacity == 0 ? 256 : 2 * graph->capacity;
        struct queued_op *ops = realloc(graph->ops, capacity * sizeof *ops);
        if (ops == NULL) {
            graph->count++;
            return;
        }
        graph->ops = ops;
        graph->capacity = capacity;
    }
    struct queued_op *op = &graph->ops[graph->count++];
    memset(op, 0, sizeof *op);
    op->function = function;
    if (arguments_bytes != 0)
        memcpy(op->arguments, arguments, arguments_bytes);
}

void stream_run(struct stream *stream, void (*function)(const void *arguments),
                const void *arguments, size_t arguments_bytes)
{
    ASSERT(arguments_bytes <= STREAM_ARGUMENTS_BYTES_MAX);
    ASSERT(!pthread_equal(pthread_self(), stream->thread)); // it would wait for itself
    if (stream->recording != NULL) {
        record(stream->recording, function, arguments, arguments_bytes);
        return;
    }
    struct queued_op *op = ring_write_begin(&stream->ring);
    if (op == NULL) {
        pthread_mutex_lock(&stream->mutex);
        while ((op = ring_write_begin(&stream->ring)) == NULL)
            pthread_cond_wait(&stream->read, &stream->mutex);
        pthread_mutex_unlock(&stream->mutex);
    }
    op->function = function;
    if (arguments_bytes != 0)
        memcpy(op->arguments, arguments, arguments_bytes);
    ring_write_end(&stream->ring);
    pthread_mutex_lock(&stream->mutex);
    pthread_cond_signal(&stream->written);
    pthread_mutex_unlock(&stream->mutex);
}

void stream_synchronize(struct stream *stream)
{
    uint64_t target = ring_written(&stream->ring);
    if (ring_read(&stream->ring) >= target)
        return;
    pthread_mutex_lock(&stream->mutex);
    while (ring_read(&stream->ring) < target)
        pthread_cond_wait(&stream->read, &stream->mutex);
    pthread_mutex_unlock(&stream->mutex);
}

// ---------------------------------------------------------------- copies, fill, notification

struct copy_op {
    struct stream *stream;
    void *to;
    const void *from;
    size_t bytes;
};

static void run_copy_to_device(const void *arguments)
{
    const struct copy_op *op = arguments;
    memcpy(op->to, op->from, op->bytes);
    if (!op->stream->poison)
        return;
    unsigned char *staging = staging_at(op->from, op->bytes);
    if (staging != NULL)
        memset(staging, STREAM_POISON_BYTE, op->bytes);
}

void stream_copy_to_device(struct stream *stream, void *to_dev, const void *from, size_t bytes)
{
    struct copy_op op = {.stream = stream, .to = to_dev, .from = from, .bytes = bytes};
#ifdef PLANT_stream_copies_at_once
    run_copy_to_device(&op); // not behind what is queued
#else
    if (bytes != 0)
        stream_run(stream, run_copy_to_device, &op, sizeof op);
#endif
}

static void run_copy_to_host(const void *arguments)
{
    const struct copy_op *op = arguments;
    memcpy(op->to, op->from, op->bytes);
}

void stream_copy_to_host(struct stream *stream, void *to, const void *from_dev, size_t bytes)
{
    struct copy_op op = {.stream = stream, .to = to, .from = from_dev, .bytes = bytes};
    if (bytes == 0)
        return;
    if (stream->poison_queued)
        memset(to, STREAM_POISON_BYTE, bytes);
    stream_run(stream, run_copy_to_host, &op, sizeof op);
}

static void run_copy_on_device(const void *arguments)
{
    const struct copy_op *op = arguments;
    memmove(op->to, op->from, op->bytes);
}

void stream_copy_on_device(struct stream *stream, void *to_dev, const void *from_dev, size_t bytes)
{
    struct copy_op op = {.stream = stream, .to = to_dev, .from = from_dev, .bytes = bytes};
    if (bytes > 0)
        stream_run(stream, run_copy_on_device, &op, sizeof op);
}

static void run_zero(const void *arguments)
{
    const struct copy_op *op = arguments;
    memset(op->to, 0, op->bytes);
}

void stream_zero(struct stream *stream, void *memory_dev, size_t bytes)
{
    struct copy_op op = {.stream = stream, .to = memory_dev, .bytes = bytes};
    if (bytes != 0)
        stream_run(stream, run_zero, &op, sizeof op);
}

static void run_notify(const void *arguments)
{
    const int *fd = arguments;
    const uint64_t one = 1;
    ssize_t written;
    do
        written = write(*fd, &one, sizeof one);
    while (written < 0 && errno == EINTR);
    // EAGAIN: the counter is full, so whoever polls is awake anyway.
    if (written < 0 && errno != EAGAIN)
        DIE("stream_notify: write to eventfd %d: %s", *fd, strerror(errno));
}

void stream_notify(struct stream *stream, int fd)
{
    stream_run(stream, run_notify, &fd, sizeof fd);
}

// ---------------------------------------------------------------- graphs

void stream_capture_begin(struct stream *stream)
{
    ASSERT(stream->recording == NULL);
    stream->recording = calloc(1, sizeof *stream->recording);
    if (stream->recording == NULL)
        DIE("no memory to begin a graph");
}

enum status stream_capture_end(struct stream *stream, struct graph **out, struct error *error)
{
    struct graph *graph = stream->recording;
    ASSERT(graph != NULL);
    stream->recording = NULL;
    if (graph->count > graph->capacity) {
        size_t count = graph->count;
        graph_close(graph);
        return error_set(error, E_SYSTEM, "no memory for a graph of %zu ops", count);
    }
    *out = graph;
    return OK;
}

void graph_launch(struct graph *graph, struct stream *stream)
{
    for (size_t i = 0; i < graph->count; i++)
        stream_run(stream, graph->ops[i].function, graph->ops[i].arguments,
                   STREAM_ARGUMENTS_BYTES_MAX);
}

void graph_close(struct graph *graph)
{
    if (graph == NULL)
        return;
    free(graph->ops);
    free(graph);
}

// ---------------------------------------------------------------- events

enum status event_open(struct event **out, struct error *error)
{
    struct event *event = calloc(1, sizeof *event);
    if (event == NULL)
        return error_set(error, E_SYSTEM, "no memory for an event");
    pthread_mutex_init(&event->mutex, NULL);
    pthread_cond_init(&event->changed, NULL);
    *out = event;
    return OK;
}

void event_close(struct event *event)
{
    if (event == NULL)
        return;
    event_synchronize(event); // a queued record still points here
    pthread_cond_destroy(&event->changed);
    pthread_mutex_destroy(&event->mutex);
    free(event);
}

static void run_event(const void *arguments)
{
    struct event *event = *(struct event *const *)arguments;
    pthread_mutex_lock(&event->mutex);
    event->passed++;
    pthread_cond_broadcast(&event->changed);
    pthread_mutex_unlock(&event->mutex);
}

void event_record(struct event *event, struct stream *stream)
{
    pthread_mutex_lock(&event->mutex);
    event->recorded++;
    pthread_mutex_unlock(&event->mutex);
    stream_run(stream, run_event, &event, sizeof event);
}

struct wait_op {
    struct event *event;
    uint64_t recorded;
};

static void run_wait(const void *arguments)
{
    const struct wait_op *op = arguments;
    pthread_mutex_lock(&op->event->mutex);
    while (op->event->passed < op->recorded)
        pthread_cond_wait(&op->event->changed, &op->event->mutex);
    pthread_mutex_unlock(&op->event->mutex);
}

void stream_wait(struct stream *stream, struct event *event)
{
    pthread_mutex_lock(&event->mutex);
    struct wait_op op = {.event = event, .recorded = event->recorded};
    pthread_mutex_unlock(&event->mutex);
    stream_run(stream, run_wait, &op, sizeof op);
}

bool event_query(struct event *event)
{
    pthread_mutex_lock(&event->mutex);
    bool passed = event->passed >= event->recorded;
    pthread_mutex_unlock(&event->mutex);
    return passed;
}

void event_synchronize(struct event *event)
{
    pthread_mutex_lock(&event->mutex);
    while (event->passed < event->recorded)
        pthread_cond_wait(&event->changed, &event->mutex);
    pthread_mutex_unlock(&event->mutex);
}

// ---------------------------------------------------------------- test hooks

struct jitter_op {
    struct stream *stream;
    uint64_t seed;
    uint32_t microseconds_max;
};

static void run_set_jitter(const void *arguments)
{
    const struct jitter_op *op = arguments;
    op->stream->jitter = op->seed;
    op->stream->jitter_us_max = op->microseconds_max;
}

void stream_set_jitter(struct stream *stream, uint64_t seed, uint32_t microseconds_max)
{
    struct jitter_op op = {.stream = stream, .seed = seed, .microseconds_max = microseconds_max};
    stream_run(stream, run_set_jitter, &op, sizeof op);
}

struct poison_op {
    struct stream *stream;
    bool on;
};

static void run_set_poison(const void *arguments)
{
    const struct poison_op *op = arguments;
    op->stream->poison = op->on;
}

void stream_set_poison(struct stream *stream, bool on)
{
    struct poison_op op = {.stream = stream, .on = on};
    stream->poison_queued = on;
    stream_run(stream, run_set_poison, &op, sizeof op);
}
