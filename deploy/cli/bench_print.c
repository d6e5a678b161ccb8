// SPDX-License-Identifier: Apache-2.0
// bench_print.c -- figures for people and for programs, from the same summary.
#include "deploy/cli/bench_print.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include <jansson.h>

#include "parallel/base/clock.h"

enum { PROGRESS_INTERVAL_MS = 200 };

// ---- progress ----

void bench_print_progress_begin(struct bench_progress *progress)
{
    *progress = (struct bench_progress){.is_shown = isatty(STDERR_FILENO) == 1};
}

void bench_print_progress(struct bench_progress *progress, const struct bench_measure *measure,
                          int64_t requests, int64_t in_flight, bool is_warmup)
{
    uint64_t now_ns = progress->is_shown ? clock_now_ns() : 0;
    if (!progress->is_shown ||
        now_ns - progress->at_ns < (uint64_t)PROGRESS_INTERVAL_MS * CLOCK_NS_PER_MS)
        return;
    double seconds = measure->begin_ns != 0 && now_ns > measure->begin_ns
                         ? (double)(now_ns - measure->begin_ns) / CLOCK_NS_PER_S
                         : 0;
    double rate = seconds > 0 ? (double)measure->completion_tokens / seconds : 0;
    progress->at_ns = now_ns;
    progress->is_dirty = true;
    fprintf(stderr,
            "\r\033[K%s%" PRId64 " of %" PRId64 " requests, %" PRId64 " failed, %" PRId64
            " running, %.0f s, %.0f output tokens/s",
            is_warmup ? "warm-up: " : "", measure->requests + measure->failed, requests,
            measure->failed, in_flight, seconds, rate);
    fflush(stderr);
}

void bench_print_progress_end(struct bench_progress *progress)
{
    if (progress->is_dirty)
        fprintf(stderr, "\r\033[K");
    progress->is_dirty = false;
    fflush(stderr);
}

// ---- for programs ----

static json_t *figures_object(const struct bench_figures *figures)
{
    return json_pack("{s:f, s:f, s:f, s:f, s:f}", "mean", figures->mean_ms, "median",
                     figures->median_ms, "p90", figures->p90_ms, "p99", figures->p99_ms, "max",
                     figures->max_ms);
}

static json_t *errors_object(const struct bench_measure *measure)
{
    json_t *object = json_object();
    for (int i = 0; i < measure->kinds_count; i++)
        json_object_set_new(object, measure->kinds[i].kind, json_integer(measure->kinds[i].count));
    return object;
}

static void set_workload(json_t *object, const struct bench_options *options,
                         const struct bench_point *point)
{
    json_object_set_new(object, "concurrency",
                        point->concurrency > 0 ? json_integer(point->concurrency) : json_null());
    json_object_set_new(object, "request_rate",
                        point->concurrency > 0 ? json_null() : json_real(options->requests_per_s));
    if (options->trace != NULL) {
        json_object_set_new(object, "trace", json_string(options->trace));
    } else {
        json_object_set_new(object, "input_len", json_integer(options->input_tokens));
        json_object_set_new(object, "output_len", json_integer(options->output_tokens));
    }
    json_object_set_new(object, "warmup", json_integer(options->warmup));
    json_object_set_new(object, "vocab", json_integer(point->vocab));
    // As text: JSON's readers have 53 bits.
    char seed[32];
    snprintf(seed, sizeof seed, "%" PRIu64, options->seed);
    json_object_set_new(object, "seed", json_string(seed));
}

static void set_counts(json_t *object, const struct bench_measure *measure,
                       const struct bench_summary *summary)
{
    const struct {
        const char *name;
        int64_t value;
    } counts[] = {
        {"requests", measure->requests},
        {"failed", measure->failed},
        {"prompt_tokens", measure->prompt_tokens},
        {"completion_tokens", measure->completion_tokens},
        {"cached_tokens", measure->cached_tokens},
        {"drafted", measure->drafted},
        {"accepted", measure->accepted},
    };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        json_object_set_new(object, counts[i].name, json_integer(counts[i].value));
    json_object_set_new(object, "errors", errors_object(measure));
    json_object_set_new(object, "duration_s", json_real(summary->duration_s));
    json_object_set_new(object, "requests_per_s", json_real(summary->requests_per_s));
    json_object_set_new(object, "output_tokens_per_s", json_real(summary->output_tokens_per_s));
    json_object_set_new(object, "total_tokens_per_s", json_real(summary->total_tokens_per_s));
}

