// SPDX-License-Identifier: Apache-2.0
// mtp_rows_test.c -- which hidden row meets which token, over chunks, verify rows and inert rows;
// what a slot keeps; and every condition under which a drafting pass is inert.
#include "kernels/mtp_rows.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixtures/steps.h"

enum { SLOTS = 4, PAGES = 2, HIDDEN = 8, TOKENS_MAX = 40 };

struct world {
    struct ops ops;
    struct steps steps;
    struct mtp_rows op;
    bf16 *hidden, *slot_hidden, *shifted, *draft_hidden;
    int32_t *picks;
};

static int32_t *ids_of(struct world *w)
{
    return ops_alloc(&w->ops, TOKENS_MAX * sizeof(int32_t));
}

static void open_world(struct world *w)
{
    struct slot_sampling sampling = steps_endless();
    memset(w, 0, sizeof *w);
    ops_open(&w->ops, 1, 256, 3);
    steps_open(&w->steps, &w->ops, SLOTS, PAGES, TOKENS_MAX);
    for (int slot = 0; slot < SLOTS; slot++)
        steps_open_slot(&w->steps, slot, 0, &sampling);
    w->hidden = ops_bf16(&w->ops, TOKENS_MAX * HIDDEN, 1);
    w->slot_hidden = ops_bf16(&w->ops, SLOTS * HIDDEN, 1);
    w->shifted = ops_alloc(&w->ops, TOKENS_MAX * HIDDEN * sizeof(bf16));
    w->draft_hidden = ops_alloc(&w->ops, TOKENS_MAX * HIDDEN * sizeof(bf16));
    w->picks = ids_of(w);
    w->op = (struct mtp_rows){
        .slots = w->steps.slots,
        .hidden = HIDDEN,
        .hidden_rows = w->hidden,
        .slot_hidden = w->slot_hidden,
        .ids = ids_of(w),
        .shifted = w->shifted,
        .draft_rows = ops_alloc(&w->ops, STEPS_ROWS_MAX * sizeof(struct step_row)),
        .draft_hidden = w->draft_hidden,
        .drafts = {.active_count = ids_of(w),
                   .token_ids = ids_of(w),
                   .token_positions = ids_of(w),
                   .token_rows = ids_of(w),
                   .sample_tokens = ids_of(w),
                   .sample_positions = ids_of(w),
                   .sample_slots = ids_of(w)},
    };
    w->op.drafts.rows = w->op.draft_rows;
}

static void set_tables(struct world *w)
{
    w->op.tables = w->steps.tables;
    w->op.drafts.rows_count = w->steps.tables.rows_count;
    w->op.drafts.tokens_count = w->steps.tables.rows_count;
    w->op.drafts.samples_count = w->steps.tables.rows_count;
}

static void assert_row(const bf16 *row, const bf16 *expected)
{
    static const bf16 zeros[HIDDEN];
    assert_memory_equal(row, expected != NULL ? expected : zeros, HIDDEN * sizeof(bf16));
}

static void assert_pair(const struct world *w, int token, int32_t id, const bf16 *before)
{
    assert_int_equal(w->op.ids[token], id);
    assert_row(w->shifted + token * HIDDEN, before);
}

