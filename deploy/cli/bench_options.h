// SPDX-License-Identifier: Apache-2.0
// bench_options.h -- the command line of `bench`. Sends nothing.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "deploy/cli/bench_measure.h"
#include "parallel/base/status.h"

enum { BENCH_POINTS_MAX = 32, BENCH_CONCURRENCY_MAX = 65536 };

struct bench_options {
    const char *rpc, *url;       // one of the two
    const char *curve_dir;       // for rpc
    const char *api_key, *model; // for url; NULL = none, the server's first
    const char *trace;           // JSONL, or NULL:
    int32_t input_tokens, output_tokens;
    int32_t vocab;                           // 0 = the server's
    int32_t concurrencies[BENCH_POINTS_MAX]; // one run each, or:
    int32_t concurrencies_count;
    double requests_per_s;      // > 0: Poisson arrivals
    int32_t requests, warmup;   // of each run; requests 0 = ten a stream
    struct bench_bounds bounds; // of --goodput
    bool has_bounds;
    uint64_t seed;
    double temperature;
    bool ignore_eos, json, insecure, help;
};

// Parses the words behind "bench"; prints help itself (out->help is then set). E_USAGE.
enum status bench_options_parse(struct bench_options *out, int count, char *const *arguments,
                                struct error *error) MUST_CHECK;
