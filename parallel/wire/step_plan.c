// SPDX-License-Identifier: Apache-2.0
// step_plan.c -- the storage of a step plan and its compact map. A decode row is its bare slot, or
// [slot, checkpoint, checkpoint_at]; a prefill row [slot, tokens, next, sample, prompt_logprobs,
// saves], saves being [checkpoint, tokens, checkpoint, tokens, ..]; tokens, page ids and lists
// travel as binaries of little-endian int32; a copy is [checkpoint, slot], pages are [slot, first,
// ids].
#include "parallel/wire/messages.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/wire/fields.h"
#include "parallel/wire/reader.h"
#include "parallel/wire/writer.h"

enum { ROW_SAVE_ELEMENTS = 3, ROW_PREFILL_ELEMENTS = 6 };

enum status step_plan_open(struct step_plan *plan, struct error *error)
{
    const size_t bytes =
        STEP_ROWS_MAX * (sizeof *plan->opens + sizeof *plan->rows + sizeof *plan->pages +
                         sizeof *plan->copies + sizeof *plan->closes) +
        (STEP_PAGE_IDS_MAX + STEP_PREFILL_TOKENS_MAX + STEP_LISTS_MAX) * sizeof(int32_t);
    struct step_open *opens = calloc(1, bytes);
    if (opens == NULL)
        return error_set(error, E_SYSTEM, "no memory for a step plan of %zu bytes", bytes);
    // The strictest alignment first: opens holds 64-bit seeds, the rest 32-bit numbers only.
    *plan = (struct step_plan){.opens = opens};
    plan->rows = (struct step_plan_row *)(plan->opens + STEP_ROWS_MAX);
    plan->pages = (struct step_pages *)(plan->rows + STEP_ROWS_MAX);
    plan->copies = (struct step_copy *)(plan->pages + STEP_ROWS_MAX);
    plan->closes = (int32_t *)(plan->copies + STEP_ROWS_MAX);
    plan->page_ids = plan->closes + STEP_ROWS_MAX;
    plan->tokens = plan->page_ids + STEP_PAGE_IDS_MAX;
    plan->lists = plan->tokens + STEP_PREFILL_TOKENS_MAX;
    step_plan_clear(plan);
    return OK;
}

void step_plan_close(struct step_plan *plan)
{
    free(plan->opens);
    *plan = (struct step_plan){0};
}

void step_plan_clear(struct step_plan *plan)
{
    plan->group = 0;
    plan->step = plan->epoch = 0;
    plan->verify = 1;
    plan->draft = 0;
    plan->closes_count = plan->copies_count = plan->opens_count = 0;
    plan->pages_count = plan->rows_count = 0;
    plan->page_ids_count = plan->tokens_count = plan->lists_count = 0;
}

enum plan_key {
    PLAN_T,
    PLAN_GROUP,
    PLAN_STEP,
    PLAN_EPOCH,
    PLAN_VERIFY,
    PLAN_DRAFT,
    PLAN_CLOSES,
    PLAN_COPIES,
    PLAN_OPENS,
    PLAN_PAGES,
    PLAN_ROWS,
    PLAN_KEYS
};

static const char *const plan_keys[PLAN_KEYS] = {
    "t", "group", "step", "epoch", "verify", "draft", "closes", "copies", "opens", "pages", "rows",
};

enum open_key {
    OPEN_SLOT,
    OPEN_POSITION,
    OPEN_PROMPT,
    OPEN_END,
    OPEN_LIMIT,
    OPEN_SEED,
    OPEN_TEMPERATURE,
    OPEN_TOP_K,
    OPEN_TOP_P,
    OPEN_MIN_P,
    OPEN_REPETITION,
    OPEN_FREQUENCY,
    OPEN_PRESENCE,
    OPEN_STOPS_FROM,
    OPEN_STOP,
    OPEN_LOGPROBS,
    OPEN_DRAFTS,
    OPEN_BIAS,
    OPEN_ALLOW,
    OPEN_WORDS,
    OPEN_RECENT,
    OPEN_KEYS
};

static const char *const open_keys[OPEN_KEYS] = {
    "slot", "pos",  "prompt", "end",  "limit", "seed",   "temp", "top_k", "top_p", "min_p",  "rep",
    "freq", "pres", "from",   "stop", "logp",  "drafts", "bias", "allow", "words", "recent",
};

// ---- Writing. Counts out of range are our own bug. ----

