// SPDX-License-Identifier: Apache-2.0
// front.h -- what coordinator/shell.c is to the core: connections become numbers, frames become
// events, actions become frames, time passes. Everything that enters and leaves the core goes
// through front_step, so that it can be watched.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordinator/core.h"

struct sim;

enum { FRONT_TICK_MS = 50 };

struct front {
    int32_t peers[COORD_WORKERS_MAX]; // process of each connection, -1 = none
    uint64_t alive_ns;
    bool drained; // ACTION_DRAINED was seen
    bool stopped; // the coordinator's process has ended
    uint64_t stopped_ns;
    uint64_t paused_until_ns; // the process does nothing before
    uint64_t paused_ns;       // for so long: what has to be seen by a time may be seen later by it
};

// Nobody is connected.
void front_init(struct sim *sim);

// One event and, as long as the core has more to say, ticks; carries all actions out.
void front_step(struct sim *sim, struct coord_event *event);

// A frame of a process arrived; time passed; DRAIN or SHUTDOWN.
void front_receives(struct sim *sim, int32_t process, const uint8_t *frame, size_t bytes);
void front_tick(struct sim *sim);
void front_ending(struct sim *sim, bool at_once);
