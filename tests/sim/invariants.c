// SPDX-License-Identifier: Apache-2.0
// invariants.c -- each check has a text that says what is broken; the first one ends the run.
#include "tests/sim/invariants.h"

#include <stdlib.h>
#include <string.h>

#include "parallel/shard.h"
#include "tests/sim/sim.h"

enum {
    QUIET_MS_MAX = 12000, // without deadly faults nothing stands still for longer
    STEP_MS_MAX = STEP_TIMEOUT_MS + 1000,
    PROMPT_STEPS_MAX = 4, // with room that pass a prompt by: one, two in flight, and the close
    GONE_MS_MAX = 10000,  // until told processes have ended, pauses included
};

void invariants_close(struct sim *sim)
{
    for (int g = 0; g < SIM_GROUPS_MAX; g++) {
        free(sim->invariants.groups[g].tables);
        free(sim->invariants.groups[g].checkpoint_named);
        free(sim->invariants.groups[g].checkpoint_slot);
        free(sim->invariants.groups[g].page_named);
    }
}

// ---- groups ----

static void on_ready(struct sim *sim, const struct coord_action *action)
{
    struct watched_group *group = &sim->invariants.groups[action->group];
    if (group->ready || group->failed)
        sim_violation(sim, "group %d is ready a second time or after it failed", action->group);
    for (int r = 0; r < sim->scenario.options.ranks; r++) {
        if ((group->ranks_ready >> r & 1) == 0)
            sim_violation(sim, "group %d is ready before its rank %d", action->group, r);
    }
    size_t pages = (size_t)action->memory->pages;
    group->ready = true;
    group->memory = *action->memory;
    size_t table = (size_t)group->memory.pages_per_sequence;
    group->tables = malloc((size_t)group->memory.sequences * table * sizeof *group->tables);
    group->page_named = calloc(pages, sizeof *group->page_named);
    group->checkpoint_named =
        calloc((size_t)group->memory.checkpoints + 1, sizeof *group->checkpoint_named);
    group->checkpoint_slot =
        calloc((size_t)group->memory.checkpoints + 1, sizeof *group->checkpoint_slot);
    ASSERT(group->tables != NULL && group->page_named != NULL && group->checkpoint_named != NULL);
    ASSERT(group->checkpoint_slot != NULL);
    sim->invariants.moved_ns = sim->now_ns;
}

static void on_failed(struct sim *sim, const struct coord_action *action)
{
    struct watched_group *group = &sim->invariants.groups[action->group];
    if (group->failed)
        sim_violation(sim, "group %d fails a second time", action->group);
    if (action->text == NULL || action->text[0] == '\0')
        sim_violation(sim, "group %d fails and does not say why", action->group);
    else if (sim->scenario.mood != MOOD_FAULTY && !sim->clients.shut_down)
        sim_violation(sim, "without a deadly fault: %s", action->text);
    group->failed = true;
    group->failed_ns = sim->now_ns;
    clients_group_failed(sim);
}

// Whether what PLACE asks for fits into the memory that the process said it has; sharers of a
// host's memory split it. (Not whether the process alone would be planned as much: a larger memory
// may be planned larger steps and fewer pages.)
static bool can_hold(const struct sim *sim, int32_t process, const struct place_message *place)
{
    const struct coord_options *options = &sim->scenario.options;
    uint64_t bytes_free = sim->scenario.bytes_free[process];
    struct memory_plan plan = {.sequences = place->sequences,
                               .sequence_tokens = place->sequence_tokens,
                               .step_tokens = place->step_tokens,
                               .pages = place->pages,
                               .pages_per_sequence = place->pages_per_sequence,
                               .checkpoints = place->checkpoints,
                               .drafts_max = place->drafts_max,
                               .recorded = sim->scenario.cpu ? 0 : 1 + place->drafts_max};
    struct shard shard;
    struct error error;
    if (sim->scenario.cpu)
        bytes_free /= (uint64_t)options->ranks;
    if (shard_make(&shard, &options->config, 0, options->ranks, &error) != OK)
        return false;
    memory_plan_count_bytes(&plan, &options->config, &shard, sim->scenario.mtp);
    return (double)plan.total_bytes <= (double)bytes_free * options->wishes.utilization;
}

