// SPDX-License-Identifier: Apache-2.0
// generate_test.c -- the real `deltamesh generate` against a server that the test plays: streaming,
// windows, refusals, overload, a server that dies, and every exit code.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

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

// Starts `deltamesh generate --rpc DOOR words...`; input as program_start takes it.
static void start(const char *input, const char *const *words)
{
    const char *all[32] = {deltamesh, "generate", "--rpc", socket_endpoint(door.socket)};
    int count = 4;
    for (; *words != NULL; words++)
        all[count++] = *words;
    program_start(&program, all, input);
}

#define START(input, ...) start(input, (const char *const[]){__VA_ARGS__, NULL})

static void ends(int code)
{
    int got = program_wait(&program, WAIT_MS);
    if (got != code)
        fail_msg("exit code %d, expected %d; stderr: %s", got, code, program_errors(&program));
}

static void has(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("'%s' is not in '%s'", part, text);
}

static void one_prompt_streams(void **state)
{
    (void)state;
    START("", "--prompt", "Once upon", "--max-tokens", "3", "--seed", "18446744073709551615",
          "--ignore-eos");
    door_receive(&door);
    assert_int_equal(door.type, REQUEST_GENERATE);
    assert_int_equal(door.generate.prompt_bytes, 9);
    assert_memory_equal(door.generate.prompt, "Once upon", 9);
    assert_int_equal(door.generate.max_tokens, 3);
    assert_true(door.generate.temperature == 0); // this command's default
    assert_true(door.generate.has_seed && door.generate.seed == UINT64_MAX);
    assert_true(door.generate.ignore_eos);
    door_accept(&door, door.id, "");
    door_delta(&door, door.id, 5, " a t");
    assert_true(program_wait_out(&program, " a t", WAIT_MS)); // before the end of the answer
    door_delta(&door, door.id, 6, "");
    door_delta(&door, door.id, 7, "ime");
    door_final(&door, door.id, "length", 3);
    ends(0);
    assert_string_equal(program_out(&program), " a time\n");
    has(program_errors(&program), "3 tokens in ");
    has(program_errors(&program), "first token after ");
}

static void ids_in_ids_out(void **state)
{
    (void)state;
    START("", "--prompt-ids", "1, 22,333");
    door_receive(&door);
    int32_t ids[3];
    assert_int_equal(generate_request_ids(ids, 3, 1000, &door.generate, &door.error), OK);
    assert_int_equal(ids[2], 333);
    door_accept(&door, door.id, "");
    door_delta(&door, door.id, 55, "");
    door_delta(&door, door.id, 66, "");
    door_final(&door, door.id, "stop", 2);
    ends(0);
    assert_string_equal(program_out(&program), "55,66\n");
}

// The line of the program's stdout that is the object with this index.
static json_t *object_of(int index)
{
    char *text = strdup(program_out(&program)), *rest = text;
    json_t *found = NULL;
    for (char *line; found == NULL && (line = strsep(&rest, "\n")) != NULL && line[0] != '\0';) {
        json_t *object = json_loads(line, 0, NULL);
        assert_non_null(object);
        if (json_integer_value(json_object_get(object, "index")) == index)
            found = object;
        else
            json_decref(object);
    }
    free(text);
    if (found == NULL)
        fail_msg("no object with index %d in '%s'", index, program_out(&program));
    return found;
}

static void code_of(int index, const char *code, const char *message)
{
    json_t *object = object_of(index), *error = json_object_get(object, "error");
    assert_string_equal(json_string_value(json_object_get(error, "code")), code);
    has(json_string_value(json_object_get(error, "message")), message);
    json_decref(object);
}

