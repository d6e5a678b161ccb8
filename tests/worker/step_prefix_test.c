// SPDX-License-Identifier: Apache-2.0
// step_prefix_test.c -- plans that save and load checkpoints, on two ranks with a real forward
// pass: a sequence that starts behind another's pages draws the same tokens, with the same state,
// keys and counts, bit for bit, as one that runs its whole prompt; the multi-token-prediction head
// included. So does one that starts in the middle of what another drew, with drafts or without.
#include "worker/step_engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "parallel/base/clock.h"
#include "tests/fixtures/state_dtype.h"
#include "tests/fixtures/team.h"

enum {
    RANKS = 2,
    SEQUENCES = 4,
    CHECKPOINTS = 3,
    REAL_IDS = 364,
    EPOCH = 7,
    PROMPT = 150,
    OUTPUT = 12,
    PAGES_EACH = 4,
    TEXT = PAGES_EACH * 64,
    // Of a sequence that passes places while it decodes.
    SHORT_PROMPT = 50,
    SHORT_TEXT = 150,
};

static const char *const model_dir = SOURCE_DIR "/tests/golden/moe_e8_r2";
static const char *const demo_dir = SOURCE_DIR "/deploy/demo/model";

struct world {
    struct team *team;
    struct step_engine *engine[RANKS];
    int notify_fd[RANKS];
    struct step_plan plan; // of the next step
    uint64_t step;
    int32_t drawn[SEQUENCES][TEXT];
    int drawn_count[SEQUENCES];
    int32_t prompt[TEXT];
    int prompt_tokens, tokens_end; // of all sequences
    int widest;                    // most tokens that a row drew
};

static void open_world_of(struct world *w, uint64_t jitter_seed, const char *dir, int drafts)
{
    struct error error;
    struct team_options options = {.model_dir = dir,
                                   .load_format = dir == demo_dir ? LOAD_AUTO : LOAD_DUMMY,
                                   .ranks = RANKS,
                                   .sequences = SEQUENCES,
                                   .sequence_tokens = PAGES_EACH * 64,
                                   .step_tokens = 256,
                                   .checkpoints = CHECKPOINTS,
                                   .verify_max = 1 + drafts,
                                   .bf16_state = bf16_state,
                                   .jitter_seed = jitter_seed};
    memset(w, 0, sizeof *w);
    w->prompt_tokens = PROMPT;
    w->tokens_end = PROMPT + OUTPUT;
    w->team = (struct team *)calloc(1, sizeof *w->team);
    team_open(w->team, &options);
    for (int r = 0; r < RANKS; r++) {
        w->notify_fd[r] = eventfd(0, EFD_NONBLOCK);
        struct step_options step = {.model = &w->team->ranks[r].model,
                                    .memory = w->team->ranks[r].plan,
                                    .epoch = EPOCH,
                                    .vocab_real = REAL_IDS,
                                    .drafts_max = drafts,
                                    .graphs = dir == demo_dir,
                                    .notify_fd = w->notify_fd[r],
                                    .poison = true};
        assert_int_equal(step_engine_open(&w->engine[r], &step, &error), OK);
    }
    assert_int_equal(step_plan_open(&w->plan, &error), OK);
    step_plan_clear(&w->plan);
    for (int i = 0; i < TEXT; i++)
        w->prompt[i] = (i * 37 + i * i / 3) % 300;
}

static void open_world(struct world *w, uint64_t jitter_seed)
{
    open_world_of(w, jitter_seed, model_dir, 0);
}

static void close_world(struct world *w)
{
    step_plan_close(&w->plan);
    for (int r = 0; r < RANKS; r++) {
        step_engine_close(w->engine[r]);
        close(w->notify_fd[r]);
    }
    team_close(w->team);
    free(w->team);
}

// ---- the next plan ----

// Opens a slot; at a position > 0 its first pages are those of slot `other`.
static void add_open(struct world *w, int slot, int position, int checkpoint, int other)
{
    struct step_plan *plan = &w->plan;
    plan->opens[plan->opens_count++] = (struct step_open){.slot = slot,
                                                          .position = position,
                                                          .prompt_tokens = w->prompt_tokens,
                                                          .tokens_end = w->tokens_end,
                                                          .temperature = 0.7f,
                                                          .repetition = 1.6f,
                                                          .frequency = 0.1f,
                                                          .seed = 21};
    plan->pages[plan->pages_count++] = (struct step_pages){
        .slot = slot, .first = 0, .count = PAGES_EACH, .ids_first = plan->page_ids_count};
    for (int i = 0; i < PAGES_EACH; i++)
        plan->page_ids[plan->page_ids_count++] = i * SEQUENCES + (i < position / 64 ? other : slot);
    if (position > 0)
        plan->copies[plan->copies_count++] =
            (struct step_copy){.checkpoint = checkpoint, .slot = slot};
}

