// SPDX-License-Identifier: Apache-2.0
// bench_test.c -- the real `deltamesh bench` against a server that the test plays: how many are in
// flight, what they ask for, warm-ups, failures by kind, figures, and every exit code.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "parallel/base/clock.h"
#include "tests/fixtures/door.h"
#include "tests/fixtures/program.h"

enum { WAIT_MS = 20000, IDS_MAX = 64 };

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

static void has(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("'%s' is not in '%s'", part, text);
}

static void ends(int code)
{
    int got = program_wait(&program, WAIT_MS);
    if (got != code)
        fail_msg("exit code %d, expected %d; stderr: %s", got, code, program_errors(&program));
}

// Starts `deltamesh bench --rpc DOOR words...` and answers its question for the status.
static void start(const char *status, const char *const *words)
{
    const char *all[32] = {deltamesh, "bench", "--rpc", socket_endpoint(door.socket)};
    int count = 4;
    for (; *words != NULL; words++)
        all[count++] = *words;
    program_start(&program, all, "");
    door_receive(&door);
    assert_int_equal(door.type, REQUEST_STATUS);
    struct reply reply = {.type = REPLY_STATUS, .text = status, .text_bytes = strlen(status)};
    snprintf(reply.id, sizeof reply.id, "%s", door.id);
    door_answer(&door, &reply);
}

#define START(status, ...) start(status, (const char *const[]){__VA_ARGS__, NULL})

// The one object on stdout.
static json_t *object_of_run(void)
{
    json_t *object = json_loads(program_out(&program), 0, NULL);
    if (object == NULL)
        fail_msg("no JSON object: '%s'", program_out(&program));
    return object;
}

static int64_t integer(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    assert_true(json_is_integer(value));
    return json_integer_value(value);
}

static double real(const json_t *object, const char *group, const char *key)
{
    const json_t *inner = group != NULL ? json_object_get(object, group) : object;
    const json_t *value = json_object_get(inner, key);
    assert_true(json_is_number(value));
    return json_number_value(value);
}

// Answers the last request in full: three tokens, 20 ms apart.
static void serve_one(void)
{
    door_accept(&door, door.id, "");
    for (int32_t i = 0; i < 3; i++) {
        clock_sleep_ns((uint64_t)20 * CLOCK_NS_PER_MS);
        door_delta(&door, door.id, i, "x");
    }
    door_final(&door, door.id, "length", 3);
}

static void receive_ids(int32_t *ids, int32_t count, int32_t vocab)
{
    door_receive(&door);
    assert_int_equal(door.type, REQUEST_GENERATE);
    assert_int_equal(door.generate.ids_count, count);
    if (generate_request_ids(ids, count, vocab, &door.generate, &door.error) != OK)
        fail_msg("%s", door.error.text);
}

static void figures_of_one_stream(void **state)
{
    (void)state;
    int32_t ids[4][IDS_MAX];
    START("{\"state\":\"ready\",\"vocab\":50}", "--input-len", "8", "--output-len", "3",
          "--concurrency", "1", "--num-prompts", "3", "--warmup", "1", "--seed", "5",
          "--ignore-eos", "--json");
    for (int i = 0; i < 4; i++) {
        receive_ids(ids[i], 8, 50);
        assert_int_equal(door.generate.max_tokens, 3);
        assert_true(door.generate.ignore_eos && door.generate.has_seed);
        assert_true(door.generate.temperature == 0);
        for (int k = 0; k < i; k++)
            assert_int_not_equal(ids[k][0], ids[i][0]);
        serve_one();
    }
    ends(0);
    assert_string_equal(program_errors(&program), ""); // no progress line in a pipe
    json_t *object = object_of_run();
    assert_int_equal(integer(object, "requests"), 3); // the warm-up is not among them
    assert_int_equal(integer(object, "failed"), 0);
    assert_int_equal(integer(object, "prompt_tokens"), 9); // 3 each, as the fixture tells it
    assert_int_equal(integer(object, "completion_tokens"), 9);
    assert_int_equal(integer(object, "vocab"), 50);
    // Sleeps are never shorter than asked for. A message may be late, so that the gap behind it is
    // short: but the last one comes after all three sleeps, whichever way its time is put together.
    double ttft_ms = real(object, "ttft_ms", "mean");
    assert_true(ttft_ms >= 20);
    assert_true(ttft_ms + 2 * real(object, "itl_ms", "mean") > 59.999);
    assert_true(ttft_ms + 2 * real(object, "tpot_ms", "mean") > 59.999);
    assert_true(real(object, "end_to_end_ms", "median") >= 60);
    assert_true(real(object, "end_to_end_ms", "max") >= real(object, "end_to_end_ms", "p90"));
    double duration_s = real(object, NULL, "duration_s");
    assert_true(duration_s >= 0.18);
    double rate = real(object, NULL, "output_tokens_per_s");
    assert_true(rate > 8.99 / duration_s && rate < 9.01 / duration_s);
    assert_null(json_object_get(object, "acceptance_length")); // nothing was drafted
    json_decref(object);
}

