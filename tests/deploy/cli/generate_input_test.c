// SPDX-License-Identifier: Apache-2.0
// generate_input_test.c -- the frames that prompts, ids and lines become, read by the door's own
// decoder; and lines that cannot be sent.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unistd.h>

#include <cmocka.h>

#include "deploy/cli/generate_input.h"
#include "parallel/wire/requests.h"

static struct generate_options options;
static struct generate_input input;
static struct generate_frame frame;
static struct generate_request request;
static struct error error;

static enum status next(void)
{
    free(frame.bytes);
    frame.bytes = NULL;
    error.text[0] = '\0';
    enum status status = generate_input_next(&input, true, &frame, &error);
    if (status == OK && frame.bytes != NULL)
        assert_int_equal(generate_request_decode(&request, frame.bytes, frame.count, &error), OK);
    return status;
}

static void ends(void)
{
    assert_int_equal(next(), OK);
    assert_null(frame.bytes);
    assert_true(input.ended);
    generate_input_close(&input);
}

static void open_options(void)
{
    options.defaults[0] =
        (struct generate_default){.key = "temperature", .kind = DEFAULT_REAL, .real = 0.25};
    options.defaults[1] =
        (struct generate_default){.key = "seed", .kind = DEFAULT_SEED, .seed = UINT64_MAX};
    options.defaults[2] = (struct generate_default){.key = "ignore_eos", .kind = DEFAULT_TRUE};
    options.defaults[3] =
        (struct generate_default){.key = "max_tokens", .kind = DEFAULT_INT, .number = 7};
    options.defaults_count = 4;
    assert_int_equal(generate_input_open(&input, &options, &error), OK);
}

static void a_prompt_is_one_request(void **state)
{
    (void)state;
    options = (struct generate_options){.prompt = "h\xc3\xa9 \"q\" \\"};
    open_options();
    assert_int_equal(next(), OK);
    assert_string_equal(request.id, "0");
    assert_int_equal(request.prompt_bytes, strlen(options.prompt));
    assert_memory_equal(request.prompt, options.prompt, request.prompt_bytes);
    assert_true(request.temperature == 0.25 && request.seed == UINT64_MAX && request.ignore_eos);
    assert_int_equal(request.max_tokens, 7);
    ends();
    options = (struct generate_options){.prompt = "ab\xC3"};
    open_options();
    assert_int_equal(next(), E_INPUT);
    assert_string_equal(error.text, "--prompt: invalid UTF-8 at byte 2 of 3");
    ends();
}

static void ids_are_one_request(void **state)
{
    (void)state;
    int32_t ids[3];
    options = (struct generate_options){.prompt_ids = " 1, 20 ,2147483647"};
    open_options();
    assert_int_equal(next(), OK);
    assert_int_equal(request.ids_count, 3);
    assert_int_equal(generate_request_ids(ids, 3, INT32_MAX, &request, &error), E_INPUT);
    assert_int_equal(ids[1], 20);
    ends();
    static const char *const wrong[] = {"",  "1,", ",1",         "1;2",
                                        "x", "-1", "2147483648", "99999999999999999999"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        options = (struct generate_options){.prompt_ids = wrong[i]};
        open_options();
        assert_int_equal(next(), E_USAGE);
        assert_non_null(strstr(error.text, "--prompt-ids: "));
        ends();
    }
}

static void lines_are_requests(void **state)
{
    (void)state;
    char path[] = "/tmp/deltamesh-input-XXXXXX";
    int fd = mkstemp(path);
    static const char text[] = "{\"prompt\":\"a\",\"temperature\":2,\"seed\":3}\n"
                               "  \t\n"
                               "{\"ids\":[5,6],\"unknown\":{\"a\":[1.5]}}\n"
                               "{\"prompt\":\"b\"\n"
                               "7\n"
                               "{\"prompt\":\"c\",\"t\":\"drain\"}\n"
                               "{\"prompt\":\"\xff\"}\n"
                               "{\"prompt\":\"last\"}";
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    close(fd);
    options = (struct generate_options){.requests = path};
    open_options();
    assert_int_equal(next(), OK);
    assert_string_equal(request.id, "0");
    assert_true(request.temperature == 2 && request.seed == 3 && request.max_tokens == 7);
    assert_int_equal(next(), OK); // the empty line
    assert_null(frame.bytes);
    assert_false(input.ended);
    assert_int_equal(next(), OK);
    assert_string_equal(request.id, "1");
    assert_int_equal(request.ids_count, 2);
    assert_string_equal(request.unknown, "unknown");
    assert_true(request.temperature == 0.25);
    assert_int_equal(next(), E_INPUT);
    assert_memory_equal(error.text, "line 4: ", 8);
    assert_int_equal(next(), E_INPUT);
    assert_memory_equal(error.text, "line 5: ", 8);
    assert_int_equal(next(), E_INPUT);
    assert_string_equal(error.text, "line 6: 't' is chosen by this program");
    assert_int_equal(next(), E_INPUT);
    assert_memory_equal(error.text, "line 7: ", 8);
    assert_int_equal(next(), OK);
    assert_string_equal(request.id, "6"); // failed lines use up their index
    ends();
    unlink(path);
    assert_int_equal(generate_input_open(&input, &options, &error), E_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_is_one_request),
        cmocka_unit_test(ids_are_one_request),
        cmocka_unit_test(lines_are_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