static void on_place(struct sim *sim, const struct coord_action *action)
{
    struct watched_group *group = &sim->invariants.groups[action->group];
    const struct place_message *place = action->place;
    int32_t process = sim->front.peers[action->worker];
    if (place->group != action->group || group->failed ||
        coord_worker(sim->coord, action->group, place->rank) != action->worker)
        sim_violation(sim, "PLACE in group %d rank %d goes to the wrong worker %d", action->group,
                      place->rank, action->worker);
    if (process >= 0 && sim->scenario.intruders[process] != INTRUDER_NONE &&
        sim->scenario.intruders[process] != INTRUDER_SURPLUS)
        sim_violation(sim, "process %d should have been refused", process);
    if (process >= 0 && !can_hold(sim, process, place))
        sim_violation(sim, "process %d is to hold %d sequences and %d pages", process,
                      place->sequences, place->pages);
    group->epoch = place->epoch;
    group->context = place->sequence_tokens;
}

// A worker must be able to tell that END is meant for it, and whether all is well.
static void on_end(struct sim *sim, const struct coord_action *action)
{
    int32_t process = sim->front.peers[action->worker];
    const struct end_message *end = action->end;
    if (process < 0)
        return;
    const struct place_message *place = &sim->processes[process].place;
    if (place->ranks > 0 && end->epoch != 0 && end->epoch != place->epoch)
        sim_violation(sim, "process %d of epoch %llu gets END of epoch %llu", process,
                      (unsigned long long)place->epoch, (unsigned long long)end->epoch);
    if (!end->failed && (!sim->clients.draining || (sim->clients.shut_down && place->ranks > 0)))
        sim_violation(sim, "process %d is told that all ends in order, and it does not", process);
    if (end->text[0] == '\0')
        sim_violation(sim, "END to process %d does not say why", process);
}

// ---- plans ----

// Pages before the position where a slot opens are shared; all others are its own.
static void check_pages_given(struct sim *sim, struct watched_group *group,
                              const struct step_plan *plan, const struct step_pages *pages)
{
    int32_t *row = group->tables + (size_t)pages->slot * (size_t)group->memory.pages_per_sequence;
    for (int k = 0; k < pages->count; k++) {
        int32_t page = plan->page_ids[pages->ids_first + k], at = pages->first + k;
        row[at] = page;
        if (at >= group->opening[pages->slot].position / TOKENS_PER_PAGE &&
            group->page_named[page] > group->resolved)
            sim_violation(sim, "page %d is given away, but step %llu in flight names it", page,
                          (unsigned long long)group->page_named[page]);
    }
    group->pages_count[pages->slot] = pages->first + pages->count;
}

// The rule of run-ahead: what a step in flight names is nobody else's.
static void check_given(struct sim *sim, int32_t g, const struct step_plan *plan)
{
    struct watched_group *group = &sim->invariants.groups[g];
    for (int i = 0; i < plan->closes_count; i++) {
        int32_t slot = plan->closes[i];
        if (group->slot_named[slot] > group->resolved)
            sim_violation(sim, "slot %d is closed, but step %llu in flight names it", slot,
                          (unsigned long long)group->slot_named[slot]);
        struct client *client = clients_of_seed(sim, group->opening[slot].seed);
        if (client != NULL)
            client->has_slot = false;
        group->slot_open[slot] = false;
        group->pages_count[slot] = 0;
    }
    for (int i = 0; i < plan->opens_count; i++) {
        int32_t slot = plan->opens[i].slot;
        if (group->slot_open[slot] || group->slot_named[slot] > group->resolved)
            sim_violation(sim, "slot %d is given away, but step %llu in flight names it", slot,
                          (unsigned long long)group->slot_named[slot]);
        group->slot_open[slot] = true;
        group->opening[slot] = plan->opens[i];
        clients_opened(sim, g, &plan->opens[i]);
        const struct client *client = clients_of_seed(sim, plan->opens[i].seed);
        group->prefill_at[slot] = plan->opens[i].position;
        group->prefill_end[slot] = client == NULL ? 0 : client->prompt_tokens + client->outputs;
    }
    for (int i = 0; i < plan->pages_count; i++)
        check_pages_given(sim, group, plan, &plan->pages[i]);
    for (int i = 0; i < plan->copies_count; i++) {
        group->checkpoint_named[plan->copies[i].checkpoint] = plan->step;
        group->checkpoint_slot[plan->copies[i].checkpoint] = -1;
    }
}

