// SPDX-License-Identifier: Apache-2.0
// tokenize_lines_test.c -- lines and their answers, word by word; strictness about keys and types.
#include "coordinator/text/tokenize_lines.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixtures/text_golden.h"

static struct tokenizer tokenizer;
static struct tokenizer_scratch *scratch;

static int open_tokenizer(void **state)
{
    (void)state;
    text_golden_load(&tokenizer, "tests/golden/text/family");
    scratch = tokenizer_scratch_new(&tokenizer);
    return scratch == NULL;
}

static int close_tokenizer(void **state)
{
    (void)state;
    tokenizer_scratch_free(scratch);
    tokenizer_fini(&tokenizer);
    return 0;
}

// The answer to a line, parsed; json_decref it.
static json_t *answer(const char *line, size_t bytes)
{
    struct text_buffer out;
    struct error error;
    text_buffer_init(&out, 1 << 20);
    if (tokenize_lines_answer(&out, &tokenizer, scratch, line, bytes, &error) != OK)
        fail_msg("%s", error.text);
    assert_true(out.count > 0 && out.bytes[out.count - 1] == '\n');
    assert_null(memchr(out.bytes, '\n', out.count - 1));
    json_t *value = json_loadb(out.bytes, out.count, JSON_ALLOW_NUL, NULL);
    assert_non_null(value);
    text_buffer_fini(&out);
    return value;
}

static void check(const char *line, const char *expected)
{
    json_t *found = answer(line, strlen(line));
    char *text = json_dumps(found, JSON_COMPACT);
    assert_string_equal(text, expected);
    free(text);
    json_decref(found);
}

// The line's answer is an error, and nothing else, that holds the words.
static void refuse_bytes(const char *line, size_t bytes, const char *words)
{
    json_t *found = answer(line, bytes);
    const char *text = json_string_value(json_object_get(found, "error"));
    assert_int_equal(json_object_size(found), 1);
    if (text == NULL || strstr(text, words) == NULL)
        fail_msg("%s: \"%s\" lacks \"%s\"", line, text == NULL ? "" : text, words);
    json_decref(found);
}

static void refuse(const char *line, const char *words)
{
    refuse_bytes(line, strlen(line), words);
}

static void texts_and_ids_go_both_ways(void **state)
{
    (void)state;
    static const char *const texts[] = {"hello, world", "a\\u0000b", "\\ud83d\\ude00\\n<|im_end|>",
                                        "", "caf\u00e9 \\\"quoted\\\" \\\\ \u2028"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        char line[256];
        snprintf(line, sizeof line, "{\"text\": \"%s\"}", texts[i]);
        json_t *ids = answer(line, strlen(line));
        assert_int_equal(json_object_size(ids), 1);
        assert_true(json_is_array(json_object_get(ids, "ids")));
        char *ids_line = json_dumps(ids, 0);
        json_t *back = answer(ids_line, strlen(ids_line));
        json_t *expected = json_loads(line, JSON_ALLOW_NUL, NULL);
        assert_true(json_equal(back, expected));
        json_decref(expected);
        json_decref(back);
        free(ids_line);
        json_decref(ids);
    }
    check("{\"ids\": []}", "{\"text\":\"\"}");
    check("{\"text\": \"\"}", "{\"ids\":[]}");
    char line[64], expected[64];
    snprintf(line, sizeof line, "{\"text\": \"<think>!<|im_end|>\"}");
    snprintf(expected, sizeof expected, "{\"ids\":[%u,0,%u]}", tokenizer.base_count + 5,
             tokenizer.base_count + 2);
    check(line, expected);
}

static void messages_give_text_and_ids(void **state)
{
    (void)state;
    static const char line[] = "{\"messages\": [{\"role\": \"user\", \"content\": \" hi \"}], "
                               "\"enable_thinking\": false, \"add_generation_prompt\": true, "
                               "\"preserve_thinking\": false, \"tools\": null}";
    json_t *found = answer(line, strlen(line));
    assert_int_equal(json_object_size(found), 2);
    const char *text = json_string_value(json_object_get(found, "text"));
    assert_string_equal(text, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n\n"
                              "</think>\n\n");
    json_t *again = json_pack("{s:O}", "text", json_object_get(found, "text"));
    char *text_line = json_dumps(again, 0);
    json_t *ids = answer(text_line, strlen(text_line));
    assert_true(json_equal(json_object_get(ids, "ids"), json_object_get(found, "ids")));
    free(text_line);
    json_decref(ids);
    json_decref(again);
    json_decref(found);
    static const char plain[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}";
    found = answer(plain, strlen(plain));
    assert_string_equal(json_string_value(json_object_get(found, "text")),
                        "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n<think>\n");
    json_decref(found);
}

