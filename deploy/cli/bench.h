// SPDX-License-Identifier: Apache-2.0
// bench.h -- `deltamesh bench`: load on a server, and how it bore it.
#pragma once

#include "parallel/base/status.h"

// Runs the command with the words behind "bench". OK when every measured request ended well;
// otherwise the status of the first that failed, or of the connection. What was measured until
// then is printed.
enum status bench_run(int count, char *const *words, struct error *error) MUST_CHECK;
