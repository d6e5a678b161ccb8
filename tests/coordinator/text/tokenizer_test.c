// SPDX-License-Identifier: Apache-2.0
// tokenizer_test.c -- encoding against Hugging Face's answers: thousands of texts for three
// tokenizers and every code point for two; limits; many threads on one tokenizer.
#include "coordinator/text/tokenizer.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/text/code_point.h"
#include "tests/fixtures/text_golden.h"

enum { IDS_MAX = 40000, THREADS = 4, BLOCK = 256, BLOCKS = 0x110000 / BLOCK };

// Shows where two lists of ids part, and fails.
static void fail_ids(const char *text, size_t bytes, const struct token_ids *found,
                     const uint32_t *expected, size_t expected_count)
{
    size_t at = 0;
    while (at < found->count && at < expected_count && found->ids[at] == expected[at])
        at++;
    fail_msg("\"%.*s\" (%zu bytes): %zu ids, expected %zu; they part at %zu", (int)bytes, text,
             bytes, found->count, expected_count, at);
}

// Every text of a cases file; returns how many there were.
static size_t check_cases(const struct tokenizer *tokenizer, const char *name, const char *folder)
{
    struct text_golden golden;
    static uint32_t expected[IDS_MAX], ids[IDS_MAX];
    struct tokenizer_scratch *scratch = tokenizer_scratch_new(tokenizer);
    assert_non_null(scratch);
    text_golden_open(&golden, name, folder);
    const size_t texts = text_golden_number(&golden);
    for (size_t i = 0; i < texts; i++) {
        size_t bytes;
        struct error error;
        const char *text = text_golden_text(&golden, &bytes);
        const size_t expected_count = text_golden_ids(&golden, expected, IDS_MAX);
        struct token_ids found = {ids, 0, IDS_MAX};
        if (tokenizer_encode(tokenizer, scratch, &found, text, bytes, &error) != OK)
            fail_msg("text %zu: %s", i, error.text);
        if (found.count != expected_count ||
            memcmp(ids, expected, expected_count * sizeof *ids) != 0)
            fail_ids(text, bytes, &found, expected, expected_count);
        assert_true(found.count <= tokenizer_ids_max(bytes));
    }
    golden.at = golden.count; // the id lists are detokenizer_test.c's
    text_golden_close(&golden);
    tokenizer_scratch_free(scratch);
    return texts;
}

static void check_folder(const char *name, const char *folder, size_t texts_min)
{
    struct tokenizer tokenizer;
    text_golden_load(&tokenizer, folder);
    assert_true(check_cases(&tokenizer, name, folder) >= texts_min);
    tokenizer_fini(&tokenizer);
}

static void texts_of_the_family_encode_as_hugging_face_does(void **state)
{
    (void)state;
    check_folder("family", "tests/golden/text/family", 2000);
}

static void texts_of_the_odd_tokenizer_encode_as_hugging_face_does(void **state)
{
    (void)state;
    check_folder("odd", "tests/golden/text/odd", 1000);
}

static void texts_of_the_demo_model_encode_as_hugging_face_does(void **state)
{
    (void)state;
    check_folder("demo", "deploy/demo/model", 1000);
}

static size_t put(char *out, size_t at, const char *text)
{
    memcpy(out + at, text, strlen(text));
    return at + strlen(text);
}

// The text that tests/golden/make_text.py hashes for a block of code points.
static size_t block_text(char *out, uint32_t block)
{
    static const char *const parts[] = {"x", "1 ", "\n", "'s a\u0301", "\u0316", "\u0334q "};
    size_t at = 0;
    for (uint32_t point = block * BLOCK; point < (block + 1) * BLOCK; point++) {
        if (point >= 0xd800 && point < 0xe000)
            continue;
        for (size_t i = 0; i < 6; i++) {
            at = put(out, at, parts[i]);
            if (i < 5)
                at += code_point_encode(out + at, point);
        }
    }
    return at;
}

