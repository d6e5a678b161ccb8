// SPDX-License-Identifier: Apache-2.0
// bench_measure_test.c -- figures worked out by hand (percentiles as numpy.percentile gives them),
// and requests whose times are made up.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "deploy/cli/bench_measure.h"

#define MS (UINT64_C(1000000))

static struct error error;

static void near(double value, double expected)
{
    if (!(fabs(value - expected) <= 1e-9 * (1 + fabs(expected))))
        fail_msg("%.12g, expected %.12g", value, expected);
}

static void percentiles_lie_between_values(void **state)
{
    (void)state;
    struct bench_series series = {.count = 0};
    const uint64_t values_ms[] = {40, 10, 30, 20};
    for (int i = 0; i < 4; i++)
        assert_int_equal(bench_measure_add(&series, values_ms[i] * MS, &error), OK);
    struct bench_figures figures = bench_measure_figures(&series);
    near(figures.mean_ms, 25);
    near(figures.median_ms, 25);
    near(figures.p90_ms, 37);   // 0.9 * 3 = 2.7: 30 + 0.7 * 10
    near(figures.p99_ms, 39.7); // 2.97
    near(figures.max_ms, 40);
    free(series.values_ns);
}

static void one_value_and_none(void **state)
{
    (void)state;
    struct bench_series series = {.count = 0};
    struct bench_figures figures = bench_measure_figures(&series);
    assert_true(figures.mean_ms == 0 && figures.p99_ms == 0 && figures.max_ms == 0);
    assert_int_equal(bench_measure_add(&series, 7 * MS, &error), OK);
    figures = bench_measure_figures(&series);
    near(figures.mean_ms, 7);
    near(figures.median_ms, 7);
    near(figures.p90_ms, 7);
    near(figures.p99_ms, 7);
    near(figures.max_ms, 7);
    free(series.values_ns);
}

static void ten_thousand_values(void **state)
{
    (void)state;
    struct bench_series series = {.count = 0};
    for (uint64_t i = 0; i <= 10000; i++) // in an order that needs sorting: 7919 is prime
        assert_int_equal(bench_measure_add(&series, i * 7919 % 10001 * MS, &error), OK);
    struct bench_figures figures = bench_measure_figures(&series);
    near(figures.mean_ms, 5000);
    near(figures.median_ms, 5000);
    near(figures.p90_ms, 9000);
    near(figures.p99_ms, 9900);
    near(figures.max_ms, 10000);
    free(series.values_ns);
}

static void tokens(struct bench_measure *measure, struct bench_stream *stream, uint64_t now_ms,
                   int32_t count)
{
    assert_int_equal(bench_measure_tokens(measure, stream, now_ms * MS, count, &error), OK);
}

// Due at 1000: tokens at 1100, 1110, 1140 (2 of them), end at 1150.
static void run_one(struct bench_measure *measure)
{
    struct bench_stream stream;
    const struct bench_usage usage = {.prompt_tokens = 10, .completion_tokens = 4, -1, -1, -1};
    bench_measure_sent(measure, &stream, 1000 * MS);
    tokens(measure, &stream, 1100, 1);
    tokens(measure, &stream, 1110, 1);
    tokens(measure, &stream, 1140, 2);
    assert_int_equal(bench_measure_done(measure, &stream, 1150 * MS, &usage, &error), OK);
}

static void times_of_a_request(void **state)
{
    (void)state;
    struct bench_measure measure;
    struct bench_summary summary;
    bench_measure_init(&measure);
    run_one(&measure);
    bench_measure_summary(&summary, &measure);
    near(summary.ttft.median_ms, 100);
    near(summary.tpot.median_ms, 40.0 / 3 - 1.0 / 3e6); // whole nanoseconds
    assert_int_equal(measure.itl.count, 2);
    near(summary.itl.median_ms, 20); // 10 and 30
    near(summary.end_to_end.median_ms, 150);
    near(summary.duration_s, 0.15);
    near(summary.output_tokens_per_s, 4 / 0.15);
    near(summary.total_tokens_per_s, 14 / 0.15);
    near(summary.requests_per_s, 1 / 0.15);
    assert_false(summary.has_acceptance);
    assert_int_equal(measure.cached_tokens, 0); // not told is none
    bench_measure_fini(&measure);
}

