// SPDX-License-Identifier: Apache-2.0
// children_test.c -- children that end in every way, their pipe, group and signal mask.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include <cmocka.h>

#include "deploy/cli/children.h"
#include "parallel/base/clock.h"

enum { WAIT_MS = 20000 };

static struct error error;

static struct child start(const char *body, bool read_stdout)
{
    struct child child = {.name = "rank 3"};
    char words[3][512];
    snprintf(words[0], sizeof words[0], "/bin/sh");
    snprintf(words[1], sizeof words[1], "-c");
    snprintf(words[2], sizeof words[2], "%s", body);
    char *const list[] = {words[0], words[1], words[2], NULL};
    assert_int_equal(children_start(&child, list, SIGKILL, read_stdout, &error), OK);
    assert_true(child.is_running && child.pid > 0);
    return child;
}

static void wait_for(struct child *child)
{
    uint64_t end_ns = clock_now_ns() + (uint64_t)WAIT_MS * CLOCK_NS_PER_MS;
    while (!children_reap(child)) {
        assert_true(clock_now_ns() < end_ns);
        clock_sleep_ns(5 * CLOCK_NS_PER_MS);
    }
    assert_false(child->is_running);
    assert_false(children_reap(child)); // told once
}

static void ends_are_described(void **state)
{
    (void)state;
    char text[128], expected[128];
    struct child child = start("exit 7", false);
    assert_int_equal(child.stdout_fd, -1);
    wait_for(&child);
    assert_int_equal(children_exit_code(&child), 7);
    children_describe(text, sizeof text, &child);
    snprintf(expected, sizeof expected, "rank 3 (pid %d) ended with exit code 7", (int)child.pid);
    assert_string_equal(text, expected);
    child = start("kill -9 $$", false);
    wait_for(&child);
    assert_int_equal(children_exit_code(&child), -1);
    children_describe(text, sizeof text, &child);
    snprintf(expected, sizeof expected, "rank 3 (pid %d) was killed by signal 9 (Killed)",
             (int)child.pid);
    assert_string_equal(text, expected);
    children_signal(&child, SIGKILL); // it has ended: nobody is hit
}

static void its_stdout_is_a_pipe(void **state)
{
    (void)state;
    char folder[] = "/tmp/children_test.XXXXXX", may_go[64], body[256];
    assert_non_null(mkdtemp(folder));
    snprintf(may_go, sizeof may_go, "%s/may_go", folder);
    snprintf(body, sizeof body, "until [ -e %s ]; do sleep 0.01; done; echo hello", may_go);
    struct child child = start(body, true);
    char bytes[16] = "";
    assert_int_equal(read(child.stdout_fd, bytes, 1), -1); // non-blocking, and nothing yet
    assert_int_equal(errno, EAGAIN);
    FILE *file = fopen(may_go, "w");
    assert_non_null(file);
    fclose(file);
    wait_for(&child);
    assert_int_equal(unlink(may_go), 0);
    assert_int_equal(rmdir(folder), 0);
    assert_int_equal(read(child.stdout_fd, bytes, sizeof bytes), 6);
    assert_memory_equal(bytes, "hello\n", 6);
    assert_int_equal(read(child.stdout_fd, bytes, sizeof bytes), 0);
    close(child.stdout_fd);
}

static void mask_and_group_are_its_own(void **state)
{
    (void)state;
    sigset_t term, old;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, &old);
    struct child child = start("exec sleep 20", false);
    // The child sets its group before it runs the program.
    uint64_t end_ns = clock_now_ns() + (uint64_t)WAIT_MS * CLOCK_NS_PER_MS;
    while (getpgid(child.pid) != child.pid && clock_now_ns() < end_ns)
        clock_sleep_ns(CLOCK_NS_PER_MS);
    assert_int_equal(getpgid(child.pid), child.pid);
    children_signal(&child, SIGTERM); // blocked here, not there
    wait_for(&child);
    assert_int_equal(children_exit_code(&child), -1);
    sigprocmask(SIG_SETMASK, &old, NULL);
}

static void what_does_not_exist_is_told(void **state)
{
    (void)state;
    struct child child = {.name = "nobody"};
    char path[] = "/nonexistent/program";
    char *const list[] = {path, NULL};
    assert_int_equal(children_start(&child, list, SIGKILL, false, &error), OK);
    wait_for(&child);
    assert_int_equal(children_exit_code(&child), 127);
    char beside[CHILDREN_PATH_BYTES_MAX];
    assert_int_equal(children_path(beside, sizeof beside, "deltamesh-nothing", &error),
                     E_NOT_FOUND);
    assert_non_null(strstr(error.text, "no program deltamesh-nothing beside this one"));
    assert_int_equal(children_path(beside, sizeof beside, "deploy_cli_children_test", &error), OK);
    assert_int_equal(access(beside, X_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ends_are_described),
        cmocka_unit_test(its_stdout_is_a_pipe),
        cmocka_unit_test(mask_and_group_are_its_own),
        cmocka_unit_test(what_does_not_exist_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
