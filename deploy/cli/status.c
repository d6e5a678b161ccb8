// SPDX-License-Identifier: Apache-2.0
// status.c -- asks over the RPC door and prints the answer, once or every second.
#include "deploy/cli/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "deploy/client/client.h"
#include "parallel/base/clock.h"
#include "parallel/base/options.h"

enum { WATCH_MS = 1000 };

// "key   value" a line; what is no plain value is printed as JSON.
static enum status print_table(const char *text, size_t bytes, struct error *error)
{
    json_error_t problem;
    json_t *object = json_loadb(text, bytes, 0, &problem);
    if (!json_is_object(object)) {
        json_decref(object);
        return error_set(error, E_MALFORMED, "the server's status is no JSON object");
    }
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        char *shown = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        printf("%-20s %s\n", key, json_is_string(value) ? json_string_value(value) : shown);
        free(shown);
    }
    json_decref(object);
    return OK;
}

static enum status ask(struct client *client, bool json, struct error *error)
{
    const struct reply *reply;
    TRY(client_status(client, "status", error));
    do
        TRY(client_next(client, &reply, CLIENT_SILENCE_MS_MAX, error));
    while (strcmp(reply->id, "status") != 0);
    if (reply->type == REPLY_ERROR)
        return error_set(error, status_from_name(reply->error), "%.*s", (int)reply->text_bytes,
                         reply->text);
    if (json)
        printf("%.*s\n", (int)reply->text_bytes, reply->text);
    else
        TRY(print_table(reply->text, reply->text_bytes, error));
    fflush(stdout);
    return OK;
}

enum status status_run(int count, char *const *words, struct error *error)
{
    struct client_options client_options = {.endpoint = NULL};
    bool json = false, watch = false, help = false;
    struct option options[] = {
        {"--rpc", NULL, OPTION_TEXT, &client_options.endpoint, 0, 0, "ENDPOINT", "the server",
         NULL},
        {"--json", NULL, OPTION_FLAG, &json, 0, 0, NULL, "one JSON object", NULL},
        {"--watch", NULL, OPTION_FLAG, &watch, 0, 0, NULL, "every second, until it is gone", NULL},
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
    struct client *client;
    TRY(client_open(&client, &client_options, error));
    enum status status = ask(client, json, error);
    while (status == OK && watch) {
        clock_sleep_ns((uint64_t)WATCH_MS * CLOCK_NS_PER_MS);
        if (!json)
            putchar('\n');
        status = ask(client, json, error);
    }
    client_close(client);
    return status;
}
