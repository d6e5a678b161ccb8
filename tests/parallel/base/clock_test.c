// SPDX-License-Identifier: Apache-2.0
// clock_test.c -- the clock goes forward, and sleeping lasts.
#include "parallel/base/clock.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void never_goes_back(void **state)
{
    (void)state;
    uint64_t last_ns = clock_now_ns();
    uint64_t first_ns = last_ns;
    for (int i = 0; i < 100000 || last_ns == first_ns; i++) {
        uint64_t now_ns = clock_now_ns();
        assert_true(now_ns >= last_ns);
        last_ns = now_ns;
    }
}

static void sleeps_at_least(void **state)
{
    (void)state;
    static const uint64_t durations_ns[] = {0, 1, 100 * CLOCK_NS_PER_US, 30 * CLOCK_NS_PER_MS};
    for (size_t i = 0; i < sizeof durations_ns / sizeof durations_ns[0]; i++) {
        uint64_t before_ns = clock_now_ns();
        clock_sleep_ns(durations_ns[i]);
        assert_true(clock_now_ns() - before_ns >= durations_ns[i]);
    }
}

static void ignore_signal(int number)
{
    (void)number;
}

struct pester {
    pthread_t sleeper;
    atomic_bool stop;
};

static void *send_signals(void *argument)
{
    struct pester *pester = argument;
    while (!atomic_load(&pester->stop)) {
        pthread_kill(pester->sleeper, SIGUSR1);
        clock_sleep_ns(2 * CLOCK_NS_PER_MS);
    }
    return NULL;
}

static void signals_do_not_shorten_sleep(void **state)
{
    (void)state;
    struct sigaction action, before;
    memset(&action, 0, sizeof action);
    action.sa_handler = ignore_signal;
    assert_int_equal(sigaction(SIGUSR1, &action, &before), 0);
    struct pester pester = {.sleeper = pthread_self()};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, send_signals, &pester), 0);
    uint64_t before_ns = clock_now_ns();
    clock_sleep_ns(60 * CLOCK_NS_PER_MS);
    uint64_t slept_ns = clock_now_ns() - before_ns;
    atomic_store(&pester.stop, true);
    pthread_join(thread, NULL);
    sigaction(SIGUSR1, &before, NULL);
    assert_true(slept_ns >= 60u * CLOCK_NS_PER_MS);
    assert_true(slept_ns < 10ull * CLOCK_NS_PER_S);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(never_goes_back),
        cmocka_unit_test(sleeps_at_least),
        cmocka_unit_test(signals_do_not_shorten_sleep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
