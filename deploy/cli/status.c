// SPDX-License-Identifier: Apache-2.0
// status.c -- asks over the RPC door and prints the answer, once or every second.
#include "deploy/cli/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "deploy/cli/output.h"
#include "deploy/cli/status_table.h"
#include "deploy/client/client.h"
#include "parallel/base/clock.h"
#include "parallel/base/options.h"

enum { WATCH_MS = 1000 };

// What is asked for, and what came last.
struct status_view {
    struct client *client;
    bool json, watch;
    json_t *before;
    uint64_t before_ns;
};

// "key   value" a line, then the groups.
static void print_list(const json_t *object)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        if (strcmp(key, "groups_now") == 0)
            continue; // below
        char *shown = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        printf("%-20s %s\n", key, json_is_string(value) ? json_string_value(value) : shown);
        free(shown);
    }
    status_table_print_groups(stdout, object);
}

// On a terminal in the place of the last one, else after it.
static void print_live(struct status_view *view, json_t *now)
{
    uint64_t now_ns = clock_now_ns();
    double seconds = (double)(now_ns - view->before_ns) * 1e-9;
    if (isatty(STDOUT_FILENO))
        printf("\x1b[H\x1b[J");
    status_table_print(stdout, now, view->before, seconds);
    if (!isatty(STDOUT_FILENO))
        putchar('\n');
    json_decref(view->before);
    view->before = json_incref(now);
    view->before_ns = now_ns;
}

static enum status print_reply(struct status_view *view, const struct reply *reply,
                               struct error *error)
{
    json_error_t problem;
    if (view->json) {
        printf("%.*s\n", (int)reply->text_bytes, reply->text);
        return OK;
    }
    json_t *object = json_loadb(reply->text, reply->text_bytes, 0, &problem);
    if (!json_is_object(object)) {
        json_decref(object);
        return error_set(error, E_MALFORMED, "the server's status is no JSON object");
    }
    if (view->watch)
        print_live(view, object);
    else
        print_list(object);
    json_decref(object);
    return OK;
}

static enum status ask(struct status_view *view, struct error *error)
{
    const struct reply *reply;
    TRY(client_status(view->client, "status", error));
    do
        TRY(client_next(view->client, &reply, CLIENT_SILENCE_MS_MAX, error));
    while (strcmp(reply->id, "status") != 0);
    if (reply->type == REPLY_ERROR)
        return error_set(error, status_from_name(reply->error), "%.*s", (int)reply->text_bytes,
                         reply->text);
    TRY(print_reply(view, reply, error));
    return output_flush(error);
}

enum status status_run(int count, char *const *words, struct error *error)
{
    struct client_options client_options = {.endpoint = NULL};
    struct status_view view = {.client = NULL};
    bool help = false;
    struct option options[] = {
        {"--rpc", NULL, OPTION_TEXT, &client_options.endpoint, 0, 0, "ENDPOINT", "the server",
         NULL},
        {"--json", NULL, OPTION_FLAG, &view.json, 0, 0, NULL, "one JSON object", NULL},
        {"--watch", NULL, OPTION_FLAG, &view.watch, 0, 0, NULL,
         "a table every second, until it is gone", NULL},
        {"--curve-dir", NULL, OPTION_TEXT, &client_options.curve_dir, 0, 0, "DIR",
         "CURVE keys of a client; see deltamesh keys", NULL},
        {"--insecure", NULL, OPTION_FLAG, &client_options.insecure, 0, 0, NULL,
         "allow a server that is not on the loopback", NULL},
        {"--help", "-h", OPTION_FLAG, &help, 0, 0, NULL, "print this help", NULL},
    };
    enum { OPTIONS_COUNT = sizeof options / sizeof options[0] };
    TRY(options_parse(options, OPTIONS_COUNT, count, words, error));
    if (help) {
        printf("usage: deltamesh status --rpc ENDPOINT [--json] [--watch]\n\n");
        options_print(stdout, options, OPTIONS_COUNT);
        return OK;
    }
    if (client_options.endpoint == NULL)
        return error_set(error, E_USAGE, "--rpc ENDPOINT is needed; see --help");
    TRY(client_open(&view.client, &client_options, error));
    enum status status = ask(&view, error);
    while (status == OK && view.watch) {
        clock_sleep_ns((uint64_t)WATCH_MS * CLOCK_NS_PER_MS);
        status = ask(&view, error);
    }
    client_close(view.client);
    json_decref(view.before);
    return status;
}
