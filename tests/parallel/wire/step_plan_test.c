// SPDX-License-Identifier: Apache-2.0
// step_plan_test.c -- plans there and back, full to the brim, cut at every byte, with every key
// unknown, missing and doubled, and every field one beyond its limit.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "parallel/wire/messages.h"
#include "parallel/wire/writer.h"

static struct step_plan plan, copy;
static uint8_t frame[WIRE_WORKER_FRAME_BYTES_MAX];
static size_t frame_bytes;
static struct error error;

static int set_up(void **state)
{
    (void)state;
    return step_plan_open(&plan, &error) != OK || step_plan_open(&copy, &error) != OK;
}

static int tear_down(void **state)
{
    (void)state;
    step_plan_close(&plan);
    step_plan_close(&copy);
    return 0;
}

// A plan with every table in use and numbers that differ from one another.
static void fill(struct step_plan *p)
{
    step_plan_clear(p);
    p->group = 3;
    p->step = UINT64_MAX;
    p->epoch = 7;
    p->verify = 4;
    p->draft = 3;
    p->closes_count = 2;
    p->closes[0] = 5;
    p->closes[1] = 1023;
    p->copies_count = 1;
    p->copies[0] = (struct step_copy){.checkpoint = 17, .slot = 9};
    p->opens_count = 2;
    p->opens[0] = (struct step_open){.slot = 9,
                                     .position = 128,
                                     .prompt_tokens = 131,
                                     .tokens_end = 400,
                                     .page_limit = 7,
                                     .seed = 0xFEDCBA9876543210u,
                                     .temperature = 0.7f,
                                     .top_k = 20,
                                     .top_p = 0.95f,
                                     .min_p = 0.05f,
                                     .repetition = 1.25f,
                                     .frequency = -2,
                                     .presence = 1.5f,
                                     .stops_from = 140,
                                     .stop_count = 2,
                                     .stop_ids = {248044, 248046}};
    p->opens[1] = (struct step_open){
        .slot = 1, .prompt_tokens = 1, .tokens_end = 2, .page_limit = 1, .stop_count = 0};
    p->page_ids_count = 5;
    for (int i = 0; i < 5; i++)
        p->page_ids[i] = 1000 + i;
    p->pages_count = 2;
    p->pages[0] = (struct step_pages){.slot = 9, .first = 2, .count = 3, .ids_first = 0};
    p->pages[1] = (struct step_pages){.slot = 1, .first = 0, .count = 2, .ids_first = 3};
    p->tokens_count = 4;
    for (int i = 0; i < 4; i++)
        p->tokens[i] = INT32_MAX - i;
    p->rows_count = 4;
    p->rows[0] = (struct step_plan_row){
        .slot = 2, .kind = STEP_ROW_DECODE, .token_next = -1, .sample = 1, .checkpoint = -1};
    p->rows[1] = p->rows[0];
    p->rows[1].slot = 300;
    p->rows[1].checkpoint = 5;
    p->rows[1].checkpoint_at = 8192;
    p->rows[2] = (struct step_plan_row){.slot = 9,
                                        .kind = STEP_ROW_PREFILL,
                                        .tokens_first = 0,
                                        .tokens_count = 3,
                                        .token_next = 77,
                                        .sample = 0,
                                        .prompt_logprobs = 5,
                                        .saves_count = 2,
                                        .saves = {{6, 1}, {0, 3}},
                                        .checkpoint = -1};
    p->rows[3] = (struct step_plan_row){.slot = 1,
                                        .kind = STEP_ROW_PREFILL,
                                        .tokens_first = 3,
                                        .tokens_count = 1,
                                        .token_next = -1,
                                        .sample = 1,
                                        .checkpoint = -1};
}