static void write_lists(struct writer *writer, const struct step_plan *plan,
                        const struct step_open *open)
{
    const int32_t *at = plan->lists + open->lists_first;
    ASSERT(open->bias_count >= 0 && open->allowed_count >= 0 && open->words_count >= 0);
    ASSERT(
        step_open_lists(open) == 0 ||
        (open->lists_first >= 0 && step_open_lists(open) <= plan->lists_count - open->lists_first));
    writer_key(writer, "bias");
    writer_int32s(writer, at, 2 * open->bias_count);
    writer_key(writer, "allow");
    writer_int32s(writer, at + 2 * open->bias_count, open->allowed_count);
    writer_key(writer, "words");
    writer_int32s(writer, at + 2 * open->bias_count + open->allowed_count, open->words_count);
    writer_key(writer, "recent");
    writer_int32s(writer, open->recent, open->recent_count);
}

static void write_open(struct writer *writer, const struct step_plan *plan,
                       const struct step_open *open)
{
    ASSERT(open->stop_count >= 0 && open->stop_count <= STEP_STOP_IDS_MAX);
    writer_map(writer, OPEN_KEYS);
    writer_key(writer, "slot");
    writer_int(writer, open->slot);
    writer_key(writer, "pos");
    writer_int(writer, open->position);
    writer_key(writer, "prompt");
    writer_int(writer, open->prompt_tokens);
    writer_key(writer, "end");
    writer_int(writer, open->tokens_end);
    writer_key(writer, "limit");
    writer_int(writer, open->page_limit);
    writer_key(writer, "seed");
    writer_uint(writer, open->seed);
    writer_key(writer, "temp");
    writer_float(writer, open->temperature);
    writer_key(writer, "top_k");
    writer_int(writer, open->top_k);
    writer_key(writer, "top_p");
    writer_float(writer, open->top_p);
    writer_key(writer, "min_p");
    writer_float(writer, open->min_p);
    writer_key(writer, "rep");
    writer_float(writer, open->repetition);
    writer_key(writer, "freq");
    writer_float(writer, open->frequency);
    writer_key(writer, "pres");
    writer_float(writer, open->presence);
    writer_key(writer, "from");
    writer_int(writer, open->stops_from);
    writer_key(writer, "stop");
    writer_array(writer, (size_t)open->stop_count);
    for (int32_t i = 0; i < open->stop_count; i++)
        writer_int(writer, open->stop_ids[i]);
    writer_key(writer, "logp");
    writer_int(writer, open->logprobs);
    writer_key(writer, "drafts");
    writer_int(writer, open->drafts);
    write_lists(writer, plan, open);
}

static void write_row(struct writer *writer, const struct step_plan *plan,
                      const struct step_plan_row *row)
{
    if (row->kind == STEP_ROW_DECODE && row->checkpoint < 0) {
        writer_int(writer, row->slot);
        return;
    }
    if (row->kind == STEP_ROW_DECODE) {
        writer_array(writer, ROW_SAVE_ELEMENTS);
        writer_int(writer, row->slot);
        writer_int(writer, row->checkpoint);
        writer_int(writer, row->checkpoint_at);
        return;
    }
    ASSERT(row->tokens_first >= 0 && row->tokens_count >= 1 &&
           row->tokens_count <= plan->tokens_count - row->tokens_first);
    writer_array(writer, ROW_PREFILL_ELEMENTS);
    writer_int(writer, row->slot);
    writer_int32s(writer, plan->tokens + row->tokens_first, row->tokens_count);
    writer_int(writer, row->token_next);
    writer_int(writer, row->sample);
    writer_int(writer, row->prompt_logprobs);
    writer_array(writer, 2 * (size_t)row->saves_count);
    for (int32_t i = 0; i < row->saves_count; i++) {
        writer_int(writer, row->saves[i].checkpoint);
        writer_int(writer, row->saves[i].tokens);
    }
}

