// SPDX-License-Identifier: Apache-2.0
// lane.cuh -- the exchange of a group of one rank: its push writes lane 0 of its own inbox, its
// pull reads it, and stream order is all the waiting there is. Several ranks come with the
// exchange over symmetric windows.
#pragma once

#include "kernels/device/launch.cuh"

extern "C" {
#include "kernels/exchange.h"
}

// Where a push of `bytes` goes and the next pull finds it.
static inline bf16 *exchange_lane(const struct exchange *exchange, size_t bytes)
{
    ASSERT(exchange->ranks == 1 && bytes <= exchange->lane_bytes);
    return reinterpret_cast<bf16 *>(exchange->inboxes[0]);
}
