// SPDX-License-Identifier: Apache-2.0
// shell.h -- the core's thread: worker socket, doors' links, signals and the clock become events;
// actions become messages. The only file that feeds the core.
#pragma once

#include "coordinator/core.h"
#include "coordinator/link.h"

struct shell_options {
    struct coord_options core;
    const char *workers_endpoint; // where workers dial
    bool insecure;
    const char *curve_dir; // socket.h
    struct link *links;    // [links_count] of the doors, borrowed
    int links_count;
    int32_t drain_timeout_s; // from the first SIGTERM to the end of everything
    const char *ready_line;  // printed on stdout when every group serves
};

// Prints `workers ENDPOINT` on stdout, then runs until drained (OK), until every group failed
// (E_FAILED, without a text: the log says why) or until the socket cannot be opened. SIGTERM or
// SIGINT drains, a second one ends at once; SIGUSR1 asks for a look at who is still there.
enum status shell_run(const struct shell_options *options, struct error *error) MUST_CHECK;
