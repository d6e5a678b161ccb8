// SPDX-License-Identifier: Apache-2.0
// twins_bench.c -- how fast the CPU backend's ops are on one core, each beside what this core can
// do: multiply-and-add in double (the twins' arithmetic) and reading memory, both measured first.
// Prints one line per shape; run by hand: bin/twins_bench.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/attention.h"
#include "kernels/gdn.h"
#include "kernels/twins/linear.h"
#include "kernels/twins/vector.h"
#include "parallel/base/clock.h"

enum { REPEATS = 5, DIM = 128 };

// What one core can do, measured.
struct limits {
    double macs_per_s;  // double multiply and add, not fused
    double bytes_per_s; // reading memory that is in no cache
};

static void *allocate(size_t bytes)
{
    void *memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
    ASSERT(memory != NULL);
    memset(memory, 0, bytes);
    return memory;
}

static bf16 *allocate_random(size_t count, double scale)
{
    bf16 *values = allocate(count * sizeof *values);
    uint64_t x = 88172645463325252u;
    for (size_t i = 0; i < count; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        values[i] = bf16_from_double(((double)(x >> 40) / 8388608 - 1) * scale);
    }
    return values;
}

static double seconds_since(uint64_t start_ns)
{
    return (double)(clock_now_ns() - start_ns) * 1e-9;
}

// ---------------------------------------------------------------- limits

// Twelve sums of four lanes: enough to hide the additions' latency in the registers of AVX2.
VECTOR_CLONES
static double multiply_add(long rounds)
{
    enum { SUMS = 12 };
    DOUBLE4 sums[SUMS];
    DOUBLE4 x = {1e-9, 2e-9, 3e-9, 4e-9};
    for (int i = 0; i < SUMS; i++)
        sums[i] = x * (double)i;
    for (long round = 0; round < rounds; round++) {
        for (int i = 0; i < SUMS; i++)
            sums[i] += x * x;
        __asm__ volatile("" : "+m"(x)); // else the product leaves the loop
    }
    double sum = 0;
    for (int i = 0; i < SUMS; i++)
        sum += sums[i][0] + sums[i][1] + sums[i][2] + sums[i][3];
    return sum;
}

VECTOR_CLONES
static uint64_t read_memory(const uint64_t *memory, size_t count)
{
    uint64_t sums[16] = {0};
    for (size_t i = 0; i < count; i += 16) {
        for (size_t j = 0; j < 16; j++)
            sums[j] += memory[i + j];
    }
    uint64_t sum = 0;
    for (size_t j = 0; j < 16; j++)
        sum += sums[j];
    return sum;
}

static volatile double kept; // so that no measured loop is thrown away

static struct limits measure_limits(void)
{
    const long rounds = 4000000;
    const size_t bytes = (size_t)512 << 20;
    struct limits limits = {0, 0};
    uint64_t *memory = allocate(bytes);
    memset(memory, 1, bytes);
    for (int i = 0; i < REPEATS; i++) {
        uint64_t start_ns = clock_now_ns();
        kept = multiply_add(rounds);
        limits.macs_per_s = fmax(limits.macs_per_s, (double)rounds * 48 / seconds_since(start_ns));
        start_ns = clock_now_ns();
        kept = (double)read_memory(memory, bytes / 8);
        limits.bytes_per_s = fmax(limits.bytes_per_s, (double)bytes / seconds_since(start_ns));
    }
    free(memory);
    return limits;
}

// work in units; macs and bytes of all of it decide the limit.
static void report(const char *name, double seconds, double units, const char *unit,
                   const double work[2], const struct limits *limits)
{
    double least = fmax(work[0] / limits->macs_per_s, work[1] / limits->bytes_per_s);
    printf("%-44s %9.3f ms %10.1f %s/s %6.2f GMAC/s %6.2f GB/s  %3.0f %% of %s\n", name,
           seconds * 1e3, units / seconds, unit, work[0] / seconds * 1e-9, work[1] / seconds * 1e-9,
           100 * least / seconds,
           work[0] / limits->macs_per_s > work[1] / limits->bytes_per_s ? "arithmetic" : "memory");
}

