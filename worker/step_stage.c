// SPDX-License-Identifier: Apache-2.0
// step_stage.c -- a step plan laid out in a staging buffer, as the device will read it. Host only.
#include "worker/step_engine.h"

#include <string.h>

void step_stage_openings(struct step_engine *engine, struct upload *up,
                         const struct step_plan *plan)
{
    for (int i = 0; i < plan->opens_count; i++) {
        const struct step_open *open = &plan->opens[i];
        struct slot_opening *opening = &up->openings[i];
        *opening = (struct slot_opening){
            .slot = open->slot,
            .position = open->position,
            .lists_first = open->lists_first,
            .sampling = {.temperature = open->temperature,
                         .top_k = open->top_k,
                         .top_p = open->top_p,
                         .min_p = open->min_p,
                         .repetition = open->repetition,
                         .frequency = open->frequency,
                         .presence = open->presence,
                         .prompt_tokens = open->prompt_tokens,
                         .stops_from = open->stops_from,
                         .logprobs = open->logprobs,
                         .drafts = open->drafts,
                         .bias_count = open->bias_count,
                         .allowed_count = open->allowed_count,
                         .words_count = open->words_count,
                         .seed = open->seed,
                         .tokens_end = open->tokens_end,
                         .stop_count = open->stop_count},
        };
        memcpy(opening->sampling.stop_ids, open->stop_ids, sizeof opening->sampling.stop_ids);
        for (int k = 0; k < SLOT_RECENT_MAX; k++)
            opening->recent[k] = k < open->recent_count ? open->recent[k] : -1;
        engine->sampling[open->slot] = opening->sampling;
    }
    for (int i = 0; i < plan->pages_count; i++) {
        const struct step_pages *pages = &plan->pages[i];
        up->pages[i] = (struct slot_pages){.slot = pages->slot,
                                           .first = pages->first,
                                           .count = pages->count,
                                           .ids_first = pages->ids_first};
    }
    memcpy(up->lists, plan->lists, (size_t)plan->lists_count * sizeof(int32_t));
    memcpy(up->page_ids, plan->page_ids, (size_t)plan->page_ids_count * sizeof(int32_t));
}

static void stage_saves(struct upload *up, struct step_tables *tables,
                        const struct step_plan_row *row, int index)
{
    for (int i = 0; i < row->saves_count; i++) {
        up->saves[tables->saves_count++] =
            (struct row_save){.checkpoint = row->saves[i].checkpoint,
                              .row = index,
                              .tokens = row->saves[i].tokens,
                              .token_last = up->rows[index].token_first + row->saves[i].tokens - 1};
    }
}

void step_stage_rows(struct upload *up, struct step_tables *tables, const struct step_plan *plan)
{
    int tokens = 0, samples = 0, decode_rows = 0;
    tables->saves_count = 0;
    for (int i = 0; i < plan->rows_count; i++) {
        const struct step_plan_row *row = &plan->rows[i];
        bool decode = row->kind == STEP_ROW_DECODE;
        int count = decode ? plan->verify : row->tokens_count;
        int sampled = decode ? plan->verify : (row->sample != 0);
        up->rows[i] = (struct step_row){
            .slot = row->slot,
            .kind = decode ? ROW_DECODE : ROW_PREFILL,
            .token_first = tokens,
            .token_count = count,
            .token_next = decode ? -1 : row->token_next,
            .sample = sampled,
            .sample_first = sampled > 0 ? samples : -1,
            .pause_at = decode ? row->checkpoint_at : 0,
        };
        for (int t = 0; t < count; t++)
            up->token_ids[tokens + t] = decode ? -1 : plan->tokens[row->tokens_first + t];
        if (!decode)
            stage_saves(up, tables, row, i);
        tokens += count;
        samples += sampled;
        decode_rows += decode;
    }
    tables->rows_count = plan->rows_count;
    tables->tokens_count = tokens;
    tables->samples_count = samples;
    tables->decode_rows = decode_rows;
    tables->verify = decode_rows > 0 ? plan->verify : 0;
}

