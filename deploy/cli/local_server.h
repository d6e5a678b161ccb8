// SPDX-License-Identifier: Apache-2.0
// local_server.h -- a `deltamesh serve` of our own for the time of one command.
#pragma once

#include "deploy/cli/children.h"
#include "parallel/base/status.h"

struct local_server {
    struct child child;
    char endpoint[256]; // of its RPC door
};

struct local_server_options {
    const char *model, *backend, *load_format;
    int ranks;
};

// Starts it on a free port and waits until it is ready. When it ends instead, the status says how
// (E_USAGE, E_INPUT, E_FAILED) and *error is empty where the server itself has said why.
enum status local_server_open(struct local_server *server,
                              const struct local_server_options *options,
                              struct error *error) MUST_CHECK;

// Drains and ends it; kills it should that take longer than its own bounds.
void local_server_close(struct local_server *server);