static void no_more_in_flight_than_asked(void **state)
{
    (void)state;
    char ids[4][REQUEST_ID_BYTES_MAX + 1];
    START("{}", "--input-len", "2", "--output-len", "1", "--concurrency", "4", "--num-prompts",
          "12");
    for (int i = 0; i < 4; i++) {
        door_receive(&door);
        strcpy(ids[i], door.id);
    }
    for (int i = 4; i < 12; i++) {
        const void *frame;
        size_t bytes;
        struct socket_peer peer;
        clock_sleep_ns((uint64_t)20 * CLOCK_NS_PER_MS);
        if (socket_receive(door.socket, &peer, &frame, &bytes) != E_TIMEOUT)
            fail_msg("a fifth request while four are unfinished");
        door_final(&door, ids[i % 4], "stop", 0);
        door_receive(&door); // one for one
        strcpy(ids[i % 4], door.id);
    }
    for (int i = 0; i < 4; i++)
        door_final(&door, ids[i], "stop", 0);
    ends(0);
    has(program_out(&program), "12 ended, 0 failed");
    has(program_errors(&program), "ids below 1000"); // the status did not tell
}

static void failures_by_kind(void **state)
{
    (void)state;
    START("{}", "--input-len", "2", "--output-len", "1", "--concurrency", "1", "--num-prompts", "4",
          "--json", "--vocab", "9");
    for (int i = 0; i < 4; i++) {
        door_receive(&door);
        if (i == 0)
            serve_one();
        else
            door_refuse(&door, door.id, i == 2 ? E_INPUT : E_OVERLOADED, "no room for you");
    }
    ends(4);
    has(program_errors(&program), "3 of 4 requests failed");
    json_t *object = object_of_run();
    const json_t *errors = json_object_get(object, "errors");
    assert_int_equal(integer(object, "requests"), 1);
    assert_int_equal(integer(object, "failed"), 3);
    assert_int_equal(integer(errors, status_name(E_OVERLOADED)), 2);
    assert_int_equal(integer(errors, status_name(E_INPUT)), 1);
    json_decref(object);
}

static void a_sweep_is_a_table(void **state)
{
    (void)state;
    int rows = 0;
    START("{\"vocab\":10}", "--input-len", "2", "--output-len", "1", "--concurrency", "1,2,3",
          "--num-prompts", "3");
    for (int i = 0; i < 9; i++) {
        door_receive(&door);
        door_delta(&door, door.id, 1, "");
        struct reply reply = {.type = REPLY_FINAL,
                              .finish_reason = "length",
                              .usage = {.prompt_tokens = 2,
                                        .completion_tokens = 11,
                                        .target_steps = 5,
                                        .drafted = 15,
                                        .accepted = 5}};
        snprintf(reply.id, sizeof reply.id, "%s", door.id);
        door_answer(&door, &reply);
    }
    ends(0);
    for (const char *at = program_out(&program); (at = strchr(at, '\n')) != NULL; at++)
        rows++;
    assert_int_equal(rows, 2 + 3);
    has(program_out(&program), "        3        3      0 |");
    has(program_out(&program), "  2.00 |"); // 10 tokens behind the first in 5 steps
}

static void poisson_arrivals_do_not_wait(void **state)
{
    (void)state;
    char ids[20][REQUEST_ID_BYTES_MAX + 1];
    uint64_t begin_ns = clock_now_ns();
    START("{\"vocab\":10}", "--input-len", "1", "--output-len", "1", "--request-rate", "100",
          "--num-prompts", "20", "--json");
    for (int i = 0; i < 20; i++) { // none is answered before all have come
        door_receive(&door);
        strcpy(ids[i], door.id);
    }
    uint64_t spent_ns = clock_now_ns() - begin_ns;
    for (int i = 0; i < 20; i++)
        door_final(&door, ids[i], "stop", 0);
    ends(0);
    json_t *object = object_of_run();
    assert_int_equal(integer(object, "requests"), 20);
    assert_true(json_is_null(json_object_get(object, "concurrency")));
    assert_true(real(object, NULL, "request_rate") == 100);
    // 19 gaps of this seed's draws take 0.1 s and more: they were waited for.
    assert_true(spent_ns > (uint64_t)100 * CLOCK_NS_PER_MS);
    json_decref(object);
}

static void a_server_that_dies(void **state)
{
    (void)state;
    START("{\"vocab\":10}", "--input-len", "1", "--output-len", "9", "--concurrency", "2",
          "--num-prompts", "6", "--json");
    door_receive(&door);
    serve_one();
    door_receive(&door);
    door_receive(&door);
    door_close(&door);
    ends(3);
    json_t *object = object_of_run(); // what was measured until then
    assert_int_equal(integer(object, "requests"), 1);
    assert_int_equal(integer(object, "failed"), 2);
    json_decref(object);
    door_open(&door, "tcp://127.0.0.1:0"); // for tear_down
}

static void nobody_there(void **state)
{
    (void)state;
    const char *words[] = {deltamesh, "bench",        "--url", "http://127.0.0.1:1", "--input-len",
                           "1",       "--output-len", "1",     "--concurrency",      "1",
                           NULL};
    program_start(&program, words, "");
    ends(3);
    has(program_errors(&program), "http://127.0.0.1:1/v1/models");
    program_end(&program);
    words[3] = "gopher://127.0.0.1:1";
    program_start(&program, words, "");
    ends(1);
    has(program_errors(&program), "gopher");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(figures_of_one_stream, set_up, tear_down),
        cmocka_unit_test_setup_teardown(no_more_in_flight_than_asked, set_up, tear_down),
        cmocka_unit_test_setup_teardown(failures_by_kind, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_sweep_is_a_table, set_up, tear_down),
        cmocka_unit_test_setup_teardown(poisson_arrivals_do_not_wait, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_server_that_dies, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nobody_there, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
