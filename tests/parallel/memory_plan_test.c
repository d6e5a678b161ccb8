// SPDX-License-Identifier: Apache-2.0
// memory_plan_test.c -- sizes of the public models, the solver's promises over many budgets, and
// that worker/state.c allocates no more than was planned.
#include "parallel/memory_plan.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/runtime.h"
#include "worker/state.h"

static struct model_config model(int layers, int hidden, int heads, int kv_heads, int value_heads)
{
    struct model_config config = {
        .layers = layers,
        .hidden = hidden,
        .vocab = 248320,
        .max_position_embeddings = 262144,
        .heads = heads,
        .kv_heads = kv_heads,
        .head_dim = 256,
        .key_heads = 16,
        .value_heads = value_heads,
        .key_dim = 128,
        .value_dim = 128,
        .conv_width = 4,
        .rope = {.rotary_dim = 64, .theta = 1e7, .attention_factor = 1},
    };
    for (int i = 3; i < layers; i += 4)
        config.layer_is_attention[i] = true;
    return config;
}

static struct model_config dense(int layers, int hidden, int heads, int kv_heads, int value_heads,
                                 int intermediate)
{
    struct model_config config = model(layers, hidden, heads, kv_heads, value_heads);
    config.intermediate = intermediate;
    return config;
}

static struct model_config moe_35b(void)
{
    struct model_config config = model(40, 2048, 16, 2, 32);
    config.experts = 256;
    config.experts_per_token = 8;
    config.expert_intermediate = config.shared_intermediate = 512;
    return config;
}

static struct model_config moe_397b(void)
{
    struct model_config config = model(60, 4096, 32, 2, 64);
    config.experts = 512;
    config.experts_per_token = 10;
    config.expert_intermediate = config.shared_intermediate = 1024;
    return config;
}

static struct shard shard_of(const struct model_config *config, int ranks)
{
    struct shard shard;
    struct error error = {0};
    if (shard_make(&shard, config, 0, ranks, &error) != OK)
        fail_msg("%s", error.text);
    return shard;
}

// Bytes per token of KV and of the head's, MiB of a sequence's state: the published sizes.
static void test_sizes_of_public_models(void **state)
{
    (void)state;
    struct model_config tied = dense(24, 1024, 8, 2, 16, 3584);
    tied.tied = true;
    const struct {
        struct model_config config;
        uint64_t kv_per_token, head_kv_per_token;
        double state_mib;
        double parameters; // of text, in 1e9
    } cases[] = {
        {tied, 12288, 2048, 18.63, 0.752},
        {dense(32, 4096, 16, 4, 32, 12288), 32768, 4096, 49.13, 8.954},
        {dense(64, 5120, 24, 4, 48, 17408), 65536, 4096, 146.81, 26.896},
        {moe_35b(), 20480, 2048, 61.41, 34.661},
        {moe_397b(), 30720, 2048, 183.16, 396.346},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct model_config *config = &cases[i].config;
        struct shard shard = shard_of(config, 1);
        assert_int_equal(memory_plan_page_bytes(config, &shard, false), 64 * cases[i].kv_per_token);
        assert_int_equal(memory_plan_page_bytes(config, &shard, true),
                         64 * (cases[i].kv_per_token + cases[i].head_kv_per_token));
        double mib = (double)memory_plan_slot_bytes(config, &shard, false) / (1 << 20);
        assert_true(fabs(mib - cases[i].state_mib) < 0.006);
        uint64_t half = (uint64_t)(config->layers - config->layers / 4) *
                        (uint64_t)config->value_heads * 128 * 128 * 2;
        assert_int_equal(memory_plan_slot_bytes(config, &shard, false) -
                             memory_plan_slot_bytes(config, &shard, true),
                         half);
        // The published figure is rounded to 1e6 parameters. Beside it: two more bytes for each
        // number that is f32 here, and the alignment of each of at most 18 tensors a layer.
        int gdn = config->layers - config->layers / 4;
        double more =
            2.0 * gdn * (4 * config_conv_channels(config) + 2 * config->value_heads + 128);
        more += 2.0 * (config->layers / 4 * 512 + (2 * config->layers + 1) * config->hidden);
        double bytes = (double)memory_plan_weight_bytes(config, &shard, false);
        double published = 2e9 * cases[i].parameters;
        assert_true(bytes - published > more - 1e6);
        assert_true(bytes - published < more + 1e6 + 256.0 * 18 * (config->layers + 1));
    }
}

