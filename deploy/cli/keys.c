// SPDX-License-Identifier: Apache-2.0
// keys.c -- options, and what was made in a person's words.
#include "deploy/cli/keys.h"

#include <stdio.h>

#include "deploy/cli/output.h"
#include "parallel/base/options.h"
#include "parallel/wire/curve.h"

static void print_help(const struct option *options, int count)
{
    printf("usage: deltamesh keys --curve-dir DIR [--client NAME] [--worker NAME]\n\n"
           "Makes what DIR lacks: the server's pair of keys, a client's and a worker's. A program\n"
           "on another host gets a folder of its own with server.public and its pair, as\n"
           "client.public and client.secret (or worker.*). Who may connect is in DIR/clients and\n"
           "DIR/workers, read when the server starts.\n\n");
    options_print(stdout, options, count);
}

enum status keys_run(int count, char *const *words, struct error *error)
{
    const char *folder = NULL, *client = NULL, *worker = NULL;
    bool help = false;
    int made = 0;
    struct option options[] = {
        {"--curve-dir", NULL, OPTION_TEXT, &folder, 0, 0, "DIR", "where the keys are", NULL},
        {"--client", NULL, OPTION_TEXT, &client, 0, 0, "NAME", "a further client's pair", NULL},
        {"--worker", NULL, OPTION_TEXT, &worker, 0, 0, "NAME", "a further worker's pair", NULL},
        {"--help", "-h", OPTION_FLAG, &help, 0, 0, NULL, "print this help", NULL},
    };
    enum { OPTIONS_COUNT = sizeof options / sizeof options[0] };
    TRY(options_parse(options, OPTIONS_COUNT, count, words, error));
    if (help) {
        print_help(options, OPTIONS_COUNT);
        return OK;
    }
    if (folder == NULL)
        return error_set(error, E_USAGE, "--curve-dir DIR is needed; see --help");
    TRY(curve_make(folder, &made, error));
    if (client != NULL)
        TRY(curve_make_one(folder, "client", client, error));
    if (worker != NULL)
        TRY(curve_make_one(folder, "worker", worker, error));
    made += (client != NULL) + (worker != NULL);
    if (made == 0)
        printf("%s has its keys already; nothing was made\n", folder);
    else
        printf("%d pairs of keys made in %s\n", made, folder);
    return output_flush(error);
}
