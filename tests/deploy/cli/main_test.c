// SPDX-License-Identifier: Apache-2.0
// main_test.c -- the real `deltamesh`: commands, help, versions and exit codes of usage.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "parallel/base/version.h"
#include "tests/fixtures/program.h"

enum { WAIT_MS = 20000 };

static const char deltamesh[] = BINARY_DIR "/bin/deltamesh";
static struct program program;

// Runs it with up to three words and expects an exit code.
static void run(int code, const char *one, const char *two, const char *three)
{
    const char *words[] = {deltamesh, one, two, three, NULL};
    program_end(&program);
    program_start(&program, words, "");
    assert_int_equal(program_wait(&program, WAIT_MS), code);
}

static void has(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("'%s' is not in '%s'", part, text);
}

static void help_lists_the_commands(void **state)
{
    (void)state;
    static const char *const ways[] = {"--help", "-h", "help"};
    for (int i = 0; i < 3; i++) {
        run(0, ways[i], NULL, NULL);
        has(program_out(&program), "  serve ");
        has(program_out(&program), "  generate ");
        has(program_out(&program), "  tokenize ");
        has(program_out(&program), "  status ");
        has(program_out(&program), "  bench ");
        has(program_out(&program), "exit codes: 0 ok, 1 usage, 2 bad input, 3 no connection");
        assert_string_equal(program_errors(&program), "");
    }
}

static void every_command_has_help_and_a_version(void **state)
{
    (void)state;
    static const char *const commands[] = {"serve", "generate", "tokenize", "status", "bench"};
    char version[128];
    snprintf(version, sizeof version, "deltamesh %s\n", version_build());
    for (int i = 0; i < 5; i++) {
        run(0, commands[i], "--help", NULL);
        has(program_out(&program), "usage: deltamesh ");
        has(program_out(&program), commands[i]);
        has(program_out(&program), "--help");
        run(0, commands[i], "--version", NULL);
        assert_string_equal(program_out(&program), version);
        run(1, commands[i], "--no-such-option", NULL);
        has(program_errors(&program), commands[i]);
        has(program_errors(&program), "unknown option --no-such-option");
    }
    run(0, "--version", NULL, NULL);
    assert_string_equal(program_out(&program), version);
}

static void wrong_commands_are_named(void **state)
{
    (void)state;
    run(1, NULL, NULL, NULL);
    has(program_errors(&program), "usage: deltamesh COMMAND");
    run(1, "sevre", NULL, NULL);
    has(program_errors(&program), "unknown command 'sevre'");
    run(1, "bench", "--url", "x");
    has(program_errors(&program), "--input-len");
    run(1, "serve", "model", NULL);
    has(program_errors(&program), "unexpected word 'model'");
}

static void a_full_disk_is_no_success(void **state)
{
    (void)state;
    const char *words[] = {"/bin/sh", "-c", "exec \"$0\" --help > /dev/full", deltamesh, NULL};
    program_end(&program);
    program_start(&program, words, "");
    assert_int_equal(program_wait(&program, WAIT_MS), 4);
    has(program_errors(&program), "No space left");
}

static int tear_down(void **state)
{
    (void)state;
    program_end(&program);
    return 0;
}

int main(void)
{
    program.input_fd = program.out_fd = program.errors_fd = -1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(help_lists_the_commands),
        cmocka_unit_test(every_command_has_help_and_a_version),
        cmocka_unit_test(wrong_commands_are_named),
        cmocka_unit_test(a_full_disk_is_no_success),
    };
    return cmocka_run_group_tests(tests, NULL, tear_down);
}
