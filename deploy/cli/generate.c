// SPDX-License-Identifier: Apache-2.0
// generate.c -- keeps a window of requests in flight and hands what comes back to the answers.
#include "deploy/cli/generate.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "deploy/cli/generate_answers.h"
#include "deploy/cli/generate_input.h"
#include "deploy/cli/generate_options.h"
#include "deploy/cli/local_server.h"
#include "deploy/client/client.h"
#include "parallel/base/clock.h"

enum {
    WINDOW = 256,              // requests in flight: the sequences that a large server runs at once
    WAIT_MS = 1000,            // for replies when there is nothing else to do
    LOOK_MS = 20,              // for replies while a slow writer may write a line
    RETRY_MS = 100,            // before an overloaded server is asked again
    OVERLOADED_MS_MAX = 60000, // in which it accepted nothing
};

struct generate {
    struct generate_options options;
    struct generate_input input;
    struct generate_answers answers;
    struct client *client;
    struct answer window[WINDOW];
    int32_t in_flight;    // places in use
    int32_t waiting;      // of them, refused as overloaded and not yet sent again
    uint64_t retry_ns;    // when they may be
    uint64_t accepted_ns; // when the server last took something on
};

static struct answer *find_free(struct generate *generate)
{
    for (int i = 0; i < WINDOW; i++) {
        if (!generate->window[i].is_used)
            return &generate->window[i];
    }
    return NULL;
}

static struct answer *find_answer(struct generate *generate, const char *id)
{
    int64_t index = strtoll(id, NULL, 10);
    for (int i = 0; i < WINDOW && id[0] != '\0'; i++) {
        if (generate->window[i].is_used && generate->window[i].index == index)
            return &generate->window[i];
    }
    return NULL;
}

static void release(struct generate *generate, struct answer *answer)
{
    generate_answers_release(answer);
    generate->in_flight--;
}

// Sends a request that holds its frame. What only this request is to blame for is counted as its
// failure; what concerns the connection is returned.
static enum status send_answer(struct generate *generate, struct answer *answer,
                               struct error *error)
{
    uint64_t now_ns = clock_now_ns(); // before: the first token may be here when this returns
    enum status status = client_send(generate->client, answer->frame, answer->frame_bytes, error);
    if (status == OK) {
        answer->sent_ns = now_ns;
        return OK;
    }
    if (status != E_LIMIT && status != E_INPUT)
        return status;
    status = generate_answers_fail(&generate->answers, answer->index, status, error->text, error);
    release(generate, answer);
    return status;
}

// Fills the window from the input. May wait for a line only when nothing else is going on.
static enum status fill_window(struct generate *generate, struct error *error)
{
    while (generate->in_flight < WINDOW && generate->waiting == 0 && !generate->input.ended) {
        struct generate_frame frame;
        int64_t index = generate->input.count;
        int64_t line = generate->input.lines.number;
        enum status status =
            generate_input_next(&generate->input, generate->in_flight == 0, &frame, error);
        if (status == E_INPUT || (status == E_USAGE && index == 0)) {
            TRY(generate_answers_fail(&generate->answers, index, status, error->text, error));
            continue;
        }
        TRY(status);
        if (frame.bytes == NULL && generate->input.lines.number == line)
            break; // no whole line yet
        if (frame.bytes == NULL)
            continue; // an empty line
        struct answer *answer = find_free(generate);
        *answer = (struct answer){
            .is_used = true, .index = index, .frame = frame.bytes, .frame_bytes = frame.count};
        generate->in_flight++;
        TRY(send_answer(generate, answer, error));
    }
    return OK;
}

// An overloaded server: the request waits for its turn unless nothing at all moves.
static bool put_off(struct generate *generate, struct answer *answer, const struct reply *reply)
{
    uint64_t now_ns = clock_now_ns();
    if (answer->is_accepted || status_from_name(reply->error) != E_OVERLOADED)
        return false;
    if (now_ns - generate->accepted_ns > (uint64_t)OVERLOADED_MS_MAX * CLOCK_NS_PER_MS)
        return false;
    answer->sent_ns = 0;
    generate->waiting++;
    generate->retry_ns = now_ns + (uint64_t)RETRY_MS * CLOCK_NS_PER_MS;
    return true;
}