// Slot 0 verifies three of its tokens, slot 1 has ended, slot 2 starts, slot 3 goes on at 5.
static void pairs_cross_rows_and_chunks(void **state)
{
    static const int32_t first[3] = {41, 42, 43}, later[2] = {51, 52};
    struct world w;
    (void)state;
    open_world(&w);
    struct slot *slots = w.steps.slots.slots;
    slots[0].position = 10;
    slots[0].token_next = 21;
    slots[0].drafts[0] = 22;
    slots[0].drafts[1] = 23;
    slots[1].end = SLOT_STOP;
    slots[3].position = 5;
    steps_clear(&w.steps);
    int verify = steps_add_decode(&w.steps, 0, 4), ended = steps_add_decode(&w.steps, 1, 1);
    int fresh = steps_add_prefill(&w.steps, 2, first, 3, 44);
    int more = steps_add_prefill(&w.steps, 3, later, 2, -1);
    steps_begin(&w.steps);
    set_tables(&w);
    mtp_rows_shift(w.ops.streams[0], &w.op);
    ops_wait(&w.ops);
    assert_pair(&w, verify, 21, w.slot_hidden);
    assert_pair(&w, verify + 1, 22, w.hidden + verify * HIDDEN);
    assert_pair(&w, verify + 2, 23, w.hidden + (verify + 1) * HIDDEN);
    assert_pair(&w, verify + 3, -1, NULL); // there is no third draft
    assert_pair(&w, ended, -1, NULL);
    assert_pair(&w, fresh, -1, NULL); // position 0 has no pair
    assert_pair(&w, fresh + 1, 42, w.hidden + fresh * HIDDEN);
    assert_pair(&w, fresh + 2, 43, w.hidden + (fresh + 1) * HIDDEN);
    assert_pair(&w, more, 51, w.slot_hidden + 3 * HIDDEN);
    assert_pair(&w, more + 1, 52, w.hidden + more * HIDDEN);

    // The slots keep the hidden row of their last committed token: two of slot 0's three.
    bf16 *before = ops_copy(&w.ops, w.slot_hidden, SLOTS * HIDDEN * sizeof(bf16));
    steps_accept(&w.steps, 0, 2);
    w.steps.sampled[w.steps.tables.rows[3].sample_first] = 53;
    steps_end(&w.steps);
    mtp_rows_keep(w.ops.streams[0], &w.op, w.steps.results);
    ops_wait(&w.ops);
    assert_row(w.slot_hidden, w.hidden + (verify + 1) * HIDDEN);
    assert_row(w.slot_hidden + HIDDEN, before + HIDDEN);
    assert_row(w.slot_hidden + 2 * HIDDEN, w.hidden + (fresh + 2) * HIDDEN);
    assert_row(w.slot_hidden + 3 * HIDDEN, w.hidden + (more + 1) * HIDDEN);
    ops_close(&w.ops);
}

// A row of which nothing could be drawn commits nothing: what its slot keeps stays, and nothing
// before the first hidden row is read.
static void a_broken_row_keeps_what_there_was(void **state)
{
    struct world w;
    (void)state;
    open_world(&w);
    struct slot *slots = w.steps.slots.slots;
    slots[0].position = 10;
    slots[0].token_next = 21;
    slots[0].drafts[0] = 22;
    steps_clear(&w.steps);
    int verify = steps_add_decode(&w.steps, 0, 2);
    steps_begin(&w.steps);
    set_tables(&w);
    bf16 *before = ops_copy(&w.ops, w.slot_hidden, SLOTS * HIDDEN * sizeof(bf16));
    w.steps.sampled[verify] = -1;
    w.steps.sampled[verify + 1] = -1;
    steps_end(&w.steps);
    assert_int_equal(w.steps.results[0].count, 0);
    assert_int_equal(w.steps.results[0].end, SLOT_BROKEN);
    mtp_rows_keep(w.ops.streams[0], &w.op, w.steps.results);
    ops_wait(&w.ops);
    assert_memory_equal(w.slot_hidden, before, SLOTS * HIDDEN * sizeof(bf16));
    ops_close(&w.ops);
}

static void assert_draft(const struct world *w, int row, int32_t id, int32_t position)
{
    const struct step_tables *drafts = &w->op.drafts;
    assert_int_equal(drafts->active_count[row], id >= 0);
    assert_int_equal(drafts->token_ids[row], id);
    assert_int_equal(drafts->token_positions[row], id >= 0 ? position : -1);
    assert_int_equal(drafts->sample_positions[row], id >= 0 ? position + 1 : -1);
    assert_int_equal(drafts->sample_tokens[row], row);
    assert_int_equal(drafts->sample_slots[row], w->op.tables.rows[row].slot);
    assert_int_equal(drafts->token_rows[row], row);
    assert_int_equal(drafts->rows[row].slot, w->op.tables.rows[row].slot);
    assert_int_equal(drafts->rows[row].token_first, row);
}