// k, u and g of 14 rows, of 20 with a bf16 state; conv columns of six and the three before them,
// and two numbers, twice: 35B by hand. Without drafts 9 and 15 rows, and a column; with three 12.
static void test_pending_by_hand(void **state)
{
    (void)state;
    struct model_config config = moe_35b();
    struct shard shard = shard_of(&config, 1);
    uint64_t rows = 14 * (16 * 128 + 32 * 128 + 32) * 4, columns = (6 + 3) * 8192 * 2;
    assert_int_equal(memory_plan_pending_bytes(&config, &shard, false, 5),
                     30 * (rows + 2 * (columns + 8)));
    assert_int_equal(memory_plan_pending_bytes(&config, &shard, true, 5),
                     30 * (rows / 14 * 20 + 2 * (columns + 8)));
    assert_int_equal(memory_plan_pending_bytes(&config, &shard, false, 0),
                     30 * (rows / 14 * 9 + 2 * (columns / 9 * 4 + 8)));
    assert_int_equal(memory_plan_pending_bytes(&config, &shard, true, 0),
                     30 * (rows / 14 * 15 + 2 * (columns / 9 * 4 + 8)));
    assert_int_equal(memory_plan_pending_bytes(&config, &shard, false, 3),
                     30 * (rows / 14 * 12 + 2 * (columns / 9 * 7 + 8)));
    shard = shard_of(&config, 4);
    assert_int_equal(memory_plan_pending_bytes(&config, &shard, false, 5),
                     30 * (rows / 4 + 2 * (columns / 4 + 8)));
}

// 397B at eight ranks: 95.5 GiB a rank with replicated embedding and the head, 23.8 MiB a slot
// with its state, 16 KiB of KV a token.
static void test_397b_at_eight(void **state)
{
    (void)state;
    struct model_config config = moe_397b();
    struct shard shard = shard_of(&config, 8);
    double gib = (double)memory_plan_weight_bytes(&config, &shard, true) / (1 << 30);
    assert_true(fabs(gib - 95.5) < 0.3);
    assert_int_equal(memory_plan_page_bytes(&config, &shard, true), 64 * 16 * 1024);
}

static void check_promises(const struct model_config *config, const struct shard *shard,
                           const struct memory_wishes *wishes, const struct memory_plan *plan)
{
    uint64_t budget = (uint64_t)((double)wishes->bytes_free * wishes->utilization);
    assert_true(plan->total_bytes <= budget);
    assert_int_equal(plan->total_bytes, plan->weight_bytes + plan->kv_bytes + plan->state_bytes +
                                            plan->pending_bytes + plan->workspace_bytes +
                                            plan->prefix_bytes);
    assert_true(plan->checkpoints >= 0 && plan->checkpoints <= CHECKPOINTS_MAX);
    assert_true(plan->prefix_bytes >=
                (uint64_t)plan->checkpoints *
                    memory_plan_checkpoint_bytes(config, shard, wishes->bf16_state));
    assert_true(wishes->checkpoints >= 0 || plan->prefix_bytes == 0);
    assert_int_equal(plan->kv_bytes,
                     (uint64_t)plan->pages * memory_plan_page_bytes(config, shard, wishes->mtp));
    assert_true(plan->sequences >= 1 && plan->sequences <= SEQUENCES_MAX);
    assert_true(plan->pages >= plan->sequences);
    assert_true(plan->pages >= plan->pages_per_sequence); // one sequence may reach full length
    assert_true(plan->pages_per_sequence >= 1);
    assert_true(plan->sequence_tokens > (plan->pages_per_sequence - 1) * TOKENS_PER_PAGE);
    assert_true(plan->sequence_tokens <= plan->pages_per_sequence * TOKENS_PER_PAGE);
    assert_true(plan->step_tokens >= TOKENS_PER_PAGE && plan->step_tokens % TOKENS_PER_PAGE == 0);
    if (wishes->sequences > 0)
        assert_true(plan->sequences <= wishes->sequences);
    if (wishes->sequence_tokens > 0)
        assert_true(plan->sequence_tokens <= wishes->sequence_tokens);
    if (wishes->pages > 0)
        assert_true(plan->pages <= wishes->pages);
    bool cut =
        plan->sequences < wishes->sequences || plan->sequence_tokens < wishes->sequence_tokens ||
        (wishes->step_tokens > 0 && plan->step_tokens < wishes->step_tokens) ||
        (wishes->sequence_tokens == 0 && plan->sequence_tokens < config->max_position_embeddings) ||
        plan->checkpoints < wishes->checkpoints;
    assert_int_equal(plan->clamped, cut);
}

