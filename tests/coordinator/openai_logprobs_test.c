// SPDX-License-Identifier: Apache-2.0
// openai_logprobs_test.c -- both shapes, parsed again: tokens as text, as bytes where they are half
// a character, offsets in code points, the first token of a prompt.
#include "coordinator/openai_logprobs.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct tokenizer tokenizer;
static struct error error;
static int32_t whole, half; // ids of " the" and of a byte that is half a character

static int32_t id_of(const char *bytes, size_t count)
{
    for (uint32_t id = 0; id < tokenizer.id_count; id++) {
        struct token_bytes token = tokenizer_id_text(&tokenizer, id);
        if (token.count == count && memcmp(token.bytes, bytes, count) == 0)
            return (int32_t)id;
    }
    fail_msg("no token of these %zu bytes", count);
    return -1;
}

static int set_up(void **state)
{
    (void)state;
    if (tokenizer_load(&tokenizer, SOURCE_DIR "/deploy/demo/model", &error) != OK)
        fail_msg("%s", error.text);
    whole = id_of(" the", 4);
    half = id_of("\xe4", 1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tokenizer_fini(&tokenizer);
    return 0;
}

static json_t *written(const struct openai_logprobs *logprobs)
{
    struct text_buffer out;
    text_buffer_init(&out, 1 << 20);
    assert_int_equal(openai_logprobs_write(&out, logprobs), OK);
    json_t *json = json_loadb(out.bytes, out.count, 0, NULL);
    assert_non_null(json);
    text_buffer_fini(&out);
    return json;
}

static json_t *at(json_t *object, const char *name, size_t index)
{
    return json_array_get(json_object_get(object, name), index);
}

static void a_completion_has_parallel_arrays(void **state)
{
    (void)state;
    static const int offsets[] = {0, 0, 4, 4}; // half a character and the third take no room
    struct openai_logprobs logprobs;
    struct step_logprob entry = {.id = whole,
                                 .logprob = -0.5f,
                                 .top_count = 2,
                                 .top_ids = {whole, half},
                                 .top_logprobs = {-0.5f, -2.25f}};
    openai_logprobs_init(&logprobs, OPENAI_COMPLETION, &tokenizer, 1 << 20);
    assert_int_equal(openai_logprobs_add_first(&logprobs, id_of("\x98", 1)), OK);
    assert_int_equal(openai_logprobs_add(&logprobs, &entry, true), OK);
    entry.id = half;
    entry.top_count = 1;
    assert_int_equal(openai_logprobs_add(&logprobs, &entry, false), OK);
    assert_int_equal(openai_logprobs_add(&logprobs, &entry, true), OK);
    json_t *json = written(&logprobs);
    assert_int_equal(json_array_size(json_object_get(json, "tokens")), 4);
    assert_int_equal(json_array_size(json_object_get(json, "top_logprobs")), 4);
    assert_string_equal(json_string_value(at(json, "tokens", 0)), "bytes:\\x98");
    assert_string_equal(json_string_value(at(json, "tokens", 1)), " the");
    assert_true(json_is_null(at(json, "token_logprobs", 0)));
    assert_true(json_is_null(at(json, "top_logprobs", 0)));
    assert_true(json_number_value(at(json, "token_logprobs", 1)) == -0.5);
    json_t *top = at(json, "top_logprobs", 1);
    assert_int_equal(json_object_size(top), 2);
    assert_true(json_number_value(json_object_get(top, "bytes:\\xe4")) == -2.25);
    assert_int_equal(json_object_size(at(json, "top_logprobs", 2)), 2); // with the token itself
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(json_integer_value(at(json, "text_offset", i)), offsets[i]);
    json_decref(json);
    openai_logprobs_clear(&logprobs);
    assert_false(logprobs.any);
    assert_int_equal(openai_logprobs_add(&logprobs, &entry, true), OK);
    json = written(&logprobs);
    assert_int_equal(json_array_size(json_object_get(json, "tokens")), 1);
    assert_int_equal(json_integer_value(at(json, "text_offset", 0)), 5); // the text goes on
    json_decref(json);
    openai_logprobs_fini(&logprobs);
}

static void a_chat_has_objects_with_bytes(void **state)
{
    (void)state;
    struct openai_logprobs logprobs;
    const struct step_logprob entry = {.id = half,
                                       .logprob = -9999,
                                       .top_count = 2,
                                       .top_ids = {whole, half},
                                       .top_logprobs = {-0.125f, -9999}};
    openai_logprobs_init(&logprobs, OPENAI_CHAT, &tokenizer, 1 << 20);
    for (int i = 0; i < 2; i++)
        assert_int_equal(openai_logprobs_add(&logprobs, &entry, true), OK);
    json_t *json = written(&logprobs);
    assert_int_equal(json_array_size(json_object_get(json, "content")), 2);
    json_t *one = at(json, "content", 1);
    assert_string_equal(json_string_value(json_object_get(one, "token")), "bytes:\\xe4");
    assert_int_equal(json_integer_value(json_object_get(one, "logprob")), -9999);
    assert_int_equal(json_integer_value(at(one, "bytes", 0)), 0xe4);
    assert_int_equal(json_array_size(json_object_get(one, "top_logprobs")), 2);
    one = at(one, "top_logprobs", 0);
    assert_string_equal(json_string_value(json_object_get(one, "token")), " the");
    assert_int_equal(json_array_size(json_object_get(one, "bytes")), 4);
    json_decref(json);
    openai_logprobs_fini(&logprobs);
}

static void without_a_tokenizer_tokens_are_ids(void **state)
{
    (void)state;
    struct openai_logprobs logprobs;
    const struct step_logprob entry = {.id = 5, .logprob = -1};
    openai_logprobs_init(&logprobs, OPENAI_CHAT, NULL, 1 << 20);
    assert_int_equal(openai_logprobs_add(&logprobs, &entry, true), OK);
    json_t *json = written(&logprobs), *one = at(json, "content", 0);
    assert_string_equal(json_string_value(json_object_get(one, "token")), "token_id:5");
    assert_true(json_is_null(json_object_get(one, "bytes")));
    json_decref(json);
    openai_logprobs_fini(&logprobs);
}

static void room_is_bounded(void **state)
{
    (void)state;
    struct openai_logprobs logprobs;
    const struct step_logprob entry = {.id = 5, .logprob = -1};
    enum status status = OK;
    openai_logprobs_init(&logprobs, OPENAI_COMPLETION, NULL, 200);
    for (int i = 0; i < 100 && status == OK; i++)
        status = openai_logprobs_add(&logprobs, &entry, true);
    assert_int_equal(status, E_LIMIT);
    openai_logprobs_fini(&logprobs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_completion_has_parallel_arrays),
        cmocka_unit_test(a_chat_has_objects_with_bytes),
        cmocka_unit_test(without_a_tokenizer_tokens_are_ids),
        cmocka_unit_test(room_is_bounded),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
