// SPDX-License-Identifier: Apache-2.0
// fake_worker.h -- a worker process as the coordinator sees it: what worker/loop.c says, hears and
// waits for, with a fake device that takes virtual time and meets its peers at every step.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/sim/fake_device.h"

struct sim;

enum process_phase {
    PROCESS_STARTING,
    PROCESS_OFFERING, // says HELLO
    PROCESS_LOADING,  // placed
    PROCESS_RUNNING,  // said READY
    PROCESS_ENDED,
};

// Why a process ended.
enum process_end {
    PROCESS_LIVES,
    PROCESS_END_TOLD,    // END
    PROCESS_END_REFUSED, // REFUSE
    PROCESS_END_SILENCE, // nothing heard of the coordinator for too long
    PROCESS_END_GAVE_UP, // told FAILURE
    PROCESS_END_KILLED,
};

struct process {
    enum process_phase phase;
    enum process_end end;
    bool connection_closed; // known to the transport
    struct hello hello;
    struct place_message place;
    bool device_opened;
    struct device device;
    uint64_t running_step; // begun on the device and not ended, 0 = none
    uint64_t begun_ns;
    uint64_t started_ns, heard_ns, said_ns, frozen_until_ns, ended_ns;
    bool hangs;         // FAULT_HANG
    bool lies_hash;     // FAULT_HASH: in the next report
    bool lies_nonsense; // FAULT_NONSENSE: in the next report
};

// The ranks of a group that wait in a step for their peers.
struct exchange {
    uint32_t begun[2]; // bit r: rank r has begun the step of this parity
};

// Life of a process. All take its index.
void fake_worker_start(struct sim *sim, int32_t index);
void fake_worker_timer(struct sim *sim, int32_t index);
void fake_worker_loaded(struct sim *sim, int32_t index);
void fake_worker_step_ended(struct sim *sim, int32_t index, uint64_t step);
void fake_worker_receives(struct sim *sim, int32_t index, const uint8_t *frame, size_t bytes);

// Ends a process without a word; `closed`: its connection closes.
void fake_worker_kill(struct sim *sim, int32_t index, bool closed);

// Tells FAILURE and ends.
void fake_worker_give_up(struct sim *sim, int32_t index, const char *text);
