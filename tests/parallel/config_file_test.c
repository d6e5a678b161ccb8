// SPDX-License-Identifier: Apache-2.0
// config_file_test.c -- what is no JSON object, no file, or too large is named by its path.
#include "parallel/config_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64], path[128];
static struct error error;

static void put(const char *text)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void assert_refused(enum status status, const char *end)
{
    char text[256];
    json_t *object;
    snprintf(text, sizeof text, "%s: %s", path, end);
    assert_int_equal(config_file_read(&object, path, &error), status);
    assert_string_equal(error.text, text);
}

static void an_object_is_read(void **state)
{
    (void)state;
    json_t *object;
    put("{\"a\": 7}\n");
    assert_int_equal(config_file_read(&object, path, &error), OK);
    assert_int_equal(json_integer_value(json_object_get(object, "a")), 7);
    json_decref(object);
}

static void anything_else_is_refused_with_its_path(void **state)
{
    (void)state;
    put("[7]");
    assert_refused(E_MALFORMED, "a JSON object is expected");
    put("{\"a\": 7");
    assert_refused(E_MALFORMED, "line 1, column 7: '}' expected near end of file");
    put("");
    assert_refused(E_MALFORMED, "line 1, column 0: '[' or '{' expected near end of file");
    put("version https://git-lfs.github.com/spec/v1\n");
    assert_refused(E_INPUT,
                   "a Git LFS pointer, not the file itself; run `git lfs pull` in its folder");
    assert_int_equal(truncate(path, CONFIG_BYTES_MAX + 1), 0);
    assert_refused(E_LIMIT, "larger than 16777216 bytes");
    unlink(path);
    assert_refused(E_NOT_FOUND, "No such file or directory");
    assert_int_equal(mkdir(path, 0700), 0);
    assert_refused(E_INPUT, "not a regular file");
    rmdir(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    alarm(20); // of a wait for somebody who writes
    assert_refused(E_INPUT, "not a regular file");
    alarm(0);
    unlink(path);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/deltamesh-config-XXXXXX");
    if (mkdtemp(dir) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/x.json", dir);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_object_is_read),
        cmocka_unit_test(anything_else_is_refused_with_its_path),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
