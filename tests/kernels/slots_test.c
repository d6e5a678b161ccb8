// SPDX-License-Identifier: Apache-2.0
// slots_test.c -- every rule of a slot's life: opening, pages, what of a row runs, what a step
// commits, when a sequence ends.
#include "kernels/slots.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixtures/steps.h"

enum { SLOTS = 4, PAGES = 4 };

static struct slot fresh_slot(void)
{
    struct slot slot = {
        .position = 100,
        .token_next = 7,
        .page_tokens = PAGES * 64,
        .drafts = {-1, -1, -1, -1, -1},
        .sampling = {.tokens_end = 200},
    };
    return slot;
}

static void opening_sets_every_field(void **state)
{
    (void)state;
    struct ops ops;
    struct steps steps;
    ops_open(&ops, 1, 256, 1);
    steps_open(&steps, &ops, SLOTS, PAGES, 8);
    struct slot_sampling sampling = {
        .temperature = 0.5f, .seed = 99, .tokens_end = 1234, .stop_count = 1, .stop_ids = {5}};
    struct slot_opening openings[2] = {{.slot = 2, .position = 0, .sampling = sampling},
                                       {.slot = 0, .position = 640, .sampling = sampling}};
    struct slot untouched = steps.slots.slots[1]; // poison
    slots_open(ops.streams[0], &steps.slots, openings, 2);
    ops_wait(&ops);
    for (int i = 0; i < 2; i++) {
        const struct slot *slot = &steps.slots.slots[openings[i].slot];
        assert_int_equal(slot->position, openings[i].position);
        assert_int_equal(slot->pending, 0);
        assert_int_equal(slot->parity, 0);
        assert_int_equal(slot->token_next, -1);
        assert_int_equal(slot->page_tokens, 0);
        assert_int_equal(slot->end, SLOT_RUNS);
        for (int j = 0; j < ROW_VERIFY_MAX - 1; j++)
            assert_int_equal(slot->drafts[j], -1);
        assert_memory_equal(&slot->sampling, &sampling, sizeof sampling);
    }
    assert_memory_equal(&steps.slots.slots[1], &untouched, sizeof untouched);
    ops_close(&ops);
}

static void pages_go_to_their_row(void **state)
{
    (void)state;
    static const int32_t ids[] = {40, 41, 42, 43, 44};
    struct ops ops;
    struct steps steps;
    ops_open(&ops, 1, 256, 2);
    steps_open(&steps, &ops, SLOTS, PAGES, 8);
    struct slot_opening openings[2] = {{.slot = 1}, {.slot = 3}};
    struct slot_pages pages[3] = {{1, 0, 2, 3}, {3, 0, 1, 0}, {3, 1, 2, 1}};
    slots_open(ops.streams[0], &steps.slots, openings, 2);
    slots_set_pages(ops.streams[0], &steps.slots, pages, 3, ids);
    ops_wait(&ops);
    static const int32_t expected[SLOTS * PAGES] = {-1, -1, -1, -1, 43, 44, -1, -1,
                                                    -1, -1, -1, -1, 40, 41, 42, -1};
    assert_memory_equal(steps.slots.block_table, expected, sizeof expected);
    assert_int_equal(steps.slots.slots[1].page_tokens, 128);
    assert_int_equal(steps.slots.slots[3].page_tokens, 192);
    ops_close(&ops);
}

// What of a decode row runs.
struct begin_case {
    const char *name;
    int verify, drafts; // rows asked for, drafts there are
    int position, page_tokens, tokens_end, token_next, end;
    int active;
    int pause_at;
};

