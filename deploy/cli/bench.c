// SPDX-License-Identifier: Apache-2.0
// bench.c -- keeps a number of requests in flight, or sends them when they are due, and notes what
// comes back. A request's clock starts when it is due, so that a late sender shows as a wait.
#include "deploy/cli/bench.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "deploy/cli/bench_door.h"
#include "deploy/cli/bench_load.h"
#include "deploy/cli/bench_measure.h"
#include "deploy/cli/bench_options.h"
#include "deploy/cli/bench_print.h"
#include "deploy/cli/output.h"
#include "parallel/base/clock.h"

enum {
    VOCAB_UNKNOWN = 1000,     // ids that every model of today has
    REQUESTS_PER_STREAM = 10, // of a run, unless told
    WARMUP_AT_ONCE = 64,      // in a run without concurrency
    WAIT_MS = 100,            // between looks at the progress line
};

struct bench {
    struct bench_options options;
    struct bench_load load;
    struct bench_door *door;
    struct bench_progress progress;
    int64_t numbers; // requests given out so far, warm-ups too: no two share a prompt
    int64_t ended, failed;
    enum status first_failure;
};

// Some requests of one kind: a warm-up, or what is measured.
struct phase {
    struct bench_measure measure;
    struct bench_stream *streams; // [count]
    int32_t *ids;                 // [longest prompt]
    int64_t first;                // number of the first
    int64_t count, sent, ended;
    int32_t concurrency; // 0: sent when due
    uint64_t due_ns;     // of the next
    bool is_warmup;
    enum status first_failure;
};

static void note_failure(struct phase *phase, uint64_t now_ns, enum status status, const char *kind,
                         const char *text)
{
    bench_measure_failed(&phase->measure, now_ns, kind, text);
    if (phase->first_failure == OK)
        phase->first_failure = status;
    phase->ended++;
}

static enum status send_one(struct bench *bench, struct phase *phase, struct error *error)
{
    int64_t index = phase->sent++, number = phase->first + index;
    struct bench_lengths lengths = bench_load_lengths(&bench->load, number);
    bench_load_prompt(phase->ids, &bench->load, number);
    const struct bench_request request = {
        .number = number,
        .ids = phase->ids,
        .ids_count = lengths.input,
        .max_tokens = lengths.output,
        .seed = bench_load_seed(&bench->load, number),
        .temperature = bench->options.temperature,
        .ignore_eos = bench->options.ignore_eos,
    };
    uint64_t now_ns = clock_now_ns(); // before: the first token may be here when it returns
    bench_measure_sent(&phase->measure, &phase->streams[index],
                       phase->concurrency > 0 ? now_ns : phase->due_ns);
    enum status status = bench->door->send(bench->door, &request, error);
    if (status != E_INPUT && status != E_LIMIT)
        return status;
    note_failure(phase, clock_now_ns(), status, status_name(status), error->text);
    return OK;
}

// Sends what may go now. *wait_ms: until more may, if nothing comes before.
static enum status send_due(struct bench *bench, struct phase *phase, int *wait_ms,
                            struct error *error)
{
    *wait_ms = WAIT_MS;
    while (phase->sent < phase->count) {
        uint64_t now_ns = clock_now_ns();
        if (phase->concurrency > 0 && phase->sent - phase->ended >= phase->concurrency)
            return OK;
        if (phase->concurrency == 0 && now_ns < phase->due_ns) {
            uint64_t left_ms = (phase->due_ns - now_ns) / CLOCK_NS_PER_MS;
            // Waits end up to 1 ms late: the last one is spent looking.
            *wait_ms = left_ms > WAIT_MS ? WAIT_MS : left_ms > 0 ? (int)left_ms - 1 : 0;
            return OK;
        }
        TRY(send_one(bench, phase, error));
        if (phase->concurrency == 0)
            phase->due_ns += bench_load_gap_ns(&bench->load, phase->first + phase->sent,
                                               bench->options.requests_per_s);
    }
    return OK;
}

static enum status take(struct phase *phase, const struct bench_event *event, struct error *error)
{
    int64_t index = event->number - phase->first;
    if (index < 0 || index >= phase->sent)
        return OK; // a server's own idea
    struct bench_stream *stream = &phase->streams[index];
    switch (event->type) {
    case BENCH_EVENT_TOKENS:
        return bench_measure_tokens(&phase->measure, stream, event->when_ns, event->tokens, error);
    case BENCH_EVENT_DONE:
        phase->ended++;
        return bench_measure_done(&phase->measure, stream, event->when_ns, &event->usage, error);
    default:
        note_failure(phase, event->when_ns, event->status, event->kind, event->text);
        return OK;
    }
}

