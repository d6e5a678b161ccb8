// SPDX-License-Identifier: Apache-2.0
// bench_print.h -- how `bench` shows a run: figures, a table's row or a JSON object on stdout, and
// while it runs a line on stderr when that is a terminal. Works nothing out.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "deploy/cli/bench_measure.h"
#include "deploy/cli/bench_options.h"

// What a run was.
struct bench_point {
    int32_t concurrency; // 0: Poisson arrivals
    int32_t vocab;       // the prompts' ids are below it
};

struct bench_progress {
    bool is_shown;  // stderr is a terminal
    bool is_dirty;  // a line stands there
    uint64_t at_ns; // when it was last written
};

// No line yet; looks whether there may be one.
void bench_print_progress_begin(struct bench_progress *progress);

// Rewrites the line, five times a second at most.
void bench_print_progress(struct bench_progress *progress, const struct bench_measure *measure,
                          int64_t requests, int64_t in_flight, bool is_warmup);

// Wipes the line.
void bench_print_progress_end(struct bench_progress *progress);

// The head of a sweep's table.
void bench_print_head(void);

// A run: one object a line with --json, a table's row when there are several, else all figures.
void bench_print_run(const struct bench_options *options, const struct bench_point *point,
                     const struct bench_measure *measure, const struct bench_summary *summary);
