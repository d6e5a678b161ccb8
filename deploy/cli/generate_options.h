// SPDX-License-Identifier: Apache-2.0
// generate_options.h -- the command line of `generate`. Sends nothing.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "parallel/base/status.h"

enum { GENERATE_DEFAULTS_MAX = 16 };

// A sampling field that a flag set: used for every request that does not set it itself.
struct generate_default {
    const char *key; // on the wire
    enum { DEFAULT_INT, DEFAULT_REAL, DEFAULT_SEED, DEFAULT_TRUE } kind;
    int32_t number;
    double real;
    uint64_t seed;
};

struct generate_options {
    const char *rpc;   // a server that runs, or
    const char *model; // one to be started for this command alone, with:
    const char *backend, *load_format;
    int32_t ranks;
    const char *prompt, *prompt_ids, *requests; // one of the three
    const char *curve_dir;                      // with rpc
    bool json, insecure, help;
    struct generate_default defaults[GENERATE_DEFAULTS_MAX]; // temperature 0 among them
    int32_t defaults_count;
};

// Parses the words behind "generate"; prints help itself (out->help is then set). E_USAGE.
enum status generate_options_parse(struct generate_options *out, int count, char *const *arguments,
                                   struct error *error) MUST_CHECK;