static const struct begin_case begin_cases[] = {
    {"one token", 1, 0, 100, 256, 200, 7, SLOT_RUNS, 1, 0},
    {"all drafts", 4, 3, 100, 256, 200, 7, SLOT_RUNS, 4, 0},
    {"most rows", 6, 5, 100, 256, 200, 7, SLOT_RUNS, 6, 0},
    {"more drafts than rows", 2, 5, 100, 256, 200, 7, SLOT_RUNS, 2, 0},
    {"fewer drafts than rows", 4, 1, 100, 256, 200, 7, SLOT_RUNS, 2, 0},
    {"no drafts", 4, 0, 100, 256, 200, 7, SLOT_RUNS, 1, 0},
    {"stopped", 4, 3, 100, 256, 200, 7, SLOT_STOP, 0, 0},
    {"at its length", 4, 3, 100, 256, 200, 7, SLOT_LENGTH, 0, 0},
    {"no known token", 4, 3, 100, 256, 200, -1, SLOT_RUNS, 0, 0},
    {"room for all", 4, 3, 124, 128, 200, 7, SLOT_RUNS, 4, 0},
    {"room for three", 4, 3, 125, 128, 200, 7, SLOT_RUNS, 3, 0},
    {"room for one", 4, 3, 127, 128, 200, 7, SLOT_RUNS, 1, 0},
    {"no room", 4, 3, 128, 128, 200, 7, SLOT_RUNS, 0, 0},
    {"no pages", 1, 0, 0, 0, 200, 7, SLOT_RUNS, 0, 0},
    {"useful for all", 4, 3, 100, 256, 105, 7, SLOT_RUNS, 4, 0},
    {"useful for two", 4, 3, 100, 256, 103, 7, SLOT_RUNS, 2, 0},
    {"last but one", 4, 3, 100, 256, 102, 7, SLOT_RUNS, 1, 0},
    {"last is never run", 4, 3, 100, 256, 101, 7, SLOT_RUNS, 0, 0},
    {"a pause behind all", 4, 3, 100, 256, 200, 7, SLOT_RUNS, 4, 105},
    {"all up to a pause", 4, 3, 100, 256, 200, 7, SLOT_RUNS, 4, 104},
    {"three up to a pause", 4, 3, 100, 256, 200, 7, SLOT_RUNS, 3, 103},
    {"one up to a pause", 4, 3, 100, 256, 200, 7, SLOT_RUNS, 1, 101},
    {"from a pause on", 4, 3, 100, 256, 200, 7, SLOT_RUNS, 4, 100},
    {"past a pause", 4, 3, 100, 256, 200, 7, SLOT_RUNS, 4, 99},
    {"stopped before a pause", 4, 3, 100, 256, 200, 7, SLOT_STOP, 0, 102},
};

static void check_begun(const struct steps *steps, const struct begin_case *c, int first)
{
    const struct step_tables *tables = &steps->tables;
    const struct slot *slot = &steps->slots.slots[2];
    for (int i = 0; i < c->verify; i++) {
        bool runs = i < c->active;
        int32_t id = i == 0 ? c->token_next : slot->drafts[i - 1];
        assert_int_equal(tables->token_ids[first + i], runs ? id : -1);
        assert_int_equal(tables->token_positions[first + i], runs ? c->position + i : -1);
        assert_int_equal(tables->token_rows[first + i], 0);
        assert_int_equal(tables->sample_tokens[i], first + i);
        assert_int_equal(tables->sample_positions[i], runs ? c->position + i + 1 : -1);
        assert_int_equal(tables->sample_slots[i], 2);
    }
}

static void decode_rows_run_what_they_can(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof begin_cases / sizeof begin_cases[0]; i++) {
        const struct begin_case *c = &begin_cases[i];
        struct ops ops;
        struct steps steps;
        ops_open(&ops, 1, 256, i);
        steps_open(&steps, &ops, SLOTS, PAGES, 8);
        struct slot slot = fresh_slot();
        slot.position = c->position;
        slot.page_tokens = c->page_tokens;
        slot.sampling.tokens_end = c->tokens_end;
        slot.token_next = c->token_next;
        slot.end = c->end;
        for (int j = 0; j < c->drafts; j++)
            slot.drafts[j] = 20 + j;
        steps.slots.slots[2] = slot;
        steps_clear(&steps);
        int first = steps_add_decode(&steps, 2, c->verify);
        steps.rows[0].pause_at = c->pause_at;
        steps_begin(&steps);
        if (steps.tables.active_count[0] != c->active)
            fail_msg("%s: %d run, not %d", c->name, steps.tables.active_count[0], c->active);
        check_begun(&steps, c, first);
        assert_memory_equal(&steps.slots.slots[2], &slot, sizeof slot); // begin changes no slot
        ops_close(&ops);
    }
}

// What a decode row commits.
struct end_case {
    const char *name;
    int verify;
    int32_t drafts[ROW_VERIFY_MAX - 1];
    int32_t sampled[ROW_VERIFY_MAX];
    int tokens_end; // position is 100
    int count, end; // expected; tokens are sampled[0 .. count)
};

