// SPDX-License-Identifier: Apache-2.0
// answer_text_test.c -- thought, text and calls come out the same however the text was cut, and a
// stop string ends all of it.
#include "coordinator/answer_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/openai_json.h"

static const char text[] =
    "let me\nsee\n</think>\n\nLook: <tool_call>\n<function=f>\n<parameter=a>\n"
    "1\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=g>\n"
    "</function>\n</tool_call>";
static struct text_buffer reasoning, content, calls;
static const struct answer_parts parts = {&reasoning, &content, &calls};
static struct answer_text answer;

static void empty(void)
{
    reasoning.count = content.count = calls.count = 0;
}

static int set_up(void **state)
{
    (void)state;
    text_buffer_init(&reasoning, 1 << 16);
    text_buffer_init(&content, 1 << 16);
    text_buffer_init(&calls, 1 << 16);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    text_buffer_fini(&reasoning);
    text_buffer_fini(&content);
    text_buffer_fini(&calls);
    return 0;
}

static void assert_text(const struct text_buffer *buffer, const char *wanted)
{
    assert_int_equal(buffer->count, strlen(wanted));
    if (buffer->count > 0)
        assert_memory_equal(buffer->bytes, wanted, buffer->count);
}

static void begin(const struct answer_text_options *options)
{
    struct error error;
    empty();
    assert_int_equal(answer_text_init(&answer, options, &error), OK);
}

// Feeds all of it in pieces of so many bytes, and finishes.
static void feed_all(size_t piece)
{
    for (size_t at = 0; at < sizeof text - 1; at += piece) {
        size_t rest = sizeof text - 1 - at;
        assert_int_equal(
            answer_text_feed(&answer, &parts, text + at, rest < piece ? rest : piece, true), OK);
    }
    assert_int_equal(answer_text_finish(&answer, &parts), OK);
}

static void parts_whatever_the_cut(void **state)
{
    (void)state;
    json_t *tools =
        json_loads("[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":"
                   "{\"properties\":{\"a\":{\"type\":\"integer\"}}}}}]",
                   0, NULL);
    const struct answer_text_options options = {
        .in_thought = true, .tools = {.tools = tools}, .id = "x"};
    for (size_t piece = 1; piece <= sizeof text; piece++) {
        begin(&options);
        feed_all(piece);
        assert_text(&reasoning, "let me\nsee");
        assert_text(&content, "Look: ");
        assert_text(&calls,
                    "{\"id\":\"call_x-0\",\"type\":\"function\",\"function\":{\"name\":\"f\","
                    "\"arguments\":\"{\\\"a\\\": 1}\"}},{\"id\":\"call_x-1\",\"type\":"
                    "\"function\",\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}");
        assert_string_equal(openai_tools_reason(&answer.tools, "stop"), "tool_calls");
        assert_string_equal(openai_tools_reason(&answer.tools, "length"), "length");
        answer_text_fini(&answer);
    }
    json_decref(tools);
}

static void stop_string_ends_it_all(void **state)
{
    (void)state;
    json_t *tools = json_array();
    const struct stop_string stop = {.bytes = "<function=g", .count = 11};
    struct answer_text_options options = {.stops = &stop,
                                          .stops_count = 1,
                                          .in_thought = true,
                                          .tools = {.tools = tools},
                                          .id = "x",
                                          .is_stream = true};
    for (size_t piece = 1; piece <= sizeof text; piece += 7) {
        begin(&options);
        feed_all(piece);
        assert_true(answer.is_stopped);
        assert_ptr_equal(answer.stop, &answer.strings[0]);
        assert_int_equal(answer.tools.count, 1);
        answer_text_fini(&answer);
    }
    options.stops_count = 0;
    options.tools.one_only = true;
    begin(&options);
    feed_all(3);
    assert_true(answer.is_stopped);
    assert_null(answer.stop);
    assert_int_equal(answer.tools.count, 1);
    answer_text_fini(&answer);
    json_decref(tools);
}

static void put_off_stops_do_nothing(void **state)
{
    (void)state;
    const struct stop_string stop = {.bytes = "b", .count = 1};
    const struct answer_text_options options = {
        .stops = &stop, .stops_count = 1, .include_stop = true, .id = "x"};
    begin(&options);
    assert_int_equal(answer_text_feed(&answer, &parts, "abc", 3, false), OK);
    assert_int_equal(answer_text_feed(&answer, &parts, "abc", 3, true), OK);
    assert_int_equal(answer_text_feed(&answer, &parts, "abc", 3, true), OK); // after its end
    assert_int_equal(answer_text_finish(&answer, &parts), OK);
    assert_text(&content, "abcab");
    answer_text_fini(&answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(parts_whatever_the_cut, set_up, tear_down),
        cmocka_unit_test_setup_teardown(stop_string_ends_it_all, set_up, tear_down),
        cmocka_unit_test_setup_teardown(put_off_stops_do_nothing, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
