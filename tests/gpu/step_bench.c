// SPDX-License-Identifier: Apache-2.0
// step_bench.c -- whole steps of a dummy model without coordinator and sockets, two in flight as
// when serving: step_bench MODEL_DIR CONTEXT STEPS [--drafts MOST [--draft-vocab N]]
// [--mixed TOKENS] ROWS [ROWS..] prints a JSON line per count of rows for decoding behind CONTEXT
// tokens, with the bytes a step has to move and the share of 4.6 TB/s reached, and one for the
// prefill before it. With --drafts the head is loaded, too, and there is a line for every count of
// drafts k from 0 to MOST: steps that verify k + 1 tokens a row, of which at most 3.39 are accepted
// by chance as with --synthetic-acceptance, and draft k. With --mixed there is one more for steps
// of TOKENS tokens, those of all rows and else prompts of CONTEXT tokens, beside steps of the rows
// alone and of the prompts alone. host_us: what queueing a step takes of the host. It heeds
// DELTAMESH_GRAPHS and DELTAMESH_PDL; with DELTAMESH_BENCH_BF16_STATE set states are bf16.
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "parallel/base/clock.h"
#include "parallel/config.h"
#include "parallel/memory_plan.h"
#include "worker/loader.h"

enum {
    CHUNK_TOKENS = 8192,
    WAIT_MS_MAX = 120000,
    WARM_STEPS = 3,
    SYNTHETIC_THOUSANDTHS = 3390,
    MIXED_STEPS = 6, // of the rows and prompts, timed
    MIXED_KINDS = 3, // rows, prompts, both
    OPENS_MAX = 32,  // prompts that begin in a step
};

struct bench {
    struct model_config config;
    struct shard shard;
    struct memory_plan memory;
    struct loader *loader;
    struct step_plan plan;
    struct report report;
    uint64_t step;        // number of the last plan submitted
    uint64_t queueing_ns; // that the host took to queue steps, and how many since
    int queued;
    int context, steps;
    int drafts_max;    // -1: without the head
    int draft_vocab;   // drafts are ids below this one, 0: any
    int mixed_tokens;  // of a step with decode rows and prompts, 0: none is run
    bool bf16_state;   // DELTAMESH_BENCH_BF16_STATE
    uint64_t drawn;    // tokens that decode rows have drawn
    int output_tokens; // of a sequence, at most
};

static void must(enum status status, const struct error *error)
{
    if (status != OK)
        DIE("%s", error->text);
}

// Steps until at most `left` are in flight.
static void drain(struct bench *b, uint64_t left)
{
    struct step_engine *engine = loader_engine(b->loader);
    uint64_t limit_ns = clock_now_ns() + (uint64_t)WAIT_MS_MAX * CLOCK_NS_PER_MS;
    while (step_begun(engine) - step_done(engine) > left) {
        if (step_next_report(engine, &b->report)) {
            for (int i = 0; i < b->report.rows_count; i++)
                b->drawn += (uint64_t)b->report.rows[i].count;
        } else if (clock_now_ns() > limit_ns) {
            DIE("step %llu did not end", (unsigned long long)b->step);
        }
    }
}

static void submit(struct bench *b)
{
    struct error error = {.text = ""};
    drain(b, 1);
    b->plan.step = ++b->step;
    b->plan.epoch = 1;
    uint64_t begun_ns = clock_now_ns();
    must(step_submit(loader_engine(b->loader), &b->plan, &error), &error);
    b->queueing_ns += clock_now_ns() - begun_ns;
    b->queued++;
}

static void add_open(struct bench *b, int slot)
{
    struct step_plan *plan = &b->plan;
    int pages = b->memory.pages_per_sequence;
    plan->opens[plan->opens_count++] =
        (struct step_open){.slot = slot,
                           .prompt_tokens = b->context,
                           .tokens_end = b->context + b->output_tokens,
                           .seed = (uint64_t)slot};
    plan->pages[plan->pages_count++] =
        (struct step_pages){.slot = slot, .count = pages, .ids_first = plan->page_ids_count};
    for (int i = 0; i < pages; i++)
        plan->page_ids[plan->page_ids_count++] = slot * pages + i;
}