static void many_requests_as_json(void **state)
{
    (void)state;
    START("{\"prompt\":\"one\",\"temperature\":0.5}\r\n"
          "not json\n"
          "\n"
          "[1]\n"
          "{\"prompt\":\"x\",\"id\":\"mine\"}\n"
          "{\"prompt\":\"x\",\"prompt\":\"y\"}\n"
          "{\"messages\":[{\"role\":\"user\",\"content\":\"h\\u00e9\"}],\"foo\":null}",
          "--requests", "-", "--json", "--temperature", "0.25", "--max-tokens", "9");
    door_receive(&door);
    assert_string_equal(door.id, "0");
    assert_true(door.generate.temperature == 0.5); // the line's, not the flag's
    assert_int_equal(door.generate.max_tokens, 9);
    struct door first = door;
    door_receive(&door);
    assert_string_equal(door.id, "5");
    assert_true(door.generate.temperature == 0.25);
    assert_memory_equal(door.generate.messages, "\x91\x82\xa4role\xa4user\xa7", 12);
    assert_string_equal(door.generate.unknown, "foo");
    door_accept(&door, "5", "foo");
    door_delta(&door, "5", 8, "h\xc3\xa9 \"q\"");
    door_final(&door, "5", "stop", 1);
    door_refuse(&first, "0", E_UNSUPPORTED, "'guided_json' is not served");
    ends(2);
    json_t *object = object_of(5);
    assert_string_equal(json_string_value(json_object_get(object, "text")), "h\xc3\xa9 \"q\"");
    assert_string_equal(json_string_value(json_object_get(object, "finish_reason")), "stop");
    assert_int_equal(json_integer_value(json_array_get(json_object_get(object, "ids"), 0)), 8);
    json_t *usage = json_object_get(object, "usage");
    assert_int_equal(json_object_size(usage), 6);
    assert_int_equal(json_integer_value(json_object_get(usage, "prompt_tokens")), 3);
    json_decref(object);
    code_of(0, "unsupported", "'guided_json' is not served");
    code_of(1, "bad_input", "line 2: ");
    code_of(2, "bad_input", "line 4: not a JSON object");
    code_of(3, "bad_input", "line 5: 'id' is chosen by this program");
    code_of(4, "bad_input", "line 6: duplicate object key");
    has(program_errors(&program), "request 5: unknown fields were ignored: foo");
    has(program_errors(&program), "5 of 6 requests failed");
}

static void more_than_the_window_all_come_back(void **state)
{
    (void)state;
    enum { COUNT = 700 };
    char *input = malloc(COUNT * 64), *at = input;
    for (int i = 0; i < COUNT; i++)
        at += sprintf(at, "{\"ids\":[%d]}\n", i);
    START(input, "--requests", "-", "--json");
    free(input);
    for (int i = 0; i < COUNT; i++) {
        door_receive(&door);
        char id[16];
        snprintf(id, sizeof id, "%d", i);
        assert_string_equal(door.id, id);
        door_accept(&door, id, "");
        door_delta(&door, id, i, "");
        door_final(&door, id, "length", 1);
    }
    ends(0);
    for (int i = 0; i < COUNT; i += 99)
        json_decref(object_of(i));
    has(program_errors(&program), "700 tokens in ");
    has(program_errors(&program), "(median of 700, longest ");
}

static void a_slow_writer_holds_back_no_answer(void **state)
{
    (void)state;
    START(NULL, "--requests", "-");
    assert_int_equal(write(program.input_fd, "{\"prompt\":\"a\"}\n{\"pro", 20), 20);
    door_receive(&door);
    door_accept(&door, "0", "");
    door_delta(&door, "0", 1, "first");
    door_final(&door, "0", "stop", 1);
    assert_true(program_wait_out(&program, "# 0 stop, 1 tokens\nfirst\n", WAIT_MS));
    assert_int_equal(write(program.input_fd, "mpt\":\"b\"}", 9), 9);
    close(program.input_fd);
    program.input_fd = -1;
    door_receive(&door);
    assert_memory_equal(door.generate.prompt, "b", 1);
    door_accept(&door, "1", "");
    door_delta(&door, "1", 1, "second");
    door_final(&door, "1", "length", 1);
    ends(0);
    has(program_out(&program), "# 1 length, 1 tokens\nsecond\n");
}

