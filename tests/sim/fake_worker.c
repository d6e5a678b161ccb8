// SPDX-License-Identifier: Apache-2.0
// fake_worker.c -- worker/loop.c in virtual time. A step ends on every rank some time after the
// last rank has begun it, as the exchange makes it.
#include "tests/sim/fake_worker.h"

#include <stdio.h>
#include <string.h>

#include "tests/sim/faults.h"
#include "tests/sim/sim.h"

enum { POLL_MS = HEARTBEAT_INTERVAL_MS / 2 };

static void send_frame(struct sim *sim, int32_t index, enum status encoded, size_t bytes)
{
    ASSERT(encoded == OK);
    network_to_coordinator(sim, index, sim->frame, bytes);
}

static void end_process(struct sim *sim, int32_t index, enum process_end end)
{
    struct process *process = &sim->processes[index];
    process->phase = PROCESS_ENDED;
    process->end = end;
    process->ended_ns = sim->now_ns;
    process->connection_closed = true;
    if (process->device_opened)
        device_close(&process->device);
    process->device_opened = false;
}

void fake_worker_kill(struct sim *sim, int32_t index, bool closed)
{
    if (sim->processes[index].phase == PROCESS_ENDED)
        return;
    end_process(sim, index, PROCESS_END_KILLED);
    sim->processes[index].connection_closed = closed;
}

static void tell_failure(struct sim *sim, int32_t index, const char *text)
{
    const struct process *process = &sim->processes[index];
    bool placed = process->phase >= PROCESS_LOADING;
    struct failure failure = {.group = placed ? process->place.group : -1,
                              .rank = placed ? process->place.rank : -1,
                              .epoch = placed ? process->place.epoch : 0};
    size_t bytes;
    snprintf(failure.text, sizeof failure.text, "%s", text);
    enum status status = failure_encode(sim->frame, WIRE_WORKER_FRAME_BYTES_MAX, &bytes, &failure);
    send_frame(sim, index, status, bytes);
}

void fake_worker_give_up(struct sim *sim, int32_t index, const char *text)
{
    if (sim->processes[index].phase == PROCESS_ENDED)
        return;
    sim_trace(sim, "p%d gives up: %s", index, text);
    tell_failure(sim, index, text);
    end_process(sim, index, PROCESS_END_GAVE_UP);
}

// Gives up where a healthy deployment never would.
static void give_up_unasked(struct sim *sim, int32_t index, const char *text, bool excused)
{
    if (sim->scenario.mood != MOOD_FAULTY || !excused)
        sim_violation(sim, "process %d had to give up: %s", index, text);
    fake_worker_give_up(sim, index, text);
}

// ---- the device ----

static uint64_t step_duration(struct sim *sim)
{
    return (uint64_t)dice_between(&sim->dice, (int64_t)sim->scenario.step_ns_min,
                                  (int64_t)sim->scenario.step_ns_max);
}

// All ranks have begun the step: it will end on each of them.
static void meet(struct sim *sim, int32_t index, uint64_t step)
{
    const struct device *device = &sim->processes[index].device;
    size_t place = step % DEVICE_STAGING;
    uint64_t duration_ns =
        step_duration(sim) + (uint64_t)device->queue[place].prefill_tokens * sim->scenario.token_ns;
    int32_t group = sim->processes[index].place.group;
    invariants_step_takes(sim, device->queue[place].decode_rows,
                          device->queue[place].prefill_tokens, duration_ns);
    sim->exchanges[group].begun[step % 2] = 0;
    for (int32_t i = 0; i < sim->scenario.processes; i++) {
        const struct process *process = &sim->processes[i];
        if (process->phase != PROCESS_RUNNING || process->place.group != group)
            continue;
        uint64_t skew_ns = (uint64_t)dice_between(&sim->dice, 0, (int64_t)duration_ns / 4);
        sim_later(sim, duration_ns + skew_ns,
                  (struct agenda_item){.type = AGENDA_STEP_END, .index = i, .number = step});
    }
}

static void begin_step(struct sim *sim, int32_t index)
{
    struct process *process = &sim->processes[index];
    if (process->hangs || process->running_step != 0 ||
        process->device.done == process->device.submitted)
        return;
    uint64_t step = process->device.done + 1;
    process->running_step = step;
    process->begun_ns = sim->now_ns;
    uint32_t *begun = &sim->exchanges[process->place.group].begun[step % 2];
    *begun |= 1u << process->place.rank;
    if (*begun == (1u << process->place.ranks) - 1)
        meet(sim, index, step);
}