// A checkpoint is written only when no step in flight, this one included, reads or writes it; but
// rows of one sequence that decodes name it until one of them has written it.
static void check_save(struct sim *sim, struct watched_group *group, uint64_t step,
                       int32_t checkpoint, int32_t slot)
{
    if (group->checkpoint_named[checkpoint] > group->resolved &&
        (slot < 0 || group->checkpoint_slot[checkpoint] != slot))
        sim_violation(sim, "checkpoint %d is overwritten, but step %llu in flight names it",
                      checkpoint, (unsigned long long)group->checkpoint_named[checkpoint]);
    group->checkpoint_named[checkpoint] = step;
    group->checkpoint_slot[checkpoint] = slot;
}

static void check_saves(struct sim *sim, struct watched_group *group, const struct step_plan *plan)
{
    for (int i = 0; i < plan->rows_count; i++) {
        const struct step_plan_row *row = &plan->rows[i];
        if (row->kind == STEP_ROW_DECODE && row->checkpoint >= 0)
            check_save(sim, group, plan->step, row->checkpoint, row->slot);
        for (int k = 0; k < row->saves_count; k++)
            check_save(sim, group, plan->step, row->saves[k].checkpoint, -1);
    }
}

// A chunk is the next part of what the client has sent and been told.
static void check_chunk(struct sim *sim, struct watched_group *group, const struct step_plan *plan,
                        const struct step_plan_row *row)
{
    const struct client *client = clients_of_seed(sim, group->opening[row->slot].seed);
    int32_t at = group->prefill_at[row->slot], end = at + row->tokens_count;
    bool last = end == group->prefill_end[row->slot];
    bool right = end <= group->prefill_end[row->slot] && (row->sample != 0) == last;
    for (int32_t t = 0; t < row->tokens_count && right; t++)
        right = plan->tokens[row->tokens_first + t] == clients_token(sim, client, at + t);
    if (!right || (!last && row->token_next != clients_token(sim, client, end)))
        sim_violation(sim, "slot %d: %d tokens at %d of %d known are not the client's", row->slot,
                      row->tokens_count, at, group->prefill_end[row->slot]);
    group->prefill_at[row->slot] = end;
}

static void note_rows(struct sim *sim, struct watched_group *group, const struct step_plan *plan)
{
    for (int i = 0; i < plan->rows_count && !sim->violated; i++) {
        const struct step_plan_row *row = &plan->rows[i];
        const struct client *client = clients_of_seed(sim, group->opening[row->slot].seed);
        if (client == NULL || client->phase != CLIENT_ACCEPTED)
            sim_violation(sim, "step %llu works for a request that has ended",
                          (unsigned long long)plan->step);
        else if (row->kind == STEP_ROW_PREFILL)
            check_chunk(sim, group, plan, row);
        group->slot_named[row->slot] = plan->step;
        const int32_t *table =
            group->tables + (size_t)row->slot * (size_t)group->memory.pages_per_sequence;
        for (int32_t k = 0; k < group->pages_count[row->slot]; k++)
            group->page_named[table[k]] = plan->step;
    }
}

// Whether a's request goes before b's.
static bool is_senior(const struct client *a, const struct client *b)
{
    return a->priority != b->priority ? a->priority < b->priority : a->arrival < b->arrival;
}

