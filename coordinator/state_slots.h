// SPDX-License-Identifier: Apache-2.0
// state_slots.h -- the state slots of a group: a stack of free ones, and who sits in the others.
// Pure; storage is inside the struct.
#pragma once

#include <stdint.h>

#include "parallel/memory_plan.h"

enum { STATE_SLOT_NONE = -1 };

struct state_slots {
    int32_t slots, slots_free;
    int32_t free[SEQUENCES_MAX];     // [slots_free]
    int32_t occupant[SEQUENCES_MAX]; // [slots] the caller's number, STATE_SLOT_NONE when free
};

// `count` free slots, 1 .. SEQUENCES_MAX.
void state_slots_init(struct state_slots *slots, int32_t count);

// A free slot, now of `occupant` (>= 0); STATE_SLOT_NONE when there is none.
int32_t state_slots_take(struct state_slots *slots, int32_t occupant);
void state_slots_give_back(struct state_slots *slots, int32_t slot);