static enum status send_again(struct generate *generate, struct error *error)
{
    if (generate->waiting == 0 || clock_now_ns() < generate->retry_ns)
        return OK;
    for (int i = 0; i < WINDOW; i++) {
        struct answer *answer = &generate->window[i];
        if (answer->is_used && answer->sent_ns == 0)
            TRY(send_answer(generate, answer, error));
    }
    generate->waiting = 0;
    return OK;
}

static enum status take_reply(struct generate *generate, const struct reply *reply,
                              struct error *error)
{
    struct answer *answer = find_answer(generate, reply->id);
    if (answer == NULL) {
        if (reply->type == REPLY_ERROR) // of a frame without id: none of ours can wait for it
            return error_set(error, status_from_name(reply->error), "%.*s", (int)reply->text_bytes,
                             reply->text);
        return OK;
    }
    if (reply->type == REPLY_ERROR && put_off(generate, answer, reply))
        return OK;
    if (reply->type == REPLY_ACCEPTED)
        generate->accepted_ns = clock_now_ns();
    TRY(generate_answers_take(&generate->answers, answer, reply, error));
    if (reply->type == REPLY_FINAL || reply->type == REPLY_ERROR)
        release(generate, answer);
    return OK;
}

// How long to wait for a reply before looking elsewhere.
static int wait_ms(const struct generate *generate)
{
    if (generate->waiting > 0)
        return RETRY_MS;
    return generate->input.ended || generate->in_flight == WINDOW ? WAIT_MS : LOOK_MS;
}

static enum status run(struct generate *generate, struct error *error)
{
    generate->answers.begin_ns = generate->accepted_ns = clock_now_ns();
    for (;;) {
        const struct reply *reply;
        TRY(fill_window(generate, error));
        TRY(send_again(generate, error));
        if (generate->in_flight == 0 && generate->input.ended)
            return OK;
        if (generate->in_flight == 0)
            continue;
        enum status status = client_next(generate->client, &reply, wait_ms(generate), error);
        if (status == E_TIMEOUT)
            continue;
        TRY(status);
        TRY(take_reply(generate, reply, error));
    }
}

// From an open connection to the last figure.
static enum status run_at(struct generate *generate, const char *endpoint, struct error *error)
{
    const struct client_options options = {.endpoint = endpoint,
                                           .insecure = generate->options.insecure,
                                           .curve_dir = generate->options.curve_dir};
    TRY(generate_input_open(&generate->input, &generate->options, error));
    enum status status = client_open(&generate->client, &options, error);
    if (status == OK)
        status = run(generate, error);
    client_close(generate->client);
    generate_input_close(&generate->input);
    for (int i = 0; i < WINDOW; i++)
        generate_answers_release(&generate->window[i]);
    if (status != OK)
        return status;
    generate_answers_print_figures(&generate->answers);
    const struct generate_answers *answers = &generate->answers;
    if (answers->failed == 0)
        return OK;
    if (generate->answers.single)
        error->text[0] = '\0'; // it has been said
    else
        error_set(error, answers->first_failure, "%" PRId64 " of %" PRId64 " requests failed",
                  answers->failed, answers->failed + answers->ended);
    return answers->first_failure;
}

enum status generate_run(int count, char *const *words, struct error *error)
{
    static struct generate generate;
    struct local_server server;
    generate = (struct generate){.client = NULL};
    TRY(generate_options_parse(&generate.options, count, words, error));
    const struct generate_options *options = &generate.options;
    if (options->help)
        return OK;
    generate.answers.json = options->json;
    generate.answers.single = options->requests == NULL;
    generate.answers.want_ids = options->prompt == NULL;
    enum status status;
    if (options->rpc != NULL) {
        status = run_at(&generate, options->rpc, error);
    } else {
        const struct local_server_options local = {.model = options->model,
                                                   .backend = options->backend,
                                                   .load_format = options->load_format,
                                                   .ranks = options->ranks};
        TRY(local_server_open(&server, &local, error));
        status = run_at(&generate, server.endpoint, error);
        local_server_close(&server);
    }
    generate_answers_fini(&generate.answers);
    return status;
}
