// SPDX-License-Identifier: Apache-2.0
// tokenizer_tables_test.c -- vocabularies, merges and added tokens that contradict themselves, and
// the two spellings of merges.
#include "coordinator/text/tokenizer_tables.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixtures/text_golden.h"

static void refuse_root(json_t *root, enum status status, const char *word, const char *other_word)
{
    struct tokenizer tokenizer;
    struct error error;
    assert_int_equal(text_golden_load_json(&tokenizer, root, &error), status);
    if (strstr(error.text, "bent.json") == NULL || strstr(error.text, word) == NULL ||
        strstr(error.text, other_word) == NULL)
        fail_msg("\"%s\" lacks \"%s\" or \"%s\"", error.text, word, other_word);
    json_decref(root);
}

static void refuse(const char *path, const char *value, enum status status, const char *word,
                   const char *other_word)
{
    json_t *root = text_golden_json();
    text_golden_set(root, path, value);
    refuse_root(root, status, word, other_word);
}

static json_t *vocab_of(json_t *root)
{
    return json_object_get(json_object_get(root, "model"), "vocab");
}

static void ids_with_holes_or_doubles_are_refused(void **state)
{
    (void)state;
    refuse("model.vocab.zzz", "5", E_INPUT, "model.vocab", "two tokens have the id 5");
    refuse("model.vocab.zzz", "3000", E_INPUT, "model.vocab", "no token has the id");
    refuse("model.vocab.zzz", "1048576", E_LIMIT, "model.vocab", "1048575");
    refuse("model.vocab.zzz", "-1", E_MALFORMED, "whole number", "byte");
    refuse("model.vocab.zzz", "1.5", E_MALFORMED, "whole number", "byte");
    refuse("model.vocab.zzz", "\"7\"", E_MALFORMED, "whole number", "byte");
    refuse("model.vocab", "[]", E_MALFORMED, "expected {", "byte");
    refuse("model.vocab", NULL, E_INPUT, "model.vocab", "absent");
    refuse("model.vocab", "{}", E_INPUT, "model.merges[0]", "not in model.vocab");
    json_t *root = text_golden_json();
    json_object_set_new(vocab_of(root), "",
                        json_integer((json_int_t)json_object_size(vocab_of(root))));
    refuse_root(root, E_INPUT, "model.vocab", "empty");
}

// jansson cannot write a key twice, so the text is made by hand.
static void a_token_twice_is_refused(void **state)
{
    (void)state;
    struct tokenizer tokenizer;
    struct error error;
    json_t *root = text_golden_json();
    text_golden_set(root, "model.vocab.first", "9000");
    text_golden_set(root, "model.vocab.fjrst", "9001");
    char *text = json_dumps(root, JSON_COMPACT);
    assert_non_null(text);
    char *place = strstr(text, "\"fjrst\"");
    assert_non_null(place);
    place[2] = 'i';
    assert_int_equal(tokenizer_load_json(&tokenizer, "bent.json", text, strlen(text), &error),
                     E_INPUT);
    assert_non_null(strstr(error.text, "\"first\" appears twice, as ids 9000 and 9001"));
    free(text);
    json_decref(root);
}

static void a_byte_without_token_is_refused(void **state)
{
    (void)state;
    json_t *root = text_golden_json();
    json_t *vocab = vocab_of(root);
    json_t *id = json_incref(json_object_get(vocab, "~"));
    json_object_del(vocab, "~");
    json_object_set_new(vocab, "~~~", id);
    refuse_root(root, E_INPUT, "model.vocab", "byte 0x7e");
}

static void merges_of_unknown_tokens_are_refused(void **state)
{
    (void)state;
    refuse("model.merges.3", "[\"nobody\", \"t\"]", E_INPUT, "model.merges[3]", "\"nobody\"");
    refuse("model.merges.3", "[\"t\", \"nobody\"]", E_INPUT, "model.merges[3]", "\"nobody\"");
    refuse("model.merges.3", "[\"~\", \"~\"]", E_INPUT, "model.merges[3]",
           "makes the token \"~~\"");
    refuse("model.merges.3", "[\"\", \"t\"]", E_INPUT, "model.merges[3]", "empty");
    refuse("model.merges.3", "[\"t\"]", E_MALFORMED, "expected ,", "byte");
    refuse("model.merges.3", "[\"t\", \"h\", \"e\"]", E_MALFORMED, "expected ]", "byte");
    refuse("model.merges.3", "\"th\"", E_INPUT, "model.merges[3]", "one space");
    refuse("model.merges.3", "\"t h e\"", E_INPUT, "model.merges[3]", "one space");
    refuse("model.merges.3", "\"\"", E_INPUT, "model.merges[3]", "one space");
    refuse("model.merges.3", "7", E_MALFORMED, "expected \"", "byte");
    refuse("model.merges", "{}", E_MALFORMED, "expected [", "byte");
    refuse("model.merges", NULL, E_INPUT, "model.merges", "absent");
}

