// SPDX-License-Identifier: Apache-2.0
// sim.h -- one simulated run: the real core, everything around it made up from a seed. Owns the
// virtual clock and the verdict.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/core.h"
#include "parallel/base/status.h"
#include "tests/sim/agenda.h"
#include "tests/sim/clients.h"
#include "tests/sim/dice.h"
#include "tests/sim/fake_worker.h"
#include "tests/sim/front.h"
#include "tests/sim/invariants.h"
#include "tests/sim/network.h"
#include "tests/sim/scenario.h"

struct sim {
    struct scenario scenario;
    struct dice dice;
    struct agenda agenda;
    uint64_t now_ns;
    struct coord *coord;
    struct coord_actions *actions;
    struct front front;
    struct network network;
    struct process processes[SIM_PROCESSES_MAX];
    struct exchange exchanges[SIM_GROUPS_MAX];
    struct clients clients;
    struct invariants invariants;
    // Scratch, opened once.
    uint8_t *frame;              // [WIRE_WORKER_FRAME_BYTES_MAX]
    struct step_plan plan;       // decoded by workers
    struct step_result *results; // [STEP_ROWS_MAX] of a worker's report
    struct step_result *heard;   // [STEP_ROWS_MAX] of a report at the coordinator
    bool trace;
    bool violated;
    char violation[600];
};

// One seed from start to end. True when nothing was violated; else sim->violation says what.
bool sim_run(struct sim *sim, uint64_t seed);

// The first violation of a run is kept; the run ends with the current event.
void sim_violation(struct sim *sim, const char *format, ...) PRINTF_LIKE(2, 3);

// A line of the trace, with the virtual time before it; only with --trace.
void sim_trace(const struct sim *sim, const char *format, ...) PRINTF_LIKE(2, 3);

// Adds an item that happens after a delay.
void sim_later(struct sim *sim, uint64_t delay_ns, struct agenda_item item);
