// SPDX-License-Identifier: Apache-2.0
// keys_test.c -- the command makes what is missing, and no more.
#include "deploy/cli/keys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct error error;

#define RUN(...)                                                                                   \
    keys_run((int)(sizeof((char *[]){__VA_ARGS__}) / sizeof(char *)), (char *[]){__VA_ARGS__},     \
             &error)

static void keys_are_made(void **state)
{
    char folder[64] = "/tmp/deltamesh-keys-XXXXXX", path[128], command[128];
    (void)state;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(RUN("--curve-dir", folder), OK);
    assert_int_equal(RUN("--curve-dir", folder, "--client", "a", "--worker", "b"), OK);
    static const char *const names[] = {
        "server.public", "server.secret",         "client.public",
        "worker.secret", "clients/client.public", "a.secret",
        "b.public",      "clients/a.public",      "workers/b.public"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        assert_int_equal(access(path, R_OK), 0);
    }
    assert_int_equal(RUN("--curve-dir", folder, "--client", "a"), E_INPUT);
    assert_int_equal(RUN("--client", "a"), E_USAGE);
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(keys_are_made)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
