// SPDX-License-Identifier: Apache-2.0
// step_plan_fuzz.c -- any bytes as a step plan. What is accepted holds its bounds, is encoded
// again, and that has to decode and to encode to the same bytes.
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/wire/messages.h"
#include "worker/step_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check_slot(int32_t slot)
{
    ASSERT(slot >= 0 && slot < STEP_ROWS_MAX);
}

static bool is_within(double value, double min, double max)
{
    return value >= min && value <= max;
}

// The numbers of an opening's lists: ids but for the bits of biases, and all within the plan's.
static void check_lists(const struct step_plan *plan, const struct step_open *open)
{
    ASSERT(is_within(open->bias_count, 0, STEP_BIASES_MAX));
    ASSERT(is_within(open->allowed_count, 0, STEP_ALLOWED_MAX));
    ASSERT(is_within(open->words_count, 0, STEP_WORDS_MAX));
    ASSERT(is_within(open->recent_count, 0, STEP_RECENT_MAX));
    ASSERT(open->lists_first >= 0);
    ASSERT(step_open_lists(open) <= plan->lists_count - open->lists_first);
    const int32_t *list = plan->lists + open->lists_first + 2 * open->bias_count;
    for (int32_t i = 0; i < open->allowed_count + open->words_count; i++)
        ASSERT(list[i] >= 0);
    for (int32_t i = 0; i < open->recent_count; i++)
        ASSERT(open->recent[i] >= 0);
}

static void check_open(const struct step_plan *plan, const struct step_open *open)
{
    check_slot(open->slot);
    ASSERT(open->position >= 0 && open->stops_from >= 0 && open->top_k >= 0);
    ASSERT(open->prompt_tokens >= 1 && open->tokens_end >= 1 && open->page_limit >= 1);
    ASSERT(isfinite(open->temperature) && open->temperature >= 0);
    ASSERT(isfinite(open->repetition) && open->repetition >= 0);
    ASSERT(is_within((double)open->top_p, 0, 1) && is_within((double)open->min_p, 0, 1));
    ASSERT(is_within((double)open->frequency, -2, 2) && is_within((double)open->presence, -2, 2));
    ASSERT(is_within(open->logprobs, 0, 1 + STEP_LOGPROBS_TOP_MAX));
    ASSERT(is_within(open->drafts, 0, STEP_VERIFY_MAX));
    ASSERT(is_within(open->stop_count, 0, STEP_STOP_IDS_MAX));
    for (int32_t i = 0; i < open->stop_count; i++)
        ASSERT(open->stop_ids[i] >= 0);
    check_lists(plan, open);
}

// What a worker relies on without looking again.
static void check_bounds(const struct step_plan *plan)
{
    ASSERT(plan->verify >= 1 && plan->verify <= STEP_VERIFY_MAX);
    ASSERT(plan->draft >= 0 && plan->draft < STEP_VERIFY_MAX);
    ASSERT(plan->page_ids_count <= STEP_PAGE_IDS_MAX);
    ASSERT(plan->tokens_count <= STEP_PREFILL_TOKENS_MAX);
    ASSERT(plan->lists_count <= STEP_LISTS_MAX);
    ASSERT(plan->group >= 0 && plan->group < WIRE_GROUPS_MAX);
    for (int32_t i = 0; i < plan->closes_count; i++)
        check_slot(plan->closes[i]);
    for (int32_t i = 0; i < plan->copies_count; i++)
        check_slot(plan->copies[i].slot);
    for (int32_t i = 0; i < plan->opens_count; i++)
        check_open(plan, &plan->opens[i]);
    for (int32_t i = 0; i < plan->pages_count; i++) {
        const struct step_pages *pages = &plan->pages[i];
        check_slot(pages->slot);
        ASSERT(pages->count >= 1 && pages->ids_first + pages->count <= plan->page_ids_count);
    }
    for (int32_t i = 0; i < plan->rows_count; i++) {
        const struct step_plan_row *row = &plan->rows[i];
        check_slot(row->slot);
        ASSERT(row->kind == STEP_ROW_DECODE || row->kind == STEP_ROW_PREFILL);
        ASSERT(row->checkpoint >= -1 &&
               (row->checkpoint_at > 0) == (row->kind == STEP_ROW_DECODE && row->checkpoint >= 0));
        ASSERT(row->kind == STEP_ROW_DECODE ||
               (row->tokens_count >= 1 &&
                row->tokens_first + row->tokens_count <= plan->tokens_count));
        ASSERT(row->token_next >= -1 && row->checkpoint >= -1);
        ASSERT(is_within(row->saves_count, 0, row->kind == STEP_ROW_DECODE ? 0 : STEP_SAVES_MAX));
        for (int32_t k = 0; k < row->saves_count; k++)
            ASSERT(row->saves[k].checkpoint >= 0 &&
                   is_within(row->saves[k].tokens, 1, row->tokens_count));
        ASSERT(row->sample == 0 || row->sample == 1);
        ASSERT(is_within(row->prompt_logprobs, 0, 1 + STEP_LOGPROBS_TOP_MAX));
    }
    for (int32_t i = 0; i < plan->tokens_count; i++)
        ASSERT(plan->tokens[i] >= 0);
}

