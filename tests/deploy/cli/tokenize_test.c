// SPDX-License-Identifier: Apache-2.0
// tokenize_test.c -- the real `deltamesh tokenize` on the demo model: lines there and back, a line
// that cannot be done, models without a tokenizer. (Agreement with others: coordinator/text.)
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "tests/fixtures/program.h"

enum { WAIT_MS = 20000 };

static struct program program;

static void start(const char *model, const char *input)
{
    const char *words[] = {BINARY_DIR "/bin/deltamesh", "tokenize", "--model", model, NULL};
    program_start(&program, words, input);
}

static int tear_down(void **state)
{
    (void)state;
    program_end(&program);
    return 0;
}

static void there_and_back(void **state)
{
    (void)state;
    static const char text[] = "Once upon a time, h\xc3\xa9 said.";
    char line[256];
    snprintf(line, sizeof line, "{\"text\":\"%s\"}\nnot json\n{\"text\":\"b\"}", text);
    start(SOURCE_DIR "/deploy/demo/model", line);
    assert_int_equal(program_wait(&program, WAIT_MS), 0);
    char *out = strdup(program_out(&program)), *rest = out;
    json_t *ids = json_loads(strsep(&rest, "\n"), 0, NULL);
    assert_true(json_array_size(json_object_get(ids, "ids")) > 3);
    json_t *failed = json_loads(strsep(&rest, "\n"), 0, NULL);
    assert_true(json_is_string(json_object_get(failed, "error")));
    json_t *last = json_loads(strsep(&rest, "\n"), 0, NULL);
    assert_int_equal(json_array_size(json_object_get(last, "ids")), 1);
    assert_string_equal(rest, "");
    program_end(&program);

    char *ids_line = json_dumps(ids, JSON_COMPACT);
    start(SOURCE_DIR "/deploy/demo/model", ids_line);
    assert_int_equal(program_wait(&program, WAIT_MS), 0);
    json_t *back = json_loads(program_out(&program), 0, NULL);
    assert_string_equal(json_string_value(json_object_get(back, "text")), text);
    free(ids_line);
    free(out);
    json_decref(ids);
    json_decref(failed);
    json_decref(last);
    json_decref(back);
}

static void each_line_is_answered_at_once(void **state)
{
    (void)state;
    start(SOURCE_DIR "/deploy/demo/model", NULL); // its stdin stays open
    assert_int_equal(write(program.input_fd, "{\"text\":\"a\"}\n", 13), 13);
    assert_true(program_wait_out(&program, "]}\n", WAIT_MS));
    close(program.input_fd);
    program.input_fd = -1;
    assert_int_equal(program_wait(&program, WAIT_MS), 0);
}

static void models_without_a_tokenizer(void **state)
{
    (void)state;
    start(SOURCE_DIR "/tests/golden/moe_e8_r2", "");
    assert_int_equal(program_wait(&program, WAIT_MS), 2);
    assert_non_null(strstr(program_errors(&program), "tokenizer.json"));
    program_end(&program);
    start("/nonexistent", "");
    assert_int_equal(program_wait(&program, WAIT_MS), 2);
    assert_non_null(strstr(program_errors(&program), "/nonexistent"));
    program_end(&program);
    const char *words[] = {BINARY_DIR "/bin/deltamesh", "tokenize", NULL};
    program_start(&program, words, "");
    assert_int_equal(program_wait(&program, WAIT_MS), 1);
    assert_non_null(strstr(program_errors(&program), "--model DIR is needed"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(there_and_back),
        TEST(each_line_is_answered_at_once),
        TEST(models_without_a_tokenizer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
