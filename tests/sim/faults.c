// SPDX-License-Identifier: Apache-2.0
// faults.c -- kills, pauses, cuts and lies.
#include "tests/sim/faults.h"

#include "tests/sim/sim.h"

enum {
    CLOSED_NOTICED_MS = 400, // the shell's next ALIVE finds out; every 250 ms, looked at every 50
    SILENT_NOTICED_MS = HEARTBEAT_TIMEOUT_MS + 400,
    DEAF_NOTICED_MS = 2 * HEARTBEAT_TIMEOUT_MS + 1000,
};

// For how long the coordinator may stand still at some time in this run: it blames nobody for that.
static uint64_t pause_ns_max(const struct sim *sim)
{
    uint64_t longest_ns = 0;
    for (int32_t i = 0; i < sim->scenario.faults_count; i++) {
        const struct fault *fault = &sim->scenario.faults[i];
        if (fault->type == FAULT_PAUSE && fault->duration_ns > longest_ns)
            longest_ns = fault->duration_ns;
    }
    return longest_ns;
}

static void freeze(struct sim *sim, int32_t index, uint64_t duration_ns)
{
    struct process *process = &sim->processes[index];
    // Two pauses in a row would be one that is too long to be borne.
    if (sim->scenario.mood == MOOD_NOISY && sim->now_ns < process->frozen_until_ns + SIM_S_NS &&
        process->frozen_until_ns != 0)
        return;
    if (sim->now_ns + duration_ns > process->frozen_until_ns)
        process->frozen_until_ns = sim->now_ns + duration_ns;
    if (duration_ns > SILENT_NOTICED_MS * (uint64_t)SIM_MS_NS + pause_ns_max(sim))
        invariants_expect_failure(sim, index, SILENT_NOTICED_MS * (uint64_t)SIM_MS_NS, "a pause");
}

// What has to be seen by some time may be seen later by as much.
static void pause(struct sim *sim, uint64_t duration_ns)
{
    uint64_t *until_ns = &sim->front.paused_until_ns;
    if (*until_ns != 0)
        return; // once in a run: workers bear only so much silence
    *until_ns = sim->now_ns + duration_ns;
    sim->front.paused_ns = duration_ns;
    for (int g = 0; g < sim->scenario.options.groups; g++) {
        if (sim->invariants.groups[g].must_fail_by_ns != 0)
            sim->invariants.groups[g].must_fail_by_ns += duration_ns;
    }
}

static void cut(struct sim *sim, int32_t index, bool out, uint64_t duration_ns)
{
    struct network_line *line =
        out ? &sim->network.to_coordinator[index] : &sim->network.to_worker[index];
    uint64_t noticed_ns =
        (out ? SILENT_NOTICED_MS : DEAF_NOTICED_MS + SILENT_NOTICED_MS) * (uint64_t)SIM_MS_NS;
    if (sim->now_ns + duration_ns > line->cut_until_ns)
        line->cut_until_ns = sim->now_ns + duration_ns;
    if (duration_ns > noticed_ns + pause_ns_max(sim))
        invariants_expect_failure(sim, index, noticed_ns, out ? "a cut from it" : "a cut to it");
}

static void send_garbage(struct sim *sim, int32_t index)
{
    size_t bytes = (size_t)dice_between(&sim->dice, 0, 200);
    for (size_t i = 0; i < bytes; i++)
        sim->frame[i] = (uint8_t)dice_next(&sim->dice);
    network_to_coordinator(sim, index, sim->frame, bytes);
}

