// SPDX-License-Identifier: Apache-2.0
// tool_calls_test.c -- texts of models to events, cut in every way; malformed texts; calls that the
// chat format wrote, read back.
#include "coordinator/text/tool_calls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/text/chat_tools.h"

enum { STORY_BYTES_MAX = 1 << 20 };

static const char tools_text[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {\"type\": "
    "\"object\", \"properties\": {\"s\": {\"type\": \"string\"}, \"i\": {\"type\": \"integer\"}, "
    "\"b\": {\"type\": \"boolean\"}, \"o\": {\"type\": \"object\"}, \"m\": {\"anyOf\": [{\"type\": "
    "\"string\"}, {\"type\": \"null\"}]}}}}}, {\"name\": \"bare\"}]";

// What was told, for comparing: [text], {call name}, arguments as they are, </> or </cut>.
struct story {
    struct text_buffer text;
    int last; // kind and index of the event before, which a neighbour continues
};

static void tell(struct story *story, const struct tool_calls *calls)
{
    static const char *const heads[] = {"[", "(", "", ""};
    for (size_t i = 0; i < calls->event_count; i++) {
        const struct tool_calls_event *event = &calls->events[i];
        const int now = event->index * 4 + (int)event->kind;
        assert_true((event->count > 0) == (event->kind != TOOL_CALLS_END));
        if (now != story->last)
            assert_int_equal(text_buffer_append_text(&story->text, heads[event->kind], NULL), OK);
        story->last = now;
        assert_int_equal(text_buffer_append(&story->text, event->bytes, event->count, NULL), OK);
        if (event->kind == TOOL_CALLS_BEGIN)
            assert_int_equal(text_buffer_append_text(&story->text, ")", NULL), OK);
        if (event->kind == TOOL_CALLS_END)
            assert_int_equal(
                text_buffer_append_text(&story->text, event->complete ? "</>" : "</cut>", NULL),
                OK);
    }
}

// Reads text in pieces: `first` bytes, then pieces of `step` bytes.
static void read_text(struct story *story, const json_t *tools, const char *text, size_t first,
                      size_t step)
{
    struct tool_calls calls;
    const size_t bytes = strlen(text);
    story->text.count = 0;
    story->last = -1;
    tool_calls_init(&calls, tools);
    for (size_t at = 0, piece = first; at < bytes; at += piece, piece = step) {
        piece = piece < bytes - at ? piece : bytes - at;
        assert_int_equal(tool_calls_feed(&calls, text + at, piece, NULL), OK);
        tell(story, &calls);
    }
    assert_int_equal(tool_calls_finish(&calls, NULL), OK);
    tell(story, &calls);
    assert_int_equal(text_buffer_append(&story->text, "", 1, NULL), OK);
    tool_calls_fini(&calls);
}

// The same story however the text is cut: whole, in two at every place, byte by byte.
static void check(const char *text, const char *expected)
{
    struct story story;
    json_t *tools = json_loads(tools_text, 0, NULL);
    assert_non_null(tools);
    text_buffer_init(&story.text, STORY_BYTES_MAX);
    for (size_t first = strlen(text); first > 0; first--) {
        read_text(&story, tools, text, first, strlen(text));
        assert_string_equal(story.text.bytes, expected);
    }
    read_text(&story, tools, text, 1, 1);
    assert_string_equal(story.text.bytes, expected);
    text_buffer_fini(&story.text);
    json_decref(tools);
}

#define OPEN           "<tool_call>\n<function=f>\n"
#define CLOSE          "</function>\n</tool_call>"
#define P(name, value) "<parameter=" name ">\n" value "\n</parameter>\n"

static void text_without_calls_is_text(void **state)
{
    (void)state;
    check("x", "[x");
    check(" \n ", "[ \n ");
    check("a < b <tool_cal", "[a < b <tool_cal");
    check("<", "[<");
    check("</tool_call> <function=f>\n</function>", "[</tool_call> <function=f>\n</function>");
}

static void calls_become_events(void **state)
{
    (void)state;
    check(OPEN P("s", "Paris") CLOSE, "(f){\"s\": \"Paris\"}</>");
    check(OPEN CLOSE, "(f){}</>");
    check("<tool_call><function=bare></function></tool_call>", "(bare){}</>");
    check("I look.\n\n" OPEN P("i", "42") P("b", "True") CLOSE,
          "[I look.\n\n(f){\"i\": 42, \"b\": true}</>");
    check("\n\n" OPEN P("s", "a\nb\\\"\t") CLOSE "\n", "(f){\"s\": \"a\\nb\\\\\\\"\\t\"}</>");
    check(OPEN P("s", "1") CLOSE "\n" OPEN P("s", "2") CLOSE,
          "(f){\"s\": \"1\"}</>(f){\"s\": \"2\"}</>");
    check(OPEN CLOSE " and more", "(f){}</>[ and more");
    check("<tool_call>\n<function=unknown>\n" P("x", "5") CLOSE, "(unknown){\"x\": \"5\"}</>");
}

static void values_go_by_the_schema(void **state)
{
    (void)state;
    check(OPEN P("o", "{\"a\":[1,0.1,null]}") CLOSE, "(f){\"o\": {\"a\": [1, 0.1, null]}}</>");
    check(OPEN P("o", "{'a': 1}") CLOSE, "(f){\"o\": \"{'a': 1}\"}</>");
    check(OPEN P("i", "x") CLOSE, "(f){\"i\": \"x\"}</>");
    check(OPEN P("i", "null") CLOSE, "(f){\"i\": null}</>");
    check(OPEN P("s", "null") CLOSE, "(f){\"s\": \"null\"}</>");
    check(OPEN P("m", "None") CLOSE, "(f){\"m\": null}</>");
    check(OPEN P("m", "nul") CLOSE, "(f){\"m\": \"nul\"}</>");
    check(OPEN P("m", "nullable") CLOSE, "(f){\"m\": \"nullable\"}</>");
    check(OPEN P("\"k\"", "v") CLOSE, "(f){\"\\\"k\\\"\": \"v\"}</>");
}

static void newlines_belong_to_the_tags_once(void **state)
{
    (void)state;
    check(OPEN P("s", "") CLOSE, "(f){\"s\": \"\"}</>");
    check(OPEN "<parameter=s>\n</parameter>" CLOSE, "(f){\"s\": \"\"}</>");
    check(OPEN "<parameter=s></parameter>" CLOSE, "(f){\"s\": \"\"}</>");
    check(OPEN P("s", "\n\na\n\n") CLOSE, "(f){\"s\": \"\\n\\na\\n\\n\"}</>");
    check(OPEN "<parameter=s>x</parameter></function></tool_call>", "(f){\"s\": \"x\"}</>");
}

static void values_may_hold_tags(void **state)
{
    (void)state;
    check(OPEN P("s", "a </parameter> b </function> <") CLOSE,
          "(f){\"s\": \"a </parameter> b </function> <\"}</>");
    check(OPEN P("s", "x\n</function>\ny\n</tool_call>\nz") CLOSE,
          "(f){\"s\": \"x\\n</function>\\ny\\n</tool_call>\\nz\"}</>");
    check(OPEN P("s", OPEN P("s", "in") P("q", "r") CLOSE "\nrest") P("i", "1") CLOSE,
          "(f){\"s\": \"<tool_call>\\n<function=f>\\n<parameter=s>\\nin\\n</parameter>\\n"
          "<parameter=q>\\nr\\n</parameter>\\n</function>\\n</tool_call>\\nrest\", \"i\": 1}</>");
}

static void forgotten_ends_are_understood(void **state)
{
    (void)state;
    check(OPEN "<parameter=s>\nx\n<parameter=i>\n3\n</parameter>\n" CLOSE,
          "(f){\"s\": \"x\", \"i\": 3}</>");
    check(OPEN "<parameter=s>\nx\n" CLOSE, "(f){\"s\": \"x\"}</>");
    check(OPEN "<parameter=s>\nx\n</tool_call>\n" OPEN CLOSE, "(f){\"s\": \"x\"}</>(f){}</>");
    check(OPEN P("s", "x") "</tool_call>", "(f){\"s\": \"x\"}</>");
    check(OPEN P("s", "x") "</function>", "(f){\"s\": \"x\"}</>");
    check(OPEN P("s", "x") "</function>\n" OPEN CLOSE, "(f){\"s\": \"x\"}</>(f){}</>");
    check(OPEN P("s", "a\n<parameter=s>\nb") CLOSE, "(f){\"s\": \"a\\n<parameter=s>\\nb\"}</>");
}

static void what_is_no_call_stays_text(void **state)
{
    (void)state;
    check("<tool_call>\n{\"name\": \"f\"}\n</tool_call>",
          "[<tool_call>\n{\"name\": \"f\"}\n</tool_call>");
    check("write <tool_call><function=f> so", "[write <tool_call><function=f> so");
    check("<tool_call>\n<function={{ name }}>\n" CLOSE,
          "[<tool_call>\n<function={{ name }}>\n" CLOSE);
    check("<tool_call>\n<function=>\n" CLOSE, "[<tool_call>\n<function=>\n" CLOSE);
    check("<tool_call><tool_call>" CLOSE, "[<tool_call><tool_call>" CLOSE);
    check("<tool_call>" OPEN CLOSE, "[<tool_call>(f){}</>");
    check(OPEN CLOSE "</parameter>\n" CLOSE, "(f){}</>[</parameter>\n" CLOSE);
    check(OPEN P("s", "x") "<parameter=>" CLOSE, "(f){\"s\": \"x\"}</>[\n<parameter=>" CLOSE);
}

static void a_text_that_ends_within_a_call_leaves_it_open(void **state)
{
    (void)state;
    check("<tool_call>\n<function=f", "[<tool_call>\n<function=f");
    check(OPEN, "(f)</cut>");
    check(OPEN "<parame", "(f)</cut>");
    check(OPEN "<parameter=s>", "(f){\"s\": </cut>");
    check(OPEN "<parameter=s>\nPar", "(f){\"s\": \"Par</cut>");
    check(OPEN "<parameter=s>\nPar\n</para", "(f){\"s\": \"Par</cut>");
    check(OPEN "<parameter=m>\nnul", "(f){\"m\": \"nul</cut>");
    check(OPEN "<parameter=o>\n{\"a\": [1,", "(f){\"o\": {\"a\": [1,</cut>");
    check(OPEN "<parameter=s>\nPar\n</parameter>", "(f){\"s\": \"Par\"</cut>");
    check(OPEN P("s", "x") "</func", "(f){\"s\": \"x\"</cut>");
    check(OPEN P("s", "x") "</function>\n</tool", "(f){\"s\": \"x\"}</>");
}

// Names, white space and numbers of calls that are longer than any that is meant; values that are
// too long to wait for are strings.
static void everything_held_is_bounded(void **state)
{
    (void)state;
    struct tool_calls calls;
    json_t *tools = json_loads(tools_text, 0, NULL);
    static const char *const heads[] = {"<tool_call>", "<tool_call><function=", OPEN "<parameter=",
                                        OPEN "<parameter=s></parameter>", OPEN "<parameter=o>"};
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        tool_calls_init(&calls, tools);
        assert_int_equal(tool_calls_feed(&calls, heads[i], strlen(heads[i]), NULL), OK);
        size_t value_bytes = 0;
        for (int k = 0; k < 300000; k++) {
            assert_int_equal(tool_calls_feed(&calls, i == 0 || i == 3 ? " " : "x", 1, NULL), OK);
            assert_true(calls.held.count < 2048);
            value_bytes = calls.value.count;
        }
        assert_true(value_bytes <= TOOL_CALLS_VALUE_BYTES_MAX + 1);
        assert_true(i < 4 || calls.streaming);
        tool_calls_fini(&calls);
    }
    tool_calls_init(&calls, tools);
    for (int k = 0; k < TOOL_CALLS_MAX + 2; k++)
        assert_int_equal(tool_calls_feed(&calls, OPEN CLOSE, strlen(OPEN CLOSE), NULL), OK);
    assert_int_equal(calls.call_count, TOOL_CALLS_MAX);
    assert_int_equal(calls.events[calls.event_count - 1].kind, TOOL_CALLS_TEXT);
    tool_calls_fini(&calls);
    json_decref(tools);
}

// ---- calls that the chat format wrote ----

// Schemas of the types that the arguments have.
static json_t *tools_for(const char *name, json_t *arguments)
{
    json_t *properties = json_object(), *value;
    const char *key;
    json_object_foreach(arguments, key, value)
    {
        const char *type = json_is_string(value)                           ? "string"
                           : json_is_number(value)                         ? "number"
                           : json_is_boolean(value)                        ? "boolean"
                           : json_is_object(value) || json_is_array(value) ? "object"
                                                                           : "null";
        assert_int_equal(json_object_set_new(properties, key, json_pack("{s:[s]}", "type", type)),
                         0);
        if (json_is_null(value))
            assert_int_equal(json_object_set_new(properties, key,
                                                 json_pack("{s:[ss]}", "type", "null", "number")),
                             0);
    }
    return json_pack("[{s:{s:s,s:{s:o}}}]", "function", "name", name, "parameters", "properties",
                     properties);
}

// A whole number written as 1.0 comes back as 1, as with vLLM.
static void check_same(const json_t *given, const json_t *found)
{
    if (json_is_number(given)) {
        assert_true(json_is_number(found));
        assert_true(json_number_value(given) == json_number_value(found));
    } else {
        assert_true(json_equal(given, found));
    }
}

static void check_round_trip(const json_t *call)
{
    const json_t *inner = json_object_get(call, "function");
    const json_t *function = inner != NULL ? inner : call;
    const char *name = json_string_value(json_object_get(function, "name")), *key;
    json_t *arguments = json_object_get(function, "arguments"), *value;
    struct text_buffer text;
    struct story story;
    if (json_is_string(arguments))
        arguments = json_loads(json_string_value(arguments), 0, NULL);
    else
        arguments = arguments == NULL ? json_object() : json_incref(arguments);
    json_t *tools = tools_for(name, arguments), *list = json_pack("[O]", call);
    text_buffer_init(&text, STORY_BYTES_MAX);
    text_buffer_init(&story.text, STORY_BYTES_MAX);
    assert_int_equal(chat_tools_append_calls(&text, list, false, true, NULL), OK);
    assert_int_equal(text_buffer_append(&text, "", 1, NULL), OK);
    read_text(&story, tools, text.bytes, 1, 3);
    const char *json = strchr(story.text.bytes, ')') + 1;
    json_t *found = json_loads(json, JSON_DISABLE_EOF_CHECK, NULL);
    if (json_object_size(found) != json_object_size(arguments))
        fail_msg("%s gave %s", text.bytes, story.text.bytes);
    assert_string_equal(json + strlen(json) - 4, "}</>");
    json_object_foreach(arguments, key, value)
    {
        check_same(value, json_object_get(found, key));
    }
    text_buffer_fini(&text);
    text_buffer_fini(&story.text);
    json_decref(found);
    json_decref(tools);
    json_decref(list);
    json_decref(arguments);
}

static void what_the_chat_format_writes_is_read_back(void **state)
{
    (void)state;
    json_t *tests = json_load_file(SOURCE_DIR "/tests/golden/text/chat_tools.json", 0, NULL);
    size_t count = 0;
    for (size_t i = 0; i < json_array_size(tests); i++) {
        const json_t *messages = json_object_get(json_array_get(tests, i), "messages");
        for (size_t k = 0; k < json_array_size(messages); k++) {
            const json_t *calls = json_object_get(json_array_get(messages, k), "tool_calls");
            for (size_t c = 0; c < json_array_size(calls); c++, count++)
                check_round_trip(json_array_get(calls, c));
        }
    }
    assert_true(count > 200);
    json_decref(tests);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_without_calls_is_text),
        cmocka_unit_test(calls_become_events),
        cmocka_unit_test(values_go_by_the_schema),
        cmocka_unit_test(newlines_belong_to_the_tags_once),
        cmocka_unit_test(values_may_hold_tags),
        cmocka_unit_test(forgotten_ends_are_understood),
        cmocka_unit_test(what_is_no_call_stays_text),
        cmocka_unit_test(a_text_that_ends_within_a_call_leaves_it_open),
        cmocka_unit_test(everything_held_is_bounded),
        cmocka_unit_test(what_the_chat_format_writes_is_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
