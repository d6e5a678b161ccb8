// SPDX-License-Identifier: Apache-2.0
// status_test.c -- names, exit codes and texts of errors; ASSERT ends the process with its place.
#include "parallel/base/status.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void names_are_distinct_and_lead_back(void **state)
{
    (void)state;
    for (int i = 0; i < STATUS_COUNT; i++) {
        const char *name = status_name((enum status)i);
        assert_non_null(name);
        assert_true(strlen(name) > 0);
        assert_int_equal(strspn(name, "abcdefghijklmnopqrstuvwxyz_"), strlen(name));
        assert_int_equal(status_from_name(name), i);
    }
    assert_string_equal(status_name(OK), "ok");
    assert_string_equal(status_name(STATUS_COUNT), "unknown");
    assert_string_equal(status_name((enum status)1000), "unknown");
    assert_int_equal(status_from_name("no such word"), E_FAILED);
    assert_int_equal(status_from_name(""), E_FAILED);
}

static void exit_codes_are_those_of_the_command_line(void **state)
{
    (void)state;
    static const int codes[STATUS_COUNT] = {
        [OK] = 0,          [E_USAGE] = 1,      [E_INPUT] = 2,   [E_UNSUPPORTED] = 2,
        [E_NOT_FOUND] = 2, [E_MALFORMED] = 2,  [E_LIMIT] = 2,   [E_OVERLOADED] = 4,
        [E_SYSTEM] = 4,    [E_CONNECTION] = 3, [E_TIMEOUT] = 4, [E_MISMATCH] = 2,
        [E_ABORTED] = 4,   [E_FAILED] = 4,
    };
    for (int i = 0; i < STATUS_COUNT; i++)
        assert_int_equal(status_exit_code((enum status)i), codes[i]);
}

static enum status fail_or_not(enum status status)
{
    TRY(status);
    return E_ABORTED; // reached only when status is OK
}

static void error_carries_status_and_text(void **state)
{
    (void)state;
    struct error error;
    assert_int_equal(error_set(&error, E_LIMIT, "max_tokens %d, limit %d", 9, 8), E_LIMIT);
    assert_int_equal(error.status, E_LIMIT);
    assert_string_equal(error.text, "max_tokens 9, limit 8");
    assert_int_equal(error_set(NULL, E_INPUT, "nobody asks"), E_INPUT);
    char words[2000];
    memset(words, 'w', sizeof words - 1);
    words[sizeof words - 1] = '\0';
    error_set(&error, E_INPUT, "%s", words);
    assert_int_equal(strlen(error.text), sizeof error.text - 1);
    assert_int_equal(fail_or_not(E_TIMEOUT), E_TIMEOUT);
    assert_int_equal(fail_or_not(OK), E_ABORTED);
}

static void assertion_ends_the_process(void **state)
{
    (void)state;
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(pipes[1], STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        int ranks = 3;
        ASSERT(ranks == 3);
        ASSERT(ranks == 4);
        _exit(0);
    }
    close(pipes[1]);
    char text[512] = "";
    size_t length = 0;
    ssize_t got;
    while ((got = read(pipes[0], text + length, sizeof text - 1 - length)) > 0)
        length += (size_t)got;
    close(pipes[0]);
    int wait_status = 0;
    assert_int_equal(waitpid(pid, &wait_status, 0), pid);
    assert_true(WIFSIGNALED(wait_status));
    assert_int_equal(WTERMSIG(wait_status), SIGABRT);
    assert_non_null(strstr(text, "status_test.c:"));
    assert_non_null(strstr(text, "assertion failed: ranks == 4"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_distinct_and_lead_back),
        cmocka_unit_test(exit_codes_are_those_of_the_command_line),
        cmocka_unit_test(error_carries_status_and_text),
        cmocka_unit_test(assertion_ends_the_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