// ---------------------------------------------------------------- ops

// W is larger than any cache, so that one token reads it from memory.
static void bench_linear(int tokens, const struct limits *limits)
{
    enum { ROWS = 16384, COLUMNS = 4096 };
    const size_t values = (size_t)ROWS * COLUMNS;
    char name[64];
    bf16 *w = allocate_random(values, 0.1);
    bf16 *x = allocate_random((size_t)tokens * COLUMNS, 1);
    bf16 *y = allocate((size_t)tokens * ROWS * sizeof *y);
    double best = 1e9;
    for (int i = 0; i < (tokens > 16 ? 2 : REPEATS); i++) {
        uint64_t start_ns = clock_now_ns();
        linear_rows_bf16(y, &(struct linear_rows){x, COLUMNS, NULL, w, tokens, ROWS, COLUMNS});
        best = fmin(best, seconds_since(start_ns));
    }
    snprintf(name, sizeof name, "linear [%d, %d] x [%d, %d]", tokens, COLUMNS, ROWS, COLUMNS);
    report(name, best, tokens, "token", (double[2]){(double)values * tokens, (double)values * 2},
           limits);
    free(w);
    free(x);
    free(y);
}

// One row of the step: `tokens` of one slot at `position`.
struct row_fixture {
    struct slot slot;
    struct step_row row;
    int32_t active, *positions, *block_table;
    struct step_tables tables;
    struct slots slots;
};

static void open_row(struct row_fixture *f, int kind, int tokens, int position, int pages)
{
    memset(f, 0, sizeof *f);
    f->row = (struct step_row){.kind = kind, .token_count = tokens};
    f->active = tokens;
    f->positions = allocate((size_t)tokens * sizeof(int32_t));
    f->block_table = allocate((size_t)pages * sizeof(int32_t));
    for (int i = 0; i < tokens; i++)
        f->positions[i] = position + i;
    for (int i = 0; i < pages; i++)
        f->block_table[i] = i;
    f->tables = (struct step_tables){.rows = &f->row,
                                     .active_count = &f->active,
                                     .token_positions = f->positions,
                                     .rows_count = 1,
                                     .tokens_count = tokens};
    f->slots = (struct slots){&f->slot, f->block_table, 1, pages};
}

static void close_row(struct row_fixture *f)
{
    free(f->positions);
    free(f->block_table);
}

// Waits for the stream, so that an op's whole time is seen.
static double time_op(struct stream *stream, void (*queue)(struct stream *, const void *),
                      const void *op)
{
    double best = 1e9;
    for (int i = 0; i < REPEATS; i++) {
        uint64_t start_ns = clock_now_ns();
        queue(stream, op);
        stream_synchronize(stream);
        best = fmin(best, seconds_since(start_ns));
    }
    return best;
}

static void queue_gdn(struct stream *stream, const void *op)
{
    gdn(stream, op);
}

static void queue_attention(struct stream *stream, const void *op)
{
    attention(stream, op);
}