// A worker's own check, of a rank that holds much; and that words are whole where it accepts.
static void check_usable(const struct step_plan *plan)
{
    static const struct memory_plan memory = {.sequences = STEP_ROWS_MAX,
                                              .sequence_tokens = 1 << 18,
                                              .step_tokens = STEP_PREFILL_TOKENS_MAX,
                                              .pages = 1 << 20,
                                              .pages_per_sequence = 4096,
                                              .checkpoints = 64,
                                              .drafts_max = STEP_VERIFY_MAX - 1};
    const struct step_check check = {.memory = &memory,
                                     .epoch = plan->epoch,
                                     .step_next = plan->step,
                                     .vocab = 1 << 18,
                                     .samples_max = STEP_ROWS_MAX * STEP_VERIFY_MAX,
                                     .drafts_max = STEP_VERIFY_MAX - 1};
    struct error error = {0};
    enum status status = step_check(&check, plan, &error);
    ASSERT(status == OK || (status == E_MALFORMED && error.text[0] != '\0'));
    for (int32_t i = 0; status == OK && i < plan->opens_count; i++) {
        const struct step_open *open = &plan->opens[i];
        const int32_t *words =
            plan->lists + open->lists_first + 2 * open->bias_count + open->allowed_count;
        int32_t at = 0;
        while (at < open->words_count) {
            ASSERT(is_within(words[at], 1, STEP_WORD_TOKENS_MAX));
            at += 1 + words[at];
        }
        ASSERT(at == open->words_count);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct step_plan plan, back;
    static uint8_t first[WIRE_WORKER_FRAME_BYTES_MAX], second[WIRE_WORKER_FRAME_BYTES_MAX];
    struct error error = {0};
    size_t first_bytes, second_bytes;
    if (plan.opens == NULL &&
        (step_plan_open(&plan, &error) != OK || step_plan_open(&back, &error) != OK))
        abort();
    enum status status = step_plan_decode(&plan, data, bytes, &error);
    if (status != OK) {
        ASSERT(status == E_MALFORMED && error.text[0] != '\0');
        ASSERT(plan.rows_count == 0 && plan.opens_count == 0 && plan.tokens_count == 0);
        return 0;
    }
    check_bounds(&plan);
    check_usable(&plan);
    ASSERT(step_plan_encode(first, sizeof first, &first_bytes, &plan) == OK);
    ASSERT(step_plan_decode(&back, first, first_bytes, &error) == OK);
    ASSERT(step_plan_encode(second, sizeof second, &second_bytes, &back) == OK);
    ASSERT(first_bytes == second_bytes && memcmp(first, second, first_bytes) == 0);
    return 0;
}
