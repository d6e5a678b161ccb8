// SPDX-License-Identifier: Apache-2.0
// coordinator_bench.c -- what a step costs the coordinator: the pure core against workers that
// answer at once, with 256 decode rows unless told otherwise. Counted is what shell.c does for a
// step besides its sockets: coord_step, encoding the plan, decoding every rank's report. Not
// counted: the workers' side, sockets, doors. One thread.
//   bin/coordinator_bench [ROWS [RANKS [STEPS]]]
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "coordinator/core.h"
#include "coordinator/speculation.h"
#include "parallel/config.h"
#include "parallel/shard.h"

// The goal: 2,000 steps a second with 256 rows.
static const double goal_us = 500;

enum {
    PROMPT_TOKENS = 16,
    CONTEXT_TOKENS = 8192, // longest sequence
    QUEUED_MAX = 2048,
    MEMORY_FREE_GIB = 256,
};

// Reports of a step that the coordinator has not yet been given.
struct pending {
    int32_t rows_count;
    uint64_t step;
    struct step_result *rows; // [STEP_ROWS_MAX]
};

struct bench {
    struct coord *core;
    struct coord_actions *actions;
    uint64_t now_ns; // the core's clock: virtual
    int rows, ranks;
    int64_t steps, tokens, admitted, ended;
    int32_t output_tokens; // of a request, 0 = as many as the context takes
    uint64_t requests;     // numbers given out
    uint8_t *frame;        // [WIRE_WORKER_FRAME_BYTES_MAX]
    struct step_plan plan; // as a worker decodes it
    struct step_result *rows_out, *rows_in;
    int32_t *length, *end; // [STEP_ROWS_MAX] of each slot: the worker's memory
    uint64_t epoch;
    struct pending pending[COORD_FLIGHT_MAX]; // a ring
    int pending_first, pending_count;
    size_t plan_bytes, report_bytes; // of the last step
    uint64_t step_ns, encode_ns, decode_ns;
};

// Time of this thread on the processor: what other programs take does not count.
static uint64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static struct coord_options options_of(const char *model, const struct bench *bench)
{
    struct error error;
    struct coord_options options = {.groups = 1,
                                    .ranks = bench->ranks,
                                    .speculative_tokens = SPECULATION_AUTO,
                                    .queued_max = QUEUED_MAX,
                                    .pool_tokens = (int64_t)2 * QUEUED_MAX * CONTEXT_TOKENS};
    if (config_load(&options.config, model, &error) != OK)
        DIE("%s", error.text);
    options.vocab_real = options.config.vocab;
    options.wishes = (struct memory_wishes){.utilization = 1,
                                            .sequences = bench->rows,
                                            .sequence_tokens = CONTEXT_TOKENS,
                                            .step_tokens = 8192};
    snprintf(options.build, sizeof options.build, "bench");
    return options;
}

static void act(struct bench *bench);

// An event, and what the shell would do about it; counts the core's time.
static void step(struct bench *bench, struct coord_event *event)
{
    do {
        event->now_ns = bench->now_ns += 1000;
        uint64_t begin_ns = cpu_ns();
        coord_step(bench->core, event, bench->actions);
        bench->step_ns += cpu_ns() - begin_ns;
        event->type = EVENT_TICK;
        event->worker = -1;
        bool more = bench->actions->more;
        act(bench);
        if (!more)
            return;
    } while (true);
}

// ---- the workers ----

static int32_t next_token(struct bench *bench)
{
    return (int32_t)(bench->tokens++ % 97) + 3;
}

// What rank 0 reports of a plan: every row that draws has drawn, as the device would.
static void run_rows(struct bench *bench, const struct step_plan *plan, struct step_result *results)
{
    for (int32_t i = 0; i < plan->opens_count; i++) {
        bench->length[plan->opens[i].slot] = plan->opens[i].position;
        bench->end[plan->opens[i].slot] = plan->opens[i].tokens_end;
    }
    for (int32_t i = 0; i < plan->rows_count; i++) {
        const struct step_plan_row *row = &plan->rows[i];
        struct step_result *result = &results[i];
        int32_t *length = &bench->length[row->slot], end = bench->end[row->slot];
        bool draws = row->kind == STEP_ROW_DECODE || row->sample;
        *result = (struct step_result){.slot = row->slot};
        if (row->kind == STEP_ROW_PREFILL)
            *length += row->tokens_count;
        if (!draws || *length >= end)
            continue; // inert
        *length += 1;
        result->count = 1;
        result->end = *length >= end ? 2 : 0;
        result->tokens[0] = next_token(bench);
    }
}