void faults_happen(struct sim *sim, int32_t number)
{
    static const char *const names[FAULT_TYPE_COUNT] = {"kill",
                                                        "vanish",
                                                        "freeze",
                                                        "hang",
                                                        "cut in",
                                                        "cut out",
                                                        "hash",
                                                        "nonsense",
                                                        "garbage",
                                                        "gives up",
                                                        "pause of the coordinator, not of"};
    const struct fault *fault = &sim->scenario.faults[number];
    int32_t index = fault->process;
    struct process *process = &sim->processes[index];
    if (process->phase == PROCESS_ENDED || process->phase == PROCESS_STARTING)
        return;
    sim_trace(sim, "fault: %s p%d for %llu ms", names[fault->type], index,
              (unsigned long long)(fault->duration_ns / SIM_MS_NS));
    switch (fault->type) {
    case FAULT_KILL:
        invariants_expect_failure(sim, index, CLOSED_NOTICED_MS * (uint64_t)SIM_MS_NS, "a kill");
        fake_worker_kill(sim, index, true);
        break;
    case FAULT_VANISH:
        invariants_expect_failure(sim, index, SILENT_NOTICED_MS * (uint64_t)SIM_MS_NS, "a loss");
        fake_worker_kill(sim, index, false);
        break;
    case FAULT_FREEZE: freeze(sim, index, fault->duration_ns); break;
    case FAULT_HANG: process->hangs = true; break;
    case FAULT_CUT_IN: cut(sim, index, false, fault->duration_ns); break;
    case FAULT_CUT_OUT: cut(sim, index, true, fault->duration_ns); break;
    case FAULT_HASH: process->lies_hash = true; break;
    case FAULT_NONSENSE: process->lies_nonsense = true; break;
    case FAULT_GARBAGE: send_garbage(sim, index); break;
    case FAULT_GIVES_UP:
        invariants_expect_failure(sim, index, SILENT_NOTICED_MS * (uint64_t)SIM_MS_NS, "a failure");
        fake_worker_give_up(sim, index, "a fault that it saw itself");
        break;
    case FAULT_PAUSE: pause(sim, fault->duration_ns); break;
    case FAULT_TYPE_COUNT: break;
    }
}

// A row that draws for a client who waits for it and will not leave: a lie about it must be seen.
static int32_t row_that_matters(struct sim *sim, int32_t process, const struct report *report)
{
    for (int32_t i = 0; i < report->rows_count; i++) {
        const struct device_slot *slot =
            &sim->processes[process].device.slots[report->rows[i].slot];
        const struct client *client = clients_of_seed(sim, slot->opening.seed);
        if (report->rows[i].count == 1 && client != NULL && client->phase == CLIENT_ACCEPTED &&
            !client->leaves && client->door_stops_after == 0)
            return i;
    }
    return -1;
}

// sim->plan is the one that the report is about.
static void nonsense(struct sim *sim, struct report *report, int32_t row)
{
    struct step_result *result = &report->rows[row];
    switch (dice_between(&sim->dice, 0, 8)) {
    case 0: report->rows_count--; break;
    case 1: report->rows[report->rows_count++] = *result; break;
    case 2: result->slot = result->slot == 0 ? 1 : result->slot - 1; break;
    case 3: // more than it verified; fewer might be drafts that were taken
        result->count = sim->plan.verify < STEP_VERIFY_MAX ? sim->plan.verify + 1 : 0;
        for (int32_t i = 1; i < result->count; i++)
            result->tokens[i] = 1;
        break;
    case 4: result->count = 0; break;
    case 5: result->tokens[0] = sim->scenario.options.vocab_real; break;
    case 6: result->end = result->end == 0 ? 1 : 0; break;
    case 7: result->end = result->end == 2 ? 1 : 2; break;
    default: report->step += 5; break;
    }
}

void faults_report(struct sim *sim, int32_t index, struct report *report)
{
    struct process *process = &sim->processes[index];
    uint64_t step = report->step;
    if (process->lies_hash && process->place.ranks > 1) {
        process->lies_hash = false;
        // Each process in its own way: ranks that tell the same lie would agree.
        report->hash ^= 1 + (uint64_t)index;
        invariants_expect_lie_seen(sim, index, step, "another hash");
    }
    int32_t row = process->lies_nonsense && process->place.rank == 0
                      ? row_that_matters(sim, index, report)
                      : -1;
    if (row >= 0) {
        process->lies_nonsense = false;
        nonsense(sim, report, row);
        invariants_expect_lie_seen(sim, index, step, "nonsense");
    }
}
