// SPDX-License-Identifier: Apache-2.0
// bench_measure.c -- growing series, exact percentiles.
#include "deploy/cli/bench_measure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double ns_per_ms = 1e6, ns_per_s = 1e9;

enum { SERIES_ROOM_FIRST = 1024 };

void bench_measure_init(struct bench_measure *measure)
{
    *measure = (struct bench_measure){0};
}

void bench_measure_fini(struct bench_measure *measure)
{
    free(measure->ttft.values_ns);
    free(measure->tpot.values_ns);
    free(measure->itl.values_ns);
    free(measure->end_to_end.values_ns);
    *measure = (struct bench_measure){0};
}

enum status bench_measure_add(struct bench_series *series, uint64_t value_ns, struct error *error)
{
    if (series->count == series->room) {
        int64_t room = series->room > 0 ? 2 * series->room : SERIES_ROOM_FIRST;
        void *grown = realloc(series->values_ns, (size_t)room * sizeof *series->values_ns);
        if (grown == NULL)
            return error_set(error, E_SYSTEM, "no memory for %lld times", (long long)room);
        series->values_ns = grown;
        series->room = room;
    }
    series->values_ns[series->count++] = value_ns;
    return OK;
}

void bench_measure_sent(struct bench_measure *measure, struct bench_stream *stream, uint64_t due_ns)
{
    *stream = (struct bench_stream){.due_ns = due_ns};
    if (measure->begin_ns == 0 || due_ns < measure->begin_ns)
        measure->begin_ns = due_ns;
}

enum status bench_measure_tokens(struct bench_measure *measure, struct bench_stream *stream,
                                 uint64_t now_ns, int32_t tokens, struct error *error)
{
    stream->tokens += tokens;
    if (stream->first_ns == 0)
        stream->first_ns = now_ns;
    else
        TRY(bench_measure_add(&measure->itl, now_ns - stream->last_ns, error));
    stream->last_ns = now_ns;
    return OK;
}

static void note_end(struct bench_measure *measure, uint64_t now_ns)
{
    if (now_ns > measure->end_ns)
        measure->end_ns = now_ns;
}

static bool within(double bound_ms, uint64_t duration_ns)
{
    return bound_ms <= 0 || (double)duration_ns / ns_per_ms <= bound_ms;
}

enum status bench_measure_done(struct bench_measure *measure, const struct bench_stream *stream,
                               uint64_t now_ns, const struct bench_usage *usage,
                               struct error *error)
{
    int32_t tokens = usage->completion_tokens >= 0 ? usage->completion_tokens : stream->tokens;
    bool good = within(measure->bounds.end_to_end_ms, now_ns - stream->due_ns);
    note_end(measure, now_ns);
    measure->requests++;
    measure->completion_tokens += tokens;
    measure->prompt_tokens += usage->prompt_tokens > 0 ? usage->prompt_tokens : 0;
    measure->cached_tokens += usage->cached_tokens > 0 ? usage->cached_tokens : 0;
    measure->drafted += usage->drafted > 0 ? usage->drafted : 0;
    measure->accepted += usage->accepted > 0 ? usage->accepted : 0;
    TRY(bench_measure_add(&measure->end_to_end, now_ns - stream->due_ns, error));
    if (stream->first_ns != 0) {
        good &= within(measure->bounds.ttft_ms, stream->first_ns - stream->due_ns);
        TRY(bench_measure_add(&measure->ttft, stream->first_ns - stream->due_ns, error));
    }
    if (tokens > 1 && stream->first_ns != 0) {
        uint64_t rest_ns = (stream->last_ns - stream->first_ns) / (uint64_t)(tokens - 1);
        good &= within(measure->bounds.tpot_ms, rest_ns);
        TRY(bench_measure_add(&measure->tpot, rest_ns, error));
    }
    measure->good += good;
    return OK;
}

void bench_measure_failed(struct bench_measure *measure, uint64_t now_ns, const char *kind,
                          const char *text)
{
    int i = 0;
    note_end(measure, now_ns);
    measure->failed++;
    while (i < measure->kinds_count && strcmp(measure->kinds[i].kind, kind) != 0)
        i++;
    if (i == BENCH_KINDS_MAX)
        i--;
    struct bench_error_kind *entry = &measure->kinds[i];
    if (i == measure->kinds_count) {
        bool last = i == BENCH_KINDS_MAX - 1;
        measure->kinds_count++;
        snprintf(entry->kind, sizeof entry->kind, "%s", last ? "other" : kind);
        snprintf(entry->text, sizeof entry->text, "%s", text);
    }
    entry->count++;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

// share: 0 the smallest .. 1 the largest of sorted values.
static double percentile_ms(const struct bench_series *series, double share)
{
    double place = share * (double)(series->count - 1);
    int64_t below = (int64_t)place;
    int64_t above = below + 1 < series->count ? below + 1 : below;
    double low = (double)series->values_ns[below], high = (double)series->values_ns[above];
    return (low + (high - low) * (place - (double)below)) / ns_per_ms;
}

struct bench_figures bench_measure_figures(struct bench_series *series)
{
    double sum_ns = 0;
    if (series->count == 0)
        return (struct bench_figures){0};
    qsort(series->values_ns, (size_t)series->count, sizeof *series->values_ns, by_size);
    for (int64_t i = 0; i < series->count; i++)
        sum_ns += (double)series->values_ns[i];
    return (struct bench_figures){
        .mean_ms = sum_ns / (double)series->count / ns_per_ms,
        .median_ms = percentile_ms(series, 0.5),
        .p90_ms = percentile_ms(series, 0.9),
        .p99_ms = percentile_ms(series, 0.99),
        .max_ms = percentile_ms(series, 1),
    };
}

// A request's first token comes from its prompt; every later one is the sample of a step or an
// accepted draft. So steps = tokens - requests - accepted, also where a prompt took many steps.
static void fill_acceptance(struct bench_summary *out, const struct bench_measure *measure)
{
    int64_t decoded = measure->completion_tokens - measure->requests;
    int64_t steps = decoded - measure->accepted;
    out->has_acceptance = measure->drafted > 0 && steps > 0;
    if (!out->has_acceptance)
        return;
    out->acceptance_length = (double)decoded / (double)steps;
    out->acceptance_rate = (double)measure->accepted / (double)measure->drafted;
}

void bench_measure_summary(struct bench_summary *out, struct bench_measure *measure)
{
    *out = (struct bench_summary){
        .ttft = bench_measure_figures(&measure->ttft),
        .tpot = bench_measure_figures(&measure->tpot),
        .itl = bench_measure_figures(&measure->itl),
        .end_to_end = bench_measure_figures(&measure->end_to_end),
    };
    fill_acceptance(out, measure);
    if (measure->end_ns <= measure->begin_ns)
        return;
    out->duration_s = (double)(measure->end_ns - measure->begin_ns) / ns_per_s;
    out->requests_per_s = (double)measure->requests / out->duration_s;
    out->good_per_s = (double)measure->good / out->duration_s;
    out->output_tokens_per_s = (double)measure->completion_tokens / out->duration_s;
    out->total_tokens_per_s =
        (double)(measure->completion_tokens + measure->prompt_tokens) / out->duration_s;
}