// The last row leaves a checkpoint after its first `tokens` tokens.
static void add_save(struct world *w, int checkpoint, int tokens)
{
    struct step_plan_row *row = &w->plan.rows[w->plan.rows_count - 1];
    row->saves[row->saves_count++] = (struct step_save){.checkpoint = checkpoint, .tokens = tokens};
}

// The row that ends at `last_end` draws; it leaves a checkpoint at its end unless that is -1.
static void add_chunk(struct world *w, int slot, const int ends[2], int last_end, int checkpoint)
{
    struct step_plan *plan = &w->plan;
    int first = ends[0], end = ends[1];
    bool last = end == last_end;
    plan->rows[plan->rows_count++] =
        (struct step_plan_row){.slot = slot,
                               .kind = STEP_ROW_PREFILL,
                               .tokens_first = plan->tokens_count,
                               .tokens_count = end - first,
                               .token_next = last ? -1 : w->prompt[end],
                               .sample = last,
                               .checkpoint = -1};
    for (int i = first; i < end; i++)
        plan->tokens[plan->tokens_count++] = w->prompt[i];
    if (checkpoint >= 0)
        add_save(w, checkpoint, end - first);
}

static void add_prefill(struct world *w, int slot, int first, int end, int checkpoint)
{
    add_chunk(w, slot, (int[]){first, end}, PROMPT, checkpoint);
}

static void take_report(struct world *w, int rank)
{
    struct step_result rows[STEP_ROWS_MAX];
    struct report report = {.rows = rows};
    uint64_t limit_ns = clock_now_ns() + 60ull * CLOCK_NS_PER_S;
    while (!step_next_report(w->engine[rank], &report)) {
        assert_true(clock_now_ns() < limit_ns);
        clock_sleep_ns(50 * CLOCK_NS_PER_US);
    }
    for (int i = 0; i < report.rows_count; i++) {
        w->widest = rows[i].count > w->widest ? rows[i].count : w->widest;
        for (int t = 0; t < rows[i].count; t++)
            w->drawn[rows[i].slot][w->drawn_count[rows[i].slot]++] = rows[i].tokens[t];
    }
}

// Runs the plan and begins an empty one.
static void run(struct world *w)
{
    struct error error = {.text = ""};
    w->plan.step = ++w->step;
    w->plan.epoch = EPOCH;
    for (int r = 0; r < RANKS; r++) {
        if (step_submit(w->engine[r], &w->plan, &error) != OK)
            fail_msg("rank %d refused step %d: %s", r, (int)w->step, error.text);
    }
    for (int r = 0; r < RANKS; r++)
        take_report(w, r);
    step_plan_clear(&w->plan);
}

static void decode_all(struct world *w, int slot)
{
    for (int i = 0; i < OUTPUT - 1; i++) {
        w->plan.rows[w->plan.rows_count++] =
            (struct step_plan_row){.slot = slot, .kind = STEP_ROW_DECODE, .checkpoint = -1};
        run(w);
    }
    assert_int_equal(w->drawn_count[slot], OUTPUT);
}

// The whole prompt in `slot`, checkpoint 1 at 64 and checkpoint 0 at 128.
static void run_fresh(struct world *w, int slot)
{
    add_open(w, slot, 0, -1, -1);
    add_prefill(w, slot, 0, PROMPT, -1);
    add_save(w, 1, 64);
    add_save(w, 0, 128);
    run(w);
}

// ---- comparing ----

// A rank's state of a layer of index `index` among `states`: slots' or checkpoints'.
static const char *state_at(const struct model *model, const void *states, int index)
{
    size_t bytes = (size_t)gdn_state_bytes(model->state->bf16_state);
    size_t values = (size_t)model->shard.value_heads.count * GDN_HEAD_DIM * GDN_HEAD_DIM;
    return (const char *)states + (size_t)index * values * bytes;
}

static void same_state(const struct model *model, const void *states, int a, int b)
{
    const char *at = state_at(model, states, a);
    assert_memory_equal(at, state_at(model, states, b),
                        (size_t)(state_at(model, states, a + 1) - at));
}