// However many others decode or have shorter prompts: of the steps that have room for a chunk
// beside those who decode, the most senior prompt has every second one, unless its request is being
// preempted, and then its slot is closed soon.
static void check_senior_prompt(struct sim *sim, int32_t g, const struct step_plan *plan)
{
    struct watched_group *group = &sim->invariants.groups[g];
    const struct client *senior = NULL;
    int32_t senior_slot = -1, decoding = 0;
    for (int32_t slot = 0; slot < group->memory.sequences; slot++) {
        const struct client *client = clients_of_seed(sim, group->opening[slot].seed);
        if (!group->slot_open[slot] || client == NULL || client->phase != CLIENT_ACCEPTED)
            continue;
        bool has_prompt = group->prefill_at[slot] < group->prefill_end[slot];
        decoding += !has_prompt;
        if (has_prompt && (senior == NULL || is_senior(client, senior))) {
            senior = client;
            senior_slot = slot;
        }
    }
    bool served = senior == NULL; // it, or one that was more senior and has its whole prompt now
    for (int i = 0; i < plan->rows_count && !served; i++) {
        const struct client *other = clients_of_seed(sim, group->opening[plan->rows[i].slot].seed);
        served = plan->rows[i].kind == STEP_ROW_PREFILL && other != NULL &&
                 (other == senior || is_senior(other, senior));
    }
    if (served || senior->seed != group->senior_seed)
        group->senior_passed = 0;
    else if (group->memory.step_tokens - decoding >= TOKENS_PER_PAGE)
        group->senior_passed++;
    group->senior_seed = senior == NULL ? 0 : senior->seed;
    if (group->senior_passed > PROMPT_STEPS_MAX)
        sim_violation(sim, "slot %d has %d tokens of its prompt left and no row since step %llu",
                      senior_slot, group->prefill_end[senior_slot] - group->prefill_at[senior_slot],
                      (unsigned long long)group->slot_named[senior_slot]);
}

static void on_plan(struct sim *sim, const struct coord_action *action)
{
    struct watched_group *group = &sim->invariants.groups[action->group];
    const struct step_plan *plan = action->plan;
    if (!group->ready || group->failed || sim->front.drained)
        sim_violation(sim, "group %d gets step %llu and is not ready", action->group,
                      (unsigned long long)plan->step);
    else if (plan->group != action->group || plan->epoch != group->epoch ||
             plan->step != group->sent + 1)
        sim_violation(sim, "group %d gets step %llu of epoch %llu after step %llu", action->group,
                      (unsigned long long)plan->step, (unsigned long long)plan->epoch,
                      (unsigned long long)group->sent);
    else if (plan->step - group->resolved > COORD_FLIGHT_MAX)
        sim_violation(sim, "group %d has %llu steps in flight", action->group,
                      (unsigned long long)(plan->step - group->resolved));
    if (sim->violated)
        return;
    group->sent = plan->step;
    group->reported[plan->step % INVARIANTS_STEPS_BACK] = 0;
    check_given(sim, action->group, plan);
    check_saves(sim, group, plan);
    note_rows(sim, group, plan);
    check_senior_prompt(sim, action->group, plan);
    sim->invariants.moved_ns = sim->now_ns;
    sim->invariants.steps++;
}

void invariants_ready(struct sim *sim, const struct ready *ready)
{
    sim->invariants.groups[ready->group].ranks_ready |= 1u << ready->rank;
}

void invariants_report(struct sim *sim, const struct report *report)
{
    struct watched_group *group = &sim->invariants.groups[report->group];
    uint32_t all = (1u << sim->scenario.options.ranks) - 1;
    if (report->epoch != group->epoch || report->step <= group->resolved)
        return;                       // late
    if (report->step > group->sent) { // a lie
        group->must_fail_by_ns = sim->now_ns;
        group->must_fail_because = "a report of a step that was never sent";
        return;
    }
    group->reported[report->step % INVARIANTS_STEPS_BACK] |= 1u << report->rank;
    while (group->resolved < group->sent &&
           group->reported[(group->resolved + 1) % INVARIANTS_STEPS_BACK] == all)
        group->resolved++;
    sim->invariants.moved_ns = sim->now_ns;
    if (group->lie_step != 0 && group->resolved >= group->lie_step)
        group->must_fail_by_ns = sim->now_ns; // at once
}

