// SPDX-License-Identifier: Apache-2.0
// invariants_test.c -- coord_check finds what is broken: each invariant is broken by hand, named,
// and mended. (That they hold is asserted by the rig and the simulation after every call.)
#include "coordinator/coord.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "tests/fixtures/coord_rig.h"

// Two requests run with two steps in flight, one closes, one waits.
static void open_busy(struct coord_rig *rig)
{
    struct coord_options options;
    coord_rig_options(&options, 1, 1);
    options.wishes.sequences = 3;
    options.queued_max = 2;
    coord_rig_open(rig, &options);
    coord_rig_start(rig);
    for (uint64_t i = 1; i <= 3; i++)
        coord_rig_submit(rig, i, 100, 300);
    coord_rig_report(rig, 0, 1);
    coord_rig_report(rig, 0, 2);
    coord_rig_submit(rig, 4, 100, 300);
    coord_rig_finish(rig, 2, "abort");
    assert_null(coord_check(rig->coord));
    assert_int_equal(rig->coord->groups[0].running.count, 3);
    assert_int_equal(rig->coord->groups[0].flights_count, 2);
    assert_int_equal(rig->coord->requests.queued.count, 1);
}

// Sets *value, expects the name, sets it back.
static void expect_broken(struct coord_rig *rig, int32_t *value, int32_t wrong, const char *name)
{
    int32_t right = *value;
    *value = wrong;
    const char *broken = coord_check(rig->coord);
    assert_non_null(broken);
    assert_string_equal(broken, name);
    *value = right;
    assert_null(coord_check(rig->coord));
}

static struct request *nth_running(struct coord_rig *rig, int nth)
{
    int32_t index = rig->coord->groups[0].running.first;
    while (nth-- > 0)
        index = rig->coord->requests.table[index].next;
    return &rig->coord->requests.table[index];
}

static void test_slots(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_busy(&rig);
    struct group_state *group = &rig.coord->groups[0];
    struct request *first = nth_running(&rig, 0);
    const char *belongs = "a slot belongs to the request that sits in it";
    expect_broken(&rig, &first->slot, nth_running(&rig, 1)->slot, belongs);
    expect_broken(&rig, &group->slots.occupant[first->slot], rig.coord->requests.queued.first,
                  belongs);
    expect_broken(&rig, &group->slots.slots_free, 1, "free slots + used slots = all slots");
    expect_broken(&rig, &group->slots.occupant[first->slot], STATE_SLOT_NONE,
                  "free slots + used slots = all slots");
    coord_rig_close(&rig);
}

static void test_pages(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_busy(&rig);
    struct group_state *group = &rig.coord->groups[0];
    struct kv_pages *pages = &group->pages;
    struct request *first = nth_running(&rig, 0), *second = nth_running(&rig, 1);
    int32_t *ids = coord_pages(group, first);
    const char *holders = "no page has more or fewer holders than it counts";
    expect_broken(&rig, &ids[0], coord_pages(group, second)[0], holders);
    expect_broken(&rig, &ids[0], pages->free_first, holders);
    expect_broken(&rig, &pages->holders[ids[0]], 2, holders);
    expect_broken(&rig, &pages->holders[ids[0]], 0, holders);
    const char *exist = "a request holds pages that exist";
    expect_broken(&rig, &first->pages_count, first->pages_count + 1,
                  exist); // never written: poison
    expect_broken(&rig, &ids[0], -1, exist);
    expect_broken(&rig, &ids[0], pages->pages, exist);
    const char *told = "a request was told of pages that it holds";
    expect_broken(&rig, &first->pages_told, first->pages_count + 1, told);
    expect_broken(&rig, &first->pages_told, -1, told);
    expect_broken(&rig, &pages->pages_free, pages->pages_free - 1,
                  "the free list holds the free pages");
    expect_broken(&rig, &pages->pages_free, pages->pages_free + 1,
                  "the free list holds the free pages");
    expect_broken(&rig, &pages->next[pages->free_first], ids[0], "a free page has no holder");
    coord_rig_close(&rig);
}

static void test_flights(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_busy(&rig);
    struct group_state *group = &rig.coord->groups[0];
    struct request *first = nth_running(&rig, 0), *closing = NULL;
    for (int i = 0; i < 3; i++) {
        if (nth_running(&rig, i)->phase == PHASE_CLOSING)
            closing = nth_running(&rig, i);
    }
    assert_non_null(closing);
    expect_broken(&rig, &group->flights_count, 3, "steps in flight are bounded");
    expect_broken(&rig, &group->flights_count, -1, "steps in flight are bounded");
    expect_broken(&rig, &group->flights_count, 1, "sent steps - done steps = steps in flight");
    expect_broken(&rig, &first->draws_in_flight, first->steps_in_flight + 1,
                  "a row draws at most once");
    expect_broken(&rig, &first->outputs, 301, "the pool holds what was told");
    expect_broken(&rig, &first->tokens_end, 100, "no request outgrows its end");
    const char *drafts = "a row draws one token or up to its drafts";
    expect_broken(&rig, &first->tokens_in_flight, first->draws_in_flight - 1, drafts);
    expect_broken(&rig, &first->tokens_in_flight, 6 * first->draws_in_flight + 1, drafts);
    const char *known = "what is prefilled is known";
    expect_broken(&rig, &first->prefill_given, first->prefill_end + 1, known);
    expect_broken(&rig, &first->prefill_end, first->tokens.tokens + 1, known);
    expect_broken(&rig, &closing->steps_in_flight, 0, "a row draws at most once");
    closing->draws_in_flight = 0;
    closing->tokens_in_flight = 0;
    assert_null(coord_check(rig.coord));
    expect_broken(&rig, &closing->steps_in_flight, 0, "who gives its slot back waits for a step");
    expect_broken(&rig, &first->steps_in_flight, first->steps_in_flight + 1,
                  "rows in flight = rows that requests wait for");
    expect_broken(&rig, &group->flights[0].rows_count, group->flights[0].rows_count - 1,
                  "rows in flight = rows that requests wait for");
    coord_rig_close(&rig);
}

static void test_requests(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_busy(&rig);
    struct coord *coord = rig.coord;
    const char *one_list = "a request is in exactly one list";
    expect_broken(&rig, &coord->requests.queued.count, 2, one_list);
    expect_broken(&rig, &coord->groups[0].running.count, 2, one_list);
    expect_broken(&rig, &coord->options.queued_max, 0, "the queue is bounded");
    expect_broken(&rig, &coord->pool.blocks_free, coord->pool.blocks_free + 1,
                  "free tokens + held tokens = the pool");
    expect_broken(&rig, &nth_running(&rig, 0)->tokens.tokens, 128 + 1,
                  "the pool holds what was told");
    expect_broken(&rig, &coord->prompt_blocks_free, coord->prompt_blocks_free - 1,
                  "free prompt tokens + held prompt tokens = their share of the pool");
    expect_broken(&rig, &coord->requests.preempted, 1, "those who have run before are counted");
    expect_broken(&rig, &nth_running(&rig, 0)->priority, 1, "lists are in the order of seniority");
    struct request *queued = &coord->requests.table[coord->requests.queued.first];
    queued->phase = PHASE_FREE;
    assert_string_equal(coord_check(coord), one_list);
    queued->phase = PHASE_QUEUED;
    assert_null(coord_check(coord));
    coord_rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slots),
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_flights),
        cmocka_unit_test(test_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
