// SPDX-License-Identifier: Apache-2.0
// speculation_choice_test.c -- single choices of the number of drafts, and what they believe: a
// fixed number, none that no row takes or that there is no room for, trials, borders of cells.
// (What they are worth together is for speculation_test.c.)
#include "coordinator/speculation.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { DRAFTS_MAX = SPECULATION_CHOICES - 1 };

// A choice for `rows` sequences that have shown nothing yet.
static int32_t choose_for(struct speculation *speculation, int32_t rows, bool mixed)
{
    struct speculation_batch batch;
    struct speculation_counts counts = {.offered = {0}};
    speculation_begin(&batch, speculation);
    for (int32_t row = 0; row < rows; row++)
        speculation_add(&batch, &counts, 100, DRAFTS_MAX);
    batch.mixed = mixed;
    return speculation_choose(speculation, &batch);
}

static void a_fixed_number_is_kept(void **state)
{
    (void)state;
    struct speculation speculation;
    speculation_init(&speculation, 3, 2);
    for (int32_t i = 0; i < 1000; i++)
        assert_int_equal(choose_for(&speculation, i, i % 2), 2);
    speculation_init(&speculation, 3, 5); // more than the workers can do
    assert_int_equal(choose_for(&speculation, 1, false), 3);
    speculation_init(&speculation, 0, SPECULATION_AUTO);
    assert_int_equal(choose_for(&speculation, 1, false), 0);
}

// Three rows of which one takes `asked` drafts and the others none; what came of the step is seen.
static int32_t choose_asked(struct speculation *speculation, int32_t asked)
{
    struct speculation_batch batch;
    struct speculation_counts counts = {.offered = {0}};
    speculation_begin(&batch, speculation);
    for (int32_t row = 0; row < 3; row++)
        speculation_add(&batch, &counts, 100, row == 1 ? asked : 0);
    int32_t drafts = speculation_choose(speculation, &batch);
    struct speculation_step step = {.cell = speculation_cell_now(speculation),
                                    .drafts = drafts,
                                    .ns = 1000000 + 5000 * (uint64_t)drafts};
    for (int32_t row = 0; row < 3; row++)
        speculation_note_row(&step, &counts, row == 1 ? drafts : 0, row == 1 ? drafts : 0);
    speculation_observe(speculation, &step);
    return drafts;
}

// Neither by choice nor on trial, also when those that took more have just gone.
static void none_are_made_that_no_row_takes(void **state)
{
    (void)state;
    struct speculation speculation;
    int32_t most = 0;
    speculation_init(&speculation, DRAFTS_MAX, SPECULATION_AUTO);
    for (int i = 0; i < 2000; i++)
        assert_int_equal(choose_asked(&speculation, 0), 0);
    for (int i = 0; i < 20000; i++) {
        int32_t asked = i / 3 % (1 + DRAFTS_MAX), drafts = choose_asked(&speculation, asked);
        assert_in_range(drafts, 0, asked);
        most = drafts > most ? drafts : most;
    }
    assert_int_equal(most, DRAFTS_MAX);
    speculation_init(&speculation, DRAFTS_MAX, 3);
    for (int32_t asked = 0; asked <= DRAFTS_MAX; asked++)
        assert_int_equal(choose_asked(&speculation, asked), asked < 3 ? asked : 3);
}

static void see(struct speculation *speculation, struct speculation_counts *counts, int steps,
                int32_t taken)
{
    for (int i = 0; i < steps; i++) {
        struct speculation_step step = {.cell = speculation_cell_now(speculation), .drafts = 2};
        speculation_note_row(&step, counts, 2, taken);
        speculation_observe(speculation, &step);
    }
}

static void expect_belief(const struct speculation *speculation, struct speculation_counts counts,
                          int32_t most, const double expected[3])
{
    struct speculation_batch batch;
    speculation_begin(&batch, speculation);
    speculation_add(&batch, &counts, 1, most);
    for (int32_t i = 0; i < 3; i++) {
        if (fabs(batch.taken[i] - expected[i]) > 0.03)
            fail_msg("draft %d: %.3f believed, %.3f expected", i, batch.taken[i], expected[i]);
    }
}

