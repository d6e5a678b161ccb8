// SPDX-License-Identifier: Apache-2.0
// door_metrics.h -- the page that Prometheus reads: what the core's thread counted of all requests
// (overview.h) and what the HTTP door did of its own. METRICS.md has every line of it. Pure.
#pragma once

#include "coordinator/overview.h"
#include "coordinator/text/text_buffer.h"

// What the HTTP door counts.
struct door_metrics {
    uint64_t http_requests, http_errors; // requests; answers of 400 and more
    uint64_t clients_left, clients_slow; // work that was stopped for it
};

// Appends the exposition text (version 0.0.4). E_LIMIT, E_SYSTEM of out.
enum status door_metrics_write(struct text_buffer *out, const struct door_metrics *metrics,
                               const struct overview *overview, const char *model_name) MUST_CHECK;
