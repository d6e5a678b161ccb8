// SPDX-License-Identifier: Apache-2.0
// tokenize.h -- `deltamesh tokenize`: lines of JSON in, lines of JSON out, without a server.
#pragma once

#include "parallel/base/status.h"

// Runs the command with the words behind "tokenize". A line that cannot be done is answered by
// {"error": ...} and the rest goes on; only what concerns the model or the streams is an error.
enum status tokenize_run(int count, char *const *words, struct error *error) MUST_CHECK;