// Nothing seen: seven of ten. A new sequence as all, one that is known as itself; no further than
// it may go.
static void sequences_are_known_by_what_they_did(void **state)
{
    (void)state;
    struct speculation speculation;
    const struct speculation_counts fresh = {.offered = {0}};
    struct speculation_counts bad = fresh, splendid_one = fresh;
    speculation_init(&speculation, DRAFTS_MAX, SPECULATION_AUTO);
    expect_belief(&speculation, fresh, 5, (double[]){0.7, 0.49, 0.343});
    for (int i = 0; i < 100; i++) {
        see(&speculation, &bad, 3, 0);
        see(&speculation, &splendid_one, 7, 2);
    }
    expect_belief(&speculation, fresh, 5, (double[]){0.7, 0.7, 0.7});
    expect_belief(&speculation, splendid_one, 5, (double[]){0.99, 0.98, 0.98});
    expect_belief(&speculation, bad, 1, (double[]){0.08, 0, 0});
    expect_belief(&speculation, fresh, 0, (double[]){0, 0, 0});
}

// Beside prompts no time can be measured, so nothing is tried; what is believed is run.
static void prompts_beside_allow_no_trial(void **state)
{
    (void)state;
    struct speculation speculation;
    speculation_init(&speculation, DRAFTS_MAX, SPECULATION_AUTO);
    int32_t first = choose_for(&speculation, 8, true);
    assert_true(first > 0);
    for (int i = 0; i < 100; i++)
        assert_int_equal(choose_for(&speculation, 8, true), first);
    assert_int_equal(choose_for(&speculation, 0, false), first); // no rows: as for the last ones
    for (int i = 0; i < 4; i++)
        assert_int_equal(choose_for(&speculation, 8, false), first); // its own trial
    assert_int_equal(choose_for(&speculation, 8, false), first - 1); // then those beside it
}

// What a step has no room for is neither chosen nor tried.
static void no_more_than_there_is_room_for(void **state)
{
    (void)state;
    struct speculation speculation;
    speculation_init(&speculation, DRAFTS_MAX, SPECULATION_AUTO);
    for (int i = 0; i < 2000; i++) {
        struct speculation_batch batch;
        struct speculation_counts counts = {.offered = {0}};
        speculation_begin(&batch, &speculation);
        speculation_add(&batch, &counts, 100, DRAFTS_MAX);
        batch.most = i < 1000 ? 1 : 0;
        int32_t drafts = speculation_choose(&speculation, &batch);
        if (i < 1000 || i >= 1004) // a trial ends
            assert_in_range(drafts, 0, batch.most);
    }
    assert_true(choose_for(&speculation, 1, false) > 0); // there is room again
}

// A batch that swings around a border stays in one cell, so that its times are of one kind.
static void borders_are_wide(void **state)
{
    (void)state;
    struct speculation speculation;
    speculation_init(&speculation, DRAFTS_MAX, SPECULATION_AUTO);
    choose_for(&speculation, 16, false);
    int32_t cell = speculation_cell_now(&speculation);
    for (int32_t i = 0; i < 20; i++) {
        choose_for(&speculation, 15 + i % 4, false);
        assert_int_equal(speculation_cell_now(&speculation), cell);
    }
    choose_for(&speculation, 20, false);
    int32_t next = speculation_cell_now(&speculation);
    assert_true(next != cell);
    choose_for(&speculation, 16, false);
    assert_int_equal(speculation_cell_now(&speculation), next);
    choose_for(&speculation, 1, false);
    choose_for(&speculation, 2, false);
    cell = speculation_cell_now(&speculation);
    choose_for(&speculation, 1, false);
    assert_true(speculation_cell_now(&speculation) != cell);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fixed_number_is_kept),
        cmocka_unit_test(none_are_made_that_no_row_takes),
        cmocka_unit_test(sequences_are_known_by_what_they_did),
        cmocka_unit_test(prompts_beside_allow_no_trial),
        cmocka_unit_test(no_more_than_there_is_room_for),
        cmocka_unit_test(borders_are_wide),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