static void write_tables(struct writer *writer, const struct step_plan *plan)
{
    writer_key(writer, "closes");
    writer_array(writer, (size_t)plan->closes_count);
    for (int32_t i = 0; i < plan->closes_count; i++)
        writer_int(writer, plan->closes[i]);
    writer_key(writer, "copies");
    writer_array(writer, (size_t)plan->copies_count);
    for (int32_t i = 0; i < plan->copies_count; i++) {
        writer_array(writer, 2);
        writer_int(writer, plan->copies[i].checkpoint);
        writer_int(writer, plan->copies[i].slot);
    }
    writer_key(writer, "opens");
    writer_array(writer, (size_t)plan->opens_count);
    for (int32_t i = 0; i < plan->opens_count; i++)
        write_open(writer, plan, &plan->opens[i]);
    writer_key(writer, "pages");
    writer_array(writer, (size_t)plan->pages_count);
    for (int32_t i = 0; i < plan->pages_count; i++) {
        const struct step_pages *pages = &plan->pages[i];
        ASSERT(pages->ids_first >= 0 && pages->count >= 1 &&
               pages->count <= plan->page_ids_count - pages->ids_first);
        writer_array(writer, 3);
        writer_int(writer, pages->slot);
        writer_int(writer, pages->first);
        writer_int32s(writer, plan->page_ids + pages->ids_first, pages->count);
    }
    writer_key(writer, "rows");
    writer_array(writer, (size_t)plan->rows_count);
    for (int32_t i = 0; i < plan->rows_count; i++)
        write_row(writer, plan, &plan->rows[i]);
}

static bool within(int32_t count, int32_t count_max)
{
    return count >= 0 && count <= count_max;
}

enum status step_plan_encode(void *buffer, size_t buffer_bytes, size_t *bytes_out,
                             const struct step_plan *message)
{
    ASSERT(within(message->closes_count, STEP_ROWS_MAX));
    ASSERT(within(message->copies_count, STEP_ROWS_MAX));
    ASSERT(within(message->opens_count, STEP_ROWS_MAX));
    ASSERT(within(message->pages_count, STEP_ROWS_MAX));
    ASSERT(within(message->rows_count, STEP_ROWS_MAX));
    ASSERT(within(message->page_ids_count, STEP_PAGE_IDS_MAX));
    ASSERT(within(message->tokens_count, STEP_PREFILL_TOKENS_MAX));
    ASSERT(within(message->lists_count, STEP_LISTS_MAX));
    struct writer writer;
    writer_init(&writer, buffer, buffer_bytes);
    writer_map(&writer, PLAN_KEYS);
    writer_key(&writer, "t");
    writer_key(&writer, "plan");
    writer_key(&writer, "group");
    writer_int(&writer, message->group);
    writer_key(&writer, "step");
    writer_uint(&writer, message->step);
    writer_key(&writer, "epoch");
    writer_uint(&writer, message->epoch);
    writer_key(&writer, "verify");
    writer_int(&writer, message->verify);
    writer_key(&writer, "draft");
    writer_int(&writer, message->draft);
    write_tables(&writer, message);
    return writer_end(&writer, bytes_out);
}

// ---- Reading. Loops stop at the first error, so that a lying count costs nothing. ----

static int32_t read_slot(struct reader *reader)
{
    return reader_int32(reader, 0, STEP_ROWS_MAX - 1);
}

static void read_closes(struct reader *reader, struct step_plan *plan)
{
    plan->closes_count = reader_array(reader, STEP_ROWS_MAX);
    for (int32_t i = 0; i < plan->closes_count && reader->status == OK; i++) {
        reader->index = i;
        plan->closes[i] = read_slot(reader);
    }
}

static void read_copies(struct reader *reader, struct step_plan *plan)
{
    plan->copies_count = reader_array(reader, STEP_ROWS_MAX);
    for (int32_t i = 0; i < plan->copies_count && reader->status == OK; i++) {
        reader->index = i;
        reader_tuple(reader, 2);
        plan->copies[i].checkpoint = reader_int32(reader, 0, INT32_MAX);
        plan->copies[i].slot = read_slot(reader);
    }
}

// A list of at most count_max numbers behind the plan's others; *first is where it begins.
static int32_t read_list(struct reader *reader, struct step_plan *plan, int32_t count_max,
                         int32_t min, int32_t *first)
{
    int32_t room = STEP_LISTS_MAX - plan->lists_count;
    *first = plan->lists_count;
    int32_t count = reader_int32s(reader, plan->lists + plan->lists_count,
                                  room < count_max ? room : count_max, min);
    plan->lists_count += count;
    return count;
}

static void read_bias(struct reader *reader, struct step_plan *plan, struct step_open *open,
                      int32_t *first)
{
    int32_t count = read_list(reader, plan, 2 * STEP_BIASES_MAX, INT32_MIN, first);
    if (count % 2 != 0)
        reader_fail(reader, E_MALFORMED, "%d numbers, pairs are needed", (int)count);
    open->bias_count = count / 2;
}