// Two at once: the run lasts from the first that was due to the last end, failures included.
static void a_run_of_several(void **state)
{
    (void)state;
    struct bench_measure measure;
    struct bench_summary summary;
    struct bench_stream other;
    const struct bench_usage untold = {-1, -1, -1, -1, -1};
    bench_measure_init(&measure);
    bench_measure_sent(&measure, &other, 900 * MS);
    run_one(&measure);
    tokens(&measure, &other, 1200, 1);
    assert_int_equal(bench_measure_done(&measure, &other, 1300 * MS, &untold, &error), OK);
    bench_measure_sent(&measure, &other, 1000 * MS);
    bench_measure_failed(&measure, 1900 * MS, "overloaded", "too many");
    bench_measure_summary(&summary, &measure);
    near(summary.duration_s, 1);
    near(summary.requests_per_s, 2);
    near(summary.output_tokens_per_s, 5); // 4 told and 1 counted
    assert_int_equal(measure.failed, 1);
    assert_int_equal(measure.tpot.count, 1); // one token has no time per token behind the first
    near(summary.ttft.max_ms, 300);
    bench_measure_fini(&measure);
}

static void good_requests_are_within_all_bounds(void **state)
{
    (void)state;
    // run_one: first token after 100 ms, 13.3 ms a token behind it, 150 ms in all.
    static const struct {
        struct bench_bounds bounds;
        int good;
    } cases[] = {
        {{0, 0, 0}, 1},     {{100, 0, 0}, 1},  {{99.9, 0, 0}, 0},  {{0, 13.4, 0}, 1},
        {{0, 13.3, 0}, 0},  {{0, 0, 150}, 1},  {{0, 0, 149.9}, 0}, {{200, 20, 200}, 1},
        {{200, 1, 200}, 0}, {{1, 20, 200}, 0}, {{200, 20, 1}, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bench_measure measure;
        struct bench_summary summary;
        bench_measure_init(&measure);
        measure.bounds = cases[i].bounds;
        run_one(&measure);
        bench_measure_summary(&summary, &measure);
        assert_int_equal(measure.good, cases[i].good);
        near(summary.good_per_s, cases[i].good / 0.15);
        bench_measure_fini(&measure);
    }
}

static void acceptance_from_usage(void **state)
{
    (void)state;
    struct bench_measure measure;
    struct bench_summary summary;
    struct bench_stream stream;
    bench_measure_init(&measure);
    bench_measure_sent(&measure, &stream, MS);
    tokens(&measure, &stream, 2, 1);
    // 1 of the prompt, then 10 steps: 24 drafts accepted of 30, 10 sampled.
    const struct bench_usage usage = {5, 35, 0, 30, 24};
    assert_int_equal(bench_measure_done(&measure, &stream, 9 * MS, &usage, &error), OK);
    bench_measure_summary(&summary, &measure);
    assert_true(summary.has_acceptance);
    near(summary.acceptance_length, 3.4);
    near(summary.acceptance_rate, 0.8);
    bench_measure_fini(&measure);
}

static void errors_by_kind(void **state)
{
    (void)state;
    struct bench_measure measure;
    char kind[16];
    bench_measure_init(&measure);
    bench_measure_failed(&measure, MS, "overloaded", "first");
    bench_measure_failed(&measure, MS, "timeout", "other");
    bench_measure_failed(&measure, MS, "overloaded", "second");
    assert_int_equal(measure.kinds_count, 2);
    assert_string_equal(measure.kinds[0].kind, "overloaded");
    assert_int_equal(measure.kinds[0].count, 2);
    assert_string_equal(measure.kinds[0].text, "first");
    for (int i = 0; i < 100; i++) {
        snprintf(kind, sizeof kind, "kind %d", i);
        bench_measure_failed(&measure, MS, kind, "");
    }
    int64_t sum = 0;
    assert_int_equal(measure.kinds_count, BENCH_KINDS_MAX);
    for (int i = 0; i < measure.kinds_count; i++)
        sum += measure.kinds[i].count;
    assert_int_equal(sum, 103);
    assert_int_equal(sum, measure.failed);
    assert_string_equal(measure.kinds[BENCH_KINDS_MAX - 1].kind, "other");
    bench_measure_fini(&measure);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentiles_lie_between_values),
        cmocka_unit_test(one_value_and_none),
        cmocka_unit_test(ten_thousand_values),
        cmocka_unit_test(times_of_a_request),
        cmocka_unit_test(a_run_of_several),
        cmocka_unit_test(good_requests_are_within_all_bounds),
        cmocka_unit_test(acceptance_from_usage),
        cmocka_unit_test(errors_by_kind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