static void same_tokens(const struct world *w, int a, int b)
{
    assert_int_equal(w->drawn_count[a], w->drawn_count[b]);
    assert_memory_equal(w->drawn[a], w->drawn[b], (size_t)w->drawn_count[a] * sizeof(int32_t));
}

static void same_counts(const struct world *w, int a, int b)
{
    for (int r = 0; r < RANKS; r++) {
        const struct model *model = &w->team->ranks[r].model;
        size_t vocab = (size_t)model->shard.vocab.count;
        const uint16_t *counts = model->state->drawn_counts;
        assert_memory_equal(counts + (size_t)a * vocab, counts + (size_t)b * vocab,
                            vocab * sizeof *counts);
    }
}

static void same_states(const struct world *w, int a, int b)
{
    same_counts(w, a, b);
    for (int r = 0; r < RANKS; r++) {
        const struct model *model = &w->team->ranks[r].model;
        size_t columns = 3 * (size_t)shard_conv_channels(&model->shard, &model->config);
        for (int i = 0; i < model->config.layers; i++) {
            const struct gdn_state *gdn = &model->state->gdn[i];
            if (model->config.layer_is_attention[i])
                continue;
            same_state(model, gdn->state, a, b);
            assert_memory_equal(gdn->conv + (size_t)a * columns, gdn->conv + (size_t)b * columns,
                                columns * sizeof(bf16));
        }
    }
}

// Keys and values of positions [first, end) in the own pages of both slots.
static void same_keys(const struct world *w, const struct kv_layer *kv, int a, int b, int first,
                      int end)
{
    const struct model *model = &w->team->ranks[0].model;
    size_t dim = (size_t)model->config.head_dim;
    const int32_t *table = model->state->slots.block_table;
    for (int i = first; i < end; i++) {
        size_t page_a = (size_t)table[a * PAGES_EACH + i / 64];
        size_t page_b = (size_t)table[b * PAGES_EACH + i / 64];
        assert_true(page_a != page_b);
        for (int head = 0; head < model->shard.kv_heads.count; head++) {
            size_t heads = (size_t)model->shard.kv_heads.count;
            size_t at_a = ((page_a * heads + (size_t)head) * 64 + (size_t)(i % 64)) * dim;
            size_t at_b = ((page_b * heads + (size_t)head) * 64 + (size_t)(i % 64)) * dim;
            assert_memory_equal(kv->k_pages + at_a, kv->k_pages + at_b, dim * sizeof(bf16));
            assert_memory_equal(kv->v_pages + at_a, kv->v_pages + at_b, dim * sizeof(bf16));
        }
    }
}

static void same_checkpoints(const struct world *w, int a, int b, bool hidden_too)
{
    for (int r = 0; r < RANKS; r++) {
        const struct model *model = &w->team->ranks[r].model;
        const struct prefix_state *prefix = &model->state->prefix;
        size_t columns = 3 * (size_t)shard_conv_channels(&model->shard, &model->config);
        size_t hidden = (size_t)model->config.hidden;
        for (int i = 0; i < prefix->layers_count; i++) {
            const struct state_checkpoint_layer *layer = &prefix->layers[i];
            same_state(model, layer->checkpoints.state, a, b);
            assert_memory_equal(layer->checkpoints.conv + (size_t)a * columns,
                                layer->checkpoints.conv + (size_t)b * columns,
                                columns * sizeof(bf16));
        }
        if (hidden_too)
            assert_memory_equal(prefix->checkpoint_hidden + (size_t)a * hidden,
                                prefix->checkpoint_hidden + (size_t)b * hidden,
                                hidden * sizeof(bf16));
    }
}

// ---- tests ----

// Two slots behind the same checkpoint and one behind an earlier one, in steps together.
static void a_hit_is_like_a_whole_prompt(void **state)
{
    (void)state;
    for (uint64_t jitter = 0; jitter <= 5; jitter += 5) {
        struct world *w = (struct world *)calloc(1, sizeof *w);
        open_world(w, jitter);
        run_fresh(w, 0);
        decode_all(w, 0);
        add_open(w, 1, 128, 0, 0);
        add_open(w, 2, 128, 0, 0);
        add_open(w, 3, 64, 1, 0);
        add_prefill(w, 1, 128, PROMPT, -1);
        add_prefill(w, 2, 128, PROMPT, -1);
        add_prefill(w, 3, 64, PROMPT, -1);
        run(w);
        for (int slot = 1; slot < SEQUENCES; slot++) {
            decode_all(w, slot);
            same_tokens(w, 0, slot);
            same_states(w, 0, slot);
            same_keys(w, &w->team->ranks[0].state.kv[3], 0, slot, 128, PROMPT + OUTPUT - 1);
        }
        close_world(w);
        free(w);
    }
}