// Tokens first .. first + count of a slot's prompt, the last of which is sampled.
static void add_prefill(struct bench *b, int slot, int first, int count)
{
    struct step_plan *plan = &b->plan;
    bool last = first + count == b->context;
    uint32_t ids = b->config.vocab < 100000 ? (uint32_t)b->config.vocab : 100000;
    plan->rows[plan->rows_count++] = (struct step_plan_row){.slot = slot,
                                                            .kind = STEP_ROW_PREFILL,
                                                            .tokens_first = plan->tokens_count,
                                                            .tokens_count = count,
                                                            .token_next = last ? -1 : 1,
                                                            .sample = last,
                                                            .checkpoint = -1};
    for (int i = 0; i < count; i++)
        plan->tokens[plan->tokens_count++] =
            (int32_t)((uint32_t)(first + i + 1) * 2654435761u % (uint32_t)(1000 + slot) * 97 % ids);
}

// Microseconds of the host's a step since the last call.
static double host_us(struct bench *b)
{
    double us = b->queued > 0 ? (double)b->queueing_ns * 1e-3 / b->queued : 0;
    b->queueing_ns = 0;
    b->queued = 0;
    return us;
}

// Opens `rows` slots and runs their prompts in steps of CHUNK_TOKENS; returns the seconds.
static double prefill(struct bench *b, int rows)
{
    int slot = 0, at = 0, most = b->memory.step_tokens;
    most = most < CHUNK_TOKENS ? most : CHUNK_TOKENS;
    uint64_t begun_ns = clock_now_ns();
    while (slot < rows) {
        int room = most;
        step_plan_clear(&b->plan);
        while (slot < rows && room > 0 && b->plan.opens_count < OPENS_MAX) {
            int count = b->context - at < room ? b->context - at : room;
            if (at == 0)
                add_open(b, slot);
            add_prefill(b, slot, at, count);
            room -= count;
            at += count;
            if (at < b->context)
                break;
            at = 0;
            slot++;
        }
        submit(b);
    }
    drain(b, 0);
    return (double)(clock_now_ns() - begun_ns) * 1e-9;
}

// Plans rows that verify as many drafts as the step before made, and make `drafts` again. The
// drafts of the first step are of another count: it should be warming up.
static void plan_decode(struct bench *b, int rows, int drafts)
{
    step_plan_clear(&b->plan);
    b->plan.draft = drafts;
    b->plan.verify = 1 + drafts;
    for (int slot = 0; slot < rows; slot++)
        b->plan.rows[b->plan.rows_count++] =
            (struct step_plan_row){.slot = slot, .kind = STEP_ROW_DECODE, .checkpoint = -1};
}

// Seconds of each of so many steps of what is planned.
static double repeat(struct bench *b, int steps)
{
    b->drawn = 0;
    uint64_t begun_ns = clock_now_ns();
    for (int i = 0; i < steps; i++)
        submit(b);
    drain(b, 0);
    return (double)(clock_now_ns() - begun_ns) * 1e-9 / steps;
}

static double decode(struct bench *b, int rows, int steps, int drafts)
{
    plan_decode(b, rows, drafts);
    return repeat(b, steps);
}

// Adds `tokens` tokens of prompts in slots from `slot` on, which are opened by each step anew.
static void plan_prompts(struct bench *b, int slot, int tokens)
{
    for (; tokens > 0 && b->plan.opens_count < OPENS_MAX; slot++) {
        int count = tokens < b->context ? tokens : b->context;
        add_open(b, slot);
        add_prefill(b, slot, 0, count);
        tokens -= count;
    }
}

// Slots that the prompts of a mixed step take, at most.
static int prompt_slots(const struct bench *b)
{
    int slots = (b->mixed_tokens + b->context - 1) / b->context;
    return slots < OPENS_MAX ? slots : OPENS_MAX;
}

// Microseconds of a step of the rows, of prompts that fill the rest of `mixed_tokens`, and of both.
static void run_mixed(struct bench *b, const char *model, int rows, int drafts)
{
    int prompts = b->mixed_tokens - rows * (1 + drafts), most = prompt_slots(b) * b->context;
    double us[MIXED_KINDS];
    prompts = prompts < most ? prompts : most;
    for (int kind = 0; prompts > 0 && kind < MIXED_KINDS; kind++) {
        plan_decode(b, kind == 1 ? 0 : rows, drafts);
        if (kind > 0)
            plan_prompts(b, rows, prompts);
        repeat(b, 2);
        us[kind] = repeat(b, MIXED_STEPS) * 1e6;
    }
    if (prompts <= 0)
        return;
    printf("{\"op\": \"mixed\", \"model\": \"%s\", \"sequences\": %d, \"context\": %d, "
           "\"drafts\": %d, \"prompt_tokens\": %d, ",
           model, rows, b->context, drafts, prompts);
    printf("\"us\": %.1f, \"rows_us\": %.1f, \"prompts_us\": %.1f, \"percent_of_sum\": %.1f}\n",
           us[2], us[0], us[1], 100 * us[2] / (us[0] + us[1]));
    fflush(stdout);
}

