// SPDX-License-Identifier: Apache-2.0
// requests_times_test.c -- the parts of a request's time, whichever of its stations it reached.
#include "coordinator/requests_times.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void assert_times(const struct request_times *times, uint64_t now_ns,
                         struct coord_times wanted)
{
    struct coord_action action = {.type = ACTION_DONE};
    request_times_end(times, &action, now_ns);
    assert_int_equal(action.times.queue_ns, wanted.queue_ns);
    assert_int_equal(action.times.prefill_ns, wanted.prefill_ns);
    assert_int_equal(action.times.decode_ns, wanted.decode_ns);
    assert_int_equal(action.times.all_ns, wanted.all_ns);
}

static void a_whole_life(void **state)
{
    (void)state;
    struct request_times times;
    struct coord_action action = {.type = ACTION_TOKENS, .tokens_count = 1};
    request_times_begin(&times, 90, 100);
    assert_times(&times, 150, (struct coord_times){60, 0, 0, 60}); // aborted in the queue
    assert_int_equal(request_times_waited_ns(&times, 150), 0); // no slot: prompts do not keep it
    request_times_admit(&times, 200);
    request_times_admit(&times, 250);                                // after a preemption
    assert_times(&times, 210, (struct coord_times){120, 0, 0, 120}); // no step has carried it
    assert_int_equal(request_times_waited_ns(&times, 205), 5);
    request_times_prefill(&times, 210);
    request_times_prefill(&times, 255);
    assert_int_equal(request_times_waited_ns(&times, 260), 0);
    assert_times(&times, 260, (struct coord_times){120, 50, 0, 170});
    struct coord_action none = {.type = ACTION_TOKENS};
    request_times_tell(&times, &none, 270);
    assert_false(none.is_first);
    request_times_tell(&times, &action, 300);
    assert_true(action.is_first);
    assert_int_equal(action.since_ns, 210);
    request_times_tell(&times, &action, 340);
    assert_false(action.is_first);
    assert_int_equal(action.since_ns, 40);
    assert_times(&times, 400, (struct coord_times){120, 90, 100, 310});
}

static void a_door_that_does_not_know(void **state)
{
    (void)state;
    struct request_times times;
    request_times_begin(&times, 0, 100);
    assert_times(&times, 130, (struct coord_times){30, 0, 0, 30});
    request_times_begin(&times, 101, 100); // the future
    assert_times(&times, 130, (struct coord_times){30, 0, 0, 30});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_life),
        cmocka_unit_test(a_door_that_does_not_know),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