// By members: the struct has padding.
static void same_open(const struct step_open *a, const struct step_open *b)
{
    assert_int_equal(a->slot, b->slot);
    assert_int_equal(a->position, b->position);
    assert_int_equal(a->prompt_tokens, b->prompt_tokens);
    assert_int_equal(a->tokens_end, b->tokens_end);
    assert_int_equal(a->page_limit, b->page_limit);
    assert_true(a->seed == b->seed);
    assert_true(a->temperature == b->temperature);
    assert_int_equal(a->top_k, b->top_k);
    assert_true(a->top_p == b->top_p && a->min_p == b->min_p);
    assert_true(a->repetition == b->repetition);
    assert_true(a->frequency == b->frequency && a->presence == b->presence);
    assert_int_equal(a->stops_from, b->stops_from);
    assert_int_equal(a->stop_count, b->stop_count);
    assert_memory_equal(a->stop_ids, b->stop_ids, (size_t)a->stop_count * sizeof *a->stop_ids);
}

static void same(const struct step_plan *a, const struct step_plan *b)
{
    assert_int_equal(a->group, b->group);
    assert_true(a->step == b->step);
    assert_true(a->epoch == b->epoch);
    assert_int_equal(a->verify, b->verify);
    assert_int_equal(a->draft, b->draft);
#define SAME(count, array)                                                                         \
    assert_int_equal(a->count, b->count);                                                          \
    assert_memory_equal(a->array, b->array, (size_t)a->count * sizeof *a->array)
    SAME(closes_count, closes);
    SAME(copies_count, copies);
    assert_int_equal(a->opens_count, b->opens_count);
    for (int i = 0; i < a->opens_count; i++)
        same_open(&a->opens[i], &b->opens[i]);
    SAME(pages_count, pages);
    SAME(rows_count, rows);
    SAME(page_ids_count, page_ids);
    SAME(tokens_count, tokens);
#undef SAME
}

static void encode(void)
{
    assert_int_equal(step_plan_encode(frame, sizeof frame, &frame_bytes, &plan), OK);
}

static void refused(const char *part)
{
    error.text[0] = '\0';
    encode();
    assert_int_equal(step_plan_decode(&copy, frame, frame_bytes, &error), E_MALFORMED);
    if (strstr(error.text, part) == NULL)
        fail_msg("'%s' is not in '%s'", part, error.text);
    assert_int_equal(copy.rows_count, 0); // nothing half made is left behind
}

static void there_and_back(void **state)
{
    (void)state;
    fill(&plan);
    encode();
    assert_int_equal(message_type_of(frame, frame_bytes), MESSAGE_PLAN);
    assert_int_equal(step_plan_decode(&copy, frame, frame_bytes, &error), OK);
    same(&plan, &copy);
    step_plan_clear(&plan);
    encode();
    assert_int_equal(step_plan_decode(&copy, frame, frame_bytes, &error), OK);
    same(&plan, &copy);
}

static void decode_rows_cost_a_few_bytes(void **state)
{
    (void)state;
    step_plan_clear(&plan);
    encode();
    size_t empty_bytes = frame_bytes;
    assert_true(empty_bytes < 100);
    for (int i = 0; i < 256; i++)
        plan.rows[i] = (struct step_plan_row){
            .slot = i, .kind = STEP_ROW_DECODE, .token_next = -1, .sample = 1, .checkpoint = -1};
    plan.rows_count = 256;
    encode();
    assert_true(frame_bytes - empty_bytes <= 2 + 128 * 1 + 128 * 2);
}

