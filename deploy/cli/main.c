// SPDX-License-Identifier: Apache-2.0
// main.c -- the `deltamesh` program: finds the command, prints its error once, sets the exit code:
// 0 ok, 1 usage, 2 bad input, 3 no connection, 4 the server refused or failed.
#include <stdio.h>
#include <string.h>

#include "deploy/cli/bench.h"
#include "deploy/cli/generate.h"
#include "deploy/cli/keys.h"
#include "deploy/cli/output.h"
#include "deploy/cli/serve.h"
#include "deploy/cli/status.h"
#include "deploy/cli/tokenize.h"
#include "parallel/base/status.h"
#include "parallel/base/version.h"

static const struct {
    const char *name, *help;
    enum status (*run)(int count, char *const *words, struct error *error);
} commands[] = {
    {"serve", "a coordinator and its workers on this host", serve_run},
    {"generate", "prompts in, text out", generate_run},
    {"tokenize", "text to token ids and back, a line at a time", tokenize_run},
    {"status", "what a server is doing", status_run},
    {"bench", "load on a server, and how it bears it", bench_run},
    {"keys", "CURVE keys for a server, its workers and clients", keys_run},
};

enum { COMMANDS = sizeof commands / sizeof commands[0] };

static void print_help(FILE *file)
{
    fprintf(file, "usage: deltamesh COMMAND [options]     (deltamesh COMMAND --help)\n\n");
    for (int i = 0; i < COMMANDS; i++)
        fprintf(file, "  %-12s%s\n", commands[i].name, commands[i].help);
    fprintf(file, "\n  --version, --help\n\n"
                  "exit codes: 0 ok, 1 usage, 2 bad input, 3 no connection, 4 the server refused "
                  "or failed\n");
}

static int run(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "";
    bool is_version = strcmp(word, "--version") == 0;
    for (int i = 0; i < COMMANDS; i++) {
        struct error error = {.status = OK};
        if (strcmp(commands[i].name, word) != 0)
            continue;
        if (argc > 2 && strcmp(argv[2], "--version") == 0) {
            is_version = true;
            break;
        }
        enum status status = commands[i].run(argc - 2, argv + 2, &error);
        if (status != OK && error.text[0] != '\0')
            fprintf(stderr, "deltamesh %s: %s\n", word, error.text);
        return status_exit_code(status);
    }
    if (is_version) {
        printf("deltamesh %s\n", version_build());
        return 0;
    }
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0) {
        print_help(stdout);
        return 0;
    }
    if (word[0] != '\0')
        fprintf(stderr, "deltamesh: unknown command '%s'\n\n", word);
    print_help(stderr);
    return 1;
}

int main(int argc, char **argv)
{
    struct error error = {.status = OK};
    int code = run(argc, argv);
    if (code != 0 || output_flush(&error) == OK)
        return code;
    fprintf(stderr, "deltamesh: %s\n", error.text); // of a help text, say
    return status_exit_code(error.status);
}
