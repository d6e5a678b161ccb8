// SPDX-License-Identifier: Apache-2.0
// step_frame_test.c -- steps take the ring's slots in turn, and as many bytes as they are told.
#include "kernels/step_frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixtures/ops.h"

enum { UP_BYTES = 48, DOWN_BYTES = 32, ROOM_BYTES = 64 };

static void steps_take_turns(void **state)
{
    (void)state;
    struct ops ops;
    struct step_frame op = {.up_bytes = UP_BYTES, .down_bytes = DOWN_BYTES};
    uint8_t *up[STEP_FRAME_RING];
    ops_open(&ops, 1, 256, 3);
    op.up_dev = ops_alloc(&ops, ROOM_BYTES);
    op.down_dev = ops_alloc(&ops, ROOM_BYTES);
    memset(op.up_dev, 0, ROOM_BYTES);
    for (int i = 0; i < STEP_FRAME_RING; i++) {
        up[i] = ops_alloc(&ops, ROOM_BYTES);
        op.up[i] = up[i];
        op.down[i] = ops_alloc(&ops, ROOM_BYTES);
    }
    for (uint64_t step = 1; step <= 11; step++) {
        uint8_t *own = up[step % STEP_FRAME_RING], *down = op.down[step % STEP_FRAME_RING];
        memcpy(own, &step, sizeof step);
        memset(own + sizeof step, (int)step + 100, ROOM_BYTES - sizeof step);
        memset(down, 0, ROOM_BYTES);
        step_frame_fetch(ops.streams[0], &op);
        ops_wait(&ops);
        assert_memory_equal(op.up_dev, own, UP_BYTES);
        for (int i = UP_BYTES; i < ROOM_BYTES; i++)
            assert_int_equal(op.up_dev[i], 0);
        memset(op.down_dev, (int)step, ROOM_BYTES);
        step_frame_report(ops.streams[0], &op);
        ops_wait(&ops);
        for (int i = 0; i < ROOM_BYTES; i++)
            assert_int_equal(down[i], i < DOWN_BYTES ? (int)step : 0);
    }
    ops_close(&ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(steps_take_turns)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
