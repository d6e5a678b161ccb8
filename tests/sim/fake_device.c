// SPDX-License-Identifier: Apache-2.0
// fake_device.c -- submit (worker/step_check.c), then run: closes, opens, pages, rows, each
// checked against the rules of a plan, then carried out as kernels/slots.h says.
#include "tests/sim/fake_device.h"

#include <stdlib.h>
#include <string.h>

#include "tests/sim/oracle.h"
#include "worker/step_check.h"

enum { END_RUNS = 0, END_STOP = 1, END_LENGTH = 2 };

void device_open(struct device *device, const struct place_message *place,
                 struct device_prompts prompts)
{
    memset(device, 0, sizeof *device);
    device->prompts = prompts;
    ASSERT(place->sequences <= DEVICE_SLOTS_MAX);
    device->place = *place;
    device->memory = (struct memory_plan){.sequences = place->sequences,
                                          .sequence_tokens = place->sequence_tokens,
                                          .step_tokens = place->step_tokens,
                                          .pages = place->pages,
                                          .pages_per_sequence = place->pages_per_sequence,
                                          .checkpoints = place->checkpoints,
                                          .drafts_max = place->drafts_max};
    size_t pages = (size_t)place->pages;
    device->block_table = malloc((size_t)place->sequences * (size_t)place->pages_per_sequence *
                                 sizeof *device->block_table);
    device->page_owner = malloc(pages * sizeof *device->page_owner);
    device->page_readers = calloc(pages, sizeof *device->page_readers);
    device->checkpoints = calloc((size_t)place->checkpoints + 1, sizeof *device->checkpoints);
    device->kv = malloc(pages * TOKENS_PER_PAGE * sizeof *device->kv);
    ASSERT(device->block_table != NULL && device->page_owner != NULL && device->kv != NULL);
    ASSERT(device->page_readers != NULL && device->checkpoints != NULL);
    for (int i = 0; i < DEVICE_SLOTS_MAX; i++)
        device->slots[i].loaded = -1;
    for (size_t i = 0; i < pages; i++)
        device->page_owner[i] = -1;
    memset(device->kv, 0xA5, pages * TOKENS_PER_PAGE * sizeof *device->kv);
}

void device_close(struct device *device)
{
    for (int i = 0; i < DEVICE_STAGING; i++)
        free(device->queue[i].frame);
    free(device->block_table);
    free(device->page_owner);
    free(device->page_readers);
    free(device->checkpoints);
    free(device->kv);
    memset(device, 0, sizeof *device);
}

// ---- what a worker refuses ----

enum status device_submit(struct device *device, const struct step_plan *plan, const uint8_t *frame,
                          size_t frame_bytes, struct error *error)
{
    if (device->submitted - device->done >= DEVICE_STAGING)
        return error_set(error, E_OVERLOADED, "%d steps are in flight already", DEVICE_STAGING);
    int32_t samples_max = device->place.sequences * VERIFY_ROWS_MAX; // worker/state.c
    if (samples_max > device->place.step_tokens)
        samples_max = device->place.step_tokens;
    const struct step_check check = {.memory = &device->memory,
                                     .epoch = device->place.epoch,
                                     .step_next = device->submitted + 1,
                                     .vocab = device->place.vocab_real,
                                     .samples_max = samples_max,
                                     .drafts_max = device->place.drafts_max};
    TRY(step_check(&check, plan, error));
    size_t place = plan->step % DEVICE_STAGING;
    ASSERT(device->queue[place].frame == NULL);
    device->queue[place].frame = malloc(frame_bytes);
    ASSERT(device->queue[place].frame != NULL);
    memcpy(device->queue[place].frame, frame, frame_bytes);
    device->queue[place].frame_bytes = frame_bytes;
    device->queue[place].prefill_tokens = plan->tokens_count;
    device->queue[place].decode_rows = 0;
    for (int i = 0; i < plan->rows_count; i++)
        device->queue[place].decode_rows += plan->rows[i].kind == STEP_ROW_DECODE;
    device->submitted = plan->step;
    return OK;
}

// ---- what no plan may say ----