static void read_open(struct reader *reader, struct step_plan *plan, struct step_open *open)
{
    int32_t firsts[3] = {0, 0, 0};
    struct reader_map map;
    *open = (struct step_open){0};
    reader_map_open(reader, &map, open_keys, OPEN_KEYS, true);
    for (int32_t key; (key = reader_map_key(reader, &map)) >= 0;) {
        switch ((enum open_key)key) {
        case OPEN_SLOT: open->slot = read_slot(reader); break;
        case OPEN_POSITION: open->position = reader_int32(reader, 0, INT32_MAX); break;
        case OPEN_PROMPT: open->prompt_tokens = reader_int32(reader, 1, INT32_MAX); break;
        case OPEN_END: open->tokens_end = reader_int32(reader, 1, INT32_MAX); break;
        case OPEN_LIMIT: open->page_limit = reader_int32(reader, 1, INT32_MAX); break;
        case OPEN_SEED: open->seed = reader_uint64(reader); break;
        case OPEN_TEMPERATURE: open->temperature = (float)reader_real(reader, 0, FLT_MAX); break;
        case OPEN_TOP_K: open->top_k = reader_int32(reader, 0, INT32_MAX); break;
        case OPEN_TOP_P: open->top_p = (float)reader_real(reader, 0, 1); break;
        case OPEN_MIN_P: open->min_p = (float)reader_real(reader, 0, 1); break;
        case OPEN_REPETITION: open->repetition = (float)reader_real(reader, 0, FLT_MAX); break;
        case OPEN_FREQUENCY: open->frequency = (float)reader_real(reader, -2, 2); break;
        case OPEN_PRESENCE: open->presence = (float)reader_real(reader, -2, 2); break;
        case OPEN_STOPS_FROM: open->stops_from = reader_int32(reader, 0, INT32_MAX); break;
        case OPEN_STOP:
            open->stop_count = reader_array(reader, STEP_STOP_IDS_MAX);
            for (int32_t i = 0; i < open->stop_count && reader->status == OK; i++)
                open->stop_ids[i] = reader_int32(reader, 0, INT32_MAX);
            break;
        case OPEN_LOGPROBS:
            open->logprobs = reader_int32(reader, 0, 1 + STEP_LOGPROBS_TOP_MAX);
            break;
        case OPEN_DRAFTS: open->drafts = reader_int32(reader, 0, STEP_VERIFY_MAX); break;
        case OPEN_BIAS: read_bias(reader, plan, open, &firsts[0]); break;
        case OPEN_ALLOW:
            open->allowed_count = read_list(reader, plan, STEP_ALLOWED_MAX, 0, &firsts[1]);
            break;
        case OPEN_WORDS:
            open->words_count = read_list(reader, plan, STEP_WORDS_MAX, 0, &firsts[2]);
            break;
        case OPEN_RECENT:
            open->recent_count = reader_int32s(reader, open->recent, STEP_RECENT_MAX, 0);
            break;
        case OPEN_KEYS: break;
        }
    }
    open->lists_first = firsts[0];
    // Written one behind the other, so that they stand in the order that the device reads.
    if (reader->status == OK && (firsts[1] != firsts[0] + 2 * open->bias_count ||
                                 firsts[2] != firsts[1] + open->allowed_count))
        reader_fail(reader, E_MALFORMED, "lists are not in the order bias, allow, words");
}

static void read_opens(struct reader *reader, struct step_plan *plan)
{
    plan->opens_count = reader_array(reader, STEP_ROWS_MAX);
    for (int32_t i = 0; i < plan->opens_count && reader->status == OK; i++)
        read_open(reader, plan, &plan->opens[i]);
}

static void read_pages(struct reader *reader, struct step_plan *plan)
{
    plan->pages_count = reader_array(reader, STEP_ROWS_MAX);
    for (int32_t i = 0; i < plan->pages_count && reader->status == OK; i++) {
        struct step_pages *pages = &plan->pages[i];
        reader->index = i;
        reader_tuple(reader, 3);
        pages->slot = read_slot(reader);
        pages->first = reader_int32(reader, 0, INT32_MAX);
        pages->ids_first = plan->page_ids_count;
        pages->count = reader_int32s(reader, plan->page_ids + plan->page_ids_count,
                                     STEP_PAGE_IDS_MAX - plan->page_ids_count, 0);
        if (pages->count == 0)
            reader_fail(reader, E_MALFORMED, "no page ids");
        plan->page_ids_count += pages->count;
    }
}

