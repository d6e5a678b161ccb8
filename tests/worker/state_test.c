// SPDX-License-Identifier: Apache-2.0
// state_test.c -- the rank's one allocation: every buffer inside it, none over another, all as
// large as the memory plan says or smaller, what must have a value at start has one.
#include "worker/state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/runtime.h"

static const char *const model_dir = SOURCE_DIR "/tests/golden/moe_e8_r2";

struct opened {
    struct model_config config;
    struct shard shard;
    struct memory_plan plan;
    struct rank_state state;
};

static void open_state(struct opened *o, int ranks, bool bf16_state)
{
    struct error error;
    struct memory_wishes wishes = {.bytes_free = 1ull << 30,
                                   .utilization = 0.5,
                                   .sequences = 5,
                                   .sequence_tokens = 640,
                                   .step_tokens = 256,
                                   .drafts_max = bf16_state ? 2 : 5,
                                   .mtp = true,
                                   .bf16_state = bf16_state};
    assert_int_equal(config_load(&o->config, model_dir, &error), OK);
    assert_int_equal(shard_make(&o->shard, &o->config, 0, ranks, &error), OK);
    assert_int_equal(memory_plan_make(&o->plan, &o->config, &o->shard, &wishes, &error), OK);
    assert_int_equal(state_open(&o->state, &o->config, &o->shard, &o->plan, true, &error), OK);
}

// Fills every buffer with a byte of its own; afterwards each still holds it all over.
static void buffers_do_not_overlap(void **unused)
{
    struct opened o;
    const bool *bf16_state = *unused;
    assert_int_equal(runtime_open(0, NULL), OK);
    open_state(&o, 2, *bf16_state);
    size_t hidden = (size_t)o.plan.step_tokens * (size_t)o.config.hidden * sizeof(bf16);
    size_t page = (size_t)o.plan.pages * (size_t)o.shard.kv_heads.count * TOKENS_PER_PAGE *
                  (size_t)o.config.head_dim * sizeof(bf16);
    size_t recurrent = (size_t)o.plan.sequences * (size_t)o.shard.value_heads.count * GDN_HEAD_DIM *
                       GDN_HEAD_DIM * (*bf16_state ? sizeof(bf16) : sizeof(float));
    size_t logits = (size_t)state_samples_max(&o.plan) * (size_t)o.shard.vocab.count * 4;
    size_t checkpoints = recurrent / (size_t)o.plan.sequences * (size_t)o.plan.checkpoints;
    size_t row = (size_t)o.config.hidden * sizeof(bf16);
    const struct prefix_state *prefix = &o.state.prefix;
    const struct {
        void *memory;
        size_t bytes;
    } buffers[] = {
        {prefix->layers[0].checkpoints.state, checkpoints},
        {prefix->layers[2].checkpoints.state, checkpoints},
        {prefix->checkpoint_hidden, row * (size_t)o.plan.checkpoints},
        {o.state.slot_hidden, row * (size_t)o.plan.sequences},
        {prefix->page_tokens, (size_t)o.plan.pages * TOKENS_PER_PAGE * sizeof(int32_t)},
        {o.state.workspace.residual, hidden},
        {o.state.workspace.normed, hidden},
        {o.state.workspace.hidden, hidden},
        {o.state.workspace.partial, hidden},
        {o.state.workspace.logits, logits},
        {o.state.kv[3].k_pages, page},
        {o.state.kv[3].v_pages, page},
        {o.state.mtp_kv.k_pages, page},
        {o.state.mtp_kv.v_pages, page},
        {o.state.gdn[0].state, recurrent},
        {o.state.gdn[1].state, recurrent},
        {o.state.gdn[2].state, recurrent},
    };
    const size_t count = sizeof buffers / sizeof buffers[0];
    const uint8_t *first = (const uint8_t *)o.state.memory;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *at = (const uint8_t *)buffers[i].memory;
        assert_true(at >= first && at + buffers[i].bytes <= first + o.state.memory_bytes);
        memset(buffers[i].memory, (int)i + 1, buffers[i].bytes);
    }
    for (size_t i = 0; i < count; i++) {
        const uint8_t *at = (const uint8_t *)buffers[i].memory;
        assert_int_equal(at[0], i + 1);
        assert_int_equal(at[buffers[i].bytes - 1], i + 1);
        assert_memory_equal(at, at + 1, buffers[i].bytes - 1);
    }
    state_close(&o.state);
    runtime_close();
}

// What the plan promised is not exceeded: weights apart, the state is all that is allocated.
static void the_plan_covers_the_state(void **unused)
{
    (void)unused;
    assert_int_equal(runtime_open(0, NULL), OK);
    for (int i = 0; i < 4; i++) {
        struct opened o;
        open_state(&o, 1 + i % 2, i / 2 == 1);
        assert_int_equal(o.state.bf16_state, i / 2 == 1);
        uint64_t planned = o.plan.kv_bytes + o.plan.state_bytes + o.plan.pending_bytes +
                           o.plan.workspace_bytes + o.plan.prefix_bytes;
        assert_int_equal(o.plan.checkpoints, 10);
        assert_int_equal(o.state.prefix.layers_count, 3);
        assert_memory_equal(o.state.prefix.layers_dev, o.state.prefix.layers,
                            3 * sizeof o.state.prefix.layers[0]);
        assert_true(o.state.memory_bytes <= planned);
        for (int slot = 0; slot < o.plan.sequences; slot++)
            assert_int_equal(o.state.slots.slots[slot].page_tokens, 0); // nothing may run
        state_close(&o.state);
    }
    runtime_close();
}

int main(void)
{
    static bool types[] = {false, true};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(buffers_do_not_overlap, &types[0]),
        cmocka_unit_test_prestate(buffers_do_not_overlap, &types[1]),
        cmocka_unit_test(the_plan_covers_the_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
