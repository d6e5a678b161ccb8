// SPDX-License-Identifier: Apache-2.0
// generate.h -- `deltamesh generate`: prompts in, text out, over the RPC door.
#pragma once

#include "parallel/base/status.h"

// Runs the command with the words behind "generate". OK when every request was answered; otherwise
// the status of the first that failed, or of the connection.
enum status generate_run(int count, char *const *words, struct error *error) MUST_CHECK;