static void check_code_points(const char *name)
{
    char path[256];
    size_t count;
    struct tokenizer tokenizer;
    static char text[BLOCK * 64];
    static uint32_t ids[IDS_MAX];
    snprintf(path, sizeof path, "tests/golden/text/%s", name);
    text_golden_load(&tokenizer, path);
    snprintf(path, sizeof path, "tests/golden/text/%s_code_points.bin", name);
    char *hashes = text_golden_file(path, &count);
    struct tokenizer_scratch *scratch = tokenizer_scratch_new(&tokenizer);
    size_t at = 0;
    for (uint32_t block = 0; block < BLOCKS; block++) {
        // As in make_text.py: planes 0 to 3 and the tags whole, of the empty rest every 16th.
        if (block >= 0x400 && block != 0xe01 && block % 16 != 0)
            continue;
        struct token_ids found = {ids, 0, IDS_MAX};
        const size_t bytes = block_text(text, block);
        assert_int_equal(tokenizer_encode(&tokenizer, scratch, &found, text, bytes, NULL), OK);
        uint64_t expected;
        assert_true(at + sizeof expected <= count);
        memcpy(&expected, hashes + at, sizeof expected);
        at += sizeof expected;
        if (text_golden_hash(ids, found.count * sizeof *ids) != expected)
            fail_msg("%s: code points U+%04X to U+%04X encode differently", name, block * BLOCK,
                     (block + 1) * BLOCK - 1);
    }
    assert_int_equal(at, count);
    free(hashes);
    tokenizer_scratch_free(scratch);
    tokenizer_fini(&tokenizer);
}

static void every_code_point_encodes_as_hugging_face_does(void **state)
{
    (void)state;
    check_code_points("family");
    check_code_points("odd");
}

static void invalid_utf8_is_refused_with_its_offset(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t offset;
    } cases[] = {{"abc\xff", 3},          {"\x80", 0},
                 {"caf\xc3", 3},          {"12345678\xed\xa0\x80 surrogate", 8},
                 {"\xf5\x80\x80\x80", 0}, {"\xc0\xaf", 0}};
    struct tokenizer tokenizer;
    text_golden_load(&tokenizer, "tests/golden/text/family");
    struct tokenizer_scratch *scratch = tokenizer_scratch_new(&tokenizer);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t ids[16] = {77};
        struct token_ids out = {ids, 1, 16};
        struct error error;
        char offset[32];
        assert_int_equal(tokenizer_encode(&tokenizer, scratch, &out, cases[i].text,
                                          strlen(cases[i].text), &error),
                         E_INPUT);
        snprintf(offset, sizeof offset, "at offset %zu", cases[i].offset);
        assert_non_null(strstr(error.text, offset));
        assert_int_equal(out.count, 1);
        assert_int_equal(ids[0], 77);
    }
    tokenizer_scratch_free(scratch);
    tokenizer_fini(&tokenizer);
}

static void limits_are_named_and_leave_the_output_alone(void **state)
{
    (void)state;
    struct tokenizer tokenizer;
    struct error error;
    uint32_t ids[8];
    text_golden_load(&tokenizer, "tests/golden/text/family");
    struct tokenizer_scratch *scratch = tokenizer_scratch_new(&tokenizer);
    struct token_ids out = {ids, 3, 7};
    assert_int_equal(tokenizer_encode(&tokenizer, scratch, &out, "1234", 4, &error), OK);
    assert_int_equal(out.count, 7);
    out.count = 3;
    assert_int_equal(tokenizer_encode(&tokenizer, scratch, &out, "12345", 5, &error), E_LIMIT);
    assert_non_null(strstr(error.text, "limit of 7 tokens"));
    assert_int_equal(out.count, 3);
    const size_t bytes = (size_t)TOKENIZER_TEXT_BYTES_MAX + 1;
    char *text = calloc(bytes, 1);
    assert_non_null(text);
    assert_int_equal(tokenizer_encode(&tokenizer, scratch, &out, text, bytes, &error), E_LIMIT);
    assert_non_null(strstr(error.text, "33554432"));
    assert_int_equal(tokenizer_encode(&tokenizer, scratch, &out, NULL, 0, &error), OK);
    assert_int_equal(out.count, 3);
    free(text);
    tokenizer_scratch_free(scratch);
    tokenizer_fini(&tokenizer);
}

static void a_long_piece_is_like_a_short_one_and_gives_its_room_back(void **state)
{
    (void)state;
    struct tokenizer tokenizer;
    const size_t bytes = 2 << 20;
    text_golden_load(&tokenizer, "tests/golden/text/family");
    struct tokenizer_scratch *scratch = tokenizer_scratch_new(&tokenizer);
    char *text = malloc(bytes);
    uint32_t *ids = malloc(bytes * sizeof *ids);
    assert_true(text != NULL && ids != NULL);
    memset(text, 'q', bytes);
    for (unsigned round = 0; round < 2; round++) {
        struct token_ids out = {ids, 0, bytes}, again = {ids, 0, 16};
        assert_int_equal(tokenizer_encode(&tokenizer, scratch, &out, text, bytes, NULL), OK);
        size_t total = 0;
        for (size_t i = 0; i < out.count; i++)
            total += tokenizer_id_text(&tokenizer, ids[i]).count;
        assert_int_equal(total, bytes);
        assert_int_equal(tokenizer_encode(&tokenizer, scratch, &again, "the end", 7, NULL), OK);
    }
    free(ids);
    free(text);
    tokenizer_scratch_free(scratch);
    tokenizer_fini(&tokenizer);
}

