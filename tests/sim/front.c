// SPDX-License-Identifier: Apache-2.0
// front.c -- coordinator/shell.c in virtual time: the same table of connections, the same rules of
// when one is forgotten, the same ticks.
#include "tests/sim/front.h"

#include <string.h>

#include "tests/sim/sim.h"

enum { CALLS_MAX = 10000 }; // of coord_step for one event: more is a core that never comes to rest

void front_init(struct sim *sim)
{
    for (int i = 0; i < COORD_WORKERS_MAX; i++)
        sim->front.peers[i] = -1;
}

static int32_t worker_of(struct sim *sim, int32_t process, bool add)
{
    int32_t free_place = -1;
    for (int32_t i = 0; i < COORD_WORKERS_MAX; i++) {
        if (sim->front.peers[i] == process)
            return i;
        if (sim->front.peers[i] < 0 && free_place < 0)
            free_place = i;
        if (sim->front.peers[i] < 0 && i >= SIM_PROCESSES_MAX)
            break; // never more connections than processes
    }
    if (add && free_place >= 0)
        sim->front.peers[free_place] = process;
    return add ? free_place : -1;
}

// ---- actions ----

// False when the connection is closed.
static bool send_frame(struct sim *sim, int32_t worker, enum status encoded, size_t bytes)
{
    ASSERT(encoded == OK);
    return network_to_worker(sim, sim->front.peers[worker], sim->frame, bytes);
}

static void send_to_worker(struct sim *sim, const struct coord_action *action)
{
    size_t bytes = 0, most = WIRE_WORKER_FRAME_BYTES_MAX;
    enum status status;
    if (sim->front.peers[action->worker] < 0)
        return;
    if (action->type == ACTION_SEND_PLACE)
        status = place_message_encode(sim->frame, most, &bytes, action->place);
    else if (action->type == ACTION_SEND_REFUSE)
        status = refuse_encode(sim->frame, most, &bytes, action->refuse);
    else
        status = end_message_encode(sim->frame, most, &bytes, action->end);
    bool gone = !send_frame(sim, action->worker, status, bytes);
    if (gone || action->type != ACTION_SEND_PLACE)
        sim->front.peers[action->worker] = -1;
}

static void send_plan(struct sim *sim, const struct coord_action *action)
{
    size_t bytes;
    enum status status =
        step_plan_encode(sim->frame, WIRE_WORKER_FRAME_BYTES_MAX, &bytes, action->plan);
    for (int r = 0; r < sim->scenario.options.ranks; r++) {
        int32_t worker = coord_worker(sim->coord, action->group, r);
        if (worker < 0 || worker >= COORD_WORKERS_MAX || sim->front.peers[worker] < 0)
            sim_violation(sim, "a plan for group %d rank %d, whose connection is gone",
                          action->group, r);
        else
            (void)send_frame(sim, worker, status, bytes);
    }
}

static void trace_action(struct sim *sim, const struct coord_action *action)
{
    static const char *const names[] = {"place",       "refuse",       "plan",     "end",
                                        "group ready", "group failed", "accepted", "tokens",
                                        "done",        "error",        "drained"};
    const char *text = action->text != NULL ? action->text : "";
    if (!sim->trace)
        return;
    if (action->type == ACTION_SEND_PLAN) {
        const struct step_plan *plan = action->plan;
        sim_trace(sim, "  plan: group %d step %llu: %d closes, %d opens, %d rows, %d prompt tokens",
                  action->group, (unsigned long long)plan->step, plan->closes_count,
                  plan->opens_count, plan->rows_count, plan->tokens_count);
        return;
    }
    if (action->type == ACTION_SEND_REFUSE)
        text = action->refuse->text;
    if (action->type == ACTION_SEND_END)
        text = action->end->text;
    if (action->type == ACTION_DONE)
        text = action->reason;
    if (action->type >= ACTION_ACCEPTED && action->type <= ACTION_ERROR)
        sim_trace(sim, "  %s: request %llx (%d tokens) %s", names[action->type],
                  (unsigned long long)action->request, action->tokens_count, text);
    else
        sim_trace(sim, "  %s: group %d worker %d %s", names[action->type], action->group,
                  action->worker, text);
}

static void act(struct sim *sim, const struct coord_action *action)
{
    trace_action(sim, action);
    invariants_action(sim, action);
    switch (action->type) {
    case ACTION_SEND_PLACE:
    case ACTION_SEND_REFUSE:
    case ACTION_SEND_END: send_to_worker(sim, action); break;
    case ACTION_SEND_PLAN: send_plan(sim, action); break;
    case ACTION_GROUP_READY:
    case ACTION_GROUP_FAILED: break;
    case ACTION_DRAINED: sim->front.drained = true; break;
    default: clients_action(sim, action); break;
    }
}