static void begin_pass(struct world *w, int pass)
{
    mtp_rows_draft_begin(w->ops.streams[0], &w->op, pass);
    ops_wait(&w->ops);
}

static void take_picks(struct world *w, int pass, int32_t first, int32_t second)
{
    for (int i = 0; i < SLOTS; i++)
        w->picks[i] = i == 0 ? first : i == 1 ? second : 77;
    mtp_rows_draft_take(w->ops.streams[0], &w->op, w->picks, pass);
    ops_wait(&w->ops);
}

// Slot 0 drafts on; slot 1 stands one token before the end of its pages; slot 2 has a chunk of its
// prompt only; slot 3 stands before the end of its output.
static void drafts_end_where_nothing_could_run(void **state)
{
    struct world w;
    (void)state;
    open_world(&w);
    struct slot *slots = w.steps.slots.slots;
    int room = PAGES * 64;
    for (int i = 0; i < SLOTS; i++) {
        slots[i].position = i == 1 ? room - 2 : 20;
        slots[i].token_next = 30 + i;
    }
    slots[3].sampling.tokens_end = 23;
    steps_clear(&w.steps);
    steps_add_decode(&w.steps, 0, 1);
    steps_add_decode(&w.steps, 1, 1);
    steps_add_decode(&w.steps, 3, 1);
    steps_add_prefill(&w.steps, 2, NULL, 2, 9);
    steps_begin(&w.steps);
    for (int i = 0; i < 3; i++)
        w.steps.sampled[i] = 60 + i;
    steps_end(&w.steps);
    set_tables(&w);
    begin_pass(&w, 0);
    assert_draft(&w, 0, 60, 21);
    assert_draft(&w, 1, 61, room - 1);
    assert_draft(&w, 2, 62, 21);
    assert_draft(&w, 3, -1, -1);
    for (int row = 0; row < SLOTS; row++)
        assert_row(w.draft_hidden + row * HIDDEN,
                   w.slot_hidden + w.op.tables.rows[row].slot * HIDDEN);
    take_picks(&w, 0, 80, 81);
    begin_pass(&w, 1);
    assert_draft(&w, 0, 80, 22);
    assert_draft(&w, 1, -1, -1); // its pages end
    assert_draft(&w, 2, -1, -1); // its output ends with what pass 0 guessed
    take_picks(&w, 1, 90, 91);
    assert_int_equal(slots[0].drafts[0], 80);
    assert_int_equal(slots[0].drafts[1], 90);
    assert_int_equal(slots[1].drafts[0], 81);
    assert_int_equal(slots[1].drafts[1], -1);
    assert_int_equal(slots[2].drafts[0], -1); // a chunk drafts nothing
    assert_int_equal(slots[3].drafts[0], 77);
    assert_int_equal(slots[3].drafts[1], -1);

    // A slot may want fewer than the step makes, or none.
    slots[0].sampling.drafts = 1 + 1;
    begin_pass(&w, 1);
    assert_draft(&w, 0, -1, -1);
    begin_pass(&w, 0);
    assert_draft(&w, 0, 60, 21);
    slots[0].sampling.drafts = 1 + 0;
    begin_pass(&w, 0);
    assert_draft(&w, 0, -1, -1);
    slots[0].sampling.drafts = 0;

    // A missing guess ends the chain, and an ended slot drafts nothing.
    slots[0].drafts[1] = -1;
    slots[3].end = SLOT_STOP;
    begin_pass(&w, 2);
    assert_draft(&w, 0, -1, -1);
    begin_pass(&w, 0);
    assert_draft(&w, 2, -1, -1);
    ops_close(&w.ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs_cross_rows_and_chunks),
        cmocka_unit_test(a_broken_row_keeps_what_there_was),
        cmocka_unit_test(drafts_end_where_nothing_could_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