static void the_largest_plan_fits_its_frame(void **state)
{
    (void)state;
    fill(&plan);
    struct step_open open = plan.opens[0];
    open.stop_count = STEP_STOP_IDS_MAX;
    open.position = open.prompt_tokens = open.tokens_end = open.page_limit = INT32_MAX;
    for (int i = 0; i < STEP_STOP_IDS_MAX; i++)
        open.stop_ids[i] = INT32_MAX - i;
    plan.closes_count = plan.copies_count = plan.opens_count = STEP_ROWS_MAX;
    plan.pages_count = plan.rows_count = STEP_ROWS_MAX;
    plan.page_ids_count = STEP_PAGE_IDS_MAX;
    plan.tokens_count = STEP_PREFILL_TOKENS_MAX;
    for (int i = 0; i < STEP_PREFILL_TOKENS_MAX; i++)
        plan.tokens[i] = 7 * i;
    for (int i = 0; i < STEP_PAGE_IDS_MAX; i++)
        plan.page_ids[i] = 3 * i;
    const int pages_each = STEP_PAGE_IDS_MAX / STEP_ROWS_MAX;
    const int tokens_each = STEP_PREFILL_TOKENS_MAX / STEP_ROWS_MAX;
    for (int i = 0; i < STEP_ROWS_MAX; i++) {
        plan.closes[i] = i;
        plan.copies[i] = (struct step_copy){INT32_MAX, i};
        plan.opens[i] = open;
        plan.pages[i] = (struct step_pages){i, INT32_MAX, pages_each, i * pages_each};
        plan.rows[i] = (struct step_plan_row){.slot = i,
                                              .kind = STEP_ROW_PREFILL,
                                              .tokens_first = i * tokens_each,
                                              .tokens_count = tokens_each,
                                              .token_next = INT32_MAX,
                                              .prompt_logprobs = 1 + STEP_LOGPROBS_TOP_MAX,
                                              .saves_count = STEP_SAVES_MAX,
                                              .checkpoint = -1};
        for (int k = 0; k < STEP_SAVES_MAX; k++)
            plan.rows[i].saves[k] = (struct step_save){INT32_MAX, tokens_each};
    }
    encode();
    assert_int_equal(step_plan_decode(&copy, frame, frame_bytes, &error), OK);
    same(&plan, &copy);
    // A byte less of buffer is refused, and nothing is written beyond it.
    uint8_t *small = malloc(frame_bytes);
    size_t bytes = 1;
    small[frame_bytes - 1] = 0xA5;
    assert_int_equal(step_plan_encode(small, frame_bytes - 1, &bytes, &plan), E_LIMIT);
    assert_int_equal(bytes, 0);
    assert_int_equal(small[frame_bytes - 1], 0xA5);
    free(small);
}

static void cut_anywhere_is_malformed(void **state)
{
    (void)state;
    fill(&plan);
    encode();
    for (size_t cut = 0; cut < frame_bytes; cut++) {
        uint8_t *piece = malloc(cut + 1); // exact size, so that asan sees a read beyond
        memcpy(piece, frame, cut);
        error.text[0] = '\0';
        assert_int_equal(step_plan_decode(&copy, piece, cut, &error), E_MALFORMED);
        assert_memory_equal(error.text, "plan: ", 6);
        free(piece);
    }
    frame[frame_bytes] = 0xC0;
    assert_int_equal(step_plan_decode(&copy, frame, frame_bytes + 1, &error), E_MALFORMED);
    assert_string_equal(error.text, "plan: 1 bytes too many");
}

static void every_changed_byte_is_survived(void **state)
{
    (void)state;
    fill(&plan);
    encode();
    for (size_t i = 0; i < frame_bytes; i++) {
        uint8_t kept = frame[i];
        for (int value = 0; value < 256; value++) {
            frame[i] = (uint8_t)value;
            enum status status = step_plan_decode(&copy, frame, frame_bytes, &error);
            assert_true(status == OK || status == E_MALFORMED);
        }
        frame[i] = kept;
    }
}

// Where `key` begins in the frame, its head byte included.
static size_t place_of(const char *key)
{
    size_t bytes = strlen(key);
    for (size_t i = 0; i + bytes < frame_bytes; i++) {
        if (frame[i] == (0xA0 | bytes) && memcmp(frame + i + 1, key, bytes) == 0)
            return i;
    }
    fail_msg("no key '%s' in the frame", key);
    return 0;
}

static void every_key_is_needed_known_and_single(void **state)
{
    (void)state;
    static const char *const keys[] = {
        "t",    "group", "step", "epoch", "verify", "draft", "closes", "opens", "copies", "pages",
        "rows", "slot",  "pos",  "end",   "prompt", "limit", "seed",   "temp",  "stop"};
    fill(&plan);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        encode();
        frame[place_of(keys[i]) + 1] = 'Z'; // no key begins so: an unknown one in its stead
        assert_int_equal(step_plan_decode(&copy, frame, frame_bytes, &error), E_MALFORMED);
        assert_non_null(strstr(error.text, "is unknown"));
        assert_non_null(strstr(error.text, "'Z"));
    }
    // A map with one pair less misses its last key; doubled keys have the same length.
    encode();
    frame[0]--;
    assert_int_equal(step_plan_decode(&copy, frame, place_of("rows"), &error), E_MALFORMED);
    assert_string_equal(error.text, "plan: key 'rows' is missing");
    encode();
    memcpy(frame + place_of("epoch") + 1, "group", 5);
    assert_int_equal(step_plan_decode(&copy, frame, frame_bytes, &error), E_MALFORMED);
    assert_string_equal(error.text, "plan: 'group': this key comes twice");
}