static enum status run_closes(struct device *device, const struct step_plan *plan,
                              struct error *error)
{
    for (int i = 0; i < plan->closes_count; i++) {
        struct device_slot *slot = &device->slots[plan->closes[i]];
        if (!slot->open)
            return error_set(error, E_FAILED, "slot %d is closed and not open", plan->closes[i]);
        slot->open = false;
        const int32_t *row = device->block_table +
                             (size_t)plan->closes[i] * (size_t)device->place.pages_per_sequence;
        for (int32_t k = 0; k < slot->pages_count && k < slot->pages_shared; k++)
            device->page_readers[row[k]]--;
        for (int32_t page = 0; page < device->place.pages; page++) {
            if (device->page_owner[page] == plan->closes[i])
                device->page_owner[page] = -1;
        }
    }
    return OK;
}

static int32_t prompt_token(const struct device *device, uint64_t seed, int32_t position)
{
    return device->prompts.token(device->prompts.context, seed, position);
}

// Copies come before openings: what they fill must not be in use.
static enum status run_copies(struct device *device, const struct step_plan *plan,
                              struct error *error)
{
    for (int i = 0; i < plan->copies_count; i++) {
        const struct step_copy *copy = &plan->copies[i];
        struct device_slot *slot = &device->slots[copy->slot];
        if (slot->open || device->checkpoints[copy->checkpoint].position == 0)
            return error_set(error, E_FAILED, "checkpoint %d is copied into slot %d: %s",
                             copy->checkpoint, copy->slot,
                             slot->open ? "which is open" : "it was never saved");
        slot->loaded = copy->checkpoint;
    }
    return OK;
}

static enum status run_open(struct device *device, const struct step_open *open,
                            struct error *error)
{
    struct device_slot *slot = &device->slots[open->slot];
    int32_t needed = (open->tokens_end + TOKENS_PER_PAGE - 1) / TOKENS_PER_PAGE;
    if (slot->open)
        return error_set(error, E_FAILED, "slot %d is opened while it is open", open->slot);
    if (open->prompt_tokens < 1 || open->tokens_end <= open->prompt_tokens ||
        open->tokens_end > device->place.sequence_tokens)
        return error_set(error, E_FAILED, "slot %d: prompt %d, end %d, context %d", open->slot,
                         open->prompt_tokens, open->tokens_end, device->place.sequence_tokens);
    if (open->page_limit < needed || open->page_limit > device->place.pages_per_sequence)
        return error_set(error, E_FAILED, "slot %d: limit of %d pages, %d needed, table has %d",
                         open->slot, open->page_limit, needed, device->place.pages_per_sequence);
    int32_t loaded = slot->loaded;
    *slot = (struct device_slot){.open = true, .token_next = -1, .loaded = -1, .opening = *open};
    if (open->position == 0)
        return OK;
    if (device->checkpoints[loaded].position != open->position)
        return error_set(error, E_FAILED, "slot %d opens at %d with checkpoint %d of position %d",
                         open->slot, open->position, loaded, device->checkpoints[loaded].position);
    slot->position = open->position;
    slot->pages_shared = open->position / TOKENS_PER_PAGE;
    slot->state = device->checkpoints[loaded].state;
    return OK;
}

// A page that a slot shares holds the tokens of its own prompt, and nobody writes them any more.
static enum status share_page(struct device *device, const struct step_pages *pages, int32_t k,
                              int32_t page, struct error *error)
{
    const struct device_slot *slot = &device->slots[pages->slot];
    int32_t owner = device->page_owner[page], end = (k + 1) * TOKENS_PER_PAGE;
    if (owner >= 0 && device->slots[owner].position < end)
        return error_set(error, E_FAILED, "page %d of slot %d is shared before it is full", page,
                         owner);
    for (int32_t at = end - TOKENS_PER_PAGE; at < end && at < slot->opening.prompt_tokens; at++) {
        if (device->kv[(size_t)page * TOKENS_PER_PAGE + (size_t)(at % TOKENS_PER_PAGE)] !=
            prompt_token(device, slot->opening.seed, at))
            return error_set(error, E_FAILED, "page %d holds another token %d than slot %d's text",
                             page, at, pages->slot);
    }
    device->page_readers[page]++;
    return OK;
}