// Decodes the plan as a worker does and keeps what will be reported of it.
static void answer(struct bench *bench)
{
    struct error error;
    if (step_plan_decode(&bench->plan, bench->frame, bench->plan_bytes, &error) != OK)
        DIE("plan: %s", error.text);
    ASSERT(bench->pending_count < COORD_FLIGHT_MAX);
    struct pending *pending =
        &bench->pending[(bench->pending_first + bench->pending_count++) % COORD_FLIGHT_MAX];
    pending->step = bench->plan.step;
    pending->rows_count = bench->plan.rows_count;
    run_rows(bench, &bench->plan, pending->rows);
}

// ---- actions ----

static void send_plan(struct bench *bench, const struct step_plan *plan)
{
    uint64_t begin_ns = cpu_ns();
    enum status status =
        step_plan_encode(bench->frame, WIRE_WORKER_FRAME_BYTES_MAX, &bench->plan_bytes, plan);
    bench->encode_ns += cpu_ns() - begin_ns;
    ASSERT(status == OK);
    bench->steps++;
    answer(bench);
}

static void act(struct bench *bench)
{
    for (int i = 0; i < bench->actions->count; i++) {
        const struct coord_action *action = &bench->actions->list[i];
        switch (action->type) {
        case ACTION_SEND_PLACE: bench->epoch = action->place->epoch; break;
        case ACTION_SEND_PLAN: send_plan(bench, action->plan); break;
        case ACTION_DONE: bench->ended++; break;
        case ACTION_SEND_REFUSE: DIE("refused: %s", action->refuse->text);
        case ACTION_ERROR:
        case ACTION_GROUP_FAILED: DIE("%s", action->text);
        default: break;
        }
    }
}

// ---- a run ----

static void submit(struct bench *bench)
{
    int32_t prompt[PROMPT_TOKENS];
    for (int i = 0; i < PROMPT_TOKENS; i++)
        prompt[i] = (int32_t)((bench->requests * 31 + (uint64_t)i * 7) % 97) + 3;
    struct coord_event event = {.type = EVENT_SUBMIT, .worker = -1};
    event.submit.request = ++bench->requests;
    event.submit.prompt = prompt;
    event.submit.prompt_tokens = PROMPT_TOKENS;
    event.submit.sampling.max_tokens = bench->output_tokens > 0 ? bench->output_tokens : -1;
    step(bench, &event);
}

static void join(struct bench *bench, const struct coord_options *options)
{
    for (int r = 0; r < bench->ranks; r++) {
        struct hello hello = {.version = WIRE_VERSION,
                              .local_rank = r,
                              .pid = 100 + r,
                              .has_mtp = 1,
                              .bytes_free = (uint64_t)MEMORY_FREE_GIB << 30,
                              .config_hash = config_hash(&options->config)};
        snprintf(hello.build, sizeof hello.build, "bench");
        snprintf(hello.backend, sizeof hello.backend, "cuda");
        snprintf(hello.host, sizeof hello.host, "host");
        step(bench, &(struct coord_event){.type = EVENT_HELLO, .worker = r, .hello = &hello});
    }
    for (int r = 0; r < bench->ranks; r++) {
        struct ready ready = {.rank = r, .epoch = bench->epoch};
        step(bench, &(struct coord_event){.type = EVENT_READY, .worker = r, .ready = &ready});
    }
}

// The report of one rank on a step comes in: with the rows from rank 0 alone.
static void report_one(struct bench *bench, const struct pending *pending, int rank)
{
    struct error error;
    size_t bytes;
    struct report report = {.rank = rank,
                            .epoch = bench->epoch,
                            .step = pending->step,
                            .hash = pending->step,
                            .rows_count = rank == 0 ? pending->rows_count : 0,
                            .rows = pending->rows};
    if (report_encode(bench->frame, WIRE_WORKER_FRAME_BYTES_MAX, &bytes, &report) != OK)
        DIE("the report does not fit");
    if (rank == 0)
        bench->report_bytes = bytes;
    report.rows = bench->rows_in;
    uint64_t begin_ns = cpu_ns();
    enum status status = report_decode(&report, bench->frame, bytes, &error);
    bench->decode_ns += cpu_ns() - begin_ns;
    if (status != OK)
        DIE("report: %s", error.text);
    step(bench, &(struct coord_event){.type = EVENT_REPORT, .worker = rank, .report = &report});
}

static void report_oldest(struct bench *bench)
{
    struct pending oldest = bench->pending[bench->pending_first];
    ASSERT(bench->pending_count > 0);
    for (int r = 0; r < bench->ranks - 1; r++)
        report_one(bench, &oldest, bench->ranks - 1 - r);
    // The last report sends the next plan, which takes the place of this one.
    struct step_result *rows = bench->rows_out;
    memcpy(rows, oldest.rows, (size_t)oldest.rows_count * sizeof *rows);
    oldest.rows = rows;
    bench->pending_first = (bench->pending_first + 1) % COORD_FLIGHT_MAX;
    bench->pending_count--;
    report_one(bench, &oldest, 0);
}

