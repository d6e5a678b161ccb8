// SPDX-License-Identifier: Apache-2.0
// door_metrics.h -- what a door counts and how Prometheus reads it, under the names that boards and
// autoscalers made for vLLM know. Pure: no clock, no socket.
#pragma once

#include "coordinator/core.h"
#include "coordinator/text/text_buffer.h"

enum { DOOR_METRICS_BUCKETS_MAX = 24, DOOR_METRICS_REASONS = 4 };

enum door_metrics_time {
    DOOR_METRICS_FIRST_TOKEN, // from the request's arrival to its first token
    DOOR_METRICS_INTER_TOKEN, // between two events of one answer, per token
    DOOR_METRICS_END_TO_END,  // from the request's arrival to its end
    DOOR_METRICS_TIMES
};

struct door_metrics_histogram {
    uint64_t counts[DOOR_METRICS_BUCKETS_MAX]; // per bucket, not summed; the last is +Inf
    uint64_t count;
    double sum_s;
};

struct door_metrics {
    struct door_metrics_histogram times[DOOR_METRICS_TIMES];
    uint64_t ended[DOOR_METRICS_REASONS]; // by reason: stop, length, abort, error
    uint64_t cached_tokens, prompt_tokens, accepted_tokens, drafted_tokens;
    uint64_t http_requests, http_errors; // requests; answers of 400 and more
    uint64_t clients_left, clients_slow; // work that was stopped for it
};

// Takes a duration, `times` times over (an event of several tokens).
void door_metrics_observe(struct door_metrics *metrics, enum door_metrics_time time,
                          uint64_t duration_ns, uint64_t times);

// Counts an answer's end; reason NULL is an error.
void door_metrics_end(struct door_metrics *metrics, const char *reason);

// Appends the exposition text (version 0.0.4). E_LIMIT, E_SYSTEM of out.
enum status door_metrics_write(struct text_buffer *out, const struct door_metrics *metrics,
                               const struct coord_status *status,
                               const char *model_name) MUST_CHECK;