// The tokens in a slot's shared pages are those that its checkpoint's state has seen, drawn ones
// included.
static enum status check_shared(const struct device *device, int32_t index, struct error *error)
{
    const struct device_slot *slot = &device->slots[index];
    const int32_t *row =
        device->block_table + (size_t)index * (size_t)device->place.pages_per_sequence;
    uint64_t state = 0;
    for (int32_t at = 0; at < slot->position; at++)
        state = oracle_fold(state, device->kv[(size_t)row[at / TOKENS_PER_PAGE] * TOKENS_PER_PAGE +
                                              (size_t)(at % TOKENS_PER_PAGE)]);
    if (state != slot->state)
        return error_set(error, E_FAILED, "slot %d opens at %d with another text's state", index,
                         slot->position);
    return OK;
}

static enum status run_pages(struct device *device, const struct step_plan *plan,
                             const struct step_pages *pages, struct error *error)
{
    struct device_slot *slot = &device->slots[pages->slot];
    if (!slot->open)
        return error_set(error, E_FAILED, "slot %d gets pages and is not open", pages->slot);
    if (pages->first != slot->pages_count || pages->first + pages->count > slot->opening.page_limit)
        return error_set(error, E_FAILED, "slot %d has %d pages and gets %d from %d on, limit %d",
                         pages->slot, slot->pages_count, pages->count, pages->first,
                         slot->opening.page_limit);
    int32_t *row =
        device->block_table + (size_t)pages->slot * (size_t)device->place.pages_per_sequence;
    for (int32_t k = 0; k < pages->count; k++) {
        int32_t page = plan->page_ids[pages->ids_first + k];
        row[pages->first + k] = page;
        if (pages->first + k < slot->pages_shared) {
            TRY(share_page(device, pages, pages->first + k, page, error));
            continue;
        }
        if (device->page_owner[page] != -1 || device->page_readers[page] != 0)
            return error_set(error, E_FAILED, "page %d of slot %d and %d readers is given to %d",
                             page, device->page_owner[page], device->page_readers[page],
                             pages->slot);
        device->page_owner[page] = pages->slot;
    }
    bool shares = slot->pages_count < slot->pages_shared;
    slot->pages_count += pages->count;
    return shares && slot->pages_count >= slot->pages_shared
               ? check_shared(device, pages->slot, error)
               : OK;
}

static enum status check_decode(const struct device_slot *slot, int32_t index, struct error *error)
{
    const struct step_open *open = &slot->opening;
    if (slot->position < open->prompt_tokens)
        return error_set(error, E_FAILED, "slot %d decodes at %d of its prompt of %d tokens", index,
                         slot->position, open->prompt_tokens);
    if (slot->draws_planned >= open->tokens_end - open->prompt_tokens)
        return error_set(error, E_FAILED, "slot %d: row past its end (%d draws, prompt %d, end %d)",
                         index, slot->draws_planned, open->prompt_tokens, open->tokens_end);
    return OK;
}

// Whether a row may go from position to end: prompts are cut at multiples of 64 and at their own
// end, as when they ran first; drawn tokens come back in short rows.
static bool is_on_grid(const struct step_open *open, int32_t position, int32_t end, bool last)
{
    if (position < open->prompt_tokens)
        return position % TOKENS_PER_PAGE == 0 &&
               (end == open->prompt_tokens ||
                (end < open->prompt_tokens && end % TOKENS_PER_PAGE == 0));
    return end <= position / STEP_REPLAY_TOKENS_MAX * STEP_REPLAY_TOKENS_MAX +
                      STEP_REPLAY_TOKENS_MAX &&
           (last || end % STEP_REPLAY_TOKENS_MAX == 0);
}

// Tokens after the prompt come as prefill when a preempted request is back: what they are is held
// against its client (invariants.c).
static enum status check_prefill(const struct device *device, const struct device_slot *slot,
                                 const struct step_plan *plan, const struct step_plan_row *row,
                                 struct error *error)
{
    const struct step_open *open = &slot->opening;
    int32_t end = slot->position + row->tokens_count;
    bool last = row->sample != 0;
    if (slot->draws_planned > 0 || end >= open->tokens_end ||
        !is_on_grid(open, slot->position, end, last) || (last && end < open->prompt_tokens))
        return error_set(error, E_FAILED, "slot %d: chunk of %d at %d, prompt %d, end %d",
                         row->slot, row->tokens_count, slot->position, open->prompt_tokens,
                         open->tokens_end);
    for (int32_t t = 0; t < row->tokens_count && slot->position + t < open->prompt_tokens; t++) {
        if (plan->tokens[row->tokens_first + t] !=
            prompt_token(device, open->seed, slot->position + t))
            return error_set(error, E_FAILED, "slot %d: prompt token %d is not the client's",
                             row->slot, slot->position + t);
    }
    if ((row->token_next < 0) != last ||
        (end < open->prompt_tokens && row->token_next != prompt_token(device, open->seed, end)))
        return error_set(error, E_FAILED, "slot %d: chunk to %d of %d, next %d, sample %d",
                         row->slot, end, open->prompt_tokens, row->token_next, row->sample);
    return OK;
}