static const struct end_case end_cases[] = {
    {"one token", 1, {-1, -1, -1, -1, -1}, {50}, 200, 1, SLOT_RUNS},
    {"none accepted", 4, {20, 21, 22, -1, -1}, {50, 51, 52, 53}, 200, 1, SLOT_RUNS},
    {"one accepted", 4, {20, 21, 22, -1, -1}, {20, 51, 52, 53}, 200, 2, SLOT_RUNS},
    {"two accepted", 4, {20, 21, 22, -1, -1}, {20, 21, 52, 53}, 200, 3, SLOT_RUNS},
    {"all accepted", 4, {20, 21, 22, -1, -1}, {20, 21, 22, 53}, 200, 4, SLOT_RUNS},
    {"all of six", 6, {20, 21, 22, 23, 24}, {20, 21, 22, 23, 24, 55}, 200, 6, SLOT_RUNS},
    {"a later match is not accepted", 4, {20, 21, 22, -1, -1}, {50, 21, 22, 53}, 200, 1, SLOT_RUNS},
    {"match after a gap", 4, {20, 21, 22, -1, -1}, {20, 51, 22, 53}, 200, 2, SLOT_RUNS},
    {"one draft only", 4, {20, -1, -1, -1, -1}, {20, 51, 51, 51}, 200, 2, SLOT_RUNS},
    {"stop at once", 4, {20, 21, 22, -1, -1}, {9, 51, 52, 53}, 200, 1, SLOT_STOP},
    {"stop as an accepted draft", 4, {20, 9, 22, -1, -1}, {20, 9, 22, 53}, 200, 2, SLOT_STOP},
    {"stop as the bonus", 3, {20, 21, -1, -1, -1}, {20, 21, 8}, 200, 3, SLOT_STOP},
    {"stop after a refusal is unseen", 3, {20, 21, -1, -1, -1}, {50, 9, 9}, 200, 1, SLOT_RUNS},
    {"nothing drawn", 1, {-1, -1, -1, -1, -1}, {-1}, 200, 0, SLOT_BROKEN},
    {"nothing drawn after a draft", 4, {20, 21, 22, -1, -1}, {20, -1, 52, 53}, 200, 1, SLOT_BROKEN},
    {"length at once", 1, {-1, -1, -1, -1, -1}, {50}, 102, 1, SLOT_LENGTH},
    {"length amid drafts", 4, {20, 21, 22, -1, -1}, {20, 21, 22, 53}, 104, 3, SLOT_LENGTH},
    {"length with the last draft", 4, {20, 21, 22, -1, -1}, {20, 21, 22, 53}, 105, 4, SLOT_LENGTH},
    {"one before length", 4, {20, 21, 22, -1, -1}, {20, 21, 22, 53}, 106, 4, SLOT_RUNS},
    {"stop beats length", 1, {-1, -1, -1, -1, -1}, {9}, 102, 1, SLOT_STOP},
};

static void check_ended(const struct steps *steps, const struct end_case *c)
{
    const struct slot *slot = &steps->slots.slots[2];
    const struct row_result *result = &steps->results[0];
    if (result->count != c->count || result->end != c->end)
        fail_msg("%s: count %d end %d", c->name, result->count, result->end);
    assert_int_equal(result->slot, 2);
    for (int i = 0; i < ROW_VERIFY_MAX; i++)
        assert_int_equal(result->tokens[i], i < c->count ? c->sampled[i] : -1);
    assert_int_equal(slot->end, c->end);
    assert_int_equal(slot->position, 100 + c->count);
    assert_int_equal(slot->pending, c->count);
    assert_int_equal(slot->parity, 1);
    assert_int_equal(slot->token_next, c->end == SLOT_BROKEN ? -1 : c->sampled[c->count - 1]);
    for (int i = 0; i < ROW_VERIFY_MAX - 1; i++)
        assert_int_equal(slot->drafts[i], -1);
}

static void decode_rows_commit_what_was_drawn(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof end_cases / sizeof end_cases[0]; i++) {
        const struct end_case *c = &end_cases[i];
        struct ops ops;
        struct steps steps;
        ops_open(&ops, 1, 256, i);
        steps_open(&steps, &ops, SLOTS, PAGES, 8);
        struct slot slot = fresh_slot();
        slot.pending = 2;
        slot.sampling.tokens_end = c->tokens_end;
        slot.sampling.stop_count = 2;
        slot.sampling.stop_ids[0] = 8;
        slot.sampling.stop_ids[1] = 9;
        memcpy(slot.drafts, c->drafts, sizeof slot.drafts);
        steps.slots.slots[2] = slot;
        steps_clear(&steps);
        steps_add_decode(&steps, 2, c->verify);
        steps_begin(&steps);
        for (int j = 0; j < c->verify; j++) // an inert sample draws nothing
            steps.sampled[j] = steps.tables.sample_positions[j] < 0 ? -1 : c->sampled[j];
        steps_end(&steps);
        check_ended(&steps, c);
        ops_close(&ops);
    }
}

