// SPDX-License-Identifier: Apache-2.0
// output_test.c -- a stdout that takes nothing is noticed, at once and for good.
#include "deploy/cli/output.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <fcntl.h>
#include <unistd.h>

#include <cmocka.h>

static void what_was_not_taken_is_an_error(void **state)
{
    struct error error = {.status = OK};
    (void)state;
    assert_int_equal(output_flush(&error), OK);
    int saved_fd = dup(STDOUT_FILENO), full_fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    assert_true(saved_fd >= 0 && full_fd >= 0);
    dup2(full_fd, STDOUT_FILENO);
    enum status nothing = output_flush(&error);
    printf("lost\n");
    enum status lost = output_flush(&error);
    dup2(saved_fd, STDOUT_FILENO);
    struct error later;
    enum status still = output_flush(&later); // what is lost does not come back
    clearerr(stdout);
    close(full_fd);
    close(saved_fd);
    assert_int_equal(nothing, OK);
    assert_int_equal(lost, E_SYSTEM);
    assert_string_equal(error.text, "stdout: No space left on device");
    assert_int_equal(still, E_SYSTEM);
    assert_int_equal(strncmp(later.text, "stdout: ", 8), 0);
    assert_int_equal(output_flush(&error), OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_was_not_taken_is_an_error)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
