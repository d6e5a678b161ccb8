// SPDX-License-Identifier: Apache-2.0
// lines_test.c -- line ends of every kind, long lines, slow writers.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unistd.h>

#include <cmocka.h>

#include "deploy/cli/lines.h"

static struct lines lines;
static struct error error;
static int writer_fd;

// Lines of a pipe that has already been written and closed.
static void open_text(const char *text, size_t bytes)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    lines = (struct lines){.name = "test", .fd = ends[0]};
    writer_fd = ends[1];
    assert_int_equal(write(writer_fd, text, bytes), bytes);
}

static void expect(const char *expected, bool wait)
{
    const char *line;
    size_t bytes;
    assert_int_equal(lines_next(&lines, wait, &line, &bytes, &error), OK);
    if (expected == NULL) {
        assert_null(line);
        return;
    }
    assert_non_null(line);
    assert_string_equal(line, expected);
    assert_int_equal(bytes, strlen(expected));
}

static void line_ends_of_every_kind(void **state)
{
    (void)state;
    static const char text[] = "one\ntwo\r\n\n\r\nlast";
    open_text(text, sizeof text - 1);
    close(writer_fd);
    static const char *const expected[] = {"one", "two", "", "", "last"};
    for (int i = 0; i < 5; i++) {
        assert_false(lines.ended && i < 4);
        expect(expected[i], true);
        assert_int_equal(lines.number, i + 1);
    }
    expect(NULL, true);
    assert_true(lines.ended);
    expect(NULL, false);
    lines_close(&lines);
    open_text("", 0);
    close(writer_fd);
    expect(NULL, true);
    assert_true(lines.ended);
    lines_close(&lines);
}

static void a_slow_writer_is_not_waited_for(void **state)
{
    (void)state;
    open_text("whole\nha", 8);
    expect("whole", false);
    expect(NULL, false);
    assert_false(lines.ended);
    assert_int_equal(write(writer_fd, "lf\nmore\n", 8), 8);
    expect("half", false);
    expect("more", false);
    close(writer_fd);
    expect(NULL, false);
    assert_true(lines.ended);
    lines_close(&lines);
}

static void a_line_has_a_limit(void **state)
{
    (void)state;
    char path[] = "/tmp/deltamesh-lines-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "first\n", 6), 6);
    assert_int_equal(ftruncate(fd, 6 + (off_t)LINES_BYTES_MAX + (1 << 18)), 0); // NULs, no end
    assert_int_equal(lines_open(&lines, path, &error), OK);
    expect("first", true);
    const char *line;
    size_t bytes;
    assert_int_equal(lines_next(&lines, true, &line, &bytes, &error), E_LIMIT);
    assert_non_null(strstr(error.text, "line 2 is longer than 67108864 bytes"));
    assert_non_null(strstr(error.text, path));
    lines_close(&lines);
    close(fd);
    unlink(path);
    // Well below the limit it is read whole.
    enum { LONG_BYTES = 300000 };
    char *text = malloc(LONG_BYTES + 2);
    memset(text, 'x', LONG_BYTES);
    memcpy(text + LONG_BYTES, "\n", 2);
    FILE *file = tmpfile();
    fputs(text, file);
    fputs("next", file);
    rewind(file);
    lines = (struct lines){.name = "test", .fd = dup(fileno(file))};
    text[LONG_BYTES] = '\0';
    expect(text, true);
    expect("next", true);
    lines_close(&lines);
    fclose(file);
    free(text);
}

static void a_missing_file_is_named(void **state)
{
    (void)state;
    assert_int_equal(lines_open(&lines, "/nonexistent", &error), E_NOT_FOUND);
    assert_string_equal(error.text, "/nonexistent: No such file or directory");
    assert_int_equal(lines_open(&lines, "/tmp", &error), OK); // a folder opens, and does not read
    const char *line;
    size_t bytes;
    assert_int_equal(lines_next(&lines, true, &line, &bytes, &error), E_SYSTEM);
    assert_string_equal(error.text, "/tmp: Is a directory");
    lines_close(&lines);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(line_ends_of_every_kind),
        cmocka_unit_test(a_slow_writer_is_not_waited_for),
        cmocka_unit_test(a_line_has_a_limit),
        cmocka_unit_test(a_missing_file_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
