// SPDX-License-Identifier: Apache-2.0
// small_check.c -- a few steps for sanitizers: prompts with a row for every class of sampling, one
// with a checkpoint; then decode rows that verify drafts and fold, and a prompt that starts from
// the checkpoint. It judges only that every row draws; numbers are for other checks.
#include "tests/gpu/engine/engine_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fixtures/golden.h"

enum { SLOTS = 6, PAGES_EACH = 3, PROMPT = 70, IDS = 300, DRAFTS = 2, DECODES = 3 };

// Greedy with log-probabilities, drawn, cut, penalties, lists.
static void set_class(struct step_plan *plan, struct step_open *open, int slot)
{
    open->seed = (uint64_t)slot;
    open->temperature = slot == 0 ? 0 : 0.8f;
    if (slot == 0) {
        open->logprobs = 3;
    } else if (slot == 2) {
        open->top_k = 20;
        open->top_p = 0.9f;
        open->min_p = 0.01f;
    } else if (slot == 3) {
        open->repetition = 1.2f;
        open->frequency = open->presence = 0.5f;
    } else if (slot == 4) {
        const float bias = 2;
        open->lists_first = plan->lists_count;
        open->bias_count = 1;
        plan->lists[plan->lists_count++] = 7;
        memcpy(plan->lists + plan->lists_count++, &bias, sizeof bias);
        open->allowed_count = 3;
        for (int i = 0; i < 3; i++)
            plan->lists[plan->lists_count++] = 7 + i;
        open->words_count = 2;
        plan->lists[plan->lists_count++] = 1;
        plan->lists[plan->lists_count++] = 9;
    }
}

static struct step_plan_row *add_prompt(struct rig *rig, int slot, int position, int count)
{
    int32_t ids[PROMPT];
    struct step_open *open = rig_add_open(rig, slot, slot * PAGES_EACH, PAGES_EACH);
    open->position = position;
    open->prompt_tokens = position + count;
    set_class(&rig->plan, open, slot);
    for (int i = 0; i < count; i++)
        ids[i] = (slot * 37 + i * 11) % IDS;
    return rig_add_prompt(rig, slot, ids, count, -1);
}

// Runs the plan; returns how many of its rows drew nothing.
static int run_step(struct rig *rig)
{
    int idle = 0;
    rig_submit(rig, 0);
    rig_drain(rig, 0);
    for (int i = 0; i < rig->report.rows_count; i++)
        idle += rig->report.rows[i].count == 0;
    return idle;
}

static int run_steps(struct rig *rig, int drafts)
{
    struct step_plan *plan = rig_plan(rig);
    int idle;
    plan->draft = drafts;
    for (int slot = 0; slot < SLOTS - 1; slot++) {
        struct step_plan_row *row = add_prompt(rig, slot, 0, slot == 0 ? PROMPT : 5 + 13 * slot);
        if (slot == 0)
            row->saves[row->saves_count++] = (struct step_save){.checkpoint = 0, .tokens = 64};
    }
    idle = run_step(rig);
    for (int i = 0; i < DECODES; i++) {
        plan = rig_plan(rig);
        plan->verify = 1 + drafts;
        plan->draft = drafts;
        for (int slot = 0; slot < SLOTS - 1; slot++)
            rig_add_decode(rig, slot);
        if (i == 1) {
            plan->copies[plan->copies_count++] =
                (struct step_copy){.checkpoint = 0, .slot = SLOTS - 1};
            add_prompt(rig, SLOTS - 1, 64, 5);
            plan->page_ids[plan->page_ids_count - PAGES_EACH] = 0; // slot 0's, with its keys
        } else if (i > 1) {
            rig_add_decode(rig, SLOTS - 1);
        }
        idle += run_step(rig);
    }
    return idle;
}

int small_check(const char *name)
{
    struct golden golden;
    struct rig *rig = (struct rig *)calloc(1, sizeof *rig);
    golden_open(&golden, name, "logits");
    rig_open(rig, &(struct rig_options){.model_dir = golden.dir,
                                        .sequences = SLOTS,
                                        .sequence_tokens = PAGES_EACH * 64,
                                        .step_tokens = 512,
                                        .pages = SLOTS * PAGES_EACH,
                                        .checkpoints = 1,
                                        .drafts_max = DRAFTS,
                                        .vocab_real = (int)golden_number(golden.root, "real_ids"),
                                        .fill = 0xff});
    int idle = run_steps(rig, rig->weights.has_mtp ? DRAFTS : 0);
    printf("%s %s small: reports %016llx, %d rows drew nothing\n", idle == 0 ? "ok  " : "FAIL",
           name, (unsigned long long)rig->hash, idle);
    rig_close(rig);
    golden_close(&golden);
    free(rig);
    return idle > 0;
}
