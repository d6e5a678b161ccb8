// SPDX-License-Identifier: Apache-2.0
// sim.c -- the event loop of a run, and the program:
//   sim [--seeds N] [--budget-seconds S]   seeds until one fails or time is up; sim --help
//   sim --seed N [--trace]                 one seed, readable
// Prints `seed N` and what was violated; exits 1 then.
#include "tests/sim/sim.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "parallel/base/clock.h"
#include "parallel/base/options.h"
#include "tests/sim/faults.h"

void sim_violation(struct sim *sim, const char *format, ...)
{
    va_list arguments;
    if (sim->violated)
        return;
    sim->violated = true;
    va_start(arguments, format);
    int used =
        snprintf(sim->violation, sizeof sim->violation, "at %.3f ms: ", (double)sim->now_ns * 1e-6);
    vsnprintf(sim->violation + used, sizeof sim->violation - (size_t)used, format, arguments);
    va_end(arguments);
}

void sim_trace(const struct sim *sim, const char *format, ...)
{
    va_list arguments;
    if (!sim->trace)
        return;
    va_start(arguments, format);
    printf("%12.3f ms  ", (double)sim->now_ns * 1e-6);
    vprintf(format, arguments);
    printf("\n");
    va_end(arguments);
}

void sim_later(struct sim *sim, uint64_t delay_ns, struct agenda_item item)
{
    item.when_ns = sim->now_ns + delay_ns;
    agenda_add(&sim->agenda, &item);
}

// ---- a run ----

static void open_process(struct sim *sim, int32_t index)
{
    const struct scenario *scenario = &sim->scenario;
    struct hello *hello = &sim->processes[index].hello;
    *hello = (struct hello){
        .version = WIRE_VERSION,
        .local_rank = (int32_t)dice_between(&sim->dice, -1, scenario->options.ranks),
        .pid = 1000 + index,
        .bytes_free = scenario->bytes_free[index],
        .config_hash = config_hash(&scenario->options.config),
        .has_mtp = scenario->mtp,
    };
    snprintf(hello->build, sizeof hello->build, "%s", scenario->options.build);
    snprintf(hello->backend, sizeof hello->backend, "%s", scenario->cpu ? "cpu" : "cuda");
    snprintf(hello->host, sizeof hello->host, "host");
    switch (scenario->intruders[index]) {
    case INTRUDER_VERSION: hello->version++; break;
    case INTRUDER_BUILD: hello->build[0]++; break;
    case INTRUDER_CONFIG: hello->config_hash ^= 1; break;
    default: break;
    }
    sim_later(sim, (uint64_t)dice_between(&sim->dice, 0, (int64_t)scenario->start_ns_max),
              (struct agenda_item){.type = AGENDA_PROCESS_TIMER, .index = index});
}

static void open_run(struct sim *sim, void **memory)
{
    const struct scenario *scenario = &sim->scenario;
    struct error error = {.status = OK};
    size_t bytes = (coord_bytes(&scenario->options) + 63) / 64 * 64;
    *memory = aligned_alloc(64, bytes);
    ASSERT(*memory != NULL);
    if (scenario->poisoned_memory)
        memset(*memory, 0xA5, bytes);
    if (coord_init(&sim->coord, *memory, &scenario->options, &error) != OK)
        DIE("seed %llu: %s", (unsigned long long)scenario->seed, error.text);
    front_init(sim);
    agenda_open(&sim->agenda);
    for (int32_t i = 0; i < scenario->processes; i++)
        open_process(sim, i);
    clients_open(sim);
    for (int32_t i = 0; i < scenario->faults_count; i++)
        sim_later(sim, scenario->faults[i].when_ns,
                  (struct agenda_item){.type = AGENDA_FAULT, .index = i});
    if (scenario->ending != ENDING_LAST)
        sim_later(sim, scenario->ending_ns, (struct agenda_item){.type = AGENDA_ENDING});
    sim_later(sim, FRONT_TICK_MS * SIM_MS_NS, (struct agenda_item){.type = AGENDA_SHELL_TICK});
}