// Bytes that one decode step reads and writes at least: weights once, of the experts as many as
// `rows` independent tokens pick on average; the embedding's rows only; states, of which one in
// eight is written (kernels/gdn.h); keys.
static double decode_bytes(const struct bench *b, int rows)
{
    const struct model_config *c = &b->config;
    double experts = c->experts, hidden = c->hidden, attention = 0;
    double bytes = (double)memory_plan_weight_bytes(c, &b->shard, false);
    if (!c->tied)
        bytes -= 2.0 * c->vocab * hidden;
    if (c->experts > 0) {
        double unused = pow(1 - c->experts_per_token / experts, rows);
        bytes -= c->layers * experts * 3 * hidden * c->expert_intermediate * 2 * unused;
    }
    for (int i = 0; i < c->layers; i++)
        attention += c->layer_is_attention[i];
    bytes += rows * 1.125 * (double)memory_plan_slot_bytes(c, &b->shard, b->memory.bf16_state);
    return bytes + rows * attention * 4.0 * c->kv_heads * c->head_dim * b->context;
}

static void run_decode(struct bench *b, const char *model, int rows, int drafts)
{
    decode(b, rows, WARM_STEPS, drafts);
    host_us(b);
    double step_s = decode(b, rows, b->steps, drafts), bytes = decode_bytes(b, rows);
    double tokens = (double)b->drawn / b->steps;
    printf("{\"op\": \"decode\", \"model\": \"%s\", \"sequences\": %d, \"context\": %d, "
           "\"state\": \"%s\", \"us\": %.1f, \"host_us\": %.1f, \"tokens_per_s\": %.0f, ",
           model, rows, b->context, b->bf16_state ? "bf16" : "f32", step_s * 1e6, host_us(b),
           tokens / step_s);
    if (b->drafts_max >= 0)
        printf("\"drafts\": %d, \"draft_vocab\": %d, \"tokens_per_row\": %.3f}\n", drafts,
               b->draft_vocab, tokens / rows);
    else
        printf("\"bytes\": %.0f, \"percent_of_limit\": %.1f}\n", bytes,
               100 * bytes / 4.6e12 / step_s);
    fflush(stdout);
}

static void run(struct bench *b, const char *model, int rows)
{
    double prefill_s = prefill(b, rows), tokens = (double)rows * b->context;
    printf("{\"op\": \"prefill\", \"model\": \"%s\", \"sequences\": %d, \"context\": %d, "
           "\"s\": %.4f, \"host_us\": %.1f, \"tokens_per_s\": %.0f}\n",
           model, rows, b->context, prefill_s, host_us(b), tokens / prefill_s);
    for (int drafts = 0; drafts == 0 || drafts <= b->drafts_max; drafts++)
        run_decode(b, model, rows, drafts);
    if (b->mixed_tokens > 0)
        run_mixed(b, model, rows, 0);
    if (b->mixed_tokens > 0 && b->drafts_max > 0)
        run_mixed(b, model, rows, b->drafts_max);
}

static void plan_memory(struct bench *b, int rows, struct error *error)
{
    for (int drafts = 0; drafts == 0 || drafts <= b->drafts_max; drafts++)
        b->output_tokens += (b->steps + WARM_STEPS + 2 * (MIXED_STEPS + 2)) * (1 + drafts);
    b->output_tokens += 64; // none of them ends
    rows += b->mixed_tokens > 0 ? prompt_slots(b) : 0;
    struct memory_wishes wishes = {.bytes_free = runtime_bytes_free(),
                                   .utilization = 0.95,
                                   .sequences = rows,
                                   .sequence_tokens = b->context + b->output_tokens + 64,
                                   .step_tokens = CHUNK_TOKENS,
                                   .mtp = b->drafts_max >= 0,
                                   .bf16_state = b->bf16_state,
                                   .drafts_max = b->drafts_max > 0 ? b->drafts_max : 0,
                                   .recorded = 1 + (b->drafts_max > 0 ? b->drafts_max : 0)};
    must(memory_plan_make(&b->memory, &b->config, &b->shard, &wishes, error), error);
    if (b->memory.sequences < rows || b->memory.pages < rows * b->memory.pages_per_sequence)
        DIE("%d sequences of %d tokens do not fit: %d of %d pages do", rows, b->context + b->steps,
            b->memory.sequences, b->memory.pages);
}