static void bench_gdn(struct stream *stream, int tokens, const struct limits *limits)
{
    enum { KEYS = 16, VALUES = 32, CHANNELS = (2 * KEYS + VALUES) * DIM };
    enum { STRIDE = CHANNELS + VALUES * DIM + 2 * VALUES };
    struct row_fixture f;
    char name[64];
    open_row(&f, ROW_PREFILL, tokens, 0, 1);
    float *zeros = allocate(CHANNELS * 4 * sizeof *zeros);
    for (int i = 0; i < CHANNELS * 4; i++)
        zeros[i] = 0.25f;
    struct gdn op = {
        .tables = f.tables,
        .slots = f.slots,
        .state = {.state = allocate(VALUES * DIM * DIM * sizeof(float)),
                  .conv = allocate(3 * CHANNELS * sizeof(bf16)),
                  .pending_k = zeros,
                  .pending_u = zeros,
                  .pending_g = zeros,
                  .waiting = allocate(2 * sizeof(struct gdn_waiting)),
                  .pending_conv = allocate(CHANNELS),
                  .pending_rows = gdn_pending_rows(false, 1),
                  .pending_columns = gdn_pending_columns(1)},
        .projected = allocate_random((size_t)tokens * STRIDE, 1),
        .projected_stride = STRIDE,
        .conv_weight = zeros,
        .a_log = zeros,
        .dt_bias = zeros,
        .key_heads = KEYS,
        .value_heads = VALUES,
        .o = allocate((size_t)tokens * VALUES * DIM * sizeof(bf16)),
    };
    double seconds = time_op(stream, queue_gdn, &op);
    // Two dots and an update of [128, 128] per value head: 4 multiplications and additions each.
    double macs = (double)tokens * VALUES * DIM * DIM * 4;
    snprintf(name, sizeof name, "gdn, 16 + 32 heads, %d tokens of a row", tokens);
    report(name, seconds, tokens, "token",
           (double[2]){macs, 2.0 * VALUES * DIM * DIM * sizeof(float)}, limits);
    close_row(&f);
}

static void bench_attention(struct stream *stream, int tokens, int context,
                            const struct limits *limits)
{
    enum { HEADS = 16, KV = 2, HEAD_DIM = 256, STRIDE = 2 * (HEADS + KV) * HEAD_DIM };
    struct row_fixture f;
    char name[64];
    int pages = (context + tokens) / 64 + 1;
    size_t values = (size_t)pages * 64 * KV * HEAD_DIM;
    float *ones = allocate(HEAD_DIM * sizeof *ones);
    open_row(&f, ROW_PREFILL, tokens, context, pages);
    struct attention op = {
        .tables = f.tables,
        .slots = f.slots,
        .k_pages = allocate_random(values, 1),
        .v_pages = allocate_random(values, 1),
        .projected = allocate_random((size_t)tokens * STRIDE, 1),
        .projected_stride = STRIDE,
        .q_norm = ones,
        .k_norm = ones,
        .eps = 1e-6f,
        .inverse_frequencies = ones,
        .rotary_scale = 1,
        .heads = HEADS,
        .kv_heads = KV,
        .head_dim = HEAD_DIM,
        .rotary_dim = 64,
        .y = allocate((size_t)tokens * HEADS * HEAD_DIM * sizeof(bf16)),
    };
    double seconds = time_op(stream, queue_attention, &op);
    double macs = (double)tokens * HEADS * (context + tokens / 2.0) * HEAD_DIM * 2;
    snprintf(name, sizeof name, "attention, 16 / 2 heads, %d tokens at %d", tokens, context);
    report(name, seconds, tokens, "token", (double[2]){macs, (double)values * 4}, limits);
    close_row(&f);
    free(op.k_pages);
    free(op.v_pages);
}

int main(void)
{
    struct stream *stream = NULL;
    struct error error;
    if (stream_open(&stream, &error) != OK)
        DIE("%s", error.text);
    struct limits limits = measure_limits();
    printf("one core: %.1f GMAC/s in double, %.1f GB/s from memory\n", limits.macs_per_s * 1e-9,
           limits.bytes_per_s * 1e-9);
    static const int tokens[] = {1, 2, 4, 16, 64};
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++)
        bench_linear(tokens[i], &limits);
    bench_gdn(stream, 1, &limits);
    bench_gdn(stream, 4, &limits);
    bench_gdn(stream, 64, &limits);
    bench_attention(stream, 1, 4096, &limits);
    bench_attention(stream, 4, 4096, &limits);
    bench_attention(stream, 64, 4096, &limits);
    bench_attention(stream, 1, 65536, &limits);
    stream_close(stream);
    return 0;
}
