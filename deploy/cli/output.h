// SPDX-License-Identifier: Apache-2.0
// output.h -- whether stdout took what a command printed. Prints nothing itself.
#pragma once

#include "parallel/base/status.h"

// Sends what was printed on its way. E_SYSTEM with the system's words when stdout did not take it,
// or took not all that was printed before: a full disk must not look like an answer.
enum status output_flush(struct error *error) MUST_CHECK;
