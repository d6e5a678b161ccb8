// SPDX-License-Identifier: Apache-2.0
// step_check_test.c -- plans that save and load checkpoints where they must not are refused, by the
// name of what is wrong. Other plans are refused in step_test.c.
#include "worker/step_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { CHECKPOINTS = 3, TEXT = 256, EPOCH = 7 };

static const struct memory_plan memory = {.sequences = 4,
                                          .sequence_tokens = TEXT,
                                          .step_tokens = TEXT,
                                          .pages = 16,
                                          .pages_per_sequence = TEXT / 64,
                                          .checkpoints = CHECKPOINTS,
                                          .drafts_max = 5};

// Slot 0 opens behind checkpoint 2 at 64, and its row leaves checkpoint 1 at 128.
static void fill(struct step_plan *p)
{
    step_plan_clear(p);
    p->step = 1;
    p->epoch = EPOCH;
    p->opens_count = p->copies_count = p->rows_count = 1;
    p->opens[0] = (struct step_open){.position = 64, .prompt_tokens = 150, .tokens_end = 160};
    p->copies[0] = (struct step_copy){.checkpoint = 2};
    p->tokens_count = 64;
    p->rows[0] = (struct step_plan_row){.kind = STEP_ROW_PREFILL,
                                        .tokens_count = 64,
                                        .saves_count = 1,
                                        .saves = {{.checkpoint = 1, .tokens = 64}},
                                        .checkpoint = -1};
}

static void no_copy(struct step_plan *p)
{
    p->copies_count = 0;
}
static void copy_of_nothing(struct step_plan *p)
{
    p->copies[0].checkpoint = CHECKPOINTS;
}
static void copy_to_nobody(struct step_plan *p)
{
    p->copies[0].slot = 1;
}
static void copy_twice(struct step_plan *p)
{
    p->copies[p->copies_count++] = p->copies[0];
}
static void copy_to_start(struct step_plan *p)
{
    p->opens[0].position = 0;
}
static void off_grid(struct step_plan *p)
{
    p->opens[0].position = 100;
}
static void past_end(struct step_plan *p)
{
    p->opens[0].position = TEXT;
}
static void save_nowhere(struct step_plan *p)
{
    p->rows[0].saves[0].checkpoint = CHECKPOINTS;
}
static void save_too_many(struct step_plan *p)
{
    p->rows[0].saves_count = STEP_SAVES_MAX + 1;
}
static void save_past_end(struct step_plan *p)
{
    p->rows[0].saves[0].tokens = 65;
}
static void save_off_grid(struct step_plan *p)
{
    p->rows[0].saves[0].tokens = 63;
}
static void save_back(struct step_plan *p)
{
    p->rows[0].saves[1] = (struct step_save){.checkpoint = 0, .tokens = 64};
    p->rows[0].saves_count = 2;
}
static void save_twice(struct step_plan *p)
{
    p->rows[1] = p->rows[0];
    p->rows[1].slot = 1;
    p->rows_count = 2;
}

static void save_over(struct step_plan *p)
{
    p->tokens_count = p->rows[0].tokens_count = 128;
    p->rows[0].saves[1] = (struct step_save){.checkpoint = 1, .tokens = 128};
    p->rows[0].saves_count = 2;
}

static void fold(struct step_plan *p, int checkpoint, int at)
{
    p->rows[1] = p->rows[0];
    p->rows[0] = (struct step_plan_row){
        .slot = 1, .kind = STEP_ROW_DECODE, .checkpoint = checkpoint, .checkpoint_at = at};
    p->rows_count = 2;
}
static void fold_nowhere(struct step_plan *p)
{
    fold(p, CHECKPOINTS, 64);
}
static void fold_off_grid(struct step_plan *p)
{
    fold(p, 0, 65);
}
static void fold_at_start(struct step_plan *p)
{
    fold(p, 0, 0);
}
static void fold_past_end(struct step_plan *p)
{
    fold(p, 0, TEXT);
}
static void fold_of_nothing(struct step_plan *p)
{
    fold(p, -1, 64);
}
static void fold_twice(struct step_plan *p)
{
    fold(p, 1, 64);
}

static void plans_are_refused_by_name(void **state)
{
    static const struct {
        void (*spoil)(struct step_plan *plan);
        const char *named;
    } cases[] = {
        {no_copy, "opens.pos: checkpoints copied"},
        {copy_of_nothing, "copies.checkpoint"},
        {copy_to_nobody, "opens.pos: checkpoints copied"},
        {copy_twice, "copied to its slot is 2"},
        {copy_to_start, "copied to its slot is 1, accepted is 0 to 0"},
        {off_grid, "past a page's end is 36"},
        {past_end, "opens.pos is 256, accepted is 0 to 255"},
        {save_nowhere, "rows.saves.checkpoint is 3, accepted is 0 to 2"},
        {save_too_many, "rows.saves is 5, accepted is 0 to 4"},
        {save_past_end, "rows.saves.tokens is 65, accepted is 1 to 64"},
        {save_off_grid, "rows.saves.tokens past a chunk's end is 63"},
        {save_back, "rows.saves.tokens is 64, accepted is 65 to 64"},
        {save_twice, "checkpoint 1 is written by rows 0 and 1"},
        {save_over, "checkpoint 1 is written by rows 0 and 0"},
        {fold_nowhere, "rows.checkpoint is 3, accepted is -1 to 2"},
        {fold_off_grid, "rows.checkpoint_at past a page's end is 1"},
        {fold_at_start, "rows.checkpoint_at is 0, accepted is 1 to 255"},
        {fold_past_end, "rows.checkpoint_at is 256, accepted is 1 to 255"},
        {fold_of_nothing, "rows.checkpoint_at is 64, accepted is 0 to 0"},
        {fold_twice, "checkpoint 1 is written by rows 0 and 1"},
    };
    struct step_check check = {.memory = &memory,
                               .epoch = EPOCH,
                               .step_next = 1,
                               .vocab = 300,
                               .samples_max = 24,
                               .drafts_max = 5};
    struct step_plan plan;
    struct error error;
    (void)state;
    assert_int_equal(step_plan_open(&plan, &error), OK);
    memset(plan.tokens, 0, 2 * TEXT * sizeof *plan.tokens);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fill(&plan);
        assert_int_equal(step_check(&check, &plan, &error), OK);
        cases[i].spoil(&plan);
        assert_int_equal(step_check(&check, &plan, &error), E_MALFORMED);
        if (strstr(error.text, cases[i].named) == NULL)
            fail_msg("\"%s\" does not say \"%s\"", error.text, cases[i].named);
    }
    step_plan_close(&plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
