// SPDX-License-Identifier: Apache-2.0
// chat_format_test.c -- conversations against what the published template makes of them; turn ends;
// what is refused, by name.
#include "coordinator/text/chat_format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/text/tokenizer.h"
#include "tests/fixtures/text_golden.h"

enum { IDS_MAX = 8192 };

static struct chat_format_options options_of(const json_t *test)
{
    struct chat_format_options options = chat_format_defaults();
    options.add_generation_prompt = json_is_true(json_object_get(test, "add_generation_prompt"));
    options.enable_thinking = json_is_true(json_object_get(test, "enable_thinking"));
    return options;
}

static void check_conversation(const json_t *test, struct chat_format_text *out)
{
    const json_t *expected = json_object_get(test, "text");
    const struct chat_format_options options = options_of(test);
    struct error error;
    const enum status status =
        chat_format_render(out, json_object_get(test, "messages"), &options, &error);
    if (json_is_null(expected)) {
        assert_int_equal(status, E_INPUT);
        return;
    }
    if (status != OK)
        fail_msg("%s", error.text);
    if (out->text.count != json_string_length(expected) ||
        memcmp(out->text.bytes, json_string_value(expected), out->text.count) != 0)
        fail_msg("found:\n%.*s\nexpected:\n%s", (int)out->text.count, out->text.bytes,
                 json_string_value(expected));
    // Each end is right after an <|im_end|>, and only the generation prompt follows the last.
    assert_int_equal(out->turn_count, json_array_size(json_object_get(test, "messages")));
    for (size_t i = 0; i < out->turn_count; i++)
        assert_memory_equal(out->text.bytes + out->turn_ends[i] - 11, "<|im_end|>\n", 11);
    if (!options.add_generation_prompt)
        assert_int_equal(out->turn_ends[out->turn_count - 1], out->text.count);
}

static void conversations_render_as_the_template_does(void **state)
{
    (void)state;
    struct chat_format_text out;
    json_t *tests = json_load_file(SOURCE_DIR "/tests/golden/text/chat.json", 0, NULL);
    assert_true(json_array_size(tests) >= 250);
    chat_format_text_init(&out, 1 << 20);
    size_t refused = 0;
    for (size_t i = 0; i < json_array_size(tests); i++) {
        check_conversation(json_array_get(tests, i), &out);
        refused += json_is_null(json_object_get(json_array_get(tests, i), "text")) ? 1 : 0;
    }
    assert_true(refused > 5 && refused < 50);
    chat_format_text_fini(&out);
    json_decref(tests);
}

// Encoding turn by turn must give the ids of the whole: that is what makes ends checkpoint places.
static void turn_ends_are_ends_of_tokens(void **state)
{
    (void)state;
    struct tokenizer tokenizer;
    struct chat_format_text out;
    static uint32_t whole[IDS_MAX], parts[IDS_MAX];
    text_golden_load(&tokenizer, "tests/golden/text/family");
    struct tokenizer_scratch *scratch = tokenizer_scratch_new(&tokenizer);
    json_t *tests = json_load_file(SOURCE_DIR "/tests/golden/text/chat.json", 0, NULL);
    chat_format_text_init(&out, 1 << 20);
    for (size_t i = 0; i < json_array_size(tests); i++) {
        const json_t *test = json_array_get(tests, i);
        const struct chat_format_options options = options_of(test);
        if (chat_format_render(&out, json_object_get(test, "messages"), &options, NULL) != OK)
            continue;
        struct token_ids all = {whole, 0, IDS_MAX}, joined = {parts, 0, IDS_MAX};
        const char *text = out.text.bytes;
        assert_int_equal(tokenizer_encode(&tokenizer, scratch, &all, text, out.text.count, NULL),
                         OK);
        size_t start = 0;
        for (size_t turn = 0; turn <= out.turn_count; turn++) {
            const size_t end = turn == out.turn_count ? out.text.count : out.turn_ends[turn];
            assert_int_equal(
                tokenizer_encode(&tokenizer, scratch, &joined, text + start, end - start, NULL),
                OK);
            start = end;
        }
        assert_int_equal(joined.count, all.count);
        assert_memory_equal(parts, whole, all.count * sizeof *whole);
    }
    chat_format_text_fini(&out);
    json_decref(tests);
    tokenizer_scratch_free(scratch);
    tokenizer_fini(&tokenizer);
}