static void every_field_has_its_limit(void **state)
{
    (void)state;
#define REFUSED(change, part)                                                                      \
    fill(&plan);                                                                                   \
    plan.change;                                                                                   \
    refused(part)
    REFUSED(group = WIRE_GROUPS_MAX, "'group': 64 is outside 0 .. 63");
    REFUSED(group = -1, "'group': -1 is outside 0 .. 63");
    REFUSED(verify = 0, "'verify': 0 is outside 1 .. 6");
    REFUSED(verify = 7, "'verify': 7 is outside 1 .. 6");
    REFUSED(draft = -1, "'draft': -1 is outside 0 .. 5");
    REFUSED(draft = 6, "'draft': 6 is outside 0 .. 5");
    REFUSED(closes[1] = STEP_ROWS_MAX, "'closes'[1]: 1024 is outside 0 .. 1023");
    REFUSED(closes[0] = -1, "'closes'[0]: -1 is outside");
    REFUSED(copies[0].checkpoint = -1, "'copies'[0]: -1 is outside");
    REFUSED(copies[0].slot = STEP_ROWS_MAX, "'copies'[0]: 1024 is outside");
    REFUSED(opens[0].slot = STEP_ROWS_MAX, "'slot': 1024 is outside");
    REFUSED(opens[0].position = -1, "'pos': -1 is outside");
    REFUSED(opens[0].prompt_tokens = 0, "'prompt': 0 is outside 1 ..");
    REFUSED(opens[0].tokens_end = 0, "'end': 0 is outside 1 ..");
    REFUSED(opens[0].page_limit = 0, "'limit': 0 is outside 1 ..");
    REFUSED(opens[0].temperature = -0.5f, "'temp': -0.5 is outside 0");
    REFUSED(opens[0].temperature = strtof("nan", NULL), "'temp': nan is outside 0");
    REFUSED(opens[0].temperature = strtof("inf", NULL), "'temp': inf is outside 0");
    REFUSED(opens[0].top_k = -1, "'top_k': -1 is outside 0 ..");
    REFUSED(opens[0].top_p = 1.5f, "'top_p': 1.5 is outside 0 .. 1");
    REFUSED(opens[0].top_p = -0.5f, "'top_p': -0.5 is outside 0 .. 1");
    REFUSED(opens[0].min_p = 1.5f, "'min_p': 1.5 is outside 0 .. 1");
    REFUSED(opens[0].repetition = -1, "'rep': -1 is outside 0 ..");
    REFUSED(opens[0].frequency = 2.5f, "'freq': 2.5 is outside -2 .. 2");
    REFUSED(opens[0].presence = -2.5f, "'pres': -2.5 is outside -2 .. 2");
    REFUSED(opens[0].presence = strtof("nan", NULL), "'pres': nan is outside -2 .. 2");
    REFUSED(opens[0].stops_from = -1, "'from': -1 is outside 0 ..");
    REFUSED(opens[0].logprobs = 22, "'logp': 22 is outside 0 .. 21");
    REFUSED(opens[0].drafts = 7, "'drafts': 7 is outside 0 .. 6");
    REFUSED(opens[0].stop_ids[1] = -1, "'stop': -1 is outside");
    REFUSED(pages[0].slot = -1, "'pages'[0]: -1 is outside");
    REFUSED(pages[1].first = -1, "'pages'[1]: -1 is outside");
    REFUSED(page_ids[4] = -2, "'pages'[1]: number 1 is -2, the least allowed is 0");
    REFUSED(tokens[2] = -2, "'rows'[2]: number 2 is -2, the least allowed is 0");
    REFUSED(rows[1].slot = STEP_ROWS_MAX, "'rows'[1]: 1024 is outside");
    REFUSED(rows[1].checkpoint_at = 0, "'rows'[1]: 0 is outside 1 ..");
    REFUSED(rows[3].slot = -1, "'rows'[3]: -1 is outside");
    REFUSED(rows[3].token_next = -2, "'rows'[3]: -2 is outside -1 ..");
    REFUSED(rows[3].sample = 2, "'rows'[3]: 2 is outside 0 .. 1");
    REFUSED(rows[3].prompt_logprobs = -1, "'rows'[3]: -1 is outside 0 ..");
    REFUSED(rows[3].prompt_logprobs = 22, "'rows'[3]: 22 is outside 0 .. 21");
    REFUSED(rows[2].saves[1].checkpoint = -1, "'rows'[2]: -1 is outside 0 ..");
    REFUSED(rows[2].saves[0].tokens = 0, "'rows'[2]: 0 is outside 1 .. 3");
    REFUSED(rows[2].saves[1].tokens = 4, "'rows'[2]: 4 is outside 1 .. 3");
    fill(&plan);
    struct step_plan_row row = plan.rows[0];
    plan.rows[0] = plan.rows[3];
    plan.rows[3] = row;
    refused("'rows'[1]: a decode row after a prefill row");
    plan.rows[1].checkpoint = -1;
    refused("'rows'[1]: a decode row after a prefill row");
#undef REFUSED
}

