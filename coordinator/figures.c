// SPDX-License-Identifier: Apache-2.0
// figures.c -- one table of forms, and what feeds each histogram.
#include "coordinator/figures.h"

#include <string.h>

#define TOKENS_BOUNDS                                                                              \
    {                                                                                              \
        1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000, \
            500000, 1000000                                                                        \
    }
#define REQUEST_BOUNDS                                                                             \
    {                                                                                              \
        0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920,    \
            7680                                                                                   \
    }

// Bounds are vLLM's where it has the histogram, so that boards compare like with like, with finer
// ones below where we are faster than its first.
const struct figure_form figure_forms[FIGURE_KINDS] = {
    [FIGURE_FIRST_TOKEN] = {"vllm:time_to_first_token_seconds",
                            "from a request's arrival to its first token",
                            22,
                            {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
                             1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560}},
    [FIGURE_INTER_TOKEN] = {"vllm:inter_token_latency_seconds",
                            "time per token after the first",
                            22,
                            {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075,
                             0.1,    0.15,  0.2,    0.3,   0.4,  0.5,   0.75, 1,
                             2.5,    5,     7.5,    10,    20,   40}},
    [FIGURE_END_TO_END] = {"vllm:e2e_request_latency_seconds",
                           "from a request's arrival to its end",
                           22,
                           {0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,
                            10,   15,   20,  30,  40,  50,  60, 120, 240, 480, 960}},
    [FIGURE_QUEUE] = {"vllm:request_queue_time_seconds",
                      "from a request's arrival until it first got a slot", 21, REQUEST_BOUNDS},
    [FIGURE_PREFILL] = {"vllm:request_prefill_time_seconds",
                        "from a request's slot to its first token", 21, REQUEST_BOUNDS},
    [FIGURE_DECODE] = {"vllm:request_decode_time_seconds",
                       "from a request's first token to its end", 21, REQUEST_BOUNDS},
    [FIGURE_PROMPT_TOKENS] = {"vllm:request_prompt_tokens", "prompt tokens of a request", 19,
                              TOKENS_BOUNDS},
    [FIGURE_OUTPUT_TOKENS] = {"vllm:request_generation_tokens", "tokens drawn for a request", 19,
                              TOKENS_BOUNDS},
    [FIGURE_STEP_TOKENS] = {"vllm:iteration_tokens_total",
                            "tokens that a step runs, of prompts and of decode rows",
                            15,
                            {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768,
                             65536}},
    [FIGURE_STEP] = {"deltamesh:step_seconds",
                     "a step on the device, as rank 0 reports it",
                     20,
                     {0.0005, 0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02,
                      0.03,   0.05,  0.075, 0.1,   0.2,   0.5,   1,     2,    5,     20}},
    [FIGURE_SKEW] = {"deltamesh:rank_skew_seconds",
                     "from a step's first report to its last, over the ranks of a group",
                     15,
                     {0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01,
                      0.05, 0.1, 0.5, 1, 5}},
};

const char *const figure_reasons[FIGURE_REASONS] = {"stop", "length", "abort", "timeout", "error"};

void figures_observe(struct figures *figures, enum figure_kind kind, double value, uint64_t times)
{
    const struct figure_form *form = &figure_forms[kind];
    struct figure *figure = &figures->kinds[kind];
    int bucket = 0;
    while (bucket < form->bounds_count && value > form->bounds[bucket])
        bucket++;
    bucket = bucket < form->bounds_count ? bucket : FIGURE_BOUNDS_MAX;
    figure->counts[bucket] += times;
    figure->count += times;
    figure->sum += value * (double)times;
}

static void observe_ns(struct figures *figures, enum figure_kind kind, uint64_t duration_ns,
                       uint64_t times)
{
    figures_observe(figures, kind, (double)duration_ns * 1e-9, times);
}

static void take_end(struct figures *figures, const char *reason)
{
    int index = FIGURE_REASONS - 1; // what has no name here is no success
    for (int i = 0; reason != NULL && i < FIGURE_REASONS; i++) {
        if (strcmp(figure_reasons[i], reason) == 0)
            index = i;
    }
    figures->ended[index]++;
}

static void take_tokens(struct figures *figures, const struct coord_action *action)
{
    uint64_t count = (uint64_t)action->tokens_count;
    if (count == 0)
        return;
    if (!action->is_first) {
        observe_ns(figures, FIGURE_INTER_TOKEN, action->since_ns / count, count);
        return;
    }
    observe_ns(figures, FIGURE_FIRST_TOKEN, action->since_ns, 1);
}

static void take_done(struct figures *figures, const struct coord_action *action)
{
    const struct coord_usage *usage = &action->usage;
    const struct coord_times *times = &action->times;
    take_end(figures, action->reason);
    observe_ns(figures, FIGURE_END_TO_END, times->all_ns, 1);
    observe_ns(figures, FIGURE_QUEUE, times->queue_ns, 1);
    observe_ns(figures, FIGURE_PREFILL, times->prefill_ns, 1);
    observe_ns(figures, FIGURE_DECODE, times->decode_ns, 1);
    figures_observe(figures, FIGURE_PROMPT_TOKENS, usage->prompt_tokens, 1);
    figures_observe(figures, FIGURE_OUTPUT_TOKENS, usage->completion_tokens, 1);
}

static void take_plan(struct figures *figures, const struct step_plan *plan)
{
    int64_t tokens = plan->tokens_count;
    for (int32_t i = 0; i < plan->rows_count; i++)
        tokens += plan->rows[i].kind == STEP_ROW_DECODE ? plan->verify : 0;
    figures_observe(figures, FIGURE_STEP_TOKENS, (double)tokens, 1);
}

void figures_action(struct figures *figures, const struct coord_action *action)
{
    switch (action->type) {
    case ACTION_TOKENS: take_tokens(figures, action); break;
    case ACTION_DONE: take_done(figures, action); break;
    case ACTION_ERROR: take_end(figures, NULL); break;
    case ACTION_SEND_PLAN: take_plan(figures, action->plan); break;
    default: break;
    }
}

void figures_report(struct figures *figures, const struct report *report, int32_t ranks,
                    uint64_t now_ns)
{
    if (report->group < 0 || report->group >= GROUPS_MAX)
        return;
    struct figure_step *step = &figures->steps[report->group][report->step % FIGURE_STEPS_AT_ONCE];
    if (step->step != report->step || step->epoch != report->epoch) {
        *step =
            (struct figure_step){.epoch = report->epoch, .step = report->step, .first_ns = now_ns};
    }
    if (report->rank == 0)
        observe_ns(figures, FIGURE_STEP, report->step_ns, 1);
    if (++step->reports == ranks)
        observe_ns(figures, FIGURE_SKEW, now_ns - step->first_ns, 1);
}