// What a row leaves on its way is what rows leave that end there, with others before and behind.
static void a_save_on_the_way_is_like_a_cut(void **state)
{
    struct world *w = (struct world *)calloc(1, sizeof *w);
    (void)state;
    open_world(w, 0);
    add_open(w, 0, 0, -1, -1);
    add_open(w, 1, 0, -1, -1);
    add_open(w, 2, 0, -1, -1);
    add_prefill(w, 0, 0, 64, -1);
    add_prefill(w, 1, 0, 64, -1);
    add_prefill(w, 2, 0, 64, -1);
    run(w);
    add_prefill(w, 0, 64, 70, -1);
    add_prefill(w, 1, 64, 128, 1);
    add_prefill(w, 2, 64, PROMPT, -1);
    add_save(w, 2, 64);
    run(w);
    same_checkpoints(w, 1, 2, true);
    add_prefill(w, 1, 128, PROMPT, -1);
    run(w);
    same_states(w, 1, 2);
    decode_all(w, 1);
    decode_all(w, 2);
    same_tokens(w, 1, 2);
    close_world(w);
    free(w);
}

// A prompt that is given up after its first chunk leaves its page and checkpoint whole; the slot's
// next owner and another text's checkpoint in the same place change nothing.
static void an_aborted_prompt_leaves_its_checkpoint(void **state)
{
    struct world *w = (struct world *)calloc(1, sizeof *w);
    (void)state;
    open_world(w, 3);
    run_fresh(w, 1);
    decode_all(w, 1);
    add_open(w, 0, 0, -1, -1);
    add_prefill(w, 0, 0, 64, 2);
    run(w);
    w->plan.closes[w->plan.closes_count++] = 0;
    add_open(w, 2, 64, 2, 0); // behind the page that was slot 0's
    w->prompt[3] = 17;        // another text, whose checkpoint overwrites the one that is copied
    add_open(w, 3, 0, -1, -1);
    add_prefill(w, 3, 0, 64, 2);
    run(w);
    add_prefill(w, 2, 64, PROMPT, -1);
    run(w);
    decode_all(w, 2);
    same_tokens(w, 1, 2);
    same_states(w, 1, 2);
    close_world(w);
    free(w);
}

// Runs rows [first, end) of a slot through the head; the hidden row before `first` is `before`.
static void run_head(struct world *w, int slot, int first, const bf16 *hidden_rows, float *logits)
{
    struct team_pairs pairs = {.slot = slot,
                               .position_first = first,
                               .count = PROMPT - first,
                               .ids = w->prompt + first,
                               .hidden_rows = hidden_rows};
    team_mtp(w->team, &pairs, logits, NULL);
}

// The head's own keys at P depend on h_{P-1}, which nobody computes again after a hit.
static void the_head_goes_on_behind_a_hit(void **state)
{
    struct world *w = (struct world *)calloc(1, sizeof *w);
    (void)state;
    open_world(w, 0);
    const struct rank_state *rank = &w->team->ranks[0].state;
    size_t hidden = (size_t)w->team->config.hidden, vocab = (size_t)w->team->vocab;
    bf16 *rows = (bf16 *)calloc(PROMPT * hidden, sizeof *rows);
    float *fresh = (float *)calloc(PROMPT * vocab, sizeof *fresh);
    float *behind = (float *)calloc(PROMPT * vocab, sizeof *behind);
    run_fresh(w, 0);
    memcpy(rows, rank->workspace.hidden, PROMPT * hidden * sizeof *rows);
    run_head(w, 0, 1, rows, fresh);

    add_open(w, 2, 128, 0, 0);
    add_prefill(w, 2, 128, PROMPT, -1);
    run(w);
    memcpy(rows, rank->slot_hidden + 2 * hidden, hidden * sizeof *rows);
    memcpy(rows + hidden, rank->workspace.hidden, (PROMPT - 129) * hidden * sizeof *rows);
    run_head(w, 2, 128, rows, behind);
    same_keys(w, &rank->mtp_kv, 0, 2, 128, PROMPT);
    assert_memory_equal(fresh + 127 * vocab, behind, (PROMPT - 128) * vocab * sizeof(float));
    close_world(w);
    free(rows);
    free(fresh);
    free(behind);
    free(w);
}

