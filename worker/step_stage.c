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
            .sampling = {.temperature = open->temperature,
                         .top_k = open->top_k,
                         .top_p = open->top_p,
                         .min_p = open->min_p,
                         .repetition = open->repetition,
                         .frequency = open->frequency,
                         .presence = open->presence,
                         .prompt_tokens = open->prompt_tokens,
                         .stops_from = open->stops_from,
                         .seed = open->seed,
                         .tokens_end = open->tokens_end,
                         .stop_count = open->stop_count},
        };
        memcpy(opening->sampling.stop_ids, open->stop_ids, sizeof opening->sampling.stop_ids);
        engine->sampling[open->slot] = opening->sampling;
    }
    for (int i = 0; i < plan->pages_count; i++) {
        const struct step_pages *pages = &plan->pages[i];
        up->pages[i] = (struct slot_pages){.slot = pages->slot,
                                           .first = pages->first,
                                           .count = pages->count,
                                           .ids_first = pages->ids_first};
    }
    memcpy(up->page_ids, plan->page_ids, (size_t)plan->page_ids_count * sizeof(int32_t));
}

void step_stage_rows(struct upload *up, struct step_tables *tables, const struct step_plan *plan)
{
    int tokens = 0, samples = 0, decode_rows = 0;
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
        };
        for (int t = 0; t < count; t++)
            up->token_ids[tokens + t] = decode ? -1 : plan->tokens[row->tokens_first + t];
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
    }
    return plan;
}