static void inert_rows_change_nothing(void **state)
{
    (void)state;
    struct ops ops;
    struct steps steps;
    ops_open(&ops, 1, 256, 5);
    steps_open(&steps, &ops, SLOTS, PAGES, 16);
    struct slot stopped = fresh_slot(), full = fresh_slot(), ended = fresh_slot();
    stopped.end = SLOT_STOP;
    full.page_tokens = 64;
    ended.end = SLOT_LENGTH;
    steps.slots.slots[0] = stopped;
    steps.slots.slots[1] = full;
    steps.slots.slots[3] = ended;
    steps_clear(&steps);
    steps_add_decode(&steps, 0, 3);
    steps_add_decode(&steps, 1, 3);
    int first = steps_add_prefill(&steps, 3, NULL, 5, -1);
    steps_begin(&steps);
    for (int row = 0; row < 3; row++)
        assert_int_equal(steps.tables.active_count[row], 0);
    for (int i = first; i < first + 5; i++) {
        assert_int_equal(steps.tables.token_ids[i], -1);
        assert_int_equal(steps.tables.token_positions[i], -1);
    }
    for (int i = 0; i < steps.tables.samples_count; i++)
        assert_int_equal(steps.tables.sample_positions[i], -1);
    steps_end(&steps);
    for (int row = 0; row < 3; row++) {
        assert_int_equal(steps.results[row].slot, steps.rows[row].slot);
        assert_int_equal(steps.results[row].count, 0);
        assert_int_equal(steps.results[row].end, 0);
    }
    assert_memory_equal(&steps.slots.slots[0], &stopped, sizeof stopped);
    assert_memory_equal(&steps.slots.slots[1], &full, sizeof full);
    assert_memory_equal(&steps.slots.slots[3], &ended, sizeof ended);
    ops_close(&ops);
}

static void prefill_commits_at_once(void **state)
{
    (void)state;
    static const int32_t ids[] = {11, 12, 13, 14, 15};
    static const struct {
        int32_t token_next, drawn;
        int tokens_end, count, end;
    } cases[] = {
        {77, -1, 200, 0, SLOT_RUNS}, // a chunk in the middle: the next token is known
        {-1, 50, 200, 1, SLOT_RUNS},   {-1, 9, 200, 1, SLOT_STOP},
        {-1, 50, 106, 1, SLOT_LENGTH}, // max_tokens 1: positions 100 .. 104 are the prompt
        {-1, 50, 107, 1, SLOT_RUNS},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ops ops;
        struct steps steps;
        ops_open(&ops, 1, 256, i);
        steps_open(&steps, &ops, SLOTS, PAGES, 8);
        struct slot slot = fresh_slot();
        slot.pending = 3;
        slot.parity = 1;
        slot.sampling.tokens_end = cases[i].tokens_end;
        slot.sampling.stop_count = 1;
        slot.sampling.stop_ids[0] = 9;
        steps.slots.slots[1] = slot;
        steps_clear(&steps);
        steps_add_prefill(&steps, 1, ids, 5, cases[i].token_next);
        steps_begin(&steps);
        assert_int_equal(steps.tables.active_count[0], 5);
        for (int j = 0; j < 5; j++) {
            assert_int_equal(steps.tables.token_ids[j], ids[j]);
            assert_int_equal(steps.tables.token_positions[j], 100 + j);
        }
        if (steps.tables.samples_count == 1) {
            assert_int_equal(steps.tables.sample_tokens[0], 4);
            assert_int_equal(steps.tables.sample_positions[0], 105);
            assert_int_equal(steps.tables.sample_slots[0], 1);
        }
        steps.sampled[0] = cases[i].drawn;
        steps_end(&steps);
        const struct slot *after = &steps.slots.slots[1];
        assert_int_equal(after->position, 105);
        assert_int_equal(after->pending, 0);
        assert_int_equal(after->parity, 1);
        assert_int_equal(after->end, cases[i].end);
        assert_int_equal(after->token_next,
                         cases[i].count > 0 ? cases[i].drawn : cases[i].token_next);
        assert_int_equal(steps.results[0].count, cases[i].count);
        assert_int_equal(steps.results[0].end, cases[i].end);
        assert_int_equal(steps.results[0].tokens[0], cases[i].count > 0 ? cases[i].drawn : -1);
        ops_close(&ops);
    }
}