// ---- checkpoints in what is drawn ----

// Draws to the end in `slot`, which knows the text up to its prompt's first token drawn; `drafts` a
// step. Checkpoints 0 and 1 stand at 64 and 128, named by every row that is not known to be past.
static void draw_past_places(struct world *w, int slot, int drafts, bool saves)
{
    int known = w->tokens_end - w->prompt_tokens;
    while (w->drawn_count[slot] < known) {
        int position = w->prompt_tokens + w->drawn_count[slot] - 1;
        int place = saves && position <= 128 ? (position <= 64 ? 64 : 128) : 0;
        w->plan.verify = 1 + drafts;
        w->plan.draft = drafts;
        w->plan.rows[w->plan.rows_count++] =
            (struct step_plan_row){.slot = slot,
                                   .kind = STEP_ROW_DECODE,
                                   .checkpoint = place == 0 ? -1 : place / 64 - 1,
                                   .checkpoint_at = place};
        run(w);
    }
}

// Opens a slot at a place behind slot 0's pages and lets it go on from there, as a request that
// was preempted does: `known` tokens of its text are given.
static void come_back(struct world *w, int slot, int place, int known, int drafts)
{
    int drawn = known - SHORT_PROMPT;
    add_open(w, slot, place, place / 64 - 1, 0);
    memcpy(w->drawn[slot], w->drawn[0], (size_t)drawn * sizeof(int32_t));
    w->drawn_count[slot] = drawn;
    w->plan.draft = drafts;
    add_chunk(w, slot, (int[]){place, known}, known, -1);
    run(w);
    draw_past_places(w, slot, drafts, false);
    same_tokens(w, 0, slot);
}

// Slot 0 draws past 64 and 128; 1 and 2 go on from there, penalties and head included; 3 runs the
// same text as a prompt, to a checkpoint that is the same.
static void check_drawn_text(int drafts, uint64_t jitter)
{
    struct world *w = (struct world *)calloc(1, sizeof *w);
    open_world_of(w, jitter, demo_dir, drafts);
    w->prompt_tokens = SHORT_PROMPT;
    w->tokens_end = SHORT_TEXT;
    add_open(w, 0, 0, -1, -1);
    w->plan.draft = drafts;
    add_chunk(w, 0, (int[]){0, SHORT_PROMPT}, SHORT_PROMPT, -1);
    run(w);
    draw_past_places(w, 0, drafts, true);
    if (drafts > 0)
        assert_true(w->widest > 1); // or no row could have crossed a place
    memcpy(w->prompt + SHORT_PROMPT, w->drawn[0], (size_t)w->drawn_count[0] * sizeof *w->prompt);
    come_back(w, 1, 64, 100, drafts);
    come_back(w, 2, 128, 129, drafts);
    for (int slot = 1; slot <= 2; slot++) {
        const struct rank_state *rank = &w->team->ranks[0].state;
        for (int layer = 0; layer < w->team->config.layers; layer++) {
            if (w->team->config.layer_is_attention[layer])
                same_keys(w, &rank->kv[layer], 0, slot, 128, SHORT_TEXT - 1);
        }
        if (drafts > 0)
            same_keys(w, &rank->mtp_kv, 0, slot, 128, SHORT_TEXT - 1);
        else
            same_counts(w, 0, slot); // and not states: what waits to be folded differs
    }
    add_open(w, 3, 0, -1, -1);
    add_chunk(w, 3, (int[]){0, 128}, 129, 2);
    run(w);
    same_checkpoints(w, 1, 2, drafts > 0);
    close_world(w);
    free(w);
}

static void drawn_text_is_like_a_prompt(void **state)
{
    (void)state;
    check_drawn_text(3, 0);
#ifndef DELTAMESH_SANITIZED // twenty times slower there
    check_drawn_text(0, 0);
    check_drawn_text(5, 5);
#endif
}

#define IN_BOTH(test) cmocka_unit_test_setup(test, as_f32), cmocka_unit_test_setup(test, as_bf16)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_BOTH(a_hit_is_like_a_whole_prompt),
        IN_BOTH(a_save_on_the_way_is_like_a_cut),
        IN_BOTH(an_aborted_prompt_leaves_its_checkpoint),
        IN_BOTH(the_head_goes_on_behind_a_hit),
        IN_BOTH(drawn_text_is_like_a_prompt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
