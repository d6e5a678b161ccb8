// SPDX-License-Identifier: Apache-2.0
// exchange_cuda.c -- memory of the exchange between GPUs, and who sees it at which address.
#include "parallel/exchange_cuda.h"

#include <string.h>

#include <cuda_runtime_api.h>

enum {
    COUNTERS_BYTES = 256, // epoch, ticket, failure and look, 64 bytes apart
    PAGE_BYTES = 4096,    // what is mapped at once
};

static uint8_t *page_of(uint32_t *abort_word)
{
    return (uint8_t *)abort_word - (uintptr_t)abort_word % PAGE_BYTES;
}

static enum status fail(struct error *error, const char *what, cudaError_t code)
{
    return error_set(error, E_LIMIT, "the exchange between GPUs: %s: %s", what,
                     cudaGetErrorString(code));
}

static enum status map_host(struct exchange_cuda_setup *setup, struct error *error)
{
    void *report = NULL, *page = NULL;
    uint8_t *page_host = page_of(setup->options.abort_word);
    cudaError_t code =
        cudaHostAlloc((void **)&setup->report, sizeof *setup->report, cudaHostAllocMapped);
    if (code != cudaSuccess)
        return fail(error, "host memory for its report", code);
    memset(setup->report, 0, sizeof *setup->report);
    code = cudaHostGetDevicePointer(&report, setup->report, 0);
    if (code == cudaSuccess)
        code = cudaHostRegister(page_host, PAGE_BYTES, cudaHostRegisterMapped);
    if (code == cudaSuccess)
        code = cudaHostGetDevicePointer(&page, page_host, 0);
    if (code != cudaSuccess)
        return fail(error, "mapping the abort word", code);
    setup->exchange.report_dev = report;
    setup->exchange.abort_word_dev =
        (uint32_t *)((uint8_t *)page + ((uint8_t *)setup->options.abort_word - page_host));
    return OK;
}

static enum status make_inboxes(struct exchange_cuda_setup *setup, struct error *error)
{
    const struct exchange_cuda_options *options = &setup->options;
    size_t bytes = exchange_cuda_inbox_bytes(options->place.ranks);
    struct stream *stream;
    setup->inbox_dev = options->allocate(options->context, bytes);
    setup->counters_dev = runtime_alloc(COUNTERS_BYTES);
    if (setup->inbox_dev == NULL || setup->counters_dev == NULL)
        return error_set(error, E_LIMIT,
                         "device memory: %zu bytes for the inbox of rank %d do not fit", bytes,
                         options->place.rank);
    TRY(stream_open(&stream, error));
    stream_zero(stream, setup->inbox_dev, bytes);
    stream_zero(stream, setup->counters_dev, COUNTERS_BYTES);
    stream_synchronize(stream);
    void *window = options->window_of(options->context, setup->inbox_dev, bytes, error);
    if (window != NULL)
        exchange_cuda_addresses(stream, window, options->place.ranks, setup->exchange.inboxes_dev);
    stream_close(stream);
    return window != NULL ? OK : error->status;
}

enum status exchange_cuda_open(struct exchange_cuda_setup *setup,
                               const struct exchange_cuda_options *options, struct error *error)
{
    memset(setup, 0, sizeof *setup);
    setup->options = *options;
    struct exchange_cuda *exchange = &setup->exchange;
    exchange->rank = options->place.rank;
    exchange->ranks = options->place.ranks;
    exchange->wait_ns_max = options->wait_ns_max;
    exchange->add_large = options->add_large;
    exchange->context = options->context;
    enum status status = map_host(setup, error);
    if (status == OK)
        status = make_inboxes(setup, error);
    if (status != OK) {
        exchange_cuda_close(setup);
        return status;
    }
    uint8_t *counters = setup->counters_dev;
    exchange->epoch_dev = (uint64_t *)counters;
    exchange->ticket_dev = (uint32_t *)(counters + 64);
    exchange->failed_dev = (uint32_t *)(counters + 128);
    exchange->look_dev = (uint64_t *)(counters + 192);
    return OK;
}

void exchange_cuda_close(struct exchange_cuda_setup *setup)
{
    if (setup->exchange.abort_word_dev != NULL)
        (void)cudaHostUnregister(page_of(setup->options.abort_word));
    if (setup->report != NULL)
        (void)cudaFreeHost(setup->report);
    if (setup->inbox_dev != NULL)
        setup->options.release(setup->options.context, setup->inbox_dev);
    if (setup->counters_dev != NULL)
        runtime_free(setup->counters_dev);
    memset(setup, 0, sizeof *setup);
}
