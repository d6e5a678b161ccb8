// SPDX-License-Identifier: Apache-2.0
// bench_measure.h -- the times and counts of one measured run of `bench`, and what is told of
// them. Reads no clock: the caller brings every time. Sends and prints nothing.
//
// Of a request: TTFT is from when it was due to its first tokens, end to end until its last
// message; TPOT the time from first to last tokens over the tokens behind the first; ITL every gap
// between two messages with tokens, of all requests together.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "parallel/base/status.h"

enum { BENCH_KIND_BYTES_MAX = 32, BENCH_KINDS_MAX = 16, BENCH_TEXT_BYTES_MAX = 256 };

// Durations in ns, as many as come.
struct bench_series {
    uint64_t *values_ns;
    int64_t count, room;
};

// One request's times; all zero before bench_measure_sent.
struct bench_stream {
    uint64_t due_ns, first_ns, last_ns; // first, last: of messages with tokens
    int32_t tokens;                     // as counted from the messages
};

// As the server tells it at the end; -1 where it does not.
struct bench_usage {
    int32_t prompt_tokens, completion_tokens, cached_tokens;
    int32_t drafted, accepted;
};

struct bench_error_kind {
    char kind[BENCH_KIND_BYTES_MAX]; // "overloaded", "http 503"
    int64_t count;
    char text[BENCH_TEXT_BYTES_MAX]; // of the first
};

// Within which a request counts as good; 0 = no bound.
struct bench_bounds {
    double ttft_ms, tpot_ms, end_to_end_ms;
};

struct bench_measure {
    struct bench_bounds bounds; // set after init, before the first request
    int64_t good;               // of requests: within all bounds
    struct bench_series ttft, tpot, itl, end_to_end;
    int64_t requests, failed; // requests: that ended well
    int64_t prompt_tokens, completion_tokens, cached_tokens, drafted, accepted;
    uint64_t begin_ns, end_ns;                      // first request due, last one's end
    struct bench_error_kind kinds[BENCH_KINDS_MAX]; // the last one takes all that came later
    int kinds_count;
};

// What one figure's column shows, in ms.
struct bench_figures {
    double mean_ms, median_ms, p90_ms, p99_ms, max_ms;
};

// The whole of a run.
struct bench_summary {
    double duration_s, requests_per_s, output_tokens_per_s, total_tokens_per_s;
    struct bench_figures ttft, tpot, itl, end_to_end;
    double good_per_s;   // goodput: requests within all bounds, a second
    bool has_acceptance; // the server drafted
    double acceptance_length, acceptance_rate;
};

// Nothing measured yet; fini frees the series.
void bench_measure_init(struct bench_measure *measure);
void bench_measure_fini(struct bench_measure *measure);

// A request goes out that is due at due_ns.
void bench_measure_sent(struct bench_measure *measure, struct bench_stream *stream,
                        uint64_t due_ns);

// A message with `tokens` >= 1 tokens came. E_SYSTEM when out of memory, as below.
enum status bench_measure_tokens(struct bench_measure *measure, struct bench_stream *stream,
                                 uint64_t now_ns, int32_t tokens, struct error *error) MUST_CHECK;

// The request ended well, or it failed; a failed one's times until then stay in ITL alone.
enum status bench_measure_done(struct bench_measure *measure, const struct bench_stream *stream,
                               uint64_t now_ns, const struct bench_usage *usage,
                               struct error *error) MUST_CHECK;
void bench_measure_failed(struct bench_measure *measure, uint64_t now_ns, const char *kind,
                          const char *text);

// Sorts the series and works out the summary. All zero where nothing was counted.
void bench_measure_summary(struct bench_summary *out, struct bench_measure *measure);

// The figures of a series, which is sorted by it. Percentiles lie on straight lines between the
// neighbouring values (numpy's default), so that they compare with other tools'.
struct bench_figures bench_measure_figures(struct bench_series *series);

// Adds a duration. E_SYSTEM when out of memory.
enum status bench_measure_add(struct bench_series *series, uint64_t value_ns,
                              struct error *error) MUST_CHECK;