// From one byte below the least that works up to far more than enough, in steps of 3 %: never
// refused, all promises kept, and more memory never means shorter steps.
static void check_budgets(const struct model_config *config, int ranks, struct memory_wishes wishes)
{
    struct shard shard = shard_of(config, ranks);
    struct memory_plan plan;
    struct error error = {0};
    uint64_t low = 0, high = (uint64_t)1 << 42; // low fails, high works
    wishes.utilization = 1;
    wishes.bytes_free = high;
    assert_int_equal(memory_plan_make(&plan, config, &shard, &wishes, &error), OK);
    while (high - low > 1) {
        wishes.bytes_free = low + (high - low) / 2;
        bool fits = memory_plan_make(&plan, config, &shard, &wishes, &error) == OK;
        *(fits ? &high : &low) = wishes.bytes_free;
    }
    wishes.bytes_free = low;
    assert_int_equal(memory_plan_make(&plan, config, &shard, &wishes, &error), E_LIMIT);
    assert_non_null(strstr(error.text, "one sequence of 64 tokens needs"));
    wishes.bytes_free = high;
    assert_int_equal(memory_plan_make(&plan, config, &shard, &wishes, &error), OK);
    assert_int_equal(plan.sequences, 1);
    assert_int_equal(plan.pages, 1);
    assert_int_equal(plan.step_tokens, TOKENS_PER_PAGE);
    assert_true(plan.clamped);
    int step_before = 0;
    for (double bytes = (double)high; bytes < 1e13; bytes *= 1.03) {
        wishes.bytes_free = (uint64_t)bytes;
        if (memory_plan_make(&plan, config, &shard, &wishes, &error) != OK)
            fail_msg("refused at %.0f bytes: %s", bytes, error.text);
        check_promises(config, &shard, &wishes, &plan);
        assert_true(plan.step_tokens >= step_before);
        step_before = plan.step_tokens;
    }
    // With memory in plenty every wish is granted.
    int sequences = wishes.sequences > 0 ? wishes.sequences : 256;
    int tokens =
        wishes.sequence_tokens > 0 ? wishes.sequence_tokens : config->max_position_embeddings;
    assert_int_equal(plan.sequences, sequences);
    assert_int_equal(plan.sequence_tokens, tokens);
    assert_int_equal(plan.step_tokens, wishes.step_tokens > 0 ? wishes.step_tokens : 8192);
    int checkpoints = wishes.checkpoints != 0 ? wishes.checkpoints : 2 * sequences;
    assert_int_equal(plan.checkpoints, checkpoints < 0 ? 0 : checkpoints);
    int64_t width = (tokens + 63) / 64;
    int64_t pages = sequences * width + plan.checkpoints * (width < 16 ? width : 16);
    assert_int_equal(plan.pages, wishes.pages > 0 && wishes.pages < pages ? wishes.pages : pages);
    assert_false(plan.clamped);
}

static void test_solver(void **state)
{
    (void)state;
    struct model_config config = moe_35b();
    check_budgets(&config, 1, (struct memory_wishes){.mtp = true});
    check_budgets(&config, 8, (struct memory_wishes){.mtp = false});
    check_budgets(&config, 2, (struct memory_wishes){.sequences = 1024, .sequence_tokens = 1000});
    check_budgets(&config, 4, (struct memory_wishes){.sequences = 1, .step_tokens = 65536});
    check_budgets(&config, 2, (struct memory_wishes){.checkpoints = -1});
    check_budgets(&config, 2, (struct memory_wishes){.pages = 5000, .sequences = 300});
    check_budgets(&config, 1, (struct memory_wishes){.pages = 4096, .checkpoints = 50});
    check_budgets(&config, 2,
                  (struct memory_wishes){.checkpoints = 77, .mtp = true, .drafts_max = 3});
    config = moe_397b();
    check_budgets(&config, 8, (struct memory_wishes){.mtp = true, .sequence_tokens = 8192});
    config = dense(24, 1024, 8, 2, 16, 3584);
    config.max_position_embeddings = 100; // not a multiple of a page
    check_budgets(&config, 1, (struct memory_wishes){.sequences = 7});
}

