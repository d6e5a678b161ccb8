// SPDX-License-Identifier: Apache-2.0
// check.cu -- arrays of a check and its runs: eager twice, from a graph twice, the same bytes.
#include "tests/gpu/check.cuh"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/check_state.cuh"

CPU_FUNCTION(stream_open);
CPU_FUNCTION(stream_synchronize);

enum {
    GUARD_BYTES = 512,
    GUARD_BYTE = 0xa5,
    POISON_BYTE = 0xff,
    ARRAYS_MAX = 128,
    RUNS = 4, // eager, eager, graph, graph
};

struct array {
    enum array_kind kind;
    size_t bytes;
    uint8_t *host, *result, *first; // result: of the last run, first: of the first one
    uint8_t *memory_dev;            // guard, bytes, guard
};

static struct {
    char name[200];
    char failure[400];
    struct array arrays[ARRAYS_MAX];
    int arrays_count, failed_all, checks_all;
    bool once;
    uint64_t random, hash;
    struct stream *stream, *cpu;
    struct check_entry *entries;
} state;

struct check_numbers check_numbers;

check_registration::check_registration(struct check_entry *entry)
{
    entry->next = state.entries;
    state.entries = entry;
}

struct check_entry *check_entries()
{
    return state.entries;
}

void check_once()
{
    state.once = true;
}

int check_failures()
{
    return state.failed_all;
}

struct stream *check_stream()
{
    struct error error;
    if (state.stream == NULL && stream_open(&state.stream, &error) != OK)
        DIE("%s", error.text);
    return state.stream;
}

struct stream *check_cpu_stream()
{
    struct error error;
    if (state.cpu == NULL && cpu_stream_open(&state.cpu, &error) != OK)
        DIE("%s", error.text);
    return state.cpu;
}

void check_cpu_wait()
{
    cpu_stream_synchronize(check_cpu_stream());
}

static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t count)
{
    const uint8_t *at = static_cast<const uint8_t *>(bytes);
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ at[i]) * 0x100000001b3u;
    return hash;
}

void check_begin(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(state.name, sizeof state.name, format, arguments);
    va_end(arguments);
    state.failure[0] = '\0';
    state.hash = 0xcbf29ce484222325u;
    state.random = hash_bytes(state.hash, state.name, strlen(state.name));
    check_numbers = check_numbers_none();
}

void check_fail(const char *format, ...)
{
    if (state.failure[0] != '\0')
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(state.failure, sizeof state.failure, format, arguments);
    va_end(arguments);
    if (state.failure[0] == '\0')
        snprintf(state.failure, sizeof state.failure, "failed");
}

void check_end()
{
    bool failed = state.failure[0] != '\0';
    state.checks_all++;
    state.failed_all += failed;
    printf("%-4s %-44s hash %016llx", failed ? "FAIL" : "ok", state.name,
           static_cast<unsigned long long>(state.hash));
    if (check_numbers.compared)
        printf("  max %.3g  rel-L2 %.3g  of bound %.2f", check_numbers.largest,
               check_numbers.relative, check_numbers.of_bound);
    printf("%s%s\n", failed ? "  " : "", state.failure);
    fflush(stdout);
    check_drop();
}

void check_drop()
{
    for (int i = 0; i < state.arrays_count; i++) {
        struct array *array = &state.arrays[i];
        free(array->host);
        free(array->result);
        free(array->first);
        CUDA_CHECK(cudaFree(array->memory_dev));
    }
    state.arrays_count = 0;
}

void *check_array(enum array_kind kind, size_t bytes)
{
    if (state.arrays_count == ARRAYS_MAX)
        DIE("%s: more than %d arrays", state.name, ARRAYS_MAX);
    struct array *array = &state.arrays[state.arrays_count++];
    *array = {};
    array->kind = kind;
    array->bytes = bytes;
    size_t host_bytes = bytes > 0 ? bytes : 1;
    array->host = static_cast<uint8_t *>(calloc(1, host_bytes));
    array->result = static_cast<uint8_t *>(malloc(host_bytes));
    array->first = static_cast<uint8_t *>(malloc(host_bytes));
    CUDA_CHECK(cudaMalloc(&array->memory_dev, bytes + 2 * GUARD_BYTES));
    if (array->host == NULL || array->result == NULL || array->first == NULL)
        DIE("%s: no memory for %zu bytes", state.name, bytes);
    if (kind == ARRAY_OUTPUT || kind == ARRAY_SCRATCH)
        memset(array->host, POISON_BYTE, bytes);
    return array->host;
}

static struct array *array_of(const void *host)
{
    const uint8_t *at = static_cast<const uint8_t *>(host);
    for (int i = 0; i < state.arrays_count; i++) {
        struct array *array = &state.arrays[i];
        if (at >= array->host && (at < array->host + array->bytes || at == array->host))
            return array;
    }
    DIE("%s: a pointer into no array of the check", state.name);
}

void *check_dev_of(const void *host)
{
    if (host == NULL)
        return NULL;
    struct array *array = array_of(host);
    return array->memory_dev + GUARD_BYTES + (static_cast<const uint8_t *>(host) - array->host);
}

const void *check_result_of(const void *host)
{
    struct array *array = array_of(host);
    return array->result + (static_cast<const uint8_t *>(host) - array->host);
}

// ---- runs ----

