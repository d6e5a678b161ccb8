// SPDX-License-Identifier: Apache-2.0
// local_server_test.c -- a whole server of our own for one command: the real programs on a dummy
// model, and models that cannot be served.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <signal.h>

#include <cmocka.h>

#include "deploy/cli/local_server.h"
#include "deploy/client/client.h"
#include "tests/fixtures/program.h"

enum { WAIT_MS = 60000 };

static struct error error;

static struct local_server_options options_of(const char *model)
{
    return (struct local_server_options){
        .model = model, .backend = "cpu", .load_format = "dummy", .ranks = 2};
}

static void it_serves_and_ends(void **state)
{
    (void)state;
    struct local_server server;
    struct local_server_options options = options_of(SOURCE_DIR "/tests/golden/moe_e8_r2");
    if (local_server_open(&server, &options, &error) != OK)
        fail_msg("not open: %s", error.text);
    struct client *client;
    const struct client_options client_options = {.endpoint = server.endpoint};
    assert_int_equal(client_open(&client, &client_options, &error), OK);
    assert_int_equal(client_status(client, "s", &error), OK);
    const struct reply *reply;
    assert_int_equal(client_next(client, &reply, WAIT_MS, &error), OK);
    assert_int_equal(reply->type, REPLY_STATUS);
    client_close(client);
    pid_t pid = server.child.pid;
    local_server_close(&server);
    assert_int_equal(children_exit_code(&server.child), 0); // drained, not killed
    assert_int_equal(kill(pid, 0), -1);
}

static void a_bad_model_is_bad_input(void **state)
{
    (void)state;
    struct local_server server;
    struct local_server_options options = options_of("/nonexistent/model");
    assert_int_equal(local_server_open(&server, &options, &error), E_INPUT);
    assert_string_equal(error.text, ""); // the server has said it
    options = options_of(SOURCE_DIR "/tests/golden/moe_e8_r2");
    options.ranks = 9;
    assert_int_equal(local_server_open(&server, &options, &error), E_USAGE);
}

static void generate_brings_its_own(void **state)
{
    (void)state;
    struct program program;
    const char *words[] = {BINARY_DIR "/bin/deltamesh",
                           "generate",
                           "--model",
                           SOURCE_DIR "/tests/golden/moe_e8_r2",
                           "--load-format",
                           "dummy",
                           "--backend",
                           "cpu",
                           "--prompt-ids",
                           "1,2,3",
                           "--max-tokens",
                           "4",
                           "--ignore-eos",
                           NULL};
    program_start(&program, words, "");
    assert_int_equal(program_wait(&program, WAIT_MS), 0);
    int ids[4];
    assert_int_equal(
        sscanf(program_out(&program), "%d,%d,%d,%d\n", &ids[0], &ids[1], &ids[2], &ids[3]), 4);
    assert_non_null(strstr(program_errors(&program), "4 tokens in "));
    program_end(&program);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_serves_and_ends),
        cmocka_unit_test(a_bad_model_is_bad_input),
        cmocka_unit_test(generate_brings_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
