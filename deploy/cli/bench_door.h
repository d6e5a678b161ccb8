// SPDX-License-Identifier: Apache-2.0
// bench_door.h -- what `bench` needs of a server, whichever way it is spoken to: requests out,
// events back. bench_rpc.c and bench_http.c are the two ways. One thread.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "deploy/cli/bench_measure.h"
#include "deploy/cli/bench_options.h"
#include "parallel/base/status.h"

struct bench_request {
    int64_t number;     // chosen by the caller, unique among all of a door's
    const int32_t *ids; // [ids_count], borrowed during the call
    int32_t ids_count, max_tokens;
    uint64_t seed;
    double temperature;
    bool ignore_eos;
};

enum bench_event_type {
    BENCH_EVENT_TOKENS, // tokens
    BENCH_EVENT_DONE,   // usage; the last event of its request
    BENCH_EVENT_FAILED, // status, kind, text; the last event of its request
};

struct bench_event {
    enum bench_event_type type;
    int64_t number;
    uint64_t when_ns; // when it arrived here
    int32_t tokens;
    struct bench_usage usage;
    enum status status;
    char kind[BENCH_KIND_BYTES_MAX];
    char text[BENCH_TEXT_BYTES_MAX];
};

struct bench_door {
    int32_t vocab; // the server's number of token ids, 0 when it does not tell
    // Queues a request. E_INPUT or E_LIMIT: this one alone cannot be sent; else the door is done.
    enum status (*send)(struct bench_door *door, const struct bench_request *request,
                        struct error *error);
    // Waits for the next event. E_TIMEOUT: none within timeout_ms; else the door is done.
    enum status (*next)(struct bench_door *door, struct bench_event *out, int timeout_ms,
                        struct error *error);
    void (*close)(struct bench_door *door);
};

// Connects and asks for what the server tells about itself. E_CONNECTION when there is none.
enum status bench_rpc_open(struct bench_door **out, const struct bench_options *options,
                           struct error *error) MUST_CHECK;
enum status bench_http_open(struct bench_door **out, const struct bench_options *options,
                            struct error *error) MUST_CHECK;