static void added_tokens_that_contradict_are_refused(void **state)
{
    (void)state;
    refuse("added_tokens.1.id", "7", E_INPUT, "added_tokens[1].id", "<|im_start|>");
    refuse("added_tokens.1.id", "\"x\"", E_INPUT, "added_tokens[1].id", "<|im_start|>");
    refuse("added_tokens.1.content", "\"\"", E_INPUT, "added_tokens[1].content", "bent.json");
    refuse("added_tokens.1.content", "5", E_INPUT, "added_tokens[1].content", "bent.json");
    refuse("added_tokens.1.content", "\"<|endoftext|>\"", E_INPUT, "added_tokens[1].id",
           "<|endoftext|>");
    char large[ADDED_TOKENS_BYTES_MAX + 8] = "\"";
    memset(large + 1, 'x', ADDED_TOKENS_BYTES_MAX + 1);
    large[ADDED_TOKENS_BYTES_MAX + 2] = '"';
    large[ADDED_TOKENS_BYTES_MAX + 3] = 0;
    refuse("added_tokens.6.content", large, E_LIMIT, "added_tokens[6]", "limit of 256");
    refuse("added_tokens.1.special", "\"yes\"", E_INPUT, "added_tokens[1].special", "true");
    refuse("added_tokens.1.lstrip", NULL, E_INPUT, "added_tokens[1].lstrip", "false");
    refuse("added_tokens.1.single_word", "true", E_UNSUPPORTED, "added_tokens[1].single_word",
           "only false");
    refuse("added_tokens.1", "5", E_INPUT, "added_tokens[1]", "bent.json");
    refuse("added_tokens", "{\"a\": 1}", E_INPUT, "added_tokens", "array");
    json_t *root = text_golden_json();
    text_golden_set(root, "added_tokens.1.normalized", "true");
    text_golden_set(root, "added_tokens.1.content", "\"e\\u0301\"");
    refuse_root(root, E_UNSUPPORTED, "added_tokens[1].normalized", "NFC");
    // The same content once to be found in raw and once in normalized text.
    root = text_golden_json();
    json_t *added = json_object_get(root, "added_tokens");
    json_t *copy = json_deep_copy(json_array_get(added, 1));
    json_object_set_new(copy, "normalized", json_true());
    json_array_append_new(added, copy);
    refuse_root(root, E_INPUT, "<|im_start|>", "appears twice");
}

static json_t *with_spaced_merges(void)
{
    json_t *root = text_golden_json();
    json_t *merges = json_object_get(json_object_get(root, "model"), "merges");
    assert_true(json_array_size(merges) > 300);
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const json_t *pair = json_array_get(merges, i);
        json_t *text = json_sprintf("%s %s", json_string_value(json_array_get(pair, 0)),
                                    json_string_value(json_array_get(pair, 1)));
        json_array_set_new(merges, i, text);
    }
    return root;
}

static void both_spellings_of_merges_are_one(void **state)
{
    (void)state;
    struct tokenizer pairs, spaced;
    json_t *root = with_spaced_merges();
    text_golden_load(&pairs, "tests/golden/text/family");
    assert_int_equal(text_golden_load_json(&spaced, root, NULL), OK);
    assert_int_equal(pairs.bpe.merge_mask, spaced.bpe.merge_mask);
    assert_memory_equal(pairs.bpe.merges, spaced.bpe.merges,
                        (pairs.bpe.merge_mask + 1) * sizeof *pairs.bpe.merges);
    tokenizer_fini(&pairs);
    tokenizer_fini(&spaced);
    json_decref(root);
}

// An added token may be one of the vocabulary's own; then it has that id.
static void an_added_token_of_the_vocabulary_keeps_its_id(void **state)
{
    (void)state;
    struct tokenizer tokenizer;
    struct error error;
    uint32_t id;
    char value[16];
    json_t *root = text_golden_json();
    const json_int_t expected = json_integer_value(json_object_get(vocab_of(root), "he"));
    text_golden_set(root, "added_tokens.6.content", "\"he\"");
    snprintf(value, sizeof value, "%lld", (long long)expected);
    text_golden_set(root, "added_tokens.6.id", value);
    text_golden_set(root, "added_tokens.6.special", "true");
    if (text_golden_load_json(&tokenizer, root, &error) != OK)
        fail_msg("%s", error.text);
    assert_true(tokenizer_added_id(&tokenizer, "he", &id));
    assert_int_equal(id, expected);
    assert_true(tokenizer.special[id]);
    assert_int_equal(tokenizer.id_count, tokenizer.base_count + 6);
    tokenizer_fini(&tokenizer);
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_with_holes_or_doubles_are_refused),
        cmocka_unit_test(a_token_twice_is_refused),
        cmocka_unit_test(a_byte_without_token_is_refused),
        cmocka_unit_test(merges_of_unknown_tokens_are_refused),
        cmocka_unit_test(added_tokens_that_contradict_are_refused),
        cmocka_unit_test(both_spellings_of_merges_are_one),
        cmocka_unit_test(an_added_token_of_the_vocabulary_keeps_its_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
