// SPDX-License-Identifier: Apache-2.0
// faults.h -- carries out what the scenario wants to go wrong, and says what must follow from it.
#pragma once

#include <stdint.h>

#include "parallel/wire/messages.h"

struct sim;

// Fault number `index` of the scenario happens now, if its process still lives.
void faults_happen(struct sim *sim, int32_t index);

// Turns a true report of a process into a lie when it is to lie.
void faults_report(struct sim *sim, int32_t process, struct report *report);