// Workers live as long as they say so.
static void heartbeat_all(struct bench *bench)
{
    for (int r = 0; r < bench->ranks; r++) {
        struct heartbeat beat = {.rank = r, .epoch = bench->epoch};
        step(bench,
             &(struct coord_event){.type = EVENT_HEARTBEAT, .worker = r, .heartbeat = &beat});
    }
}

static void run_steps(struct bench *bench, int64_t steps)
{
    for (int64_t until = bench->steps + steps; bench->steps < until;) {
        int64_t ended = bench->ended;
        report_oldest(bench);
        for (; ended < bench->ended; ended++)
            submit(bench); // one for one
    }
    heartbeat_all(bench);
}

static void print(const struct bench *bench, const char *what, int64_t steps)
{
    double core_us = (double)bench->step_ns / 1e3 / (double)steps;
    double encode_us = (double)bench->encode_ns / 1e3 / (double)steps;
    double decode_us = (double)bench->decode_ns / 1e3 / (double)steps;
    double all_us = core_us + encode_us + decode_us;
    const char *bound = core_us >= encode_us && core_us >= decode_us ? "coord_step"
                        : encode_us >= decode_us                     ? "the plan's encoding"
                                                                     : "the reports' decoding";
    printf("%-26s %4d rows %d ranks  %8.1f us a step, %7.0f steps/s  (%.0f %% of %.0f us): "
           "core %.1f, plan %.1f (%zu bytes), reports %.1f (%zu bytes each); bound by %s\n",
           what, bench->rows, bench->ranks, all_us, 1e6 / all_us, 100 * all_us / goal_us, goal_us,
           core_us, encode_us, bench->plan_bytes, decode_us, bench->report_bytes, bound);
}

static void open_bench(struct bench *bench, const struct coord_options *options)
{
    struct error error;
    size_t bytes = (coord_bytes(options) + 63) / 64 * 64;
    void *memory = aligned_alloc(64, bytes);
    bench->actions = malloc(sizeof *bench->actions);
    bench->frame = malloc(WIRE_WORKER_FRAME_BYTES_MAX);
    bench->rows_out = calloc(STEP_ROWS_MAX, sizeof *bench->rows_out);
    bench->rows_in = calloc(STEP_ROWS_MAX, sizeof *bench->rows_in);
    bench->length = calloc(STEP_ROWS_MAX, sizeof *bench->length);
    bench->end = calloc(STEP_ROWS_MAX, sizeof *bench->end);
    if (memory == NULL || bench->actions == NULL || bench->frame == NULL ||
        bench->rows_out == NULL || bench->rows_in == NULL || bench->length == NULL ||
        bench->end == NULL)
        DIE("no memory");
    for (int i = 0; i < COORD_FLIGHT_MAX; i++) {
        bench->pending[i].rows = calloc(STEP_ROWS_MAX, sizeof *bench->rows_out);
        ASSERT(bench->pending[i].rows != NULL);
    }
    if (step_plan_open(&bench->plan, &error) != OK ||
        coord_init(&bench->core, memory, options, &error) != OK)
        DIE("%s", error.text);
}

static void measure(struct bench *bench, const char *what, int64_t steps)
{
    run_steps(bench, steps / 10 + 1); // warm
    bench->step_ns = bench->encode_ns = bench->decode_ns = 0;
    int64_t before = bench->steps;
    run_steps(bench, steps);
    print(bench, what, bench->steps - before);
}

int main(int count, char **words)
{
    static struct bench bench;
    int64_t steps = count > 3 ? atoll(words[3]) : 4000;
    bench.rows = count > 1 ? atoi(words[1]) : 256;
    bench.ranks = count > 2 ? atoi(words[2]) : 1;
    if (bench.rows < 1 || bench.rows > STEP_ROWS_MAX || bench.ranks < 1 ||
        bench.ranks > RANKS_MAX || steps < 1 || steps > CONTEXT_TOKENS / 2) {
        fprintf(stderr, "usage: coordinator_bench [ROWS [RANKS [STEPS]]], at most %d, %d, %d\n",
                STEP_ROWS_MAX, RANKS_MAX, CONTEXT_TOKENS / 2);
        return 1;
    }
    struct coord_options options = options_of(SOURCE_DIR "/deploy/demo/model", &bench);
    open_bench(&bench, &options);
    join(&bench, &options);
    for (int i = 0; i < bench.rows; i++)
        submit(&bench);
    measure(&bench, "decode alone", steps);
    bench.output_tokens = PROMPT_TOKENS; // from the next requests on
    bench.ended = 0;
    while (bench.ended < bench.rows) // until the long ones are gone
        run_steps(&bench, 1);
    measure(&bench, "16 in, 16 out, for ever", steps);
    return 0;
}
