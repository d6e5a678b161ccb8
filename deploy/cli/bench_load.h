// SPDX-License-Identifier: Apache-2.0
// bench_load.h -- what `bench` asks for and when: lengths (fixed or of a trace), prompts of random
// token ids, arrival times. All of it follows from the seed; reads no clock, sends nothing.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "parallel/base/status.h"

enum {
    BENCH_LENGTH_MAX = 1 << 20,   // tokens of a prompt or of an answer
    BENCH_REQUESTS_MAX = 1 << 24, // of one run
};

struct bench_lengths {
    int32_t input, output; // tokens
};

struct bench_load {
    struct bench_lengths fixed;  // when there is no trace
    struct bench_lengths *trace; // [trace_count], owned; request i takes line i % trace_count
    int64_t trace_count, trace_room;
    int32_t vocab;
    uint64_t seed;
};

// Fixed lengths, until a trace is read.
void bench_load_init(struct bench_load *load, struct bench_lengths fixed, int32_t vocab,
                     uint64_t seed);
void bench_load_fini(struct bench_load *load);

// Reads lines {"input_len","output_len"}; other keys are allowed. E_INPUT names the line; also the
// errors of lines_open.
enum status bench_load_read_trace(struct bench_load *load, const char *path,
                                  struct error *error) MUST_CHECK;

// The lengths of request `index`, and the longest of the first `count` prompts.
struct bench_lengths bench_load_lengths(const struct bench_load *load, int64_t index);
int32_t bench_load_longest_input(const struct bench_load *load, int64_t count);

// Fills ids[lengths.input] with the prompt of request `index`: random ids below vocab. Prompts of
// vocab neighbouring requests differ in their first token, so that no cache serves one by another;
// of two or more tokens vocab * vocab of them are distinct.
void bench_load_prompt(int32_t *ids, const struct bench_load *load, int64_t index);

// The seed that request `index` draws its tokens with.
uint64_t bench_load_seed(const struct bench_load *load, int64_t index);

// Poisson arrivals: the time from request `index` - 1 to request `index`, exponential around
// 1 / requests_per_s.
uint64_t bench_load_gap_ns(const struct bench_load *load, int64_t index, double requests_per_s);