static void prepare()
{
    for (int i = 0; i < state.arrays_count; i++) {
        struct array *array = &state.arrays[i];
        uint8_t *dev = array->memory_dev;
        CUDA_CHECK(cudaMemset(dev, GUARD_BYTE, GUARD_BYTES));
        CUDA_CHECK(cudaMemset(dev + GUARD_BYTES + array->bytes, GUARD_BYTE, GUARD_BYTES));
        if (array->kind == ARRAY_INPUT || array->kind == ARRAY_STATE)
            CUDA_CHECK(
                cudaMemcpy(dev + GUARD_BYTES, array->host, array->bytes, cudaMemcpyHostToDevice));
        else if (array->kind == ARRAY_OUTPUT || !state.once)
            CUDA_CHECK(cudaMemset(dev + GUARD_BYTES, POISON_BYTE, array->bytes));
    }
    CUDA_CHECK(cudaDeviceSynchronize());
}

static void check_guards(const struct array *array, int index)
{
    uint8_t guards[2 * GUARD_BYTES];
    const uint8_t *dev = array->memory_dev;
    CUDA_CHECK(cudaMemcpy(guards, dev, GUARD_BYTES, cudaMemcpyDeviceToHost));
    CUDA_CHECK(cudaMemcpy(guards + GUARD_BYTES, dev + GUARD_BYTES + array->bytes, GUARD_BYTES,
                          cudaMemcpyDeviceToHost));
    for (int i = 0; i < 2 * GUARD_BYTES; i++) {
        if (guards[i] == GUARD_BYTE)
            continue;
        long at = i < GUARD_BYTES ? i - GUARD_BYTES : i - GUARD_BYTES + (long)array->bytes;
        return check_fail("array %d of %zu bytes: written outside at byte %ld", index, array->bytes,
                          at);
    }
}

static void inspect(int run)
{
    static const char *const names[RUNS] = {"first run", "second run", "graph", "graph again"};
    for (int i = 0; i < state.arrays_count; i++) {
        struct array *array = &state.arrays[i];
        check_guards(array, i);
        if (array->kind == ARRAY_SCRATCH && state.once)
            continue;
        CUDA_CHECK(cudaMemcpy(array->result, array->memory_dev + GUARD_BYTES, array->bytes,
                              cudaMemcpyDeviceToHost));
        if (run == 0)
            memcpy(array->first, array->result, array->bytes);
        const uint8_t *want = array->kind == ARRAY_INPUT ? array->host : array->first;
        if (array->kind == ARRAY_SCRATCH || memcmp(want, array->result, array->bytes) == 0)
            continue;
        size_t at = 0;
        while (want[at] == array->result[at])
            at++;
        check_fail("array %d of %zu bytes, %s: %s at byte %zu", i, array->bytes, names[run],
                   array->kind == ARRAY_INPUT ? "an input was changed" : "other bytes", at);
    }
}

static void run_once(void (*launch)(struct stream *, const void *), const void *op)
{
    prepare();
    launch(check_stream(), op);
    CUDA_CHECK(cudaStreamSynchronize(check_stream()->handle));
    inspect(0);
}

void check_run(void (*launch)(struct stream *, const void *), const void *op)
{
    if (state.once) {
        run_once(launch, op);
        return;
    }
    cudaStream_t stream = check_stream()->handle;
    cudaGraph_t graph;
    cudaGraphExec_t ready;
    CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    launch(check_stream(), op);
    CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
    CUDA_CHECK(cudaGraphInstantiate(&ready, graph, 0));
    for (int run = 0; run < RUNS; run++) {
        prepare();
        if (run < 2)
            launch(check_stream(), op);
        else
            CUDA_CHECK(cudaGraphLaunch(ready, stream));
        cudaError_t error = cudaStreamSynchronize(stream);
        if (error != cudaSuccess)
            DIE("%s: run %d: %s", state.name, run, cudaGetErrorString(error));
        inspect(run);
    }
    CUDA_CHECK(cudaGraphExecDestroy(ready));
    CUDA_CHECK(cudaGraphDestroy(graph));
    for (int i = 0; i < state.arrays_count; i++) {
        const struct array *array = &state.arrays[i];
        if (array->kind == ARRAY_OUTPUT || array->kind == ARRAY_STATE)
            state.hash = hash_bytes(state.hash, array->result, array->bytes);
    }
}

// ---- random inputs ----

// splitmix64.
uint64_t check_random()
{
    uint64_t z = state.random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

double check_uniform(double low, double high)
{
    return low + (high - low) * static_cast<double>(check_random() >> 11) * 0x1p-53;
}

// Two draws of 64 bits give twelve numbers of ten bits.
double check_normal()
{
    double sum = -6;
    for (int i = 0; i < 2; i++) {
        uint64_t bits = check_random();
        for (int j = 0; j < 6; j++, bits >>= 10)
            sum += (static_cast<double>(bits & 1023) + 0.5) / 1024;
    }
    return sum;
}

void check_fill(bf16 *values, size_t count, double deviation)
{
    for (size_t i = 0; i < count; i++)
        values[i] = bf16_from_double(check_normal() * deviation);
}

void check_fill(float *values, size_t count, double deviation)
{
    for (size_t i = 0; i < count; i++)
        values[i] = static_cast<float>(check_normal() * deviation);
}

struct weight check_weight(int rows, int columns)
{
    struct weight weight = {};
    size_t count = static_cast<size_t>(rows) * static_cast<size_t>(columns);
    bf16 *values = static_cast<bf16 *>(check_array(ARRAY_INPUT, count * sizeof(bf16)));
    check_fill(values, count, 1 / sqrt(static_cast<double>(columns)));
    weight.format = WEIGHT_BF16;
    weight.rows = rows;
    weight.columns = columns;
    weight.data = values;
    return weight;
}