// Writes a plan whose table `key` is whatever `body` writes; the other tables are empty.
static void refused_table(const char *key, void (*body)(struct writer *), const char *part)
{
    static const char *const tables[] = {"closes", "copies", "opens", "pages", "rows"};
    struct writer w;
    writer_init(&w, frame, sizeof frame);
    writer_map(&w, 11);
    writer_key(&w, "t");
    writer_key(&w, "plan");
    static const char *const numbers[] = {"group", "step", "epoch", "verify", "draft"};
    for (int i = 0; i < 5; i++) {
        writer_key(&w, numbers[i]);
        writer_int(&w, 1);
    }
    for (int i = 0; i < 5; i++) {
        writer_key(&w, tables[i]);
        if (strcmp(tables[i], key) == 0)
            body(&w);
        else
            writer_array(&w, 0);
    }
    assert_int_equal(writer_end(&w, &frame_bytes), OK);
    assert_int_equal(step_plan_decode(&copy, frame, frame_bytes, &error), E_MALFORMED);
    if (strstr(error.text, part) == NULL)
        fail_msg("'%s' is not in '%s'", part, error.text);
}

static void too_many_rows(struct writer *w)
{
    writer_array(w, STEP_ROWS_MAX + 1);
    for (int i = 0; i <= STEP_ROWS_MAX; i++)
        writer_int(w, 1);
}

static void prefill_of(struct writer *w, int32_t tokens)
{
    writer_array(w, 6);
    writer_int(w, 1);
    writer_int32s(w, plan.tokens, tokens);
    writer_int(w, -1);
    writer_int(w, 1);
    writer_int(w, 0);
    writer_array(w, 0);
}

static void too_many_tokens(struct writer *w)
{
    writer_array(w, 2);
    prefill_of(w, STEP_PREFILL_TOKENS_MAX);
    prefill_of(w, 1);
}

static void no_tokens(struct writer *w)
{
    writer_array(w, 1);
    prefill_of(w, 0);
}

static void odd_tokens(struct writer *w)
{
    writer_array(w, 1);
    writer_array(w, 6);
    writer_int(w, 1);
    writer_bin(w, "abcde", 5);
}

static void elements(struct writer *w, int count)
{
    writer_array(w, 1);
    writer_array(w, (size_t)count);
    for (int i = 0; i < count; i++)
        writer_int(w, 1);
}

static void no_element(struct writer *w)
{
    elements(w, 0);
}

static void one_element(struct writer *w)
{
    elements(w, 1);
}

static void two_elements(struct writer *w)
{
    elements(w, 2);
}

