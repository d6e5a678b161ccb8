// SPDX-License-Identifier: Apache-2.0
// check.cuh -- what a check of a kernel needs: arrays that exist on the host (for the twin) and on
// the device (for the kernel), the same launch run eagerly twice and from a graph with byte
// comparison, and the judgement against numbers in double. One file per op: tests/gpu/<op>_check.cu
// with CHECK(op) and BENCH(op) inside. The CPU backend's functions carry the prefix cpu_, declared
// by CPU_FUNCTION.
//
// A check goes: check_begin; fill arrays; set up the op's struct with host pointers; copy it and
// change each pointer by check_to_dev; check_run; call the twin on the host struct; compare;
// check_end.
// Everything between check_begin and check_end is released there.
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "kernels/device/launch.cuh"

extern "C" {
#include "kernels/runtime.h"
#include "kernels/types.h"
#include "kernels/weight.h"
}

// Declares cpu_NAME with the type of NAME: CPU_FUNCTION(gdn); then cpu_gdn(cpu_stream(), &op).
#define CPU_FUNCTION(name) extern "C" decltype(name) cpu_##name

// The token counts that every kernel is checked at.
static const int CHECK_TOKENS[] = {1,  2,  3,  4,  5,   7,   8,   9,   15,  16,
                                   17, 31, 33, 64, 100, 256, 511, 512, 1000};
enum { CHECK_TOKENS_COUNT = sizeof CHECK_TOKENS / sizeof *CHECK_TOKENS };

// ---- registration ----

enum check_kind { CHECK_WHOLE, CHECK_SMALL, CHECK_BENCH };

struct check_entry {
    const char *op; // of a small one: its suite
    void (*run)();
    enum check_kind kind;
    struct check_entry *next;
};

struct check_registration {
    explicit check_registration(struct check_entry *entry);
};

// CHECK(op) { ... } is run by `kernel_check check [op..]`, BENCH(op) { ... } by `.. bench [op..]`,
// SMALL(suite) { ... } by `.. small [suite..]`: for sanitizers, under which a kernel is a thousand
// times slower, one path of an op at the smallest shapes that reach it.
#define CHECK_REGISTER_(op_name, prefix, kind)                                                     \
    static void prefix##_##op_name();                                                              \
    static struct check_entry prefix##_entry_##op_name = {#op_name, prefix##_##op_name, kind,      \
                                                          NULL};                                   \
    static struct check_registration prefix##_registration_##op_name(&prefix##_entry_##op_name);   \
    static void prefix##_##op_name()
#define CHECK(op_name)    CHECK_REGISTER_(op_name, check, CHECK_WHOLE)
#define SMALL(suite_name) CHECK_REGISTER_(suite_name, small, CHECK_SMALL)
#define BENCH(op_name)    CHECK_REGISTER_(op_name, bench, CHECK_BENCH)

// ---- a check ----

// Starts a check whose line is named by the format; the name seeds the random numbers, so that a
// failure repeats.
void check_begin(const char *format, ...) PRINTF_LIKE(1, 2);

// Prints the check's one line and releases its arrays; check_drop only releases them, for
// benchmarks that are set up like a check.
void check_end();
void check_drop();

// Marks the running check as failed and says why; later words of the same check are dropped.
void check_fail(const char *format, ...) PRINTF_LIKE(1, 2);

enum array_kind {
    ARRAY_INPUT,   // uploaded as filled; a kernel that changes it fails
    ARRAY_OUTPUT,  // 0xff (NaN, -1) before each run
    ARRAY_STATE,   // uploaded as filled before each run, then read and written
    ARRAY_SCRATCH, // 0xff before each run; what is left in it is nobody's business
};

// Memory on the host (filled by the caller) with its double on the device between guard bytes.
// INPUT and STATE start zeroed on the host, OUTPUT and SCRATCH as 0xff.
void *check_array(enum array_kind kind, size_t bytes);

// The device's address for a pointer into an array's host memory; NULL stays NULL.
void *check_dev_of(const void *host);
template <typename T> static T *check_dev(T *host)
{
    return static_cast<T *>(check_dev_of(host));
}
static inline struct weight check_dev(struct weight weight)
{
    weight.data = check_dev(weight.data);
    weight.scales = check_dev(weight.scales);
    return weight;
}
// Each of the pointers or weights becomes the device's.
template <typename... T> static void check_to_dev(T &...of)
{
    ((of = check_dev(of)), ...);
}

// Runs launch(stream, op) twice eagerly and twice from one captured graph, from the same inputs
// each time; fails on different bytes, touched guards or changed inputs. Then check_result is what
// the device left in an OUTPUT or STATE array.
void check_run(void (*launch)(struct stream *, const void *), const void *op);
const void *check_result_of(const void *host);
template <typename T> static const T *check_result(const T *host)
{
    return static_cast<const T *>(check_result_of(host));
}

// ---- judgement ----

// An element passes when |got - want| <= absolute + relative |want|. NaN never passes.
struct check_bound {
    double relative, absolute;
};
enum { CHECK_MANTISSA_BF16 = 8, CHECK_MANTISSA_FLOAT = 24 };

// The result of `host` against what the twin says (in double; or in its own precision, the twin
// having written to the host side). columns: of a row, for naming the first wrong element.
void check_bf16(const char *what, const bf16 *host, const double *want, size_t count,
                size_t columns, struct check_bound bound);
void check_bf16(const char *what, const bf16 *host, const bf16 *want, size_t count, size_t columns,
                struct check_bound bound);
void check_float(const char *what, const float *host, const double *want, size_t count,
                 size_t columns, struct check_bound bound);
void check_float(const char *what, const float *host, const float *want, size_t count,
                 size_t columns, struct check_bound bound);
// Equal bytes; elements of `size` bytes.
void check_equal(const char *what, const void *host, const void *want, size_t count, size_t size);

// ---- random inputs: the same for the same name of a check ----

// 64 bits; uniform in [low, high); a normal number of variance 1 (a sum of 12 uniforms).
uint64_t check_random();
double check_uniform(double low, double high);
double check_normal();
// Normal numbers of that deviation.
void check_fill(bf16 *values, size_t count, double deviation);
void check_fill(float *values, size_t count, double deviation);
// An INPUT matrix with deviation 1/sqrt(columns).
struct weight check_weight(int rows, int columns);

// A stream of the CPU backend, where cpu_ launchers run at once: call check_cpu_wait after them.
struct stream *check_cpu_stream();
void check_cpu_wait();

// ---- benchmarks ----

struct bench_case {
    const char *op;
    const char *shape; // such as "T=8 2048x12352"
    double bytes;      // that have to be moved, 0: not the limit
    double flops;      // that have to be done, 0: not the limit
};

// Times launch(stream, op, turn) for turn 0..turns-1 from one graph with chained launches, the
// graph repeated for about 50 ms and once before, and prints {op, shape, us, limit..}. The caller
// makes the turns use different weights, more than 180 MB in all (bench_turns), so that L2 is cold.
void bench_run(const struct bench_case *what,
               void (*launch)(struct stream *, const void *, int turn), const void *op, int turns);

// How many copies of `bytes` exceed 180 MB; at least 8.
int bench_turns(size_t bytes);

// Device memory of a benchmark, filled with random bf16 of that deviation; bench_clear frees all.
void *bench_memory(size_t bytes, double deviation);
void bench_clear();
