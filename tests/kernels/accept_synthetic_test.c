// SPDX-License-Identifier: Apache-2.0
// accept_synthetic_test.c -- the shares of accepted drafts are the asked-for ones, what is accepted
// becomes the sample, what is not never is, and rows without drafts stay as they are.
#include "kernels/accept_synthetic.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixtures/steps.h"

enum { TURNS = 20000, VOCAB = 50 };

struct counts {
    int offered[ROW_VERIFY_MAX], taken[ROW_VERIFY_MAX];
};

// One verify row of 1 + 3 tokens at `position`; counts what slots_end accepts.
static void run_turn(struct steps *steps, struct accept_synthetic *op, int position,
                     struct counts *counts)
{
    struct slot *slot = &steps->slots.slots[0];
    slot->position = position;
    slot->token_next = 1;
    slot->end = SLOT_RUNS;
    for (int i = 0; i < 3; i++)
        slot->drafts[i] = (position + 7 * i) % VOCAB;
    slot->drafts[3] = -1;
    steps_clear(steps);
    steps_add_decode(steps, 0, 4);
    steps_add_prefill(steps, 1, NULL, 1, -1);
    steps_begin(steps);
    for (int i = 0; i < steps->tables.samples_count; i++)
        steps->sampled[i] = position % VOCAB; // equals the first draft
    op->tables = steps->tables;
    op->sampled = steps->sampled;
    accept_synthetic(steps->ops->streams[0], op);
    ops_wait(steps->ops);
    assert_int_equal(steps->sampled[4], position % VOCAB); // of the prompt
    steps_end(steps);
    int taken = steps->results[0].count - 1;
    for (int i = 0; i < 3 && i <= taken; i++) {
        counts->offered[i]++;
        counts->taken[i] += i < taken;
    }
    steps->slots.slots[1].position = 0;
}

static void drafts_are_taken_as_often_as_asked(void **state)
{
    static const float asked[3] = {0.9f, 0.5f, 0.0f};
    struct ops ops = {0};
    struct steps steps;
    struct counts counts = {{0}, {0}};
    struct slot_sampling sampling = steps_endless();
    (void)state;
    sampling.seed = 12;
    ops_open(&ops, 1, 256, 1);
    steps_open(&steps, &ops, 2, 512, 16);
    steps_open_slot(&steps, 0, 0, &sampling);
    steps_open_slot(&steps, 1, 0, &sampling);
    struct accept_synthetic op = {.slots = steps.slots, .vocab_real = VOCAB};
    memcpy(op.probabilities, asked, sizeof asked);
    for (int i = 0; i < TURNS; i++)
        run_turn(&steps, &op, i, &counts);
    for (int i = 0; i < 3; i++) {
        double p = (double)asked[i], share = counts.taken[i] / (double)counts.offered[i];
        double deviation = sqrt(p * (1 - p) / counts.offered[i]);
        assert_true(fabs(share - p) <= 4 * deviation + 1e-12);
    }
    ops_close(&ops);
}

static void chance_is_uniform_and_repeatable(void **state)
{
    (void)state;
    int bins[16] = {0};
    for (int i = 0; i < 160000; i++) {
        double chance = accept_synthetic_chance((uint64_t)(i / 400), i % 400);
        assert_true(chance >= 0 && chance < 1);
        assert_true(chance == accept_synthetic_chance((uint64_t)(i / 400), i % 400));
        bins[(int)(chance * 16)]++;
    }
    double chi = 0;
    for (int i = 0; i < 16; i++)
        chi += (bins[i] - 10000.0) * (bins[i] - 10000.0) / 10000;
    assert_true(chi < 44.3); // 15 degrees of freedom, exceeded once in 10,000 by chance
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drafts_are_taken_as_often_as_asked),
        cmocka_unit_test(chance_is_uniform_and_repeatable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
