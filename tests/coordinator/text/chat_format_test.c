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
    options.preserve_thinking = json_is_true(json_object_get(test, "preserve_thinking"));
    options.json_scalars = json_is_true(json_object_get(test, "json_scalars"));
    options.tools = json_object_get(test, "tools");
    return options;
}

// How many turns a text of the golden conversations has: none of their contents holds an end.
static size_t count_turns(const struct chat_format_text *out)
{
    size_t count = 0;
    for (size_t i = 11; i <= out->text.count; i++)
        count += memcmp(out->text.bytes + i - 11, "<|im_end|>\n", 11) == 0 ? 1 : 0;
    return count;
}

// The text, where U+0002 stands for what is told of every list of tools; `whole` is the storage.
static void put_instructions(struct text_buffer *whole, const json_t *text, const json_t *told)
{
    const char *bytes = json_string_value(text);
    whole->count = 0;
    const char *mark = told == NULL ? NULL : strchr(bytes, 2);
    const size_t before = mark == NULL ? json_string_length(text) : (size_t)(mark - bytes);
    assert_int_equal(text_buffer_append(whole, bytes, before, NULL), OK);
    if (mark == NULL)
        return;
    assert_int_equal(text_buffer_append_text(whole, json_string_value(told), NULL), OK);
    assert_int_equal(text_buffer_append_text(whole, mark + 1, NULL), OK);
}

// `told`: what the template tells about every list of tools, or NULL where there are none.
static void check_conversation(const json_t *test, struct chat_format_text *out, const json_t *told)
{
    const json_t *expected = json_object_get(test, "text");
    struct text_buffer whole;
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
    text_buffer_init(&whole, 1 << 20);
    put_instructions(&whole, expected, told);
    if (out->text.count != whole.count || memcmp(out->text.bytes, whole.bytes, whole.count) != 0)
        fail_msg("found:\n%.*s\nexpected:\n%.*s", (int)out->text.count, out->text.bytes,
                 (int)whole.count, whole.bytes);
    text_buffer_fini(&whole);
    // Each end is right after an <|im_end|>, and only the generation prompt follows the last.
    assert_int_equal(out->turn_count, count_turns(out));
    for (size_t i = 0; i < out->turn_count; i++)
        assert_memory_equal(out->text.bytes + out->turn_ends[i] - 11, "<|im_end|>\n", 11);
    if (!options.add_generation_prompt)
        assert_int_equal(out->turn_ends[out->turn_count - 1], out->text.count);
}

// Cases from `first` on; returns how many of them the template refuses.
static size_t check_file(const char *path, size_t first, size_t count_min)
{
    struct chat_format_text out;
    json_t *tests = json_load_file(path, 0, NULL);
    assert_true(json_array_size(tests) >= count_min);
    const json_t *told = first == 0 ? NULL : json_object_get(json_array_get(tests, 0), "text");
    chat_format_text_init(&out, 1 << 20);
    size_t refused = 0;
    for (size_t i = first; i < json_array_size(tests); i++) {
        check_conversation(json_array_get(tests, i), &out, told);
        refused += json_is_null(json_object_get(json_array_get(tests, i), "text")) ? 1 : 0;
    }
    chat_format_text_fini(&out);
    json_decref(tests);
    return refused;
}

static void conversations_render_as_the_template_does(void **state)
{
    (void)state;
    const size_t refused = check_file(SOURCE_DIR "/tests/golden/text/chat.json", 0, 250);
    assert_true(refused > 5 && refused < 50);
}

static void conversations_with_tools_render_as_the_template_does(void **state)
{
    (void)state;
    const size_t refused = check_file(SOURCE_DIR "/tests/golden/text/chat_tools.json", 1, 200);
    assert_true(refused > 2 && refused < 30);
}

// Encoding turn by turn must give the ids of the whole: that is what makes ends checkpoint places.
static void check_ends(const char *path, const struct tokenizer *tokenizer,
                       struct tokenizer_scratch *scratch)
{
    struct chat_format_text out;
    static uint32_t whole[IDS_MAX], parts[IDS_MAX];
    json_t *tests = json_load_file(path, 0, NULL);
    chat_format_text_init(&out, 1 << 20);
    for (size_t i = 0; i < json_array_size(tests); i++) {
        const json_t *test = json_array_get(tests, i);
        const struct chat_format_options options = options_of(test);
        if (chat_format_render(&out, json_object_get(test, "messages"), &options, NULL) != OK)
            continue;
        struct token_ids all = {whole, 0, IDS_MAX}, joined = {parts, 0, IDS_MAX};
        const char *text = out.text.bytes;
        assert_int_equal(tokenizer_encode(tokenizer, scratch, &all, text, out.text.count, NULL),
                         OK);
        size_t start = 0;
        for (size_t turn = 0; turn <= out.turn_count; turn++) {
            const size_t end = turn == out.turn_count ? out.text.count : out.turn_ends[turn];
            assert_int_equal(
                tokenizer_encode(tokenizer, scratch, &joined, text + start, end - start, NULL), OK);
            start = end;
        }
        assert_int_equal(joined.count, all.count);
        assert_memory_equal(parts, whole, all.count * sizeof *whole);
    }
    chat_format_text_fini(&out);
    json_decref(tests);
}

