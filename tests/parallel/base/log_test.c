// SPDX-License-Identifier: Apache-2.0
// log_test.c -- one event, one line: head, level, forged lines, long lines, many threads.
#include "parallel/base/log.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

// Runs writer with stderr in a file; the caller frees the text.
static char *capture(void (*writer)(void))
{
    FILE *opened = tmpfile(); // a regular file: memfds do not serialise concurrent writes
    assert_non_null(opened);
    int file = fileno(opened), before = dup(STDERR_FILENO);
    assert_true(before >= 0);
    assert_true(dup2(file, STDERR_FILENO) >= 0);
    writer();
    assert_true(dup2(before, STDERR_FILENO) >= 0);
    close(before);
    off_t bytes = lseek(file, 0, SEEK_END);
    char *text = calloc((size_t)bytes + 1, 1);
    assert_int_equal(pread(file, text, (size_t)bytes, 0), bytes);
    fclose(opened);
    return text;
}

static int count_lines(const char *text)
{
    int lines = 0;
    for (; *text != '\0'; text++)
        lines += *text == '\n';
    return lines;
}

// Checks "2026-11-21T00:54:12.345Z " and returns what follows.
static const char *after_time(const char *line)
{
    static const char shape[] = "0000-00-00T00:00:00.000Z ";
    for (size_t i = 0; shape[i] != '\0'; i++) {
        if (shape[i] == '0')
            assert_in_range(line[i], '0', '9');
        else
            assert_int_equal(line[i], shape[i]);
    }
    return line + sizeof shape - 1;
}

static void write_two(void)
{
    log_info("listening on %s, limit %d", "tcp://127.0.0.1:5570", 8);
    log_set_name("deltamesh-worker-cpu", 3);
    log_error("rank gone");
    log_set_name("deltamesh", -1);
}

static void line_has_time_level_name_text(void **state)
{
    (void)state;
    char *text = capture(write_two);
    assert_int_equal(count_lines(text), 2);
    char *second = strchr(text, '\n') + 1;
    second[-1] = '\0';
    assert_string_equal(after_time(text),
                        "info deltamesh: listening on tcp://127.0.0.1:5570, limit 8");
    assert_string_equal(after_time(second), "error deltamesh-worker-cpu[3]: rank gone\n");
    free(text);
}

static void write_requests(void)
{
    log_request(LOG_INFO, "r\n1", "it %s", "left");
    log_set_format(LOG_JSON);
    log_set_name("deltamesh-worker-cpu", 3);
    log_request(LOG_WARNING, "a\"b", "say \"\\\" \xff\n%s", "\xc3\xa9");
    log_set_name("deltamesh", -1);
    log_info("%s", "plain");
    char *longest = calloc(3000, 1);
    memset(longest, '"', 2999);
    log_request(LOG_INFO, longest, "%s", longest);
    free(longest);
    log_set_format(LOG_TEXT);
}

static void requests_and_json(void **state)
{
    (void)state;
    char *text = capture(write_requests), *line = text;
    const char *wanted[] = {
        "info deltamesh: request r 1: it left",
        ("\"level\":\"warning\",\"program\":\"deltamesh-worker-cpu\",\"rank\":3,"
         "\"request\":\"a\\\"b\",\"text\":\"say \\\"\\\\\\\" ? \xc3\xa9\"}"),
        "\"level\":\"info\",\"program\":\"deltamesh\",\"text\":\"plain\"}",
    };
    assert_int_equal(count_lines(text), 4);
    for (int i = 0; i < 3; i++) {
        char *end = strchr(line, '\n');
        *end = '\0';
        if (strstr(line, wanted[i]) == NULL)
            fail_msg("%s", line);
        assert_int_equal(line[0] == '{', i > 0);
        line = end + 1;
    }
    json_t *json = json_loads(line, 0, NULL);
    assert_non_null(json);
    assert_int_equal(json_string_length(json_object_get(json, "text")), LOG_LINE_BYTES_MAX - 1);
    json_decref(json);
    free(text);
}

