// SPDX-License-Identifier: Apache-2.0
// route_cluster.cuh -- pull, norm, the router's product and the choice of experts in one kernel.
// Not an op: moe_route.cu queues it.
#pragma once

#include "kernels/device/launch.cuh"

extern "C" {
#include "kernels/moe_route.h"
}

// Whether it takes the op.
bool route_cluster_serves(const struct moe_route *op);

// Queues the op; lane: what the residual pulls, or NULL.
void route_cluster(cudaStream_t stream, const struct moe_route *op, const bf16 *lane);