static void turn_ends_are_ends_of_tokens(void **state)
{
    (void)state;
    struct tokenizer tokenizer;
    text_golden_load(&tokenizer, "tests/golden/text/family");
    struct tokenizer_scratch *scratch = tokenizer_scratch_new(&tokenizer);
    check_ends(SOURCE_DIR "/tests/golden/text/chat.json", &tokenizer, scratch);
    check_ends(SOURCE_DIR "/tests/golden/text/chat_tools.json", &tokenizer, scratch);
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
    refuse("[" HI ", {\"role\": \"developer\"}]", E_INPUT, "messages[1].role: \"developer\"");
    refuse("[" HI ", {\"role\": \"system\"}]", E_INPUT, "messages[1].role: \"system\" may only");
    refuse("[{\"role\": \"system\", \"content\": \"x\"}]", E_INPUT, "none is a user's question");
    refuse("[{\"role\": \"user\", \"content\": 5}]", E_INPUT, "messages[0].content: not a string");
    refuse("[{\"role\": \"user\", \"contents\": \"x\"}]", E_INPUT, "messages[0].contents: unknown");
    refuse("[{\"role\": \"user\", \"name\": 3}]", E_INPUT, "messages[0].name: not a string");
    refuse("[" HI ", {\"role\": \"assistant\", \"reasoning_content\": 3}]", E_INPUT,
           "messages[1].reasoning_content: not a string");
    refuse("[" HI ", {\"role\": \"assistant\", \"tool_calls\": [{}]}]", E_INPUT,
           "messages[1].tool_calls[0].function.name: not a string");
    refuse("[" HI ", {\"role\": \"assistant\", \"audio\": {\"id\": 1}}]", E_INPUT,
           "messages[1].audio: unknown");
    refuse("[" HI ", {\"role\": \"tool\", \"tool_call_id\": 3}]", E_INPUT,
           "messages[1].tool_call_id: not a string");
    refuse("[{\"role\": \"user\", \"content\": [{\"type\": \"video\"}]}]", E_UNSUPPORTED,
           "messages[0].content[0].type: \"video\"");
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

static void render_with(const char *tools, enum status status, const char *words)
{
    struct chat_format_text out;
    struct error error = {.text = ""};
    json_t *messages = json_loads("[" HI "]", 0, NULL);
    json_t *value = json_loads(tools, JSON_DECODE_ANY, NULL);
    struct chat_format_options options = chat_format_defaults();
    assert_true(options.enable_thinking && options.add_generation_prompt);
    options.tools = value;
    chat_format_text_init(&out, 4000);
    assert_int_equal(chat_format_render(&out, messages, &options, &error), status);
    if (status != OK)
        assert_non_null(strstr(error.text, words));
    else
        assert_memory_equal(out.text.bytes, words, strlen(words));
    chat_format_text_fini(&out);
    json_decref(messages);
    json_decref(value);
}

static void tools_are_a_list_of_objects_or_nothing(void **state)
{
    (void)state;
    render_with("{}", E_INPUT, "tools: not a list");
    render_with("[{}, 3]", E_INPUT, "tools[1]: not an object");
    render_with("[]", OK, "<|im_start|>user\nhi");
    render_with("null", OK, "<|im_start|>user\nhi");
    render_with("[{}]", OK, "<|im_start|>system\n# Tools");
}

// What an OpenAI client sends back of an answer: members without content are no unknown keys.
static void render_nothing(const char *content)
{
    struct chat_format_text out;
    static const char expected[] = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
                                   "<think>\n\n</think>\n\n<tool_call>\n<function=f>\n"
                                   "</function>\n</tool_call><|im_end|>\n";
    char text[400];
    snprintf(text, sizeof text,
             "[" HI ", {\"role\": \"assistant\", \"content\": %s, \"refusal\": null, "
             "\"annotations\": [], \"tool_calls\": [{\"id\": \"a\", \"type\": \"function\", "
             "\"function\": {\"name\": \"f\", \"arguments\": \"\"}}]}]",
             content);
    json_t *messages = json_loads(text, 0, NULL);
    struct chat_format_options options = chat_format_defaults();
    options.add_generation_prompt = false;
    chat_format_text_init(&out, 4000);
    assert_int_equal(chat_format_render(&out, messages, &options, NULL), OK);
    assert_int_equal(out.text.count, strlen(expected));
    assert_memory_equal(out.text.bytes, expected, out.text.count);
    chat_format_text_fini(&out);
    json_decref(messages);
}

static void members_that_hold_nothing_are_accepted(void **state)
{
    (void)state;
    render_nothing("null");
    render_nothing("[]");
    render_nothing("[{\"text\": \"\"}]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conversations_render_as_the_template_does),
        cmocka_unit_test(conversations_with_tools_render_as_the_template_does),
        cmocka_unit_test(turn_ends_are_ends_of_tokens),
        cmocka_unit_test(bad_messages_are_refused_by_place),
        cmocka_unit_test(a_text_above_the_limit_is_refused),
        cmocka_unit_test(tools_are_a_list_of_objects_or_nothing),
        cmocka_unit_test(members_that_hold_nothing_are_accepted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
