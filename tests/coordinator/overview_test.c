// SPDX-License-Identifier: Apache-2.0
// overview_test.c -- a copy of a real core's counts, of a group under load and its ranks.
#include "coordinator/overview.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixtures/coord_rig.h"

static struct figures figures;

static struct overview *look(const struct coord_rig *rig)
{
    struct overview *overview = overview_make(rig->coord, &figures);
    assert_non_null(overview);
    return overview;
}

static void a_group_and_its_ranks(void **state)
{
    (void)state;
    struct coord_rig rig;
    struct coord_options options;
    coord_rig_options(&options, 1, 2);
    coord_rig_open(&rig, &options);
    struct overview *overview = look(&rig);
    assert_int_equal(overview->groups_count, 1);
    assert_int_equal(overview->groups[0].phase, GROUP_FORMING);
    assert_int_equal(overview->groups[0].ranks_count, 2);
    assert_false(overview->groups[0].ranks[0].is_here);
    free(overview);
    struct hello hello = coord_rig_hello(&rig);
    hello.pid = 77;
    coord_rig_say_hello(&rig, 0, &hello);
    hello.pid = 78;
    coord_rig_say_hello(&rig, 1, &hello);
    coord_rig_say_ready(&rig, 0, 1);
    overview = look(&rig);
    assert_int_equal(overview->groups[0].phase, GROUP_LOADING);
    assert_int_equal(overview->groups[0].epoch, 1);
    assert_true(overview->groups[0].ranks[0].is_here);
    assert_int_equal(overview->groups[0].ranks[0].pid + overview->groups[0].ranks[1].pid, 155);
    assert_false(overview->groups[0].ranks[0].is_ready);
    assert_true(overview->groups[0].ranks[1].is_ready);
    free(overview);
    coord_rig_say_ready(&rig, 0, 0);
    coord_rig_submit(&rig, 1, 100, 50);
    coord_rig_report(&rig, 0, 1);
    coord_rig_beat(&rig, 0);
    coord_rig_wait(&rig, 30);
    figures.ended[1] = 5;
    overview = look(&rig);
    const struct coord_group_status *group = &overview->groups[0];
    assert_int_equal(group->phase, GROUP_READY);
    assert_int_equal(group->step_sent, 3);
    assert_int_equal(group->step_done, 1);
    assert_int_equal(group->running, 1);
    assert_int_equal(group->slots - group->slots_free, 1);
    assert_int_equal(group->pages - group->pages_free,
                     overview->status.pages - overview->status.pages_free);
    assert_true(group->pages > group->pages_free);
    assert_int_equal(overview->status.epochs, 1);
    assert_int_equal(overview->figures.ended[1], 5);
    assert_int_equal(group->ranks[0].heard_ns, 30 * RIG_MS_NS);
    free(overview);
    coord_rig_close(&rig);
}

// What the core says of a request's times, from its submit to its end.
static void times_reach_the_actions(void **state)
{
    (void)state;
    struct coord_rig rig;
    struct coord_options options;
    coord_rig_options(&options, 1, 1);
    coord_rig_open(&rig, &options);
    coord_rig_start(&rig);
    coord_rig_submit(&rig, 1, 10, 3);
    coord_rig_wait(&rig, 7);
    coord_rig_report(&rig, 0, 1);
    coord_rig_wait(&rig, 5);
    coord_rig_report(&rig, 0, 2);
    coord_rig_wait(&rig, 4);
    coord_rig_report(&rig, 0, 3);
    int told = 0;
    uint64_t since_ns = 0;
    for (int i = 0; i < rig.did_count; i++) {
        const struct coord_action *action = &rig.did[i].action;
        if (action->type != ACTION_TOKENS)
            continue;
        assert_int_equal(action->is_first, told == 0);
        since_ns += action->since_ns;
        told++;
    }
    const struct rig_did *done = coord_rig_find(&rig, ACTION_DONE);
    assert_non_null(done);
    assert_int_equal(told, 3);
    assert_int_equal(since_ns, 16 * RIG_MS_NS);
    assert_int_equal(done->action.times.queue_ns, 0);
    assert_int_equal(done->action.times.prefill_ns, 7 * RIG_MS_NS);
    assert_int_equal(done->action.times.decode_ns, 9 * RIG_MS_NS);
    assert_int_equal(done->action.times.all_ns, 16 * RIG_MS_NS);
    coord_rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_group_and_its_ranks),
        cmocka_unit_test(times_reach_the_actions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