void fake_worker_step_ended(struct sim *sim, int32_t index, uint64_t step)
{
    struct process *process = &sim->processes[index];
    struct report report = {.rows = sim->results};
    struct error error = {.status = OK};
    size_t bytes;
    if (process->phase != PROCESS_RUNNING || process->running_step != step)
        return;
    if (device_run(&process->device, &sim->plan, &report, &error) != OK) {
        sim_violation(sim, "group %d rank %d step %llu: %s", process->place.group,
                      process->place.rank, (unsigned long long)step, error.text);
        return;
    }
    process->running_step = 0;
    report.step_ns = sim->now_ns - process->begun_ns;
    faults_report(sim, index, &report);
    if (process->place.rank != 0)
        report.rows_count = 0;
    enum status status = report_encode(sim->frame, WIRE_WORKER_FRAME_BYTES_MAX, &bytes, &report);
    send_frame(sim, index, status, bytes);
    begin_step(sim, index);
}

// ---- what is said at intervals ----

static void say_something(struct sim *sim, int32_t index)
{
    struct process *process = &sim->processes[index];
    bool placed = process->phase != PROCESS_OFFERING;
    uint64_t interval_ms = placed ? HEARTBEAT_INTERVAL_MS : HELLO_INTERVAL_MS;
    size_t bytes;
    if (process->said_ns != 0 && sim->now_ns - process->said_ns < interval_ms * SIM_MS_NS)
        return;
    process->said_ns = sim->now_ns;
    if (!placed) {
        enum status status =
            hello_encode(sim->frame, WIRE_WORKER_FRAME_BYTES_MAX, &bytes, &process->hello);
        send_frame(sim, index, status, bytes);
        return;
    }
    struct heartbeat beat = {.group = process->place.group, .rank = process->place.rank};
    if (process->phase == PROCESS_RUNNING) {
        beat.step_begun = process->device.submitted;
        beat.step_done = process->device.done;
        beat.exchange_epoch = process->device.done + (process->running_step != 0);
    }
    enum status status = heartbeat_encode(sim->frame, WIRE_WORKER_FRAME_BYTES_MAX, &bytes, &beat);
    send_frame(sim, index, status, bytes);
}

static void check_silence(struct sim *sim, int32_t index)
{
    struct process *process = &sim->processes[index];
    uint64_t limit_ms =
        process->phase == PROCESS_OFFERING ? PLACE_TIMEOUT_MS : 2 * HEARTBEAT_TIMEOUT_MS;
    uint64_t since_ns = process->heard_ns != 0 ? process->heard_ns : process->started_ns;
    if (sim->now_ns - since_ns < limit_ms * SIM_MS_NS)
        return;
    if (sim->scenario.mood != MOOD_FAULTY && !sim->front.stopped)
        sim_violation(sim, "process %d has heard nothing of the coordinator for %llu ms", index,
                      (unsigned long long)limit_ms);
    tell_failure(sim, index, "the coordinator has been silent");
    sim_trace(sim, "p%d ends: the coordinator has been silent", index);
    end_process(sim, index, PROCESS_END_SILENCE);
}

static void check_exchange(struct sim *sim, int32_t index)
{
    const struct process *process = &sim->processes[index];
    if (process->phase == PROCESS_RUNNING && process->running_step != 0 &&
        sim->now_ns - process->begun_ns > sim->scenario.exchange_wait_ns)
        give_up_unasked(sim, index, "a peer did not come to the exchange", true);
}

void fake_worker_timer(struct sim *sim, int32_t index)
{
    const struct process *process = &sim->processes[index];
    if (process->phase == PROCESS_ENDED)
        return;
    say_something(sim, index);
    check_exchange(sim, index);
    if (process->phase != PROCESS_ENDED)
        check_silence(sim, index);
    if (process->phase != PROCESS_ENDED)
        sim_later(sim, POLL_MS * SIM_MS_NS,
                  (struct agenda_item){.type = AGENDA_PROCESS_TIMER, .index = index});
}

void fake_worker_start(struct sim *sim, int32_t index)
{
    struct process *process = &sim->processes[index];
    process->phase = PROCESS_OFFERING;
    process->started_ns = sim->now_ns;
    fake_worker_timer(sim, index);
}