static enum status run_phase(struct bench *bench, struct phase *phase, struct error *error)
{
    phase->due_ns = clock_now_ns();
    while (phase->ended < phase->count) {
        struct bench_event event;
        int wait_ms;
        TRY(send_due(bench, phase, &wait_ms, error));
        bench_print_progress(&bench->progress, &phase->measure, phase->count,
                             phase->sent - phase->ended, phase->is_warmup);
        if (phase->ended == phase->count)
            return OK;
        enum status status = bench->door->next(bench->door, &event, wait_ms, error);
        if (status == E_TIMEOUT)
            continue;
        TRY(status);
        TRY(take(phase, &event, error));
    }
    return OK;
}

// Runs `count` requests from the next number on; what was measured is in phase->measure.
static enum status open_and_run(struct bench *bench, struct phase *phase, struct error *error)
{
    int64_t longest = bench_load_longest_input(&bench->load, INT64_MAX);
    bench_measure_init(&phase->measure);
    phase->measure.bounds = bench->options.bounds;
    phase->first = bench->numbers;
    bench->numbers += phase->count;
    phase->streams = calloc((size_t)phase->count, sizeof *phase->streams);
    phase->ids = calloc((size_t)longest, sizeof *phase->ids);
    enum status status = OK;
    if (phase->streams == NULL || phase->ids == NULL)
        status = error_set(error, E_SYSTEM, "no memory for %" PRId64 " requests", phase->count);
    else
        status = run_phase(bench, phase, error);
    bench_print_progress_end(&bench->progress);
    // The connection is gone: what was on its way has failed with it.
    while (status != OK && phase->ended < phase->sent)
        note_failure(phase, clock_now_ns(), status, status_name(status), error->text);
    free(phase->streams);
    free(phase->ids);
    return status;
}

static enum status warm_up(struct bench *bench, int32_t concurrency, struct error *error)
{
    struct phase phase = {.count = bench->options.warmup,
                          .concurrency = concurrency > 0 ? concurrency : WARMUP_AT_ONCE,
                          .is_warmup = true};
    if (phase.count == 0)
        return OK;
    enum status status = open_and_run(bench, &phase, error);
    if (status == OK && phase.measure.failed > 0)
        fprintf(stderr, "deltamesh bench: %" PRId64 " of %" PRId64 " warm-up requests failed: %s\n",
                phase.measure.failed, phase.count, phase.measure.kinds[0].text);
    bench_measure_fini(&phase.measure);
    return status;
}

static enum status run_point(struct bench *bench, int32_t concurrency, struct error *error)
{
    struct bench_summary summary;
    struct phase phase = {.count = bench->options.requests, .concurrency = concurrency};
    if (phase.count == 0)
        phase.count = (int64_t)REQUESTS_PER_STREAM * concurrency;
    TRY(warm_up(bench, concurrency, error));
    enum status status = open_and_run(bench, &phase, error);
    const struct bench_point point = {.concurrency = concurrency, .vocab = bench->load.vocab};
    bench_measure_summary(&summary, &phase.measure);
    bench_print_run(&bench->options, &point, &phase.measure, &summary);
    bench->ended += phase.measure.requests;
    bench->failed += phase.measure.failed;
    if (bench->first_failure == OK)
        bench->first_failure = phase.first_failure;
    bench_measure_fini(&phase.measure);
    if (status != OK)
        return status;
    return output_flush(error);
}

static enum status run_points(struct bench *bench, struct error *error)
{
    const struct bench_options *options = &bench->options;
    bench_print_progress_begin(&bench->progress);
    if (options->concurrencies_count == 0)
        return run_point(bench, 0, error);
    if (options->concurrencies_count > 1 && !options->json)
        bench_print_head();
    for (int32_t i = 0; i < options->concurrencies_count; i++)
        TRY(run_point(bench, options->concurrencies[i], error));
    return OK;
}

static enum status run(struct bench *bench, struct error *error)
{
    const struct bench_options *options = &bench->options;
    const struct bench_lengths lengths = {options->input_tokens, options->output_tokens};
    TRY(options->rpc != NULL ? bench_rpc_open(&bench->door, options, error)
                             : bench_http_open(&bench->door, options, error));
    int32_t vocab = options->vocab > 0 ? options->vocab : bench->door->vocab;
    if (vocab == 0) {
        vocab = VOCAB_UNKNOWN;
        fprintf(stderr,
                "deltamesh bench: the server does not tell its vocabulary: prompts of ids below "
                "%d, see --vocab\n",
                (int)vocab);
    }
    bench_load_init(&bench->load, lengths, vocab, options->seed);
    enum status status = OK;
    if (options->trace != NULL)
        status = bench_load_read_trace(&bench->load, options->trace, error);
    if (status == OK)
        status = run_points(bench, error);
    bench_load_fini(&bench->load);
    bench->door->close(bench->door);
    return status;
}

enum status bench_run(int count, char *const *words, struct error *error)
{
    struct bench bench = {.first_failure = OK};
    TRY(bench_options_parse(&bench.options, count, words, error));
    if (bench.options.help)
        return OK;
    TRY(run(&bench, error));
    if (bench.failed == 0)
        return OK;
    return error_set(error, bench.first_failure, "%" PRId64 " of %" PRId64 " requests failed",
                     bench.failed, bench.failed + bench.ended);
}