static void five_elements(struct writer *w)
{
    elements(w, 5);
}

static void seven_elements(struct writer *w)
{
    elements(w, 7);
}

static void no_checkpoint(struct writer *w)
{
    writer_array(w, 1);
    writer_array(w, 3);
    writer_int(w, 1);
    writer_int(w, -1);
    writer_int(w, 64);
}

// A prefill row whose checkpoints are so many numbers.
static void saves_of(struct writer *w, int numbers)
{
    writer_array(w, 1);
    writer_array(w, 6);
    writer_int(w, 1);
    writer_int32s(w, plan.tokens, 64);
    writer_int(w, -1);
    writer_int(w, 1);
    writer_int(w, 0);
    writer_array(w, (size_t)numbers);
    for (int i = 0; i < numbers; i++)
        writer_int(w, 1);
}

static void three_numbers(struct writer *w)
{
    saves_of(w, 3);
}

static void ten_numbers(struct writer *w)
{
    saves_of(w, 2 * STEP_SAVES_MAX + 2);
}

static void no_page_ids(struct writer *w)
{
    writer_array(w, 1);
    writer_array(w, 3);
    writer_int(w, 1);
    writer_int(w, 0);
    writer_bin(w, "", 0);
}

static void too_many_page_ids(struct writer *w)
{
    writer_array(w, 2);
    for (int i = 0; i < 2; i++) {
        writer_array(w, 3);
        writer_int(w, 1);
        writer_int(w, 0);
        writer_int32s(w, plan.tokens, i == 0 ? STEP_PAGE_IDS_MAX : 1);
    }
}

static void a_string(struct writer *w)
{
    writer_key(w, "many");
}

static void lying_tables_are_refused(void **state)
{
    (void)state;
    memset(plan.tokens, 0, STEP_PREFILL_TOKENS_MAX * sizeof *plan.tokens);
    refused_table("rows", too_many_rows, "'rows': 1025 elements, the limit is 1024");
    refused_table("closes", too_many_rows, "'closes': 1025 elements, the limit is 1024");
    refused_table("copies", too_many_rows, "'copies': 1025 elements, the limit is 1024");
    refused_table("opens", too_many_rows, "'opens': 1025 elements, the limit is 1024");
    refused_table("pages", too_many_rows, "'pages': 1025 elements, the limit is 1024");
    refused_table("rows", too_many_tokens, "'rows'[1]: 4 bytes, the limit is 0");
    refused_table("rows", no_tokens, "'rows'[0]: a prefill row without tokens");
    refused_table("rows", odd_tokens, "'rows'[0]: 5 bytes are no array of 4-byte numbers");
    refused_table("rows", no_element, "'rows'[0]: 0 elements where 3 or 6 belong");
    refused_table("rows", one_element, "'rows'[0]: 1 elements where 3 or 6 belong");
    refused_table("rows", two_elements, "'rows'[0]: 2 elements where 3 or 6 belong");
    refused_table("rows", five_elements, "'rows'[0]: 5 elements where 3 or 6 belong");
    refused_table("rows", seven_elements, "'rows'[0]: 7 elements, the limit is 6");
    refused_table("rows", no_checkpoint, "'rows'[0]: -1 is outside 0 ..");
    refused_table("rows", three_numbers, "'rows'[0]: a checkpoint without a place");
    refused_table("rows", ten_numbers, "'rows'[0]: 10 elements, the limit is 8");
    refused_table("pages", no_page_ids, "'pages'[0]: no page ids");
    refused_table("pages", too_many_page_ids, "'pages'[1]: 4 bytes, the limit is 0");
    refused_table("rows", a_string, "'rows': a string where an array belongs");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(decode_rows_cost_a_few_bytes),
        cmocka_unit_test(the_largest_plan_fits_its_frame),
        cmocka_unit_test(cut_anywhere_is_malformed),
        cmocka_unit_test(every_changed_byte_is_survived),
        cmocka_unit_test(every_key_is_needed_known_and_single),
        cmocka_unit_test(every_field_has_its_limit),
        cmocka_unit_test(lying_tables_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