// When the process that this happens to goes on; a process that does nothing does it later.
static uint64_t goes_on_ns(const struct sim *sim, const struct agenda_item *item)
{
    switch (item->type) {
    case AGENDA_TO_WORKER:
    case AGENDA_PROCESS_TIMER:
    case AGENDA_LOADED:
    case AGENDA_STEP_END: return sim->processes[item->index].frozen_until_ns;
    case AGENDA_TO_COORDINATOR:
    case AGENDA_SHELL_TICK:
    case AGENDA_CLIENT_SUBMITS:
    case AGENDA_CLIENT_FINISHES:
    case AGENDA_ENDING: return sim->front.paused_until_ns;
    default: return 0;
    }
}

static bool postponed(struct sim *sim, const struct agenda_item *item)
{
    struct agenda_item later = *item;
    later.when_ns = goes_on_ns(sim, item);
    if (sim->now_ns >= later.when_ns)
        return false;
    agenda_add(&sim->agenda, &later);
    return true;
}

static void tick(struct sim *sim)
{
    front_tick(sim);
    clients_check(sim);
    invariants_progress(sim);
    sim_later(sim, FRONT_TICK_MS * SIM_MS_NS, (struct agenda_item){.type = AGENDA_SHELL_TICK});
}

static void process_timer(struct sim *sim, int32_t index)
{
    if (sim->processes[index].phase == PROCESS_STARTING)
        fake_worker_start(sim, index);
    else
        fake_worker_timer(sim, index);
}

static void happen(struct sim *sim, const struct agenda_item *item)
{
    bool serves = !sim->front.stopped;
    switch (item->type) {
    case AGENDA_TO_COORDINATOR:
        front_receives(sim, item->index, item->frame, item->frame_bytes);
        break;
    case AGENDA_TO_WORKER:
        fake_worker_receives(sim, item->index, item->frame, item->frame_bytes);
        break;
    case AGENDA_PROCESS_TIMER: process_timer(sim, item->index); break;
    case AGENDA_LOADED: fake_worker_loaded(sim, item->index); break;
    case AGENDA_STEP_END: fake_worker_step_ended(sim, item->index, item->number); break;
    case AGENDA_SHELL_TICK:
        if (serves)
            tick(sim);
        break;
    case AGENDA_CLIENT_SUBMITS:
        if (serves)
            clients_submit(sim, item->index);
        break;
    case AGENDA_CLIENT_FINISHES:
        if (serves)
            clients_finish(sim, item->index);
        break;
    case AGENDA_FAULT: faults_happen(sim, item->index); break;
    case AGENDA_ENDING:
        if (serves && !sim->clients.shut_down)
            front_ending(sim, sim->scenario.ending == ENDING_SHUTDOWN);
        break;
    }
}

// Ends what is to end after this event. True when the run is over.
static bool over(struct sim *sim)
{
    struct coord_status status;
    struct clients *clients = &sim->clients;
    if (!sim->front.stopped && sim->now_ns > sim->scenario.virtual_ns_max) {
        if (sim->scenario.mood != MOOD_FAULTY)
            sim_violation(sim, "the run is not over, %d requests wait", clients->unfinished);
        else if (!clients->shut_down)
            front_ending(sim, true);
    }
    if (!clients->draining && clients->unfinished == 0) {
        coord_status(sim->coord, &status);
        if (status.failed || (clients->coming == 0 && sim->scenario.ending == ENDING_LAST))
            front_ending(sim, false);
    }
    if (sim->front.drained && !sim->front.stopped)
        sim->front.stopped_ns = sim->now_ns;
    sim->front.stopped = sim->front.drained;
    for (int32_t i = 0; i < sim->scenario.processes && sim->front.stopped; i++) {
        if (sim->processes[i].phase != PROCESS_ENDED)
            return false;
    }
    return sim->front.stopped;
}