static enum status check_rows(struct device *device, const struct step_plan *plan,
                              struct error *error)
{
    bool named[DEVICE_SLOTS_MAX] = {false};
    if (plan->rows_count == 0 || plan->verify > 1 + device->drafts_made)
        return error_set(error, E_FAILED, "%d rows, verify %d after %d drafts", plan->rows_count,
                         plan->verify, device->drafts_made);
    for (int i = 0; i < plan->rows_count; i++) {
        const struct step_plan_row *row = &plan->rows[i];
        struct device_slot *slot = &device->slots[row->slot];
        bool decode = row->kind == STEP_ROW_DECODE;
        if (!slot->open || named[row->slot])
            return error_set(error, E_FAILED, "slot %d %s", row->slot,
                             slot->open ? "has two rows in a step" : "has a row and is not open");
        named[row->slot] = true;
        TRY(decode ? check_decode(slot, row->slot, error)
                   : check_prefill(device, slot, plan, row, error));
        int32_t end = slot->position + (decode ? plan->verify : row->tokens_count);
        if (decode && end > slot->opening.tokens_end - 1) // the last token is never run
            end = slot->opening.tokens_end - 1;
        if (slot->end == END_RUNS && end > slot->pages_count * TOKENS_PER_PAGE)
            return error_set(error, E_FAILED, "slot %d runs to %d with %d pages", row->slot, end,
                             slot->pages_count);
        if (!decode && row->sample != 0)
            slot->draws_planned = end - slot->opening.prompt_tokens;
        slot->draws_planned += decode || row->sample != 0;
    }
    return OK;
}

// ---- kernels/slots.h ----

static int32_t *kv_at(const struct device *device, int32_t slot, int32_t position)
{
    size_t entry = (size_t)slot * (size_t)device->place.pages_per_sequence +
                   (size_t)(position / TOKENS_PER_PAGE);
    return device->kv + (size_t)device->block_table[entry] * TOKENS_PER_PAGE +
           position % TOKENS_PER_PAGE;
}

static void run_token(struct device *device, int32_t index, int32_t token)
{
    struct device_slot *slot = &device->slots[index];
    *kv_at(device, index, slot->position) = token;
    slot->state = oracle_fold(slot->state, token);
    slot->position++;
}

static bool is_stop(const struct step_open *open, int32_t token)
{
    for (int i = 0; i < open->stop_count; i++) {
        if (open->stop_ids[i] == token)
            return true;
    }
    return false;
}

static void draw(struct device *device, int32_t index, struct step_result *result)
{
    struct device_slot *slot = &device->slots[index];
    int32_t probed[ORACLE_PROBES];
    for (int i = 0; i < ORACLE_PROBES; i++)
        probed[i] = *kv_at(device, index, oracle_probe(slot->opening.seed, slot->position, i));
    int32_t token = oracle_draw(slot->opening.seed, slot->position, slot->state, probed,
                                device->place.vocab_real);
    if (slot->position < slot->opening.stops_from)
        token = oracle_avoid(token, slot->opening.stop_ids, slot->opening.stop_count,
                             device->place.vocab_real);
    slot->token_next = token;
    result->tokens[result->count++] = token;
    if (is_stop(&slot->opening, token))
        slot->end = END_STOP;
    else if (slot->position + 1 >= slot->opening.tokens_end)
        slot->end = END_LENGTH;
}

// Whether the draft for `position` was right: as good as chance, but the same on all ranks.
static bool draft_is_right(const struct device_slot *slot, int32_t position)
{
    return oracle_fold(slot->opening.seed, position) % 3 != 0;
}