// What the operator allows running streams to wait, or a share of what a prompt has waited.
static uint64_t aim_ns(const struct sim *sim)
{
    uint64_t gap_ns = sim->scenario.options.prefill_gap_ns;
    for (int i = 0; i < sim->scenario.clients; i++) {
        const struct client *client = &sim->clients.list[i];
        if (client->phase != CLIENT_ACCEPTED || client->outputs > 0)
            continue;
        uint64_t waited_ns = sim->now_ns - client->accepted_ns;
        gap_ns = waited_ns / COORD_WAIT_GAPS > gap_ns ? waited_ns / COORD_WAIT_GAPS : gap_ns;
    }
    return gap_ns;
}

// Where steps take what their tokens take and little else, running streams wait for no step that is
// much longer than is allowed: the core has to learn how long a token takes, so it may be twice as
// long, and a chunk of 64 is always allowed.
void invariants_step_takes(struct sim *sim, int32_t decode_rows, int32_t prefill_tokens,
                           uint64_t duration_ns)
{
    const struct scenario *scenario = &sim->scenario;
    uint64_t gap_ns = scenario->options.prefill_gap_ns;
    if (scenario->mood != MOOD_CALM || gap_ns == 0 || decode_rows == 0 ||
        prefill_tokens <= TOKENS_PER_PAGE || scenario->step_ns_max > gap_ns / 4)
        return;
    sim->invariants.paced_steps++;
    if (duration_ns > 2 * aim_ns(sim))
        sim_violation(sim, "a step of %d rows and %d prompt tokens takes %.3f ms, gap %.3f ms",
                      decode_rows, prefill_tokens, (double)duration_ns * 1e-6,
                      (double)aim_ns(sim) * 1e-6);
}

static void check_failed_in_time(struct sim *sim, int g)
{
    const struct watched_group *group = &sim->invariants.groups[g];
    if (group->must_fail_by_ns != 0 && !group->failed && sim->now_ns >= group->must_fail_by_ns)
        sim_violation(sim, "group %d has not failed in time after %s", g, group->must_fail_because);
}

void invariants_action(struct sim *sim, const struct coord_action *action)
{
    if (sim->front.drained && action->type != ACTION_SEND_REFUSE && action->type != ACTION_ERROR)
        sim_violation(sim, "action %d after DRAINED", (int)action->type);
    switch (action->type) {
    case ACTION_SEND_PLACE: on_place(sim, action); break;
    case ACTION_SEND_END: on_end(sim, action); break;
    case ACTION_SEND_PLAN: on_plan(sim, action); break;
    case ACTION_GROUP_READY: on_ready(sim, action); break;
    case ACTION_GROUP_FAILED: on_failed(sim, action); break;
    case ACTION_DRAINED:
        for (int g = 0; g < sim->scenario.options.groups; g++)
            check_failed_in_time(sim, g);
        if (!sim->clients.draining || sim->clients.unfinished > 0)
            sim_violation(sim, "DRAINED with %d requests unfinished", sim->clients.unfinished);
        break;
    default: break;
    }
}

void invariants_after_step(struct sim *sim, const struct coord_event *event)
{
    struct coord_status status;
    bool idle = sim->actions->count == 0 && !sim->actions->more;
    if (idle && (event->type == EVENT_TICK || event->type == EVENT_HEARTBEAT))
        return; // nothing has changed
    const char *broken = coord_check(sim->coord);
    if (broken != NULL)
        sim_violation(sim, "broken: %s", broken);
    coord_status(sim->coord, &status);
    if (status.queued - status.preempted > status.queued_max || status.slots_free > status.slots ||
        status.pages_free > status.pages || status.checkpoints_free > status.checkpoints ||
        status.pages_cached > status.pages_free || status.prefix_hits > status.prefix_queries ||
        status.pool_tokens_free > status.pool_tokens ||
        status.slots - status.slots_free != status.running)
        sim_violation(sim, "counts out of bounds: %d queued of %d, %d of %d slots free, %d running",
                      status.queued, status.queued_max, status.slots_free, status.slots,
                      status.running);
}

// ---- progress ----

void invariants_expect_failure(struct sim *sim, int32_t index, uint64_t limit_ns,
                               const char *because)
{
    const struct process *process = &sim->processes[index];
    if (process->phase != PROCESS_LOADING && process->phase != PROCESS_RUNNING)
        return;
    struct watched_group *group = &sim->invariants.groups[process->place.group];
    uint64_t looks_ns = sim->front.paused_until_ns; // nobody looks before
    uint64_t by_ns = (looks_ns > sim->now_ns ? looks_ns : sim->now_ns) + limit_ns;
    if (group->must_fail_by_ns == 0 || by_ns < group->must_fail_by_ns) {
        group->must_fail_by_ns = by_ns;
        group->must_fail_because = because;
    }
}