static void close_run(struct sim *sim, void *memory)
{
    for (int32_t i = 0; i < sim->scenario.processes; i++) {
        if (sim->processes[i].device_opened)
            device_close(&sim->processes[i].device);
    }
    clients_close(sim);
    invariants_close(sim);
    agenda_close(&sim->agenda);
    free(memory);
}

bool sim_run(struct sim *sim, uint64_t seed)
{
    struct sim scratch = {.actions = sim->actions,
                          .frame = sim->frame,
                          .plan = sim->plan,
                          .results = sim->results,
                          .heard = sim->heard,
                          .trace = sim->trace};
    void *memory;
    *sim = scratch;
    sim->dice.state = dice_mix(seed + 1);
    scenario_draw(&sim->scenario, &sim->dice, seed);
    if (sim->trace)
        scenario_print(&sim->scenario);
    open_run(sim, &memory);
    while (!sim->violated) {
        struct agenda_item item = agenda_next(&sim->agenda);
        sim->now_ns = item.when_ns;
        if (postponed(sim, &item))
            continue;
        happen(sim, &item);
        free(item.frame);
        if (!sim->violated && over(sim))
            break;
    }
    if (!sim->violated)
        invariants_final(sim);
    close_run(sim, memory);
    return !sim->violated;
}

// ---- the program ----

static char abort_text[64];

// An ASSERT of the core is a violation too: say which seed it was.
static void on_abort(int number)
{
    (void)number;
    ssize_t written = write(STDERR_FILENO, abort_text, strlen(abort_text));
    (void)written;
}

struct totals {
    uint64_t seeds, tokens, done, aborted, errors, overloaded, steps, ready, failed, returned;
    uint64_t timeouts, paced;
    uint64_t saved, evicted, cached; // checkpoints, checkpoints, tokens
    uint64_t answers, returns;       // starts in another's answer, in one's own
};

static void add_totals(struct totals *totals, const struct sim *sim)
{
    totals->seeds++;
    totals->tokens += sim->clients.tokens_seen;
    totals->done += sim->clients.done_seen;
    totals->aborted += sim->clients.aborted_seen;
    totals->errors += sim->clients.errors_seen;
    totals->overloaded += sim->clients.overloaded_seen;
    totals->returned += sim->clients.returned_seen;
    totals->timeouts += sim->clients.timeouts_seen;
    totals->paced += sim->invariants.paced_steps;
    totals->steps += sim->invariants.steps;
    totals->saved += sim->invariants.status.prefix_checkpoints_saved;
    totals->evicted += sim->invariants.status.prefix_checkpoints_evicted;
    totals->cached += sim->invariants.status.prefix_hits;
    totals->answers += sim->clients.answers_found;
    totals->returns += sim->clients.returns_found;
    for (int g = 0; g < SIM_GROUPS_MAX; g++) {
        totals->ready += sim->invariants.groups[g].ready;
        totals->failed += sim->invariants.groups[g].failed;
    }
}

static void print_totals(const struct totals *totals)
{
    const struct {
        uint64_t count;
        const char *name;
    } counts[] = {
        {totals->seeds, "seeds:"},
        {totals->steps, "steps"},
        {totals->paced, "of them paced,"},
        {totals->tokens, "tokens,"},
        {totals->done, "requests done"},
        {totals->aborted, "of them by the door,"},
        {totals->timeouts, "by time,"},
        {totals->errors, "errors,"},
        {totals->overloaded, "overloaded,"},
        {totals->returned, "preempted and back;"},
        {totals->ready, "groups ready,"},
        {totals->failed, "failed;"},
        {totals->saved, "checkpoints saved,"},
        {totals->evicted, "evicted,"},
        {totals->cached, "tokens cached;"},
        {totals->answers, "began in an answer,"},
        {totals->returns, "went on in their own"},
    };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        printf("%s%llu %s", i > 0 ? " " : "", (unsigned long long)counts[i].count, counts[i].name);
    printf("\n");
}

