// SPDX-License-Identifier: Apache-2.0
// options.h -- command lines from a table: one row per option with its name, aliases, kind, range
// and help. Parsing, range checks and `--help` read the same table, so they cannot part ways.
// Knows no program: every program brings its own table. Prints only help.
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "parallel/base/status.h"

enum option_kind {
    OPTION_FLAG,    // bool: true when given; takes no value
    OPTION_TEXT,    // const char *: the word itself, borrowed from argv
    OPTION_CHOICE,  // const char *: one of the words of `argument`, "auto|dummy"
    OPTION_INT,     // int32_t within [min, max]
    OPTION_REAL,    // double within [min, max], finite
    OPTION_SEED,    // uint64_t, any
    OPTION_REFUSED, // known and not served: `help` says why; giving it is E_USAGE
};

struct option {
    const char *name;    // "--tp"
    const char *aliases; // "-tp --tensor-parallel-size", separated by spaces, or NULL
    enum option_kind kind;
    void *value;          // where the parsed value goes, of the kind's type; keeps its default
    double min, max;      // OPTION_INT and OPTION_REAL, both ends allowed
    const char *argument; // how help calls the value, "N"; the words of OPTION_CHOICE
    const char *help;     // one line; NULL hides the row
    const char *given;    // out: the word as given, "" for a flag, NULL when absent
};

// Reads arguments[0 .. count) into the table: `--name value`, `--name=value` and the aliases; '_'
// in a long name counts as '-'. The last of repeated options wins. E_USAGE names an unknown
// option (with the nearest name), a missing, foreign or out-of-range value, or a stray word.
enum status options_parse(struct option *options, int options_count, int count,
                          char *const *arguments, struct error *error) MUST_CHECK;

// One line or two per option: names, argument, help.
void options_print(FILE *file, const struct option *options, int options_count);
