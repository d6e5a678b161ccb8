// SPDX-License-Identifier: Apache-2.0
// network.c -- draws the delay and the mishaps of each frame. ZeroMQ over TCP neither loses nor
// reorders what gets through; the core is held to more than that, so that it leans on nothing.
#include "tests/sim/network.h"

#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"

static uint8_t *copy_of(const uint8_t *frame, size_t bytes)
{
    uint8_t *copy = malloc(bytes > 0 ? bytes : 1);
    ASSERT(copy != NULL);
    memcpy(copy, frame, bytes);
    return copy;
}

static void deliver(struct sim *sim, enum agenda_type type, int32_t process, uint64_t when_ns,
                    const uint8_t *frame, size_t bytes)
{
    agenda_add(&sim->agenda, &(struct agenda_item){.type = type,
                                                   .when_ns = when_ns,
                                                   .index = process,
                                                   .frame = copy_of(frame, bytes),
                                                   .frame_bytes = bytes});
}

// False when the frame is lost.
static bool passes(struct sim *sim, struct network_line *line)
{
    if (sim->now_ns < line->cut_until_ns || dice_chance(&sim->dice, sim->scenario.lost)) {
        line->faulted = true;
        return false;
    }
    return true;
}

static uint64_t latency(struct sim *sim)
{
    return (uint64_t)dice_between(&sim->dice, (int64_t)sim->scenario.latency_ns_min,
                                  (int64_t)sim->scenario.latency_ns_max);
}

static uint64_t lateness(struct sim *sim)
{
    return (uint64_t)dice_between(&sim->dice, 0, (int64_t)sim->scenario.late_ns_max);
}

// When a frame that keeps its place in the line arrives.
static uint64_t in_order(struct sim *sim, struct network_line *line)
{
    uint64_t when_ns = sim->now_ns + latency(sim);
    if (when_ns <= line->last_ns)
        when_ns = line->last_ns + 1;
    line->last_ns = when_ns;
    return when_ns;
}

void network_to_coordinator(struct sim *sim, int32_t process, const uint8_t *frame, size_t bytes)
{
    struct network_line *line = &sim->network.to_coordinator[process];
    if (!passes(sim, line))
        return;
    if (dice_chance(&sim->dice, sim->scenario.copied)) {
        deliver(sim, AGENDA_TO_COORDINATOR, process, sim->now_ns + latency(sim) + lateness(sim),
                frame, bytes);
    }
    uint64_t when_ns = dice_chance(&sim->dice, sim->scenario.overtaken)
                           ? sim->now_ns + latency(sim) + lateness(sim)
                           : in_order(sim, line);
    deliver(sim, AGENDA_TO_COORDINATOR, process, when_ns, frame, bytes);
}

bool network_to_worker(struct sim *sim, int32_t process, const uint8_t *frame, size_t bytes)
{
    struct network_line *line = &sim->network.to_worker[process];
    if (sim->processes[process].connection_closed)
        return false;
    if (!passes(sim, line))
        return true; // nobody knows
    if (dice_chance(&sim->dice, sim->scenario.copied_plans)) {
        line->faulted = true;
        deliver(sim, AGENDA_TO_WORKER, process, sim->now_ns + latency(sim) + lateness(sim), frame,
                bytes);
    }
    deliver(sim, AGENDA_TO_WORKER, process, in_order(sim, line), frame, bytes);
    return true;
}
