// SPDX-License-Identifier: Apache-2.0
// local_server.c -- starts our own program again, as `serve`.
#include "deploy/cli/local_server.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "parallel/base/clock.h"

enum {
    POLL_MS = 20,
    DRAIN_MS_MAX = 45000, // serve's own bounds: 30 s of drain, 5 s of grace, its workers' end
    LINE_BYTES_MAX = 1024,
};

// The endpoint of `ready rpc=ENDPOINT http=...`; false for any other line.
static bool read_ready(struct local_server *server, const char *line)
{
    static const char head[] = "ready rpc=";
    if (strncmp(line, head, sizeof head - 1) != 0)
        return false;
    size_t bytes = strcspn(line + sizeof head - 1, " ");
    snprintf(server->endpoint, sizeof server->endpoint, "%.*s", (int)bytes, line + sizeof head - 1);
    return true;
}

// Reads its stdout up to the ready line; false when it ended before.
static bool wait_until_ready(struct local_server *server)
{
    char line[LINE_BYTES_MAX];
    size_t used = 0;
    for (;;) {
        struct pollfd one = {.fd = server->child.stdout_fd, .events = POLLIN};
        poll(&one, 1, POLL_MS);
        char byte;
        ssize_t count = read(server->child.stdout_fd, &byte, 1);
        if (count == 0)
            return false;
        if (count < 0)
            continue; // nothing yet; the end of the child is the end of the pipe
        if (byte != '\n' && used + 1 < sizeof line) {
            line[used++] = byte;
            continue;
        }
        line[used] = '\0';
        used = 0;
        if (read_ready(server, line))
            return true;
    }
}

static enum status how_it_ended(struct local_server *server, struct error *error)
{
    while (server->child.is_running && !children_reap(&server->child))
        clock_sleep_ns((uint64_t)POLL_MS * CLOCK_NS_PER_MS);
    char text[256];
    int code = children_exit_code(&server->child);
    children_describe(text, sizeof text, &server->child);
    error->text[0] = '\0';
    if (code == 1)
        return E_USAGE;
    if (code == 2)
        return E_INPUT;
    return error_set(error, E_FAILED, "%s before it was ready", text);
}

enum status local_server_open(struct local_server *server,
                              const struct local_server_options *options, struct error *error)
{
    char path[CHILDREN_PATH_BYTES_MAX], model[CHILDREN_PATH_BYTES_MAX], ranks[16], backend[16];
    char load_format[16];
    *server = (struct local_server){.child = {.name = "the server", .stdout_fd = -1}};
    TRY(children_path(path, sizeof path, "deltamesh", error));
    snprintf(model, sizeof model, "%s", options->model);
    snprintf(ranks, sizeof ranks, "%d", options->ranks);
    snprintf(backend, sizeof backend, "%s", options->backend);
    snprintf(load_format, sizeof load_format, "%s", options->load_format);
    char *words[] = {path,        "serve", "--model",
                     model,       "--tp",  ranks,
                     "--backend", backend, "--load-format",
                     load_format, "--rpc", "tcp://127.0.0.1:0",
                     "--http",    "off",   NULL};
    TRY(children_start(&server->child, words, SIGKILL, true, error));
    if (wait_until_ready(server))
        return OK;
    close(server->child.stdout_fd);
    return how_it_ended(server, error);
}

void local_server_close(struct local_server *server)
{
    children_signal(&server->child, SIGTERM);
    uint64_t end_ns = clock_now_ns() + (uint64_t)DRAIN_MS_MAX * CLOCK_NS_PER_MS;
    while (server->child.is_running && !children_reap(&server->child)) {
        if (clock_now_ns() >= end_ns) {
            children_signal(&server->child, SIGKILL);
            end_ns = UINT64_MAX;
        }
        clock_sleep_ns((uint64_t)POLL_MS * CLOCK_NS_PER_MS);
    }
    close(server->child.stdout_fd);
}
