// SPDX-License-Identifier: Apache-2.0
// door_lists_test.c -- a request's lists as the core takes them: order, texts as tokens with and
// without a space, what is refused and by which name. The tokenizer is the demo model's.
#include "coordinator/door_lists.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { VOCAB = 100 };

static struct tokenizer tokenizer;
static struct door_text *door, *bare;
static struct error error;
static const char *field;

static int set_up(void **state)
{
    (void)state;
    if (tokenizer_load(&tokenizer, SOURCE_DIR "/deploy/demo/model", &error) != OK)
        fail_msg("%s", error.text);
    assert_int_equal(door_text_open(&door, &tokenizer, (int32_t)tokenizer.id_count, &error), OK);
    assert_int_equal(door_text_open(&bare, NULL, VOCAB, &error), OK);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    door_text_close(door);
    door_text_close(bare);
    tokenizer_fini(&tokenizer);
    return 0;
}

static void lists_lie_one_behind_the_other(void **state)
{
    (void)state;
    const int32_t ids[] = {7, 99}, allowed[] = {3, 4, 3};
    const float biases[] = {-100, 0.5f};
    const struct request_word words[] = {{.ids_count = 1, .ids = {4}},
                                         {.ids_count = 3, .ids = {1, 2, 3}}};
    const struct door_lists_wish wish = {.bias_ids = ids,
                                         .biases = biases,
                                         .bias_count = 2,
                                         .allowed_ids = allowed,
                                         .allowed_count = 3,
                                         .words = words,
                                         .words_count = 2};
    const int32_t rest[] = {3, 4, 1, 4, 3, 1, 2, 3};
    struct coord_sampling sampling = {.temperature = 1};
    int32_t *lists;
    assert_int_equal(door_lists_make(&lists, &sampling, &wish, bare, &field, &error), OK);
    assert_int_equal(sampling.bias_count, 2);
    assert_int_equal(sampling.allowed_count, 2); // once for an id that comes twice
    assert_int_equal(sampling.words_count, 6);
    assert_memory_equal(lists, ids, sizeof ids);
    assert_memory_equal(lists + 2, biases, sizeof biases);
    assert_memory_equal(lists + 4, rest, sizeof rest);
    free(lists);
    assert_int_equal(door_lists_make(&lists, &sampling, &(struct door_lists_wish){.words = NULL},
                                     bare, &field, &error),
                     OK);
    assert_null(lists);
    assert_int_equal(coord_sampling_lists(&sampling), 0);
}

static void words_are_banned_with_and_without_a_space(void **state)
{
    (void)state;
    const struct request_word words[] = {{.text = {"fox", 3}}, {.text = {" fox", 4}}};
    struct coord_sampling sampling = {.temperature = 1};
    int32_t *lists;
    for (int spaced = 0; spaced < 2; spaced++) {
        const struct door_lists_wish wish = {.words = words + spaced, .words_count = 1};
        assert_int_equal(door_lists_make(&lists, &sampling, &wish, door, &field, &error), OK);
        int32_t at = 0, count = 0;
        for (; at < sampling.words_count; at += 1 + lists[at], count++) {
            char text[64];
            size_t bytes = 0;
            for (int32_t i = 0; i < lists[at]; i++) {
                struct token_bytes token =
                    tokenizer_id_text(&tokenizer, (uint32_t)lists[at + 1 + i]);
                memcpy(text + bytes, token.bytes, token.count);
                bytes += token.count;
            }
            const char *wanted = count == 1 || spaced ? " fox" : "fox";
            assert_int_equal(bytes, strlen(wanted));
            assert_memory_equal(text, wanted, bytes);
        }
        assert_int_equal(at, sampling.words_count);
        assert_int_equal(count, spaced ? 1 : 2);
        free(lists);
    }
}

static void refused(const struct door_lists_wish *wish, struct door_text *text, const char *name,
                    enum status status, const char *part)
{
    struct coord_sampling sampling;
    int32_t *lists;
    assert_int_equal(door_lists_make(&lists, &sampling, wish, text, &field, &error), status);
    assert_null(lists);
    assert_string_equal(field, name);
    if (strstr(error.text, part) == NULL)
        fail_msg("'%s' is not in '%s'", part, error.text);
}

static void refusals_name_field_value_and_limit(void **state)
{
    (void)state;
    const int32_t ids[] = {5, VOCAB, 5};
    const float biases[] = {1, 2, 3};
    struct request_word words[REQUEST_WORDS_MAX] = {{.ids_count = 1, .ids = {5}}};
    refused(&(struct door_lists_wish){.bias_ids = ids, .biases = biases, .bias_count = 2}, bare,
            "logit_bias", E_INPUT, "'logit_bias'[1]: 100 is outside 0 .. 99");
    const int32_t twice[] = {5, 6, 5};
    refused(&(struct door_lists_wish){.bias_ids = twice, .biases = biases, .bias_count = 3}, bare,
            "logit_bias", E_INPUT, "'logit_bias': id 5 has two biases");
    refused(&(struct door_lists_wish){.allowed_ids = ids, .allowed_count = 2}, bare,
            "allowed_token_ids", E_INPUT, "'allowed_token_ids'[1]: 100 is outside 0 .. 99");
    refused(
        &(struct door_lists_wish){
            .allowed_ids = ids, .allowed_count = 1, .words = words, .words_count = 1},
        bare, "bad_words", E_INPUT, "nothing is left");
    words[1] = (struct request_word){.text = {"fox", 3}};
    refused(&(struct door_lists_wish){.words = words, .words_count = 2}, bare, "bad_words",
            E_UNSUPPORTED, "'bad_words' needs a tokenizer");
    words[1] = (struct request_word){.ids_count = 2, .ids = {1, VOCAB}};
    refused(&(struct door_lists_wish){.words = words, .words_count = 2}, bare, "bad_words", E_INPUT,
            "'bad_words'[1]: 100 is outside");
    words[0] = (struct request_word){.text = {"a b c d e f g h i j k", 21}};
    refused(&(struct door_lists_wish){.words = words, .words_count = 1}, door, "bad_words", E_LIMIT,
            "tokens, accepted is 1 to 8");
    for (int i = 0; i < REQUEST_WORDS_MAX; i++)
        words[i] = (struct request_word){.ids_count = 8};
    refused(&(struct door_lists_wish){.words = words, .words_count = REQUEST_WORDS_MAX}, bare,
            "bad_words", E_LIMIT, "more than 512 tokens");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_lie_one_behind_the_other),
        cmocka_unit_test(words_are_banned_with_and_without_a_space),
        cmocka_unit_test(refusals_name_field_value_and_limit),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
