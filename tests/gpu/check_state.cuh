// SPDX-License-Identifier: Apache-2.0
// check_state.cuh -- what the parts of kernel_check share; no op's check needs it.
#pragma once

#include "tests/gpu/check.cuh"

// The worst of all comparisons of a check.
struct check_numbers {
    bool compared;
    double largest;  // |got - want|
    double relative; // |got - want|_2 / |want|_2
    double of_bound; // largest |got - want| / bound
};
extern struct check_numbers check_numbers;

// Nothing compared yet.
static inline struct check_numbers check_numbers_none()
{
    return {false, 0, 0, 0};
}

// The registered checks and benchmarks; failed checks so far; the stream of all launches.
struct check_entry *check_entries();
int check_failures();
struct stream *check_stream();

// From here on a check runs once, and scratch memory is left as it is handed out: a sanitizer sees
// no more in a repetition, and initcheck nothing that has been filled.
void check_once();