static void tools_and_kept_thoughts_are_rendered(void **state)
{
    (void)state;
    static const char line[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", "
        "\"content\": \"b\", \"reasoning_content\": \"why\"}, {\"role\": \"user\", \"content\": "
        "\"c\"}], \"tools\": [{\"name\": \"f\"}], \"preserve_thinking\": true}";
    json_t *found = answer(line, strlen(line));
    const char *text = json_string_value(json_object_get(found, "text"));
    assert_non_null(text);
    assert_non_null(strstr(text, "<tools>\n{\"name\": \"f\"}\n</tools>"));
    assert_non_null(strstr(text, "assistant\n<think>\nwhy\n</think>\n\nb<|im_end|>"));
    json_decref(found);
}

static void a_line_that_cannot_be_done_says_why(void **state)
{
    (void)state;
    refuse("", "not JSON");
    refuse("{", "not JSON");
    refuse("{\"text\": \"x\"} y", "not JSON");
    refuse("{\"text\": \"\\ud800\"}", "not JSON");
    refuse("{\"text\": \"a\", \"text\": \"b\"}", "not JSON");
    refuse("[1]", "not a JSON object");
    refuse("{}", "no \"text\", \"ids\" or \"messages\"");
    refuse("{\"txt\": \"x\"}", "no \"text\"");
    refuse("{\"text\": \"x\", \"ids\": []}", "both \"text\" and \"ids\"");
    refuse("{\"text\": \"x\", \"txt\": 1}", "unknown key \"txt\"");
    refuse("{\"text\": \"x\", \"enable_thinking\": true}", "unknown key \"enable_thinking\"");
    refuse("{\"text\": 5}", "text: not a string");
    refuse("{\"text\": null}", "text: not a string");
    refuse("{\"ids\": 5}", "ids: not a list");
    refuse("{\"ids\": [1, \"2\"]}", "ids[1]: not a token id");
    refuse("{\"ids\": [1.5]}", "ids[0]: not a token id");
    refuse("{\"ids\": [-1]}", "ids[0]: not a token id");
    refuse("{\"ids\": [4294967296]}", "ids[0]: not a token id");
    refuse("{\"messages\": 5}", "messages: not a list");
    refuse("{\"messages\": [{\"role\": \"robot\"}]}", "messages[0].role");
    refuse("{\"messages\": [], \"enable_thinking\": 1}", "enable_thinking: not true or false");
    refuse("{\"messages\": [], \"preserve_thinking\": 0}", "preserve_thinking: not true or");
    refuse("{\"messages\": [], \"tools\": {}}", "tools: not a list");
    refuse("{\"messages\": [], \"temperature\": 1}", "unknown key \"temperature\"");
    refuse_bytes("{\"text\": \"\xff\"}", 13, "byte 0xff at offset 10");
    char number[64];
    snprintf(number, sizeof number, "{\"ids\": [0, %u]}", tokenizer.id_count);
    refuse(number, "ids[1]");
    // A key so long that the error is cut, perhaps within a code point, is still JSON.
    for (size_t shift = 0; shift < 3; shift++) {
        char line[512] = "{\"text\": \"x\", \"";
        memset(line + strlen(line), 'a', shift);
        for (size_t i = 0; i < 60; i++)
            strcat(line, "\u65e5");
        strcat(line, "\": 1}");
        refuse(line, "unknown key");
    }
}

static void an_answer_too_long_is_an_error_of_the_line(void **state)
{
    (void)state;
    struct text_buffer out;
    struct error error;
    text_buffer_init(&out, 110);
    assert_int_equal(text_buffer_append_text(&out, "before\n", NULL), OK);
    char line[256];
    snprintf(line, sizeof line, "{\"text\": \"%0150d\"}", 1);
    assert_int_equal(tokenize_lines_answer(&out, &tokenizer, scratch, line, strlen(line), &error),
                     OK);
    assert_non_null(memmem(out.bytes, out.count, "limit of 110 bytes", 18));
    out.count = 100;
    assert_int_equal(tokenize_lines_answer(&out, &tokenizer, scratch, line, strlen(line), &error),
                     E_LIMIT);
    assert_int_equal(out.count, 100);
    text_buffer_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_and_ids_go_both_ways),
        cmocka_unit_test(messages_give_text_and_ids),
        cmocka_unit_test(tools_and_kept_thoughts_are_rendered),
        cmocka_unit_test(a_line_that_cannot_be_done_says_why),
        cmocka_unit_test(an_answer_too_long_is_an_error_of_the_line),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
