// SPDX-License-Identifier: Apache-2.0
// serve.h -- `deltamesh serve`: a coordinator and its workers as children of one process, watched
// until they end. Holds no model and opens no socket itself.
#pragma once

#include "parallel/base/status.h"

// Runs the command with the words behind "serve". Prints `ready rpc=ENDPOINT http=URL` on stdout
// once all is up and returns when everything has ended: OK after a drain (SIGTERM, SIGINT or a
// client's drain), E_USAGE or E_INPUT when a child refused its input (whose own message is on
// stderr, *error is then empty), E_FAILED when a child died, E_ABORTED after a second signal.
enum status serve_run(int count, char *const *words, struct error *error) MUST_CHECK;
