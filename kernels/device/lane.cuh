// SPDX-License-Identifier: Apache-2.0
// lane.cuh -- the exchange as kernels see it: a push writes this rank's lane, then the lanes of all
// ranks are added in its place (kernels/exchange_cuda.h), and the pull reads it. In a group of one
// stream order is all there is to it.
#pragma once

#include "kernels/device/launch.cuh"

extern "C" {
#include "kernels/exchange.h"
#include "kernels/exchange_cuda.h"
}

// Where a push of `bytes` goes and the next pull finds it.
static inline bf16 *exchange_lane(const struct exchange *exchange, size_t bytes)
{
    ASSERT(bytes <= exchange->lane_bytes);
    return reinterpret_cast<bf16 *>(exchange->inboxes[0]);
}

// Ends a push: queued after the kernels that filled the lane with `bytes`.
static inline void exchange_sent(struct stream *stream, const struct exchange *exchange,
                                 size_t bytes)
{
    if (exchange->cuda != NULL)
        exchange_cuda_add(stream, exchange->cuda, exchange->inboxes[0], bytes);
}