static void print_json(const struct bench_options *options, const struct bench_point *point,
                       const struct bench_measure *measure, const struct bench_summary *summary)
{
    json_t *object = json_object();
    set_workload(object, options, point);
    set_counts(object, measure, summary);
    if (options->has_bounds) {
        json_object_set_new(object, "good", json_integer(measure->good));
        json_object_set_new(object, "goodput_requests_per_s", json_real(summary->good_per_s));
    }
    json_object_set_new(object, "ttft_ms", figures_object(&summary->ttft));
    json_object_set_new(object, "tpot_ms", figures_object(&summary->tpot));
    json_object_set_new(object, "itl_ms", figures_object(&summary->itl));
    json_object_set_new(object, "end_to_end_ms", figures_object(&summary->end_to_end));
    if (summary->has_acceptance) {
        json_object_set_new(object, "acceptance_length", json_real(summary->acceptance_length));
        json_object_set_new(object, "acceptance_rate", json_real(summary->acceptance_rate));
    }
    json_dumpf(object, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(object);
}

// ---- for people ----

static void print_errors(FILE *file, const struct bench_measure *measure)
{
    for (int i = 0; i < measure->kinds_count; i++)
        fprintf(file, "failed              %" PRId64 " %s: %s\n", measure->kinds[i].count,
                measure->kinds[i].kind, measure->kinds[i].text);
}

static void print_figures(const char *name, const struct bench_figures *figures)
{
    printf("%-16s %11.2f %11.2f %11.2f %11.2f %11.2f\n", name, figures->mean_ms, figures->median_ms,
           figures->p90_ms, figures->p99_ms, figures->max_ms);
}

static void print_text(const struct bench_options *options, const struct bench_point *point,
                       const struct bench_measure *measure, const struct bench_summary *summary)
{
    if (point->concurrency > 0)
        printf("concurrency         %d\n", (int)point->concurrency);
    else
        printf("requests a second   %g, at random times\n", options->requests_per_s);
    printf("requests            %" PRId64 " ended, %" PRId64 " failed\n", measure->requests,
           measure->failed);
    print_errors(stdout, measure);
    printf("duration            %.3f s\n", summary->duration_s);
    printf("tokens              %" PRId64 " in (%" PRId64 " cached), %" PRId64 " out\n",
           measure->prompt_tokens, measure->cached_tokens, measure->completion_tokens);
    printf("output tokens/s     %.1f\n", summary->output_tokens_per_s);
    printf("total tokens/s      %.1f\n", summary->total_tokens_per_s);
    printf("requests/s          %.2f\n", summary->requests_per_s);
    if (options->has_bounds)
        printf("goodput             %.2f requests/s (%" PRId64 " within all bounds)\n",
               summary->good_per_s, measure->good);
    if (summary->has_acceptance)
        printf("acceptance length   %.2f (%.0f %% of the drafts accepted)\n",
               summary->acceptance_length, 100 * summary->acceptance_rate);
    printf("%-16s %11s %11s %11s %11s %11s\n", "ms", "mean", "median", "p90", "p99", "max");
    print_figures("TTFT", &summary->ttft);
    print_figures("TPOT", &summary->tpot);
    print_figures("ITL", &summary->itl);
    print_figures("end to end", &summary->end_to_end);
}

void bench_print_head(void)
{
    printf("%11s %8s %6s | %9s %9s %8s %6s | %18s | %18s | %9s | %18s\n", "", "", "", "output",
           "total", "", "accept", "TTFT ms", "TPOT ms", "ITL ms", "end to end ms");
    printf("%11s %8s %6s | %9s %9s %8s %6s | %8s %9s | %8s %9s | %9s | %8s %9s\n", "concurrency",
           "requests", "failed", "tok/s", "tok/s", "req/s", "length", "median", "p99", "median",
           "p99", "p99", "median", "p99");
}

static void print_row(const struct bench_point *point, const struct bench_measure *measure,
                      const struct bench_summary *summary)
{
    char acceptance[16] = "-";
    if (summary->has_acceptance)
        snprintf(acceptance, sizeof acceptance, "%.2f", summary->acceptance_length);
    printf("%11d %8" PRId64 " %6" PRId64 " | %9.1f %9.1f %8.2f %6s | %8.2f %9.2f | %8.2f %9.2f | "
           "%9.2f | %8.2f %9.2f\n",
           (int)point->concurrency, measure->requests, measure->failed,
           summary->output_tokens_per_s, summary->total_tokens_per_s, summary->requests_per_s,
           acceptance, summary->ttft.median_ms, summary->ttft.p99_ms, summary->tpot.median_ms,
           summary->tpot.p99_ms, summary->itl.p99_ms, summary->end_to_end.median_ms,
           summary->end_to_end.p99_ms);
    print_errors(stderr, measure);
}

void bench_print_run(const struct bench_options *options, const struct bench_point *point,
                     const struct bench_measure *measure, const struct bench_summary *summary)
{
    if (options->json)
        print_json(options, point, measure, summary);
    else if (options->concurrencies_count > 1)
        print_row(point, measure, summary);
    else
        print_text(options, point, measure, summary);
}