struct sampling_plan step_stage_sampling(const struct step_engine *engine, struct upload *up)
{
    struct sampling_plan plan = {.cut_count = 0};
    for (int i = 0; i < engine->tables_dev.rows_count; i++) {
        const struct step_row *row = &up->rows[i];
        const struct slot_sampling *sampling = &engine->sampling[row->slot];
        bool cut = sample_cut_needed(sampling), penalty = sample_penalty_needed(sampling);
        for (int k = 0; k < row->sample && cut; k++)
            up->cut_rows[plan.cut_count++] = row->sample_first + k;
        for (int k = 0; k < row->sample && penalty; k++)
            up->penalty_rows[plan.penalty_count++] = row->sample_first + k;
        plan.cut_by_count |= sample_cut_has(sampling, SAMPLE_CUT_COUNT);
        plan.cut_by_mass |= sample_cut_has(sampling, SAMPLE_CUT_MASS);
        plan.counts |= sample_penalty_counts(sampling);
        for (int k = 0; k < row->sample && sample_lists_needed(sampling); k++)
            up->list_rows[plan.lists_count++] = row->sample_first + k;
        plan.recent |= sample_lists_recent(sampling);
    }
    return plan;
}

// An entry of log-probabilities; returns its index.
static int32_t add_entry(struct upload *up, struct sampling_plan *sampling, int32_t hidden,
                         int32_t logprobs)
{
    int32_t entry = sampling->logprobs_drawn + sampling->logprobs_prompt;
    up->logprob_hidden[entry] = hidden;
    up->logprob_tops[entry] = logprobs - 1;
    return entry;
}

static void stage_drawn(const struct step_engine *engine, struct staging *staging,
                        struct sampling_plan *sampling, int i)
{
    const struct step_row *row = &staging->upload.rows[i];
    const struct slot_sampling *slot = &engine->sampling[row->slot];
    struct row_logprobs *out = &staging->row_logprobs[i];
    *out = (struct row_logprobs){.drawn_first = sampling->logprobs_drawn};
    if (slot->logprobs == 0 || row->sample == 0)
        return;
    out->drawn_count = row->sample;
    sampling->logprobs_changed |= sample_penalty_needed(slot) || sample_lists_needed(slot);
    for (int k = 0; k < row->sample; k++) {
        int32_t hidden = row->token_first + row->token_count - row->sample + k;
#ifdef PLANT_logprobs_first_row
        hidden -= k;
#endif
        int32_t entry = add_entry(&staging->upload, sampling, hidden, slot->logprobs);
        staging->upload.logprob_rows[entry] = row->sample_first + k;
        staging->upload.logprob_tokens[entry] = -1;
        sampling->logprobs_drawn++;
    }
}

static void stage_prompt(struct staging *staging, struct sampling_plan *sampling,
                         const struct step_plan *plan, int i)
{
    const struct step_plan_row *row = &plan->rows[i];
    struct row_logprobs *out = &staging->row_logprobs[i];
    out->prompt_first = sampling->logprobs_drawn + sampling->logprobs_prompt;
    if (row->kind != STEP_ROW_PREFILL || row->prompt_logprobs == 0)
        return;
    for (int t = 0; t < row->tokens_count; t++) {
        bool last = t == row->tokens_count - 1;
        int32_t next = last ? row->token_next : plan->tokens[row->tokens_first + t + 1];
        if (next < 0)
            break;
        int32_t hidden = staging->upload.rows[i].token_first + t;
        int32_t entry = add_entry(&staging->upload, sampling, hidden, row->prompt_logprobs);
        staging->upload.logprob_rows[entry] = -1;
        staging->upload.logprob_tokens[entry] = next;
        sampling->logprobs_prompt++;
        out->prompt_count++;
    }
}

void step_stage_logprobs(const struct step_engine *engine, struct staging *staging,
                         struct sampling_plan *sampling, const struct step_plan *plan)
{
    for (int i = 0; i < plan->rows_count; i++)
        stage_drawn(engine, staging, sampling, i);
    for (int i = 0; i < plan->rows_count; i++)
        stage_prompt(staging, sampling, plan, i);
}