static void write_all_levels(void)
{
    for (int least = LOG_DEBUG; least < LOG_LEVELS; least++) {
        log_set_level((enum log_level)least);
        log_request(LOG_DEBUG, "", "least %d", least);
        log_info("least %d", least);
        log_warning("least %d", least);
        log_error("least %d", least);
    }
    log_set_level(LOG_INFO);
}

static void lower_levels_are_dropped(void **state)
{
    (void)state;
    static const char *const words[] = {"debug", "info", "warning", "error"};
    char *text = capture(write_all_levels), *line = text;
    assert_int_equal(count_lines(text), 4 + 3 + 2 + 1);
    for (int least = 0; least < 4; least++) {
        for (int level = least; level < 4; level++) {
            char expected[64];
            snprintf(expected, sizeof expected, "%s deltamesh: least %d", words[level], least);
            char *end = strchr(line, '\n');
            *end = '\0';
            assert_string_equal(after_time(line), expected);
            line = end + 1;
        }
    }
    free(text);
}

static void write_forged(void)
{
    log_warning("model \"%s\" not found",
                "a\n2026-01-01T00:00:00.000Z info root: b\r\t\x1b[2J\x7f");
}

static void text_cannot_forge_a_line(void **state)
{
    (void)state;
    char *text = capture(write_forged);
    assert_int_equal(count_lines(text), 1);
    for (const char *at = text; *at != '\n'; at++)
        assert_true((unsigned char)*at >= 0x20 && *at != 0x7f);
    assert_non_null(strstr(text, "model \"a 2026-01-01T00:00:00.000Z info root: b"));
    free(text);
}

static void write_long(void)
{
    static char words[3 * LOG_LINE_BYTES_MAX];
    memset(words, 'w', sizeof words - 1);
    log_info("%s", words);
    log_info("%.*s", 500, words);
}

static void long_line_is_cut(void **state)
{
    (void)state;
    char *text = capture(write_long);
    assert_int_equal(count_lines(text), 2);
    char *end = strchr(text, '\n');
    assert_int_equal(end - text, LOG_LINE_BYTES_MAX - 1);
    assert_memory_equal(end - 5, "ww...", 5);
    assert_int_equal(strspn(strchr(end, 'w'), "w"), 500);
    free(text);
}

enum { THREADS = 8, LINES = 500 };

static void *write_many(void *argument)
{
    const int *number = argument;
    for (int i = 0; i < LINES; i++)
        log_info("thread %d line %d of %s", *number, i, "a text that is long enough to be torn");
    return NULL;
}

static void write_from_threads(void)
{
    pthread_t threads[THREADS];
    int numbers[THREADS];
    for (int i = 0; i < THREADS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, write_many, &numbers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void lines_of_threads_do_not_mix(void **state)
{
    (void)state;
    char *text = capture(write_from_threads), *line = text;
    int next[THREADS] = {0};
    assert_int_equal(count_lines(text), THREADS * LINES);
    for (int i = 0; i < THREADS * LINES; i++) {
        int thread = -1, number = -1, used = 0;
        sscanf(after_time(line), "info deltamesh: thread %d line %d of %n", &thread, &number,
               &used);
        assert_in_range(thread, 0, THREADS - 1);
        assert_int_equal(number, next[thread]++);
        char *end = strchr(line, '\n');
        *end = '\0';
        assert_string_equal(after_time(line) + used, "a text that is long enough to be torn");
        line = end + 1;
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(line_has_time_level_name_text),
        cmocka_unit_test(requests_and_json),
        cmocka_unit_test(lower_levels_are_dropped),
        cmocka_unit_test(text_cannot_forge_a_line),
        cmocka_unit_test(long_line_is_cut),
        cmocka_unit_test(lines_of_threads_do_not_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