static void read_saves(struct reader *reader, struct step_plan_row *row)
{
    int32_t elements = reader_array(reader, 2 * STEP_SAVES_MAX);
    if (elements % 2 != 0)
        reader_fail(reader, E_MALFORMED, "a checkpoint without a place");
    row->saves_count = elements / 2;
    for (int32_t i = 0; i < row->saves_count; i++) {
        row->saves[i].checkpoint = reader_int32(reader, 0, INT32_MAX);
        row->saves[i].tokens = reader_int32(reader, 1, row->tokens_count);
    }
}

static void read_prefill(struct reader *reader, struct step_plan *plan, struct step_plan_row *row)
{
    row->kind = STEP_ROW_PREFILL;
    row->slot = read_slot(reader);
    row->tokens_first = plan->tokens_count;
    row->tokens_count = reader_int32s(reader, plan->tokens + plan->tokens_count,
                                      STEP_PREFILL_TOKENS_MAX - plan->tokens_count, 0);
    if (row->tokens_count == 0)
        reader_fail(reader, E_MALFORMED, "a prefill row without tokens");
    plan->tokens_count += row->tokens_count;
    row->token_next = reader_int32(reader, -1, INT32_MAX);
    row->sample = reader_int32(reader, 0, 1);
    row->prompt_logprobs = reader_int32(reader, 0, 1 + STEP_LOGPROBS_TOP_MAX);
    read_saves(reader, row);
}

static void read_row(struct reader *reader, struct step_plan *plan, struct step_plan_row *row)
{
    *row = (struct step_plan_row){
        .kind = STEP_ROW_DECODE, .token_next = -1, .sample = 1, .checkpoint = -1};
    if (reader_peek(reader) != READER_ARRAY) {
        row->slot = read_slot(reader);
        return;
    }
    int32_t elements = reader_array(reader, ROW_PREFILL_ELEMENTS);
    if (elements == ROW_PREFILL_ELEMENTS) {
        read_prefill(reader, plan, row);
    } else if (elements == ROW_SAVE_ELEMENTS) {
        row->slot = read_slot(reader);
        row->checkpoint = reader_int32(reader, 0, INT32_MAX);
        row->checkpoint_at = reader_int32(reader, 1, INT32_MAX);
    } else {
        reader_fail(reader, E_MALFORMED, "%d elements where %d or %d belong", (int)elements,
                    ROW_SAVE_ELEMENTS, ROW_PREFILL_ELEMENTS);
    }
}

static void read_rows(struct reader *reader, struct step_plan *plan)
{
    bool prefill_seen = false;
    plan->rows_count = reader_array(reader, STEP_ROWS_MAX);
    for (int32_t i = 0; i < plan->rows_count && reader->status == OK; i++) {
        reader->index = i;
        read_row(reader, plan, &plan->rows[i]);
        bool prefill = plan->rows[i].kind == STEP_ROW_PREFILL;
        if (prefill_seen && !prefill)
            reader_fail(reader, E_MALFORMED, "a decode row after a prefill row");
        prefill_seen |= prefill;
    }
}

static void read_plan(struct reader *reader, struct step_plan *plan)
{
    struct reader_map map;
    reader_map_open(reader, &map, plan_keys, PLAN_KEYS, true);
    for (int32_t key; (key = reader_map_key(reader, &map)) >= 0;) {
        switch ((enum plan_key)key) {
        case PLAN_T: fields_read_type(reader, "plan"); break;
        case PLAN_GROUP: plan->group = reader_int32(reader, 0, WIRE_GROUPS_MAX - 1); break;
        case PLAN_STEP: plan->step = reader_uint64(reader); break;
        case PLAN_EPOCH: plan->epoch = reader_uint64(reader); break;
        case PLAN_VERIFY: plan->verify = reader_int32(reader, 1, STEP_VERIFY_MAX); break;
        case PLAN_DRAFT: plan->draft = reader_int32(reader, 0, STEP_VERIFY_MAX - 1); break;
        case PLAN_CLOSES: read_closes(reader, plan); break;
        case PLAN_COPIES: read_copies(reader, plan); break;
        case PLAN_OPENS: read_opens(reader, plan); break;
        case PLAN_PAGES: read_pages(reader, plan); break;
        case PLAN_ROWS: read_rows(reader, plan); break;
        case PLAN_KEYS: break;
        }
    }
}

enum status step_plan_decode(struct step_plan *out, const void *frame, size_t frame_bytes,
                             struct error *error)
{
    struct reader reader;
    reader_init(&reader, frame, frame_bytes, "plan", error);
    step_plan_clear(out);
    read_plan(&reader, out);
    enum status status = reader_end(&reader);
    if (status != OK)
        step_plan_clear(out);
    return status;
}
