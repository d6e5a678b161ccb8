// SPDX-License-Identifier: Apache-2.0
// loop.h -- a worker's life: HELLO, PLACE, load, READY, then plans in and reports out, heartbeats
// all along. The only file of the worker that sees the socket.
#pragma once

#include "parallel/base/status.h"
#include "worker/weights.h"

struct loop_options {
    const char *coordinator; // endpoint
    const char *model_dir;
    enum load_format load_format;
    int local_rank;        // -1 = any
    bool insecure;         // allow a coordinator that is not on the loopback
    const char *curve_dir; // its keys: parallel/wire/curve.h
};

// Returns when the coordinator ended this worker in order (OK), refused it (E_MISMATCH), when it
// or the group failed (E_FAILED), or the coordinator fell silent (E_CONNECTION). SIGTERM ends it
// in order, too: the coordinator is told.
enum status loop_run(const struct loop_options *options, struct error *error) MUST_CHECK;
