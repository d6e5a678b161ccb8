// SPDX-License-Identifier: Apache-2.0
// status_table.h -- a server's status for a person: counts and rates in two lines, then a line for
// every group and rank. Reads JSON, asks nobody.
#pragma once

#include <jansson.h>
#include <stdio.h>

// Prints the status `now`; with the one of `seconds` before (NULL: none) also what moved since.
// Keys that a server does not send are 0.
void status_table_print(FILE *file, const json_t *now, const json_t *before, double seconds);

// Only the lines of groups and ranks.
void status_table_print_groups(FILE *file, const json_t *status);
