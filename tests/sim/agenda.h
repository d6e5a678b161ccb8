// SPDX-License-Identifier: Apache-2.0
// agenda.h -- what will happen in a simulated run, by virtual time: a binary heap. Things of the
// same time happen in the order in which they were added.
#pragma once

#include <stddef.h>
#include <stdint.h>

enum agenda_type {
    AGENDA_TO_COORDINATOR, // frame, of process
    AGENDA_TO_WORKER,      // frame, to process
    AGENDA_PROCESS_TIMER,  // process: its poll has ended
    AGENDA_LOADED,         // process: its weights are there
    AGENDA_STEP_END,       // process: its device has ended step `number`
    AGENDA_SHELL_TICK,
    AGENDA_CLIENT_SUBMITS,  // client
    AGENDA_CLIENT_FINISHES, // client
    AGENDA_FAULT,           // index of the fault in the scenario
    AGENDA_ENDING,          // drain or shutdown
};

struct agenda_item {
    uint64_t when_ns;
    uint64_t order; // set by agenda_add
    enum agenda_type type;
    int32_t index;   // process, client or fault
    uint64_t number; // a step, or the process's life that this belongs to
    uint8_t *frame;  // owned by the item, NULL when it has none
    size_t frame_bytes;
};

struct agenda {
    struct agenda_item *items; // [items_max] heap
    int items_count, items_max;
    uint64_t added;
};

// Storage grows as needed; agenda_close frees it and the frames of what never happened.
void agenda_open(struct agenda *agenda);
void agenda_close(struct agenda *agenda);

// Takes over item->frame.
void agenda_add(struct agenda *agenda, const struct agenda_item *item);

// Removes and returns the earliest item, whose frame is then the caller's to free. The agenda must
// not be empty.
struct agenda_item agenda_next(struct agenda *agenda);