void invariants_expect_lie_seen(struct sim *sim, int32_t index, uint64_t step, const char *because)
{
    struct watched_group *group = &sim->invariants.groups[sim->processes[index].place.group];
    group->lie_step = step;
    group->must_fail_because = because;
    invariants_expect_failure(sim, index, STEP_MS_MAX * (uint64_t)SIM_MS_NS, because);
}

void invariants_progress(struct sim *sim)
{
    uint64_t quiet_ns = sim->now_ns - sim->invariants.moved_ns;
    uint64_t patience_ns = QUIET_MS_MAX * (uint64_t)SIM_MS_NS + sim->scenario.start_ns_max +
                           sim->scenario.load_ns_max + sim->front.paused_ns;
    for (int g = 0; g < sim->scenario.options.groups; g++) {
        const struct watched_group *group = &sim->invariants.groups[g];
        check_failed_in_time(sim, g);
        if (!group->failed && group->sent > group->resolved &&
            quiet_ns > STEP_MS_MAX * (uint64_t)SIM_MS_NS + sim->front.paused_ns)
            sim_violation(sim, "group %d: step %llu neither ends nor fails", g,
                          (unsigned long long)(group->resolved + 1));
    }
    if (sim->scenario.mood != MOOD_FAULTY && sim->clients.unfinished > 0 && quiet_ns > patience_ns)
        sim_violation(sim, "%d requests wait and nothing has moved for %llu ms",
                      sim->clients.unfinished, (unsigned long long)(quiet_ns / SIM_MS_NS));
}

static void check_process_end(struct sim *sim, int32_t index)
{
    const struct process *process = &sim->processes[index];
    // Whoever says HELLO to a coordinator that has ended hears nothing; nor whose HELLO came during
    // the pause after which the coordinator ended before it read anything.
    uint64_t heard_after_ns = sim->scenario.latency_ns_max + sim->scenario.late_ns_max;
    uint64_t read_ns = sim->front.stopped_ns;
    if (read_ns == sim->front.paused_until_ns)
        read_ns -= sim->front.paused_ns;
    if (process->phase == PROCESS_STARTING || process->started_ns + heard_after_ns > read_ns)
        return;
    if (process->phase != PROCESS_ENDED)
        sim_violation(sim, "process %d still waits at the end", index);
    else if (sim->scenario.mood != MOOD_FAULTY && process->end != PROCESS_END_REFUSED &&
             process->end != PROCESS_END_TOLD)
        sim_violation(sim, "process %d was neither told to end nor refused (%d)", index,
                      (int)process->end);
}

void invariants_final(struct sim *sim)
{
    struct coord_status status;
    coord_status(sim->coord, &status);
    sim->invariants.status = status;
    if (!sim->front.drained)
        sim_violation(sim, "the coordinator never said DRAINED");
    if (status.running != 0 || status.queued != 0 || status.slots_free != status.slots ||
        status.pages_free != status.pages || status.pool_tokens_free != status.pool_tokens)
        sim_violation(sim,
                      "at the end %d run, %d wait, %d of %d slots, %d of %d pages and %lld of %lld "
                      "tokens are free",
                      status.running, status.queued, status.slots_free, status.slots,
                      status.pages_free, status.pages, (long long)status.pool_tokens_free,
                      (long long)status.pool_tokens);
    if (sim->clients.unfinished != 0)
        sim_violation(sim, "%d requests never ended", sim->clients.unfinished);
    for (int32_t i = 0; i < sim->scenario.processes && !sim->violated; i++)
        check_process_end(sim, i);
    if (status.tokens_out != sim->clients.tokens_seen)
        sim_violation(sim, "status counts %llu tokens, clients saw %llu",
                      (unsigned long long)status.tokens_out,
                      (unsigned long long)sim->clients.tokens_seen);
}
