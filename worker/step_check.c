// SPDX-License-Identifier: Apache-2.0
// step_check.c -- every field of a plan against a range, by name.
#include "worker/step_check.h"

// value must lie in [low, high].
static enum status check_range(struct error *error, const char *what, int64_t value, int64_t low,
                               int64_t high)
{
    if (value >= low && value <= high)
        return OK;
    return error_set(error, E_MALFORMED, "step plan: %s is %lld, accepted is %lld to %lld", what,
                     (long long)value, (long long)low, (long long)high);
}

// Where a decode row is to leave a checkpoint.
static enum status check_place(const struct step_check *check, const struct step_plan_row *row,
                               struct error *error)
{
    bool saves = row->checkpoint >= 0;
    TRY(check_range(error, "rows.checkpoint", row->checkpoint, -1, check->memory->checkpoints - 1));
    TRY(check_range(error, "rows.checkpoint_at", row->checkpoint_at, saves,
                    saves ? check->memory->sequence_tokens - 1 : 0));
    return check_range(error, "rows.checkpoint_at past a page's end",
                       row->checkpoint_at % TOKENS_PER_PAGE, 0, 0);
}

// Where a prefill row is to leave checkpoints: at the ends of its chunks of 64, or at its own.
static enum status check_saves(const struct step_check *check, const struct step_plan_row *row,
                               struct error *error)
{
    TRY(check_range(error, "rows.saves", row->saves_count, 0, STEP_SAVES_MAX));
    for (int i = 0; i < row->saves_count; i++) {
        const struct step_save *save = &row->saves[i];
        TRY(check_range(error, "rows.saves.checkpoint", save->checkpoint, 0,
                        check->memory->checkpoints - 1));
        TRY(check_range(error, "rows.saves.tokens", save->tokens,
                        i > 0 ? row->saves[i - 1].tokens + 1 : 1, row->tokens_count));
        if (save->tokens < row->tokens_count)
            TRY(check_range(error, "rows.saves.tokens past a chunk's end",
                            save->tokens % TOKENS_PER_PAGE, 0, 0));
    }
    return OK;
}

static enum status check_row(const struct step_check *check, const struct step_plan *plan, int i,
                             struct error *error)
{
    const struct step_plan_row *row = &plan->rows[i];
    TRY(check_range(error, "rows.slot", row->slot, 0, check->memory->sequences - 1));
    if (row->kind == STEP_ROW_DECODE) {
        if (i > 0 && plan->rows[i - 1].kind != STEP_ROW_DECODE)
            return error_set(error, E_MALFORMED, "step plan: row %d decodes after a prefill row",
                             i);
        return check_place(check, row, error);
    }
    TRY(check_range(error, "rows.tokens_count", row->tokens_count, 1, plan->tokens_count));
    TRY(check_range(error, "rows.tokens_first", row->tokens_first, 0,
                    plan->tokens_count - row->tokens_count));
    TRY(check_range(error, "rows.prompt_logprobs", row->prompt_logprobs, 0,
                    1 + STEP_LOGPROBS_TOP_MAX));
    TRY(check_saves(check, row, error));
    for (int t = 0; t < row->tokens_count; t++) {
        TRY(check_range(error, "rows.tokens", plan->tokens[row->tokens_first + t], 0,
                        check->vocab - 1));
    }
    return OK;
}

static enum status check_pages(const struct step_check *check, const struct step_plan *plan,
                               const struct step_pages *pages, struct error *error)
{
    const struct memory_plan *memory = check->memory;
    TRY(check_range(error, "pages.slot", pages->slot, 0, memory->sequences - 1));
    TRY(check_range(error, "pages.first", pages->first, 0, memory->pages_per_sequence));
    TRY(check_range(error, "pages.count", pages->count, 1,
                    memory->pages_per_sequence - pages->first));
    TRY(check_range(error, "pages.ids_first", pages->ids_first, 0,
                    plan->page_ids_count - pages->count));
    for (int i = 0; i < pages->count; i++) {
        TRY(check_range(error, "pages.ids", plan->page_ids[pages->ids_first + i], 0,
                        memory->pages - 1));
    }
    return OK;
}

// How often a row names a checkpoint that it is to write.
static int count_saves(const struct step_plan_row *row, int32_t checkpoint)
{
    int count = 0;
    if (row->kind == STEP_ROW_DECODE)
        return row->checkpoint == checkpoint;
    for (int i = 0; i < row->saves_count; i++)
        count += row->saves[i].checkpoint == checkpoint;
    return count;
}

static enum status check_written_once(const struct step_plan *plan, int row, int32_t checkpoint,
                                      struct error *error)
{
    for (int k = 0; k <= row; k++) {
        if (count_saves(&plan->rows[k], checkpoint) > (k == row))
            return error_set(error, E_MALFORMED,
                             "step plan: checkpoint %d is written by rows %d and %d", checkpoint, k,
                             row);
    }
    return OK;
}

