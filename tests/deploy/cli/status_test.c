// SPDX-License-Identifier: Apache-2.0
// status_test.c -- the real `deltamesh status` against a server that the test plays.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixtures/door.h"
#include "tests/fixtures/program.h"

enum { WAIT_MS = 20000 };

static const char deltamesh[] = BINARY_DIR "/bin/deltamesh";
static struct door door;
static struct program program;

static int set_up(void **state)
{
    (void)state;
    door_open(&door, "tcp://127.0.0.1:0");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    program_end(&program);
    door_close(&door);
    return 0;
}

static void start(const char *flag)
{
    const char *words[] = {deltamesh, "status", "--rpc", socket_endpoint(door.socket), flag, NULL};
    program_start(&program, words, "");
}

static void answer(const char *json)
{
    door_receive(&door);
    assert_int_equal(door.type, REQUEST_STATUS);
    struct reply reply = {.type = REPLY_STATUS, .text = json, .text_bytes = strlen(json)};
    memcpy(reply.id, door.id, sizeof reply.id);
    door_answer(&door, &reply);
}

static void a_table_for_people(void **state)
{
    (void)state;
    start(NULL);
    answer("{\"model\":\"demo\",\"running\":3,\"free\":[1,2]}");
    assert_int_equal(program_wait(&program, WAIT_MS), 0);
    assert_string_equal(program_out(&program), "model                demo\n"
                                               "running              3\n"
                                               "free                 [1,2]\n");
}

static void json_for_programs(void **state)
{
    (void)state;
    start("--json");
    answer("{\"running\":3}");
    assert_int_equal(program_wait(&program, WAIT_MS), 0);
    assert_string_equal(program_out(&program), "{\"running\":3}\n");
}

static void watch_asks_again_until_the_server_is_gone(void **state)
{
    (void)state;
    start("--watch");
    answer("{\"running\":1}");
    answer("{\"running\":2}");
    assert_true(program_wait_out(&program, "running 2 ", WAIT_MS));
    door_receive(&door);
    door_close(&door);
    assert_int_equal(program_wait(&program, WAIT_MS), 3);
    assert_non_null(strstr(program_errors(&program), "broke"));
}

static void refusals_and_nonsense(void **state)
{
    (void)state;
    start(NULL);
    door_receive(&door);
    door_refuse(&door, door.id, E_OVERLOADED, "too many ask");
    assert_int_equal(program_wait(&program, WAIT_MS), 4);
    assert_non_null(strstr(program_errors(&program), "too many ask"));
    program_end(&program);
    start(NULL);
    answer("[]");
    assert_int_equal(program_wait(&program, WAIT_MS), 2);
    assert_non_null(strstr(program_errors(&program), "no JSON object"));
    program_end(&program);
    const char *words[] = {deltamesh, "status", NULL};
    program_start(&program, words, "");
    assert_int_equal(program_wait(&program, WAIT_MS), 1);
    assert_non_null(strstr(program_errors(&program), "--rpc ENDPOINT is needed"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_table_for_people),
        TEST(json_for_programs),
        TEST(watch_asks_again_until_the_server_is_gone),
        TEST(refusals_and_nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
