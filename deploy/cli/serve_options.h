// SPDX-License-Identifier: Apache-2.0
// serve_options.h -- the command line of `serve`, and what of it the coordinator and the workers
// are given. Starts nothing.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "parallel/base/status.h"

enum {
    SERVE_RANKS_MAX = 8,
    SERVE_WORDS_MAX = 64,
};

struct serve_options {
    const char *model, *backend, *load_format;
    const char *curve_dir; // of its workers; NULL: none
    const char *log_format;
    int32_t ranks;           // --tp
    int32_t drain_timeout_s; // of the coordinator; `serve` adds its own grace
    bool dry_run, help;
    const char *forwarded[SERVE_WORDS_MAX]; // words for the coordinator, ending in NULL
};

// Parses the words behind "serve"; prints help itself (out->help is then set). E_USAGE.
enum status serve_options_parse(struct serve_options *out, int count, char *const *arguments,
                                struct error *error) MUST_CHECK;

// "cuda" or "cpu": what --backend says, and for auto whether a CUDA worker program lies beside us
// (has_cuda_worker) and a GPU's device file exists.
const char *serve_options_backend(const struct serve_options *options, bool has_cuda_worker);