// ---- what is heard ----

static void on_place(struct sim *sim, int32_t index, const uint8_t *frame, size_t bytes)
{
    struct process *process = &sim->processes[index];
    struct place_message place;
    struct error error = {.status = OK};
    if (place_message_decode(&place, frame, bytes, &error) != OK) {
        sim_violation(sim, "PLACE to process %d: %s", index, error.text);
        return;
    }
    if (process->phase != PROCESS_OFFERING)
        return; // a repetition
    process->place = place;
    process->phase = PROCESS_LOADING;
    sim_later(sim, (uint64_t)dice_between(&sim->dice, 0, (int64_t)sim->scenario.load_ns_max),
              (struct agenda_item){.type = AGENDA_LOADED, .index = index});
}

void fake_worker_loaded(struct sim *sim, int32_t index)
{
    struct process *process = &sim->processes[index];
    size_t bytes;
    if (process->phase != PROCESS_LOADING)
        return;
    device_open(&process->device, &process->place, (struct device_prompts){clients_prompt, sim});
    process->device_opened = true;
    process->phase = PROCESS_RUNNING;
    struct ready ready = {
        .group = process->place.group, .rank = process->place.rank, .epoch = process->place.epoch};
    enum status status = ready_encode(sim->frame, WIRE_WORKER_FRAME_BYTES_MAX, &bytes, &ready);
    send_frame(sim, index, status, bytes);
}

static void on_plan(struct sim *sim, int32_t index, const uint8_t *frame, size_t bytes)
{
    struct process *process = &sim->processes[index];
    struct error error = {.status = OK};
    bool excused = sim->network.to_worker[index].faulted;
    if (step_plan_decode(&sim->plan, frame, bytes, &error) != OK) {
        sim_violation(sim, "plan to process %d: %s", index, error.text);
    } else if (process->phase != PROCESS_RUNNING) {
        give_up_unasked(sim, index, "a step came before this rank was ready", excused);
    } else if (sim->plan.epoch < process->place.epoch) {
        sim_trace(sim, "p%d drops a plan of epoch %llu", index,
                  (unsigned long long)sim->plan.epoch);
    } else if (device_submit(&process->device, &sim->plan, frame, bytes, &error) != OK) {
        give_up_unasked(sim, index, error.text, excused);
    } else {
        begin_step(sim, index);
    }
}

static void on_end(struct sim *sim, int32_t index, const uint8_t *frame, size_t bytes)
{
    const struct process *process = &sim->processes[index];
    struct end_message end;
    struct error error = {.status = OK};
    if (end_message_decode(&end, frame, bytes, &error) != OK) {
        sim_violation(sim, "END to process %d: %s", index, error.text);
        return;
    }
    if (end.epoch != 0 && process->phase >= PROCESS_LOADING && end.epoch != process->place.epoch)
        return; // of an epoch that this worker is not of
    sim_trace(sim, "p%d is told to end (%s): %s", index, end.failed ? "failed" : "in order",
              end.text);
    end_process(sim, index, PROCESS_END_TOLD);
}

static void on_refuse(struct sim *sim, int32_t index, const uint8_t *frame, size_t bytes)
{
    struct refuse refuse;
    struct error error = {.status = OK};
    if (refuse_decode(&refuse, frame, bytes, &error) != OK) {
        sim_violation(sim, "REFUSE to process %d: %s", index, error.text);
        return;
    }
    tell_failure(sim, index, "the coordinator refused this worker");
    end_process(sim, index, PROCESS_END_REFUSED);
}

void fake_worker_receives(struct sim *sim, int32_t index, const uint8_t *frame, size_t bytes)
{
    struct process *process = &sim->processes[index];
    if (process->phase == PROCESS_ENDED)
        return;
    process->heard_ns = sim->now_ns;
    switch (message_type_of(frame, bytes)) {
    case MESSAGE_PLACE: on_place(sim, index, frame, bytes); break;
    case MESSAGE_REFUSE: on_refuse(sim, index, frame, bytes); break;
    case MESSAGE_PLAN: on_plan(sim, index, frame, bytes); break;
    case MESSAGE_END: on_end(sim, index, frame, bytes); break;
    case MESSAGE_ALIVE: break;
    default: sim_violation(sim, "a worker does not know a message that it was sent"); break;
    }
}
