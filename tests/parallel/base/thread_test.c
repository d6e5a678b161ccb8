// SPDX-License-Identifier: Apache-2.0
// thread_test.c -- who takes signals, and what a thread is called.
#include "parallel/base/thread.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

struct seen {
    bool blocked;
    int argument;
};

static void *look(void *argument)
{
    struct seen *seen = argument;
    sigset_t set;
    pthread_sigmask(SIG_SETMASK, NULL, &set);
    seen->blocked = sigismember(&set, SIGTERM) == 1 && sigismember(&set, SIGUSR1) == 1;
    seen->argument++;
    return NULL;
}

static void signals_are_for_the_caller(void **state)
{
    (void)state;
    struct seen seen = {.argument = 41};
    pthread_t thread;
    sigset_t before, after;
    sigemptyset(&before);
    sigaddset(&before, SIGUSR2);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    assert_int_equal(thread_start(&thread, "looks", look, &seen), 0);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    pthread_join(thread, NULL);
    assert_true(seen.blocked);
    assert_int_equal(seen.argument, 42);
    assert_int_equal(sigismember(&after, SIGUSR2), 1);
    assert_int_equal(sigismember(&after, SIGTERM), 0);
}

static void *wait_for_name(void *argument)
{
    pthread_mutex_lock(argument); // held until the name has been read
    pthread_mutex_unlock(argument);
    return NULL;
}

static void it_has_its_name(void **state)
{
    (void)state;
    pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;
    pthread_t thread;
    char name[16];
    pthread_mutex_lock(&held);
    assert_int_equal(thread_start(&thread, "door-rpc", wait_for_name, &held), 0);
    assert_int_equal(pthread_getname_np(thread, name, sizeof name), 0);
    pthread_mutex_unlock(&held);
    pthread_join(thread, NULL);
    assert_string_equal(name, "door-rpc");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signals_are_for_the_caller),
        cmocka_unit_test(it_has_its_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
