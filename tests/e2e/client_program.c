// SPDX-License-Identifier: Apache-2.0
// client_program.c -- a stranger's program: threads that each have a client, built against what was
// installed and nothing else. client_program ENDPOINT THREADS REQUESTS
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "deploy/client/client.h"

static const char *endpoint;
static int requests;

static int fail(const char *what, const struct error *error)
{
    fprintf(stderr, "%s: %s (%s)\n", what, error->text, status_name(error->status));
    exit(1);
}

// One request: the number of ids that came.
static int ask(struct client *client, int number, struct error *error)
{
    struct generate_request request;
    const struct reply *reply;
    int ids = 0;
    generate_request_init(&request);
    snprintf(request.id, sizeof request.id, "r%d", number);
    request.prompt = "Once upon a time";
    request.prompt_bytes = strlen(request.prompt);
    request.max_tokens = 5;
    request.temperature = 0;
    if (client_generate(client, &request, error) != OK)
        fail("generate", error);
    do {
        if (client_next(client, &reply, 20000, error) != OK)
            fail("next", error);
        ids += reply->type == REPLY_DELTA ? reply->ids_count : 0;
        if (reply->type == REPLY_ERROR)
            fail(reply->error, error);
    } while (reply->type != REPLY_FINAL);
    return ids;
}

static void *run(void *argument)
{
    struct client_options options = {.endpoint = endpoint};
    struct error error = {.status = OK};
    struct client *client;
    int *ids = argument;
    if (client_open(&client, &options, &error) != OK)
        fail("open", &error);
    for (int i = 0; i < requests; i++)
        *ids += ask(client, i, &error);
    client_close(client);
    return NULL;
}

int main(int argc, char **argv)
{
    enum { THREADS_MAX = 16 };
    pthread_t threads[THREADS_MAX];
    int ids[THREADS_MAX] = {0}, sum = 0;
    int count = argc == 4 ? atoi(argv[2]) : 0;
    if (count < 1 || count > THREADS_MAX)
        return 2;
    endpoint = argv[1];
    requests = atoi(argv[3]);
    for (int i = 0; i < count; i++)
        if (pthread_create(&threads[i], NULL, run, &ids[i]) != 0)
            return 2;
    for (int i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
        sum += ids[i];
    }
    printf("%d ids\n", sum);
    return 0;
}