static void load(struct bench *b, const char *model_dir, struct error *error)
{
    struct loader_options options = {.model_dir = model_dir,
                                     .load_format = LOAD_DUMMY,
                                     .config = b->config,
                                     .place = {.ranks = 1,
                                               .epoch = 1,
                                               .sequences = b->memory.sequences,
                                               .sequence_tokens = b->memory.sequence_tokens,
                                               .step_tokens = b->memory.step_tokens,
                                               .pages = b->memory.pages,
                                               .pages_per_sequence = b->memory.pages_per_sequence,
                                               .vocab_real = b->config.vocab,
                                               .drafts_max = b->drafts_max > 0 ? b->drafts_max : 0,
                                               .draft_vocab = b->draft_vocab,
                                               .bf16_state = b->bf16_state,
                                               .synthetic_thousandths = SYNTHETIC_THOUSANDTHS},
                                     .ended_fd = eventfd(0, 0),
                                     .notify_fd = eventfd(0, EFD_NONBLOCK)};
    uint64_t one, begun_ns = clock_now_ns();
    must(loader_start(&b->loader, &options, error), error);
    if (read(options.ended_fd, &one, sizeof one) != (ssize_t)sizeof one)
        DIE("the loader's eventfd cannot be read");
    must(loader_result(b->loader, error), error);
    printf("{\"op\": \"load\", \"model\": \"%s\", \"s\": %.3f}\n", model_dir,
           (double)(clock_now_ns() - begun_ns) * 1e-9);
}

// Every count of rows.
static void run_all(struct bench *b, const char *model, char **rows, int count, struct error *error)
{
    int most = 0;
    for (int i = 0; i < count; i++)
        most = atoi(rows[i]) > most ? atoi(rows[i]) : most;
    must(runtime_open(0, error), error);
    must(config_load(&b->config, model, error), error);
    must(shard_make(&b->shard, &b->config, 0, 1, error), error);
    plan_memory(b, most, error);
    must(step_plan_open(&b->plan, error), error);
    b->report.rows = (struct step_result *)calloc(STEP_ROWS_MAX, sizeof *b->report.rows);
    load(b, model, error);
    for (int i = 0; i < count; i++)
        run(b, model, atoi(rows[i]));
    loader_close(b->loader);
    step_plan_close(&b->plan);
    free(b->report.rows);
}

// Reads the options; the first of the arguments behind them, or 0.
static int read_options(struct bench *b, int count, char **arguments)
{
    const struct option options[] = {{"drafts", required_argument, NULL, 'd'},
                                     {"draft-vocab", required_argument, NULL, 'v'},
                                     {"mixed", required_argument, NULL, 'm'},
                                     {0}};
    int option;
    b->drafts_max = -1;
    while ((option = getopt_long(count, arguments, "", options, NULL)) != -1) {
        switch (option) {
        case 'd': b->drafts_max = atoi(optarg); break;
        case 'v': b->draft_vocab = atoi(optarg); break;
        case 'm': b->mixed_tokens = atoi(optarg); break;
        default: return 0;
        }
    }
    bool right = count - optind > 3 && b->mixed_tokens <= CHUNK_TOKENS;
    return right ? optind : 0;
}

int main(int count, char **arguments)
{
    struct error error = {.text = ""};
    struct bench *b = (struct bench *)calloc(1, sizeof *b);
    int first = b != NULL ? read_options(b, count, arguments) : 0;
    if (first == 0) {
        fprintf(stderr,
                "usage: step_bench MODEL_DIR CONTEXT STEPS [--drafts MOST [--draft-vocab N]] "
                "[--mixed TOKENS (to %d)] ROWS [ROWS..]\n",
                (int)CHUNK_TOKENS);
        return 1;
    }
    b->context = atoi(arguments[first + 1]);
    b->steps = atoi(arguments[first + 2]);
    b->bf16_state = getenv("DELTAMESH_BENCH_BF16_STATE") != NULL;
    run_all(b, arguments[first], arguments + first + 3, count - first - 3, &error);
    free(b);
    return 0;
}
