// SPDX-License-Identifier: Apache-2.0
// step_plan_fuzz.c -- any bytes as a step plan. What is accepted holds its bounds, is encoded
// again, and that has to decode and to encode to the same bytes.
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/wire/messages.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check_slot(int32_t slot)
{
    ASSERT(slot >= 0 && slot < STEP_ROWS_MAX);
}

// What a worker relies on without looking again.
static void check_bounds(const struct step_plan *plan)
{
    ASSERT(plan->verify >= 1 && plan->verify <= STEP_VERIFY_MAX);
    ASSERT(plan->draft >= 0 && plan->draft < STEP_VERIFY_MAX);
    ASSERT(plan->page_ids_count <= STEP_PAGE_IDS_MAX);
    ASSERT(plan->tokens_count <= STEP_PREFILL_TOKENS_MAX);
    for (int32_t i = 0; i < plan->closes_count; i++)
        check_slot(plan->closes[i]);
    for (int32_t i = 0; i < plan->copies_count; i++)
        check_slot(plan->copies[i].slot);
    for (int32_t i = 0; i < plan->opens_count; i++) {
        check_slot(plan->opens[i].slot);
        ASSERT(plan->opens[i].stop_count <= STEP_STOP_IDS_MAX);
        ASSERT(isfinite(plan->opens[i].temperature) && plan->opens[i].temperature >= 0);
    }
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
    }
    for (int32_t i = 0; i < plan->tokens_count; i++)
        ASSERT(plan->tokens[i] >= 0);
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
    ASSERT(step_plan_encode(first, sizeof first, &first_bytes, &plan) == OK);
    ASSERT(step_plan_decode(&back, first, first_bytes, &error) == OK);
    ASSERT(step_plan_encode(second, sizeof second, &second_bytes, &back) == OK);
    ASSERT(first_bytes == second_bytes && memcmp(first, second, first_bytes) == 0);
    return 0;
}