static void ids_have_texts_and_added_tokens_have_ids(void **state)
{
    (void)state;
    struct tokenizer tokenizer;
    uint32_t id = 0;
    text_golden_load(&tokenizer, "tests/golden/text/family");
    assert_int_equal(tokenizer.id_count, tokenizer.base_count + 7);
    assert_true(tokenizer_added_id(&tokenizer, "<|im_end|>", &id));
    assert_int_equal(id, tokenizer.base_count + 2);
    assert_true(tokenizer.special[id]);
    assert_int_equal(tokenizer_id_text(&tokenizer, id).count, strlen("<|im_end|>"));
    assert_memory_equal(tokenizer_id_text(&tokenizer, id).bytes, "<|im_end|>", 10);
    assert_true(tokenizer_added_id(&tokenizer, "<think>", &id));
    assert_false(tokenizer.special[id]);
    assert_false(tokenizer_added_id(&tokenizer, "the", &id));
    size_t longest = 0;
    bool bytes_seen[256] = {false};
    for (id = 0; id < tokenizer.id_count; id++) {
        const struct token_bytes token = tokenizer_id_text(&tokenizer, id);
        assert_true(token.count > 0);
        if (token.count == 1)
            bytes_seen[(uint8_t)token.bytes[0]] = true;
        longest = token.count > longest ? token.count : longest;
    }
    assert_int_equal(longest, tokenizer.token_bytes_max);
    for (unsigned byte = 0; byte < 256; byte++)
        assert_true(bytes_seen[byte]);
    tokenizer_fini(&tokenizer);
}

// cmocka's assertions belong to the main thread: a thread says how many texts came out wrong.
static void *encode_all(void *argument)
{
    const struct tokenizer *tokenizer = argument;
    struct text_golden golden;
    uint32_t *ids = malloc(2 * IDS_MAX * sizeof *ids);
    struct tokenizer_scratch *scratch = tokenizer_scratch_new(tokenizer);
    uintptr_t wrong = 0;
    text_golden_open(&golden, "family", "tests/golden/text/family");
    const size_t texts = text_golden_number(&golden);
    for (size_t i = 0; i < texts; i++) {
        size_t bytes;
        const char *text = text_golden_text(&golden, &bytes);
        const size_t expected = text_golden_ids(&golden, ids + IDS_MAX, IDS_MAX);
        struct token_ids found = {ids, 0, IDS_MAX};
        if (tokenizer_encode(tokenizer, scratch, &found, text, bytes, NULL) != OK ||
            found.count != expected || memcmp(ids, ids + IDS_MAX, expected * sizeof *ids) != 0)
            wrong++;
    }
    golden.at = golden.count;
    text_golden_close(&golden);
    tokenizer_scratch_free(scratch);
    free(ids);
    return (void *)wrong;
}

static void threads_share_one_tokenizer(void **state)
{
    (void)state;
    struct tokenizer tokenizer;
    pthread_t threads[THREADS];
    text_golden_load(&tokenizer, "tests/golden/text/family");
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, encode_all, &tokenizer), 0);
    for (size_t i = 0; i < THREADS; i++) {
        void *wrong;
        assert_int_equal(pthread_join(threads[i], &wrong), 0);
        assert_null(wrong);
    }
    tokenizer_fini(&tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_of_the_family_encode_as_hugging_face_does),
        cmocka_unit_test(texts_of_the_odd_tokenizer_encode_as_hugging_face_does),
        cmocka_unit_test(texts_of_the_demo_model_encode_as_hugging_face_does),
        cmocka_unit_test(every_code_point_encodes_as_hugging_face_does),
        cmocka_unit_test(invalid_utf8_is_refused_with_its_offset),
        cmocka_unit_test(limits_are_named_and_leave_the_output_alone),
        cmocka_unit_test(a_long_piece_is_like_a_short_one_and_gives_its_room_back),
        cmocka_unit_test(ids_have_texts_and_added_tokens_have_ids),
        cmocka_unit_test(threads_share_one_tokenizer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