// One call of the core, watched. True when it did or wants something.
static bool call(struct sim *sim, struct coord_event *event)
{
    event->now_ns = sim->now_ns;
    coord_step(sim->coord, event, sim->actions);
    for (int i = 0; i < sim->actions->count; i++)
        act(sim, &sim->actions->list[i]);
    invariants_after_step(sim, event);
    return sim->actions->count > 0 || sim->actions->more;
}

void front_step(struct sim *sim, struct coord_event *event)
{
    struct coord_event now = *event;
    bool did = call(sim, &now), any = did;
    now.type = EVENT_TICK;
    for (int calls = 1; sim->actions->more && !sim->violated; calls++) {
        did = call(sim, &now);
        any = any || did;
        if (calls == CALLS_MAX)
            sim_violation(sim, "after %d calls the core still has more to say", calls);
    }
    // Who has no more to say has nothing left that could be done now.
    if (any && !sim->violated && call(sim, &now))
        sim_violation(sim, "the core came to rest too early: action %d was left",
                      sim->actions->count > 0 ? (int)sim->actions->list[0].type : -1);
}

// ---- events ----

static void worker_gone(struct sim *sim, int32_t worker)
{
    sim_trace(sim, "p%d is gone", sim->front.peers[worker]);
    sim->front.peers[worker] = -1;
    front_step(sim, &(struct coord_event){.type = EVENT_WORKER_GONE, .worker = worker});
}

static void send_alive(struct sim *sim)
{
    size_t bytes;
    if (sim->now_ns - sim->front.alive_ns < HEARTBEAT_INTERVAL_MS * (uint64_t)SIM_MS_NS)
        return;
    sim->front.alive_ns = sim->now_ns;
    for (int32_t i = 0; i < SIM_PROCESSES_MAX; i++) {
        if (sim->front.peers[i] < 0)
            continue;
        enum status status = alive_encode(sim->frame, WIRE_WORKER_FRAME_BYTES_MAX, &bytes);
        if (!send_frame(sim, i, status, bytes))
            worker_gone(sim, i);
    }
}

static enum status decode(struct sim *sim, struct coord_event *event, enum message_type type,
                          const uint8_t *frame, size_t bytes)
{
    static struct hello hello;
    static struct ready ready;
    static struct report report;
    static struct heartbeat heartbeat;
    static struct failure failure;
    struct error error;
    report.rows = sim->heard;
    event->hello = &hello;
    switch (type) {
    case MESSAGE_HELLO:
        event->type = EVENT_HELLO;
        return hello_decode(&hello, frame, bytes, &error);
    case MESSAGE_READY:
        event->type = EVENT_READY;
        event->ready = &ready;
        return ready_decode(&ready, frame, bytes, &error);
    case MESSAGE_REPORT:
        event->type = EVENT_REPORT;
        event->report = &report;
        return report_decode(&report, frame, bytes, &error);
    case MESSAGE_HEARTBEAT:
        event->type = EVENT_HEARTBEAT;
        event->heartbeat = &heartbeat;
        return heartbeat_decode(&heartbeat, frame, bytes, &error);
    case MESSAGE_FAILURE:
        event->type = EVENT_FAILURE;
        event->failure = &failure;
        return failure_decode(&failure, frame, bytes, &error);
    default: return E_MALFORMED;
    }
}

void front_receives(struct sim *sim, int32_t process, const uint8_t *frame, size_t bytes)
{
    static const char *const names[MESSAGE_TYPE_COUNT] = {"garbage", "HELLO", "READY",
                                                          "report",  "beat",  "FAILURE"};
    enum message_type type = message_type_of(frame, bytes);
    struct coord_event event = {.worker = worker_of(sim, process, type == MESSAGE_HELLO)};
    if (sim->front.stopped || event.worker < 0)
        return; // of a worker whose group has ended
    if (decode(sim, &event, type, frame, bytes) != OK)
        return; // the shell logs and drops it
    if (event.type == EVENT_REPORT) {
        sim_trace(sim, "p%d: report of step %llu", process, (unsigned long long)event.report->step);
        invariants_report(sim, event.report);
    } else if (event.type != EVENT_HEARTBEAT) {
        sim_trace(sim, "p%d: %s", process, names[type]);
        if (event.type == EVENT_READY)
            invariants_ready(sim, event.ready);
    }
    front_step(sim, &event);
}

void front_tick(struct sim *sim)
{
    front_step(sim, &(struct coord_event){.type = EVENT_TICK, .worker = -1});
    if (!sim->violated)
        send_alive(sim);
}

void front_ending(struct sim *sim, bool at_once)
{
    sim_trace(sim, "%s", at_once ? "SHUTDOWN" : "DRAIN");
    sim->clients.draining = true;
    sim->clients.shut_down = at_once;
    front_step(sim,
               &(struct coord_event){.type = at_once ? EVENT_SHUTDOWN : EVENT_DRAIN, .worker = -1});
}
