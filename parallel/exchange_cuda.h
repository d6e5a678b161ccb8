// SPDX-License-Identifier: Apache-2.0
// exchange_cuda.h -- sets up kernels/exchange_cuda.h on one GPU: a symmetric window for the
// inboxes, counters on the device, and host memory that the device writes its failures to.
#pragma once

#include "kernels/exchange_cuda.h"
#include "parallel/base/status.h"
#include "parallel/plan.h"

struct exchange_cuda_options {
    struct place place;
    uint32_t *abort_word; // host memory that all ranks share, on a page of its own
    uint64_t wait_ns_max;
    // NCCL's, by the library that was loaded: symmetric memory, and a window made of it for all
    // ranks together. window_of returns NULL when it fails, with the reason in error.
    void *(*allocate)(void *context, size_t bytes);
    void (*release)(void *context, void *memory_dev);
    void *(*window_of)(void *context, void *memory_dev, size_t bytes, struct error *error);
    void (*add_large)(void *context, void *lane_dev, size_t bytes, struct stream *stream);
    void *context;
};

// Caller owns the storage and does not move it while kernels run.
struct exchange_cuda_setup {
    struct exchange_cuda exchange;
    struct exchange_cuda_options options;
    struct exchange_report *report; // host
    void *inbox_dev, *counters_dev;
};

// To be called by all ranks together. Its inbox is zeroed before the window is made, so no packet
// of a peer is lost. E_LIMIT when memory is short.
enum status exchange_cuda_open(struct exchange_cuda_setup *setup,
                               const struct exchange_cuda_options *options,
                               struct error *error) MUST_CHECK;
void exchange_cuda_close(struct exchange_cuda_setup *setup);