// Tokens and samples of a larger bucket that no row claims stay inert.
static void unclaimed_entries_are_inert(void **state)
{
    (void)state;
    struct ops ops;
    struct steps steps;
    ops_open(&ops, 1, 256, 6);
    steps_open(&steps, &ops, SLOTS, PAGES, 8);
    steps.slots.slots[0] = fresh_slot();
    steps_clear(&steps);
    steps_add_decode(&steps, 0, 1);
    steps.tables.tokens_count = 8;
    steps.tables.samples_count = 8;
    steps_begin(&steps);
    assert_int_equal(steps.tables.token_ids[0], 7);
    for (int i = 1; i < 8; i++) {
        assert_int_equal(steps.tables.token_ids[i], -1);
        assert_int_equal(steps.tables.token_positions[i], -1);
        assert_int_equal(steps.tables.token_rows[i], -1);
        assert_int_equal(steps.tables.sample_tokens[i], 0);
        assert_int_equal(steps.tables.sample_positions[i], -1);
        assert_int_equal(steps.tables.sample_slots[i], -1);
    }
    ops_close(&ops);
}

// Rows that fill a step up name a slot that never opens: nothing runs, nothing changes.
static void rows_of_kind_none_are_inert(void **state)
{
    (void)state;
    struct ops ops;
    struct steps steps;
    ops_open(&ops, 1, 256, 8);
    steps_open(&steps, &ops, SLOTS, PAGES, 8);
    struct slot running = fresh_slot(), never = {.position = 0};
    steps.slots.slots[0] = running;
    steps.slots.slots[1] = never;
    steps_clear(&steps);
    steps_add_decode(&steps, 0, 2);
    for (int row = 1; row < 4; row++) { // as often as there is room to fill
        steps_add_decode(&steps, 1, 2);
        steps.rows[row].kind = ROW_NONE;
    }
    steps_begin(&steps);
    assert_int_equal(steps.tables.token_ids[0], 7);
    for (int row = 1; row < 4; row++) {
        assert_int_equal(steps.tables.active_count[row], 0);
        for (int i = 2 * row; i < 2 * row + 2; i++) {
            assert_int_equal(steps.tables.token_ids[i], -1);
            assert_int_equal(steps.tables.token_positions[i], -1);
            assert_int_equal(steps.tables.sample_tokens[i], i); // a row that can be read
            assert_int_equal(steps.tables.sample_positions[i], -1);
            assert_int_equal(steps.tables.sample_slots[i], -1);
        }
    }
    steps_accept(&steps, 0, 1);
    steps_end(&steps);
    for (int row = 1; row < 4; row++) {
        assert_int_equal(steps.results[row].count, 0);
        assert_int_equal(steps.results[row].end, SLOT_RUNS);
    }
    assert_memory_equal(&steps.slots.slots[1], &never, sizeof never);
    assert_int_equal(steps.slots.slots[0].position, running.position + 1);
    ops_close(&ops);
}

// A whole life: prompt in two chunks, decode with drafts, stop; parity turns with every decode.
static void a_life_of_a_slot(void **state)
{
    (void)state;
    struct ops ops;
    struct steps steps;
    struct slot_sampling sampling = {.tokens_end = 80, .stop_count = 1, .stop_ids = {9}};
    ops_open(&ops, 1, 256, 7);
    steps_open(&steps, &ops, SLOTS, PAGES, 80);
    steps_open_slot(&steps, 1, 0, &sampling);
    struct slot *slot = &steps.slots.slots[1];
    for (int step = 0; step < 6 && slot->end == SLOT_RUNS; step++) {
        steps_clear(&steps);
        if (step < 2)
            steps_add_prefill(&steps, 1, NULL, step == 0 ? 64 : 6, step == 0 ? 1 : -1);
        else
            steps_add_decode(&steps, 1, 3);
        steps_begin(&steps);
        if (step >= 2)
            steps_accept(&steps, 0, step == 2 ? 1 : 2);
        if (step == 5)
            steps.sampled[1] = 9;
        steps_end(&steps);
        slot->drafts[0] = 30 + step;
        slot->drafts[1] = 40 + step;
    }
    assert_int_equal(slot->end, SLOT_STOP);
    assert_int_equal(slot->position, 70 + 1 + 2 + 2 + 2);
    assert_int_equal(slot->pending, 2);
    assert_int_equal(slot->parity, 0);
    assert_int_equal(slot->token_next, 9);
    ops_close(&ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening_sets_every_field),
        cmocka_unit_test(pages_go_to_their_row),
        cmocka_unit_test(decode_rows_run_what_they_can),
        cmocka_unit_test(decode_rows_commit_what_was_drawn),
        cmocka_unit_test(inert_rows_change_nothing),
        cmocka_unit_test(prefill_commits_at_once),
        cmocka_unit_test(unclaimed_entries_are_inert),
        cmocka_unit_test(rows_of_kind_none_are_inert),
        cmocka_unit_test(a_life_of_a_slot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
