// SPDX-License-Identifier: Apache-2.0
// door_http_listen_test.c -- addresses that are bound, and those that are refused and why.
#include "coordinator/door_http_listen.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

static int fd = -1;
static char url[300];
static struct error error;

static enum status listen_at(const char *address, bool open)
{
    if (fd >= 0)
        close(fd);
    fd = -1;
    enum status status = door_http_listen(&fd, url, sizeof url, address, open, &error);
    assert_true((fd >= 0) == (status == OK));
    return status;
}

static void addresses(void **state)
{
    (void)state;
    assert_int_equal(listen_at("127.0.0.1:0", false), OK);
    assert_memory_equal(url, "http://127.0.0.1:", 17);
    assert_true(atoi(url + 17) > 0);
    char taken[300];
    memcpy(taken, url, sizeof taken);
    int first = fd;
    fd = -1;
    assert_int_equal(listen_at(taken + 7, false), E_SYSTEM);
    assert_non_null(strstr(error.text, "in use"));
    close(first);
    assert_int_equal(listen_at("localhost:0", false), OK);
    assert_int_equal(listen_at("127.1.2.3:0", false), OK);
    assert_int_equal(listen_at("0.0.0.0:0", true), OK);
}

static void refusals(void **state)
{
    (void)state;
    assert_int_equal(listen_at("0.0.0.0:0", false), E_UNSUPPORTED);
    assert_non_null(strstr(error.text, "--api-key"));
    static const char *const bad[] = {"",
                                      "8000",
                                      ":8000",
                                      "127.0.0.1:",
                                      "127.0.0.1:x",
                                      "127.0.0.1:-1",
                                      "127.0.0.1:65536",
                                      "::1:80",
                                      "[::1]",
                                      "no such host:80"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (listen_at(bad[i], true) != E_USAGE)
            fail_msg("'%s' is accepted", bad[i]);
        assert_non_null(strstr(error.text, bad[i]));
    }
}

static void files_bound_connections(void **state)
{
    (void)state;
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    rlim_t hard = limit.rlim_max;
    limit.rlim_cur = 300;
    limit.rlim_max = hard < 500 ? hard : 500;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(door_http_listen_connections(100), 100);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(limit.rlim_cur, 300); // enough as it was
    assert_int_equal(door_http_listen_connections(4000), 500 - 128);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(limit.rlim_cur, 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses),
        cmocka_unit_test(refusals),
        cmocka_unit_test(files_bound_connections),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