// The known token and the drafts there are, as far as pages, the output's end and a place that the
// row is told of reach; accepted while they are what was drawn. A row that begins at its place
// saves what came before it.
static void run_decode(struct device *device, const struct step_plan_row *row, int32_t verify,
                       struct step_result *result)
{
    int32_t index = row->slot;
    struct device_slot *slot = &device->slots[index];
    if (row->checkpoint >= 0 && slot->position == row->checkpoint_at)
        device->checkpoints[row->checkpoint] =
            (struct device_checkpoint){.position = slot->position, .state = slot->state};
    int32_t tokens = 1 + slot->drafts < verify ? 1 + slot->drafts : verify;
    int32_t room = slot->pages_count * TOKENS_PER_PAGE - slot->position;
    int32_t useful = slot->opening.tokens_end - 1 - slot->position;
    tokens = tokens < room ? tokens : room;
    tokens = tokens < useful ? tokens : useful;
    if (slot->position < row->checkpoint_at && tokens > row->checkpoint_at - slot->position)
        tokens = row->checkpoint_at - slot->position;
    for (int32_t i = 0; i < tokens && slot->end == END_RUNS; i++) {
        if (i > 0 && !draft_is_right(slot, slot->position))
            break;
        run_token(device, index, slot->token_next);
        draw(device, index, result);
    }
}

// A prefill row has run so many tokens.
static void save_prefix(struct device *device, const struct step_plan_row *row, int32_t tokens)
{
    const struct device_slot *slot = &device->slots[row->slot];
    for (int i = 0; i < row->saves_count; i++) {
        if (row->saves[i].tokens == tokens)
            device->checkpoints[row->saves[i].checkpoint] =
                (struct device_checkpoint){.position = slot->position, .state = slot->state};
    }
}

static void run_row(struct device *device, const struct step_plan *plan,
                    const struct step_plan_row *row, struct step_result *result)
{
    struct device_slot *slot = &device->slots[row->slot];
    *result = (struct step_result){.slot = row->slot, .tokens = {-1, -1, -1, -1, -1, -1}};
    bool decode = row->kind == STEP_ROW_DECODE;
    bool room = slot->opening.tokens_end - 1 - slot->position > 0;
    if (slot->end != END_RUNS || (decode && (slot->token_next < 0 || !room)))
        return; // inert
    if (decode)
        run_decode(device, row, plan->verify, result);
    for (int32_t t = 0; !decode && t < row->tokens_count; t++) {
        run_token(device, row->slot, plan->tokens[row->tokens_first + t]);
        save_prefix(device, row, t + 1);
    }
    if (!decode && row->sample != 0)
        draw(device, row->slot, result);
    else if (!decode)
        slot->token_next = row->token_next;
    slot->drafts = decode || row->sample != 0 ? plan->draft : 0;
    result->end = slot->end;
}

static uint64_t fold_hash(uint64_t hash, const struct step_result *result)
{
    hash = oracle_fold(hash, result->slot);
    for (int32_t i = 0; i < result->count; i++)
        hash = oracle_fold(hash, result->tokens[i]);
    return hash;
}

enum status device_run(struct device *device, struct step_plan *plan, struct report *report,
                       struct error *error)
{
    size_t place = (device->done + 1) % DEVICE_STAGING;
    uint8_t *frame = device->queue[place].frame;
    TRY(step_plan_decode(plan, frame, device->queue[place].frame_bytes, error));
    free(frame);
    device->queue[place].frame = NULL;
    TRY(run_closes(device, plan, error));
    TRY(run_copies(device, plan, error));
    for (int i = 0; i < plan->opens_count; i++)
        TRY(run_open(device, &plan->opens[i], error));
    for (int i = 0; i < plan->pages_count; i++)
        TRY(run_pages(device, plan, &plan->pages[i], error));
    TRY(check_rows(device, plan, error));
    report->hash = plan->step;
    report->rows_count = plan->rows_count;
    for (int i = 0; i < plan->rows_count; i++) {
        run_row(device, plan, &plan->rows[i], &report->rows[i]);
        report->hash = fold_hash(report->hash, &report->rows[i]);
    }
    device->done = plan->step;
    device->drafts_made = plan->draft;
    report->group = device->place.group;
    report->rank = device->place.rank;
    report->epoch = device->place.epoch;
    report->step = plan->step;
    return OK;
}