static bool run_seed(struct sim *sim, uint64_t seed, struct totals *totals)
{
    snprintf(abort_text, sizeof abort_text, "seed %llu: aborted\n", (unsigned long long)seed);
    bool right = sim_run(sim, seed);
    add_totals(totals, sim);
    if (!right) {
        scenario_print(&sim->scenario);
        printf("seed %llu: VIOLATED %s\nreplay: sim --seed %llu --trace\n",
               (unsigned long long)seed, sim->violation, (unsigned long long)seed);
    }
    return right;
}

static void open_scratch(struct sim *sim)
{
    struct error error = {.status = OK};
    sim->actions = malloc(sizeof *sim->actions);
    sim->frame = malloc(WIRE_WORKER_FRAME_BYTES_MAX);
    sim->results = calloc(STEP_ROWS_MAX + 1, sizeof *sim->results);
    sim->heard = calloc(STEP_ROWS_MAX, sizeof *sim->heard);
    if (sim->actions == NULL || sim->frame == NULL || sim->results == NULL || sim->heard == NULL ||
        step_plan_open(&sim->plan, &error) != OK)
        DIE("no memory for the simulation");
}

struct arguments {
    uint64_t first, seed;
    int32_t seeds, seeds_min, budget_seconds;
    bool has_seed, trace, help;
};

static enum status parse(struct arguments *a, int count, char **words, struct error *error)
{
    struct option options[] = {
        {"--seeds", NULL, OPTION_INT, &a->seeds, 1, INT32_MAX, "N", "seeds at most (1000)", NULL},
        {"--budget-seconds", NULL, OPTION_INT, &a->budget_seconds, 0, 1 << 20, "S",
         "no further seed is begun after them (60)", NULL},
        {"--seeds-min", NULL, OPTION_INT, &a->seeds_min, 0, INT32_MAX, "N",
         "so many are run even when time is up (1)", NULL},
        {"--first", NULL, OPTION_SEED, &a->first, 0, 0, "N", "the first seed (0)", NULL},
        {"--seed", NULL, OPTION_SEED, &a->seed, 0, 0, "N", "this seed alone", NULL},
        {"--trace", NULL, OPTION_FLAG, &a->trace, 0, 0, NULL, "print every event", NULL},
        {"--help", "-h", OPTION_FLAG, &a->help, 0, 0, NULL, "print this help", NULL},
    };
    int options_count = (int)(sizeof options / sizeof options[0]);
    TRY(options_parse(options, options_count, count - 1, words + 1, error));
    for (int i = 0; i < options_count; i++)
        a->has_seed |= options[i].value == &a->seed && options[i].given != NULL;
    if (a->help) {
        printf("usage: sim [options]\n\n"
               "A deployment around the real core, with faults; one run per seed.\n\n");
        options_print(stdout, options, options_count);
    }
    if (a->has_seed) {
        a->first = a->seed;
        a->seeds = 1;
    }
    return OK;
}

int main(int count, char **words)
{
    struct arguments arguments = {.seeds = 1000, .seeds_min = 1, .budget_seconds = 60};
    struct totals totals = {0};
    struct error error = {.status = OK};
    if (parse(&arguments, count, words, &error) != OK) {
        fprintf(stderr, "sim: %s\n", error.text);
        return status_exit_code(error.status);
    }
    if (arguments.help)
        return 0;
    struct sim *sim = calloc(1, sizeof *sim);
    ASSERT(sim != NULL);
    open_scratch(sim);
    sim->trace = arguments.trace;
    signal(SIGABRT, on_abort);
    uint64_t until_ns = clock_now_ns() + (uint64_t)arguments.budget_seconds * CLOCK_NS_PER_S;
    bool right = true;
    for (int32_t i = 0; i < arguments.seeds && right; i++) {
        if (i >= arguments.seeds_min && clock_now_ns() >= until_ns)
            break;
        right = run_seed(sim, arguments.first + (uint64_t)i, &totals);
    }
    print_totals(&totals);
    step_plan_close(&sim->plan);
    free(sim->actions);
    free(sim->frame);
    free(sim->results);
    free(sim->heard);
    free(sim);
    return right ? 0 : 1;
}
