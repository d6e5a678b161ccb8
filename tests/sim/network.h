// SPDX-License-Identifier: Apache-2.0
// network.h -- frames between the coordinator and processes: in order and whole, unless the
// scenario says that they are late, lost, copied or overtaken.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sim;

// One direction of one process's connection.
struct network_line {
    uint64_t last_ns;      // when the newest frame arrives: later ones arrive after it
    uint64_t cut_until_ns; // nothing gets through before
    bool faulted;          // a frame was lost, copied or overtaken on it
};

struct network {
    struct network_line to_coordinator[16], to_worker[16]; // [SIM_PROCESSES_MAX]
};

// Sends a copy of the frame. network_to_worker is false when the connection is known to be closed.
void network_to_coordinator(struct sim *sim, int32_t process, const uint8_t *frame, size_t bytes);
bool network_to_worker(struct sim *sim, int32_t process, const uint8_t *frame, size_t bytes);
