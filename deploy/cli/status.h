// SPDX-License-Identifier: Apache-2.0
// status.h -- `deltamesh status`: what a server is doing.
#pragma once

#include "parallel/base/status.h"

// Runs the command with the words behind "status". E_CONNECTION when no server answers.
enum status status_run(int count, char *const *words, struct error *error) MUST_CHECK;