// An H200 with 35B and the head: what the operator gets by default.
static void test_h200_default(void **state)
{
    (void)state;
    struct model_config config = moe_35b();
    struct shard shard = shard_of(&config, 1);
    struct memory_wishes wishes = {.bytes_free = 149000000000u, .mtp = true, .drafts_max = 5};
    struct memory_plan plan;
    struct error error = {0};
    assert_int_equal(memory_plan_make(&plan, &config, &shard, &wishes, &error), OK);
    assert_int_equal(plan.sequences, 256);
    assert_int_equal(plan.sequence_tokens, 262144);
    assert_int_equal(plan.step_tokens, 8192);
    assert_true((int64_t)plan.pages * 64 > 1000000);
    // Of what slots and workspace leave, an eighth is for checkpoints: 78 of them.
    double share = (double)plan.checkpoints *
                   (double)memory_plan_checkpoint_bytes(&config, &shard, false) /
                   (double)(plan.prefix_bytes + plan.kv_bytes);
    assert_true(share > 0.122 && share <= 0.125);
    assert_true((double)plan.total_bytes <= 0.9 * 149e9 &&
                (double)plan.total_bytes > 0.899 * 149e9);
    assert_false(plan.clamped);
}

static void test_wishes_out_of_range(void **state)
{
    (void)state;
    struct model_config config = moe_35b();
    struct shard shard = shard_of(&config, 1);
    static const struct {
        struct memory_wishes wishes;
        const char *text;
    } cases[] = {
        {{.utilization = 1.1}, "utilization of memory 1.1"},
        {{.utilization = -0.5}, "utilization of memory -0.5"},
        {{.utilization = NAN}, "utilization of memory"},
        {{.sequences = -1}, "-1 sequences at once"},
        {{.sequences = 1025}, "1025 sequences at once (--max-num-seqs); 1 to 1024"},
        {{.sequence_tokens = (1 << 20) + 1}, "(--max-model-len); 1 to 1048576"},
        {{.step_tokens = 65537}, "(--max-num-batched-tokens); 1 to 65536"},
        {{.checkpoints = -2}, "-2 checkpoints of prefix reuse; -1 to 4096"},
        {{.checkpoints = 4097}, "4097 checkpoints"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct memory_plan plan = {.sequences = -7};
        struct error error = {0};
        struct memory_wishes wishes = cases[i].wishes;
        wishes.bytes_free = (uint64_t)1 << 40;
        assert_int_equal(memory_plan_make(&plan, &config, &shard, &wishes, &error), E_INPUT);
        assert_int_equal(plan.sequences, -7);
        if (strstr(error.text, cases[i].text) == NULL)
            fail_msg("\"%s\" does not say \"%s\"", error.text, cases[i].text);
    }
    // Longer than the model can: cut, and said so. Absurd bytes_free: no overflow.
    struct memory_wishes wishes = {.bytes_free = UINT64_MAX, .sequence_tokens = 1 << 20};
    struct memory_plan plan;
    struct error error = {0};
    assert_int_equal(memory_plan_make(&plan, &config, &shard, &wishes, &error), OK);
    assert_int_equal(plan.sequence_tokens, 262144);
    assert_true(plan.clamped);
}

// Bytes that worker/state.c carves out for a plan with these steps.
static uint64_t carved(struct memory_plan *plan, const struct model_config *config,
                       const struct shard *shard, int step_tokens, int drafts_max)
{
    static struct rank_state rank;
    struct error error = {0};
    struct memory_wishes wishes = {.bytes_free = (uint64_t)4 << 30,
                                   .utilization = 1,
                                   .sequences = 8,
                                   .sequence_tokens = 600,
                                   .step_tokens = step_tokens,
                                   .drafts_max = drafts_max,
                                   .mtp = true};
    assert_int_equal(memory_plan_make(plan, config, shard, &wishes, &error), OK);
    assert_false(plan->clamped);
    if (state_open(&rank, config, shard, plan, true, &error) != OK)
        fail_msg("%s", error.text);
    uint64_t bytes = rank.memory_bytes;
    state_close(&rank);
    return bytes;
}

// What the worker carves out fits into the plan's figures, and what it needs for each token more
// in a step is what the plan adds: the tables' 64 bytes more, and up to 18 alignments.
static void test_worker_keeps_to_the_plan(void **state)
{
    (void)state;
    static const char *const goldens[] = {"dense_untied_r2", "moe_e16_tp8", "next_e8_r2"};
    for (size_t i = 0; i < sizeof goldens / sizeof goldens[0]; i++) {
        char dir[512];
        struct model_config config;
        struct error error = {0};
        snprintf(dir, sizeof dir, SOURCE_DIR "/tests/golden/%s", goldens[i]);
        assert_int_equal(config_load(&config, dir, &error), OK);
        for (int ranks = 1; ranks <= 2; ranks++) {
            struct shard shard = shard_of(&config, ranks);
            struct memory_plan small, large;
            uint64_t small_bytes = carved(&small, &config, &shard, 1024, 5 * (ranks - 1));
            uint64_t large_bytes = carved(&large, &config, &shard, 4096, 5 * (ranks - 1));
            uint64_t fixed =
                small.kv_bytes + small.state_bytes + small.pending_bytes +
                (uint64_t)small.checkpoints * memory_plan_checkpoint_bytes(&config, &shard, false);
            assert_true(small_bytes >= fixed);
            assert_true(small_bytes <= small.kv_bytes + small.state_bytes + small.pending_bytes +
                                           small.prefix_bytes + small.workspace_bytes);
            uint64_t inbox =
                ranks == 1 ? 0 : 2 * (uint64_t)ranks * 3072 * (uint64_t)config.hidden * 2;
            uint64_t more = large.workspace_bytes - small.workspace_bytes - inbox;
            assert_true(large_bytes - small_bytes <= more);
            assert_true(large_bytes - small_bytes + 3072 * 64 + 18 * 256 >= more);
        }
    }
}

static void test_print(void **state)
{
    (void)state;
    struct memory_plan plan = {
        .sequences = 12,
        .sequence_tokens = 5000,
        .step_tokens = 2048,
        .pages = 960,
        .pages_per_sequence = 79,
        .weight_bytes = 70500000000u,
        .kv_bytes = 1000000000u,
        .state_bytes = 2000000000u,
        .pending_bytes = 3000000000u,
        .workspace_bytes = 4000000000u,
        .prefix_bytes = 5123000000u,
        .checkpoints = 83,
        .total_bytes = 80500000000u,
        .clamped = true,
    };
    char text[1024];
    memory_plan_print(text, sizeof text, &plan);
    static const char *const parts[] = {"70.500",
                                        "1.000",
                                        "960 pages of 64 tokens: 61440 tokens",
                                        "12 sequences",
                                        "5.123  83 checkpoints",
                                        "2048 tokens",
                                        "80.500",
                                        "5000 tokens",
                                        "less than asked for"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (strstr(text, parts[i]) == NULL)
            fail_msg("no \"%s\" in\n%s", parts[i], text);
    }
    plan.clamped = false;
    memory_plan_print(text, sizeof text, &plan);
    assert_null(strstr(text, "less than asked for"));
    char small[16];
    memset(small, 'x', sizeof small);
    memory_plan_print(small, 8, &plan);
    assert_int_equal(strlen(small), 7);
    assert_int_equal(small[8], 'x');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes_of_public_models),
        cmocka_unit_test(test_pending_by_hand),
        cmocka_unit_test(test_397b_at_eight),
        cmocka_unit_test(test_solver),
        cmocka_unit_test(test_h200_default),
        cmocka_unit_test(test_wishes_out_of_range),
        cmocka_unit_test(test_worker_keeps_to_the_plan),
        cmocka_unit_test(test_print),
    };
    struct error error = {0};
    if (runtime_open(0, &error) != OK)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    runtime_close();
    return failed;
}
