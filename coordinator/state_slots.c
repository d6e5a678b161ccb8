// SPDX-License-Identifier: Apache-2.0
// state_slots.c -- lowest slots first at start, then last freed first used.
#include "coordinator/state_slots.h"

#include "parallel/base/status.h"

void state_slots_init(struct state_slots *slots, int32_t count)
{
    ASSERT(count >= 1 && count <= SEQUENCES_MAX);
    slots->slots = count;
    slots->slots_free = count;
    for (int32_t i = 0; i < count; i++) {
        slots->free[i] = count - 1 - i;
        slots->occupant[i] = STATE_SLOT_NONE;
    }
}

int32_t state_slots_take(struct state_slots *slots, int32_t occupant)
{
    ASSERT(occupant >= 0);
    if (slots->slots_free == 0)
        return STATE_SLOT_NONE;
    int32_t slot = slots->free[--slots->slots_free];
    ASSERT(slots->occupant[slot] == STATE_SLOT_NONE);
    slots->occupant[slot] = occupant;
    return slot;
}

void state_slots_give_back(struct state_slots *slots, int32_t slot)
{
    ASSERT(slot >= 0 && slot < slots->slots && slots->occupant[slot] != STATE_SLOT_NONE);
    slots->occupant[slot] = STATE_SLOT_NONE;
    slots->free[slots->slots_free++] = slot;
}
