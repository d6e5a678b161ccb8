// SPDX-License-Identifier: Apache-2.0
// door_status.h -- the status of a deployment as one JSON object, the same at every door.
#pragma once

#include "coordinator/overview.h"
#include "parallel/wire/socket.h"

// An object {"model", "state": "starting" | "ready" | "draining" | "failed", counts ...,
// "groups_now": [{"phase", "epoch", counts ..., "ranks": [{"host", "pid", "ready", ...}]}]},
// malloc'ed, or NULL when there is no memory. model_name is UTF-8.
char *door_status_json(const char *model_name, const struct overview *overview,
                       const struct socket_counts *sockets);