static void refuse(const char *messages, enum status status, const char *words)
{
    struct chat_format_text out;
    struct error error;
    const struct chat_format_options options = chat_format_defaults();
    json_t *value = json_loads(messages, JSON_DECODE_ANY, NULL);
    assert_non_null(value);
    chat_format_text_init(&out, 1000);
    assert_int_equal(chat_format_render(&out, value, &options, &error), status);
    if (strstr(error.text, words) == NULL)
        fail_msg("%s: \"%s\" lacks \"%s\"", messages, error.text, words);
    chat_format_text_fini(&out);
    json_decref(value);
}

#define HI "{\"role\": \"user\", \"content\": \"hi\"}"

static void bad_messages_are_refused_by_place(void **state)
{
    (void)state;
    refuse("[]", E_INPUT, "messages: not a list of at least one");
    refuse("{}", E_INPUT, "messages: not a list");
    refuse("[5]", E_INPUT, "messages[0]: not an object");
    refuse("[{\"content\": \"x\"}]", E_INPUT, "messages[0].role: not a string");
    refuse("[" HI ", {\"role\": \"robot\"}]", E_INPUT, "messages[1].role: \"robot\"");
    refuse("[" HI ", {\"role\": \"tool\"}]", E_UNSUPPORTED, "messages[1].role: \"tool\"");
    refuse("[" HI ", {\"role\": \"system\"}]", E_INPUT, "messages[1].role: \"system\" may only");
    refuse("[{\"role\": \"system\", \"content\": \"x\"}]", E_INPUT, "none is a user's question");
    refuse("[{\"role\": \"user\", \"content\": 5}]", E_INPUT, "messages[0].content: not a string");
    refuse("[{\"role\": \"user\", \"contents\": \"x\"}]", E_INPUT, "messages[0].contents: unknown");
    refuse("[{\"role\": \"user\", \"name\": 3}]", E_INPUT, "messages[0].name: not a string");
    refuse("[" HI ", {\"role\": \"assistant\", \"reasoning_content\": 3}]", E_INPUT,
           "messages[1].reasoning_content: not a string");
    refuse("[" HI ", {\"role\": \"assistant\", \"tool_calls\": [{}]}]", E_UNSUPPORTED,
           "messages[1].tool_calls");
    refuse("[{\"role\": \"user\", \"content\": [{\"type\": \"image_url\"}]}]", E_UNSUPPORTED,
           "messages[0].content[0].type: \"image_url\"");
    refuse("[{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"image\": \"x\"}]}]",
           E_UNSUPPORTED, "messages[0].content[0]: \"image\"");
    refuse("[{\"role\": \"user\", \"content\": [{\"type\": \"text\"}]}]", E_INPUT,
           "messages[0].content[0].text: not a string");
    refuse("[{\"role\": \"user\", \"content\": [\"x\"]}]", E_INPUT, "messages[0].content[0]");
}

static void a_text_above_the_limit_is_refused(void **state)
{
    (void)state;
    char messages[1200];
    snprintf(messages, sizeof messages, "[{\"role\": \"user\", \"content\": \"%01000d\"}]", 7);
    refuse(messages, E_LIMIT, "1000 bytes");
}

static void tools_and_kept_thinking_are_refused_for_now(void **state)
{
    (void)state;
    struct chat_format_text out;
    struct error error;
    json_t *messages = json_loads("[" HI "]", 0, NULL), *tools = json_loads("[{}]", 0, NULL);
    json_t *none = json_array(), *wrong = json_object();
    chat_format_text_init(&out, 1000);
    struct chat_format_options options = chat_format_defaults();
    assert_true(options.enable_thinking && options.add_generation_prompt);
    options.tools = tools;
    assert_int_equal(chat_format_render(&out, messages, &options, &error), E_UNSUPPORTED);
    assert_non_null(strstr(error.text, "tools"));
    options.tools = wrong;
    assert_int_equal(chat_format_render(&out, messages, &options, &error), E_INPUT);
    options.tools = none;
    assert_int_equal(chat_format_render(&out, messages, &options, &error), OK);
    options.preserve_thinking = true;
    assert_int_equal(chat_format_render(&out, messages, &options, &error), E_UNSUPPORTED);
    assert_non_null(strstr(error.text, "preserve_thinking"));
    chat_format_text_fini(&out);
    json_decref(messages);
    json_decref(tools);
    json_decref(none);
    json_decref(wrong);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conversations_render_as_the_template_does),
        cmocka_unit_test(turn_ends_are_ends_of_tokens),
        cmocka_unit_test(bad_messages_are_refused_by_place),
        cmocka_unit_test(a_text_above_the_limit_is_refused),
        cmocka_unit_test(tools_and_kept_thinking_are_refused_for_now),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
