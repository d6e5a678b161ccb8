// SPDX-License-Identifier: Apache-2.0
// memory_plan_recorded_test.c -- recorded steps in the memory plan: how many there are by hand,
// that the worker's engine records exactly these, and that every number of drafts more is paid for.
#include "parallel/memory_plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/fixtures/team.h"
#include "worker/step_engine.h"

// 256 sequences in steps of 8,192 tokens: 16 counts of rows (1 .. 256), two classes, six numbers of
// drafts. 1,024: twenty counts, of which a step of so many tokens holds fewer with drafts.
static void steps_by_hand(void **state)
{
    (void)state;
    struct memory_plan plan = {.sequences = 256, .step_tokens = 8192};
    assert_int_equal(memory_plan_recorded_steps(&plan), 0);
    for (plan.recorded = 1; plan.recorded <= VERIFY_ROWS_MAX; plan.recorded++)
        assert_int_equal(memory_plan_recorded_steps(&plan), 32 * plan.recorded);
    plan = (struct memory_plan){.sequences = 1024, .step_tokens = 2048, .recorded = 3};
    assert_int_equal(memory_plan_recorded_most(&plan, 1), 1024);
    assert_int_equal(memory_plan_recorded_most(&plan, 2), 682);
    assert_int_equal(memory_plan_recorded_steps(&plan), 2 * (20 + 20 + 19));
    plan = (struct memory_plan){.sequences = 5, .step_tokens = 64, .recorded = 1};
    assert_int_equal(memory_plan_recorded_steps(&plan), 2 * 5); // 1, 2, 3, 4, 5
    const int rows[][2] = {{1, 1}, {4, 4}, {5, 5}, {7, 5}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_int_equal(memory_plan_recorded_rows(&plan, rows[i][0], 0), rows[i][1]);
    plan.sequences = 33;
    assert_int_equal(memory_plan_recorded_rows(&plan, 5, 0), 6);
    assert_int_equal(memory_plan_recorded_rows(&plan, 33, 0), 33);
}

static int recorded_by(struct team *team, int drafts_max)
{
    struct step_engine *engine;
    struct error error;
    int fd = eventfd(0, EFD_NONBLOCK), steps = 0;
    struct step_options options = {.model = &team->ranks[0].model,
                                   .memory = team->ranks[0].plan,
                                   .epoch = 1,
                                   .vocab_real = 364,
                                   .drafts_max = drafts_max,
                                   .graphs = true,
                                   .notify_fd = fd};
    assert_int_equal(step_engine_open(&engine, &options, &error), OK);
    for (int drafts = 0; drafts < STEP_VERIFY_MAX; drafts++) {
        for (int i = 0; i < engine->graphs.counts[drafts]; i++) {
            for (int kind = 0; kind < STEP_CLASSES; kind++)
                steps += engine->graphs.decode[kind][drafts][i] != NULL;
        }
    }
    step_engine_close(engine);
    close(fd);
    return steps;
}

static void the_worker_records_what_is_planned(void **state)
{
    (void)state;
    static struct team team;
    for (int sequences = 3; sequences <= 23; sequences += 20) {
        team_open(&team,
                  &(struct team_options){.model_dir = SOURCE_DIR "/tests/golden/dense_untied_r2",
                                         .load_format = LOAD_DUMMY,
                                         .ranks = 1,
                                         .sequences = sequences,
                                         .sequence_tokens = 64,
                                         .step_tokens = 64});
        for (int drafts = 0; drafts <= VERIFY_ROWS_MAX - 1; drafts++) {
            struct memory_plan plan = team.ranks[0].plan;
            plan.recorded = 1 + drafts;
            assert_int_equal(recorded_by(&team, drafts), memory_plan_recorded_steps(&plan));
        }
        team_close(&team);
    }
}

static void plan_35b(struct memory_plan *plan, int ranks, int recorded)
{
    struct model_config config = {.layers = 40,
                                  .hidden = 2048,
                                  .vocab = 248320,
                                  .max_position_embeddings = 262144,
                                  .heads = 16,
                                  .kv_heads = 2,
                                  .head_dim = 256,
                                  .key_heads = 16,
                                  .value_heads = 32,
                                  .key_dim = 128,
                                  .value_dim = 128,
                                  .conv_width = 4,
                                  .experts = 256,
                                  .experts_per_token = 8,
                                  .expert_intermediate = 512,
                                  .shared_intermediate = 512,
                                  .rope = {.rotary_dim = 64, .theta = 1e7, .attention_factor = 1}};
    struct shard shard;
    struct error error;
    for (int i = 3; i < config.layers; i += 4)
        config.layer_is_attention[i] = true;
    struct memory_wishes wishes = {
        .bytes_free = (uint64_t)140 << 30, .utilization = 0.9, .mtp = true, .recorded = recorded};
    wishes.drafts_max = recorded > 0 ? recorded - 1 : 0;
    assert_int_equal(shard_make(&shard, &config, 0, ranks, &error), OK);
    assert_int_equal(memory_plan_make(plan, &config, &shard, &wishes, &error), OK);
    assert_true(plan->total_bytes <= (uint64_t)(0.9 * (double)wishes.bytes_free));
    assert_int_equal(plan->total_bytes, plan->weight_bytes + plan->kv_bytes + plan->state_bytes +
                                            plan->pending_bytes + plan->workspace_bytes +
                                            plan->prefix_bytes + plan->recorded_bytes);
}

// At least what workers took, and not twice as much.
static void covers(uint64_t bytes, uint64_t measured_mb)
{
    assert_in_range(bytes, measured_mb * 1000000, 2 * measured_mb * 1000000);
}

// Each number of drafts takes as many steps more and longer ones, and pages make room for them;
// ranks of a group record more kernels. Beside it what was seen on H200s, 0: not looked at.
static void drafts_are_paid_for(void **state)
{
    (void)state;
    static const uint64_t alone_mb[VERIFY_ROWS_MAX + 1] = {0, 29, 65, 105, 145, 0, 231};
    static const uint64_t pair_mb[VERIFY_ROWS_MAX + 1] = {[4] = 287};
    struct memory_plan before, plan, group;
    plan_35b(&before, 1, 0);
    assert_int_equal(before.recorded_bytes, 0);
    for (int recorded = 1; recorded <= VERIFY_ROWS_MAX; recorded++, before = plan) {
        plan_35b(&plan, 1, recorded);
        plan_35b(&group, 2, recorded);
        assert_true(plan.recorded_bytes > before.recorded_bytes);
        if (alone_mb[recorded] > 0)
            covers(plan.recorded_bytes, alone_mb[recorded]);
        if (pair_mb[recorded] > 0)
            covers(group.recorded_bytes, pair_mb[recorded]);
        assert_true(group.recorded_bytes > plan.recorded_bytes);
        assert_true(plan.kv_bytes + plan.prefix_bytes < before.kv_bytes + before.prefix_bytes);
        assert_int_equal(plan.sequences, 256);
    }
    char text[1024];
    memory_plan_print(text, sizeof text, &plan);
    assert_non_null(strstr(text, "192 steps"));
    plan.recorded = 0;
    memory_plan_print(text, sizeof text, &plan);
    assert_null(strstr(text, "recorded"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_by_hand),
        cmocka_unit_test(the_worker_records_what_is_planned),
        cmocka_unit_test(drafts_are_paid_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