static void an_overloaded_server_is_asked_again(void **state)
{
    (void)state;
    START("{\"prompt\":\"a\"}\n{\"prompt\":\"b\"}\n", "--requests", "-", "--json");
    door_receive(&door);
    door_receive(&door);
    door_refuse(&door, "0", E_OVERLOADED, "full");
    door_accept(&door, "1", "");
    door_delta(&door, "1", 1, "b");
    door_final(&door, "1", "stop", 1);
    door_receive(&door); // again
    assert_string_equal(door.id, "0");
    door_refuse(&door, "0", E_OVERLOADED, "full");
    door_receive(&door); // and again
    door_accept(&door, "0", "");
    door_delta(&door, "0", 1, "a");
    door_final(&door, "0", "stop", 1);
    ends(0);
    json_decref(object_of(0));
    json_decref(object_of(1));
}

static void refusals_have_their_exit_codes(void **state)
{
    (void)state;
    static const struct {
        enum status status;
        int code;
    } cases[] = {{E_INPUT, 2}, {E_UNSUPPORTED, 2}, {E_LIMIT, 2}, {E_FAILED, 4}, {E_ABORTED, 4}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        START("", "--prompt", "x");
        door_receive(&door);
        door_refuse(&door, door.id, cases[i].status, "because of this");
        ends(cases[i].code);
        has(program_errors(&program), status_name(cases[i].status));
        has(program_errors(&program), "because of this");
        program_end(&program);
    }
    // In mid-stream, too: the text so far stays, the line ends.
    START("", "--prompt", "x");
    door_receive(&door);
    door_accept(&door, door.id, "");
    door_delta(&door, door.id, 1, "half");
    door_refuse(&door, door.id, E_FAILED, "rank 1 is gone");
    ends(4);
    assert_string_equal(program_out(&program), "half\n");
    has(program_errors(&program), "rank 1 is gone");
}

static void a_server_that_dies_is_exit_code_3(void **state)
{
    (void)state;
    START("", "--prompt", "x");
    door_receive(&door);
    door_accept(&door, door.id, "");
    door_close(&door);
    ends(3);
    has(program_errors(&program), "1 requests were unfinished");
    program_end(&program);
    // Nobody there at all.
    const char *words[] = {deltamesh,  "generate", "--rpc", "tcp://127.0.0.1:9",
                           "--prompt", "x",        NULL};
    program_start(&program, words, "");
    ends(3);
    has(program_errors(&program), "tcp://127.0.0.1:9");
}

static void bad_usage_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *words[6];
        int code;
        const char *text;
    } cases[] = {
        {{"--prompt", "x", "--prompt-ids", "1"}, 1, "one of --prompt, --prompt-ids and --requests"},
        {{NULL}, 1, "one of --prompt, --prompt-ids and --requests is needed"},
        {{"--prompt", "x", "--model", "m"}, 1, "one of --rpc and --model is needed"},
        {{"--prompt-ids", "1,x"}, 1, "'x' is no token id"},
        {{"--prompt-ids", "1 2"}, 1, "'2' where a comma belongs"},
        {{"--prompt-ids", "-1"}, 1, "'-1' is no token id"},
        {{"--prompt", "h\xff"}, 2, "invalid UTF-8 at byte 1 of 2"},
        {{"--requests", "/nonexistent/file"}, 2, "/nonexistent/file: No such file"},
        {{"--prompt", "x", "--temperature", "nan"}, 1, "--temperature: nan is outside"},
        {{"--prompt", "x", "--logprobs", "21"}, 1, "--logprobs"},
        {{"--prompt", "x", "--tempreature", "3"}, 1, "did you mean --temperature?"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        start("", cases[i].words);
        ends(cases[i].code);
        has(program_errors(&program), cases[i].text);
        assert_string_equal(program_out(&program), "");
        program_end(&program);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(one_prompt_streams),
        TEST(ids_in_ids_out),
        TEST(many_requests_as_json),
        TEST(more_than_the_window_all_come_back),
        TEST(a_slow_writer_holds_back_no_answer),
        TEST(an_overloaded_server_is_asked_again),
        TEST(refusals_have_their_exit_codes),
        TEST(a_server_that_dies_is_exit_code_3),
        TEST(bad_usage_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