// A checkpoint goes into a slot that opens behind it; a slot gets one at most, and a checkpoint is
// written once at most.
static enum status check_checkpoints(const struct step_check *check, const struct step_plan *plan,
                                     struct error *error)
{
    const struct memory_plan *memory = check->memory;
    for (int i = 0; i < plan->copies_count; i++) {
        const struct step_copy *copy = &plan->copies[i];
        int opened = 0;
        TRY(check_range(error, "copies.checkpoint", copy->checkpoint, 0, memory->checkpoints - 1));
        TRY(check_range(error, "copies.slot", copy->slot, 0, memory->sequences - 1));
        for (int k = 0; k < plan->opens_count; k++)
            opened += plan->opens[k].slot == copy->slot && plan->opens[k].position > 0;
        for (int k = 0; k < i; k++)
            opened += plan->copies[k].slot == copy->slot;
        TRY(check_range(error, "openings of a copy's slot", opened, 1, 1));
    }
    for (int i = 0; i < plan->rows_count; i++) {
        const struct step_plan_row *row = &plan->rows[i];
        if (row->kind == STEP_ROW_DECODE && row->checkpoint >= 0)
            TRY(check_written_once(plan, i, row->checkpoint, error));
        for (int k = 0; k < row->saves_count && row->kind == STEP_ROW_PREFILL; k++)
            TRY(check_written_once(plan, i, row->saves[k].checkpoint, error));
    }
    return OK;
}

// The ids of an opening's lists, and the lengths of its words.
static enum status check_lists(const struct step_check *check, const struct step_plan *plan,
                               const struct step_open *open, struct error *error)
{
    const int32_t *list = plan->lists + open->lists_first;
    for (int i = 0; i < open->bias_count; i++)
        TRY(check_range(error, "opens.bias", list[i], 0, check->vocab - 1));
    list += 2 * open->bias_count;
    for (int i = 0; i < open->allowed_count; i++)
        TRY(check_range(error, "opens.allow", list[i], 0, check->vocab - 1));
    list += open->allowed_count;
    for (int at = 0; at < open->words_count; at += 1 + list[at]) {
        int rest = open->words_count - at - 1;
        TRY(check_range(error, "opens.words: length", list[at], 1,
                        rest < STEP_WORD_TOKENS_MAX ? rest : STEP_WORD_TOKENS_MAX));
        for (int i = 0; i < list[at]; i++)
            TRY(check_range(error, "opens.words", list[at + 1 + i], 0, check->vocab - 1));
    }
    return OK;
}

// A slot that opens behind tokens needs the state after them.
static enum status check_open(const struct step_check *check, const struct step_plan *plan,
                              const struct step_open *open, struct error *error)
{
    int copies = 0;
    TRY(check_range(error, "opens.slot", open->slot, 0, check->memory->sequences - 1));
    TRY(check_range(error, "opens.pos", open->position, 0, check->memory->sequence_tokens - 1));
    TRY(check_range(error, "opens.pos past a page's end", open->position % TOKENS_PER_PAGE, 0, 0));
    for (int i = 0; i < plan->copies_count; i++)
        copies += plan->copies[i].slot == open->slot;
    TRY(check_range(error, "opens.pos: checkpoints copied to its slot", copies, open->position > 0,
                    open->position > 0));
    TRY(check_range(error, "opens.top_k", open->top_k, 0, INT32_MAX));
    TRY(check_range(error, "opens.logp", open->logprobs, 0, 1 + STEP_LOGPROBS_TOP_MAX));
    TRY(check_range(error, "opens.drafts", open->drafts, 0, STEP_VERIFY_MAX));
    TRY(check_range(error, "opens.stop", open->stop_count, 0, STEP_STOP_IDS_MAX));
    return check_lists(check, plan, open, error);
}

// Tokens and sampled rows of the whole step, once every row has been checked.
static void count_step(const struct step_plan *plan, int64_t *tokens, int64_t *samples,
                       int64_t *prompt_logprobs)
{
    *tokens = *samples = *prompt_logprobs = 0;
    for (int i = 0; i < plan->rows_count; i++) {
        const struct step_plan_row *row = &plan->rows[i];
        bool decode = row->kind == STEP_ROW_DECODE;
        *tokens += decode ? plan->verify : row->tokens_count;
        *samples += decode ? plan->verify : (row->sample != 0);
        *prompt_logprobs += decode || row->prompt_logprobs == 0 ? 0 : row->tokens_count;
    }
}

enum status step_check(const struct step_check *check, const struct step_plan *plan,
                       struct error *error)
{
    const struct memory_plan *memory = check->memory;
    int64_t next = (int64_t)check->step_next;
    int64_t tokens, samples, prompt_logprobs;
    TRY(check_range(error, "epoch", (int64_t)plan->epoch, (int64_t)check->epoch,
                    (int64_t)check->epoch));
    TRY(check_range(error, "step", (int64_t)plan->step, next, next));
    TRY(check_range(error, "verify", plan->verify, 1, 1 + memory->drafts_max));
    TRY(check_range(error, "draft", plan->draft, 0, check->drafts_max));
    TRY(check_range(error, "copies", plan->copies_count, 0,
                    memory->checkpoints > 0 ? memory->sequences : 0));
    for (int i = 0; i < plan->closes_count; i++)
        TRY(check_range(error, "closes", plan->closes[i], 0, memory->sequences - 1));
    for (int i = 0; i < plan->opens_count; i++)
        TRY(check_open(check, plan, &plan->opens[i], error));
    for (int i = 0; i < plan->pages_count; i++)
        TRY(check_pages(check, plan, &plan->pages[i], error));
    for (int i = 0; i < plan->rows_count; i++)
        TRY(check_row(check, plan, i, error));
    TRY(check_checkpoints(check, plan, error));
    count_step(plan, &tokens, &samples, &prompt_logprobs);
    TRY(check_range(error, "prompt tokens with logprobs", prompt_logprobs, 0,
                    STEP_PROMPT_LOGPROBS_MAX));
    TRY(check_range(error, "tokens of all rows", tokens, 0, memory->step_tokens));
    return check_range(error, "sampled rows", samples, 0, check->samples_max);
}
