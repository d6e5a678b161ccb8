// SPDX-License-Identifier: Apache-2.0
// python_client_test.c -- starts the real server on the demo model and runs the Python client's
// checks against it, with the system's Python, which deploy/install.sh gives pyzmq and msgpack to.
// Their last act is a drain, after which the server ends in order.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixtures/program.h"

enum { WAIT_MS = 120000 };

static void the_python_client_against_the_demo_model(void **state)
{
    (void)state;
    struct program server, check;
    const char *serve[] = {BINARY_DIR "/bin/deltamesh",
                           "serve",
                           "--model",
                           SOURCE_DIR "/deploy/demo/model",
                           "--backend",
                           "cpu",
                           "--rpc",
                           "tcp://127.0.0.1:0",
                           "--http",
                           "off",
                           NULL};
    program_start(&server, serve, "");
    if (!program_wait_out(&server, " http=", WAIT_MS))
        fail_msg("the server is not ready: %s", program_errors(&server));
    char endpoint[128];
    assert_int_equal(sscanf(program_out(&server), "ready rpc=%127s", endpoint), 1);
    const char *words[] = {"/usr/bin/python3", SOURCE_DIR "/tests/deploy/client/deltamesh_check.py",
                           endpoint, NULL};
    program_start(&check, words, "");
    int code = program_wait(&check, WAIT_MS);
    if (code != 0 || strstr(program_out(&check), "all checks passed") == NULL)
        fail_msg("exit code %d: %s%s", code, program_out(&check), program_errors(&check));
    assert_int_equal(program_wait(&server, WAIT_MS), 0);
    program_end(&check);
    program_end(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_python_client_against_the_demo_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
