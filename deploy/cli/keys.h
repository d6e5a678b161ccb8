// SPDX-License-Identifier: Apache-2.0
// keys.h -- `deltamesh keys`: the CURVE keys of a deployment.
#pragma once

#include "parallel/base/status.h"

// Runs the command with the words behind "keys". Errors of curve_make and curve_make_one; E_USAGE.
enum status keys_run(int count, char *const *words, struct error *error) MUST_CHECK;
