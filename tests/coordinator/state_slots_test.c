// SPDX-License-Identifier: Apache-2.0
// state_slots_test.c -- a slot has one occupant or is free; the next one is predictable.
#include "coordinator/state_slots.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_order(void **state)
{
    (void)state;
    struct state_slots slots;
    state_slots_init(&slots, 3);
    assert_int_equal(state_slots_take(&slots, 70), 0);
    assert_int_equal(state_slots_take(&slots, 71), 1);
    assert_int_equal(state_slots_take(&slots, 72), 2);
    assert_int_equal(state_slots_take(&slots, 73), STATE_SLOT_NONE);
    assert_int_equal(slots.occupant[1], 71);
    state_slots_give_back(&slots, 0);
    state_slots_give_back(&slots, 1);
    assert_int_equal(slots.occupant[1], STATE_SLOT_NONE);
    assert_int_equal(slots.slots_free, 2);
    assert_int_equal(state_slots_take(&slots, 0), 1); // last freed; occupant 0 is one
    assert_int_equal(slots.occupant[1], 0);
}

static void test_churn(void **state)
{
    (void)state;
    struct state_slots slots;
    int32_t occupant[SEQUENCES_MAX], used = 0, next = 0;
    srand(4);
    state_slots_init(&slots, SEQUENCES_MAX);
    for (int i = 0; i < SEQUENCES_MAX; i++)
        occupant[i] = STATE_SLOT_NONE;
    for (int round = 0; round < 20000; round++) {
        int32_t slot = rand() % SEQUENCES_MAX;
        if (occupant[slot] != STATE_SLOT_NONE && rand() % 2 == 0) {
            state_slots_give_back(&slots, slot);
            occupant[slot] = STATE_SLOT_NONE;
            used--;
        } else {
            int32_t taken = state_slots_take(&slots, next);
            assert_int_equal(taken == STATE_SLOT_NONE, used == SEQUENCES_MAX);
            if (taken == STATE_SLOT_NONE)
                continue;
            assert_int_equal(occupant[taken], STATE_SLOT_NONE);
            occupant[taken] = next++;
            used++;
        }
        assert_int_equal(slots.slots_free, SEQUENCES_MAX - used);
    }
    assert_memory_equal(slots.occupant, occupant, sizeof occupant);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_churn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
