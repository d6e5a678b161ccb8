// SPDX-License-Identifier: Apache-2.0
// lines.h -- lines of a file or of stdin, also while something else is going on: asking for the
// next line need not wait for a slow writer. Knows nothing of what is in them.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "parallel/base/status.h"

enum { LINES_BYTES_MAX = 64 << 20 }; // of one line

struct lines {
    const char *name; // for errors
    int fd;
    bool ended;
    char *bytes; // [capacity], of which [first, count) is not yet given out
    size_t first, count, capacity;
    int64_t number; // of the line last given out, from 1
};

// Opens a file, or stdin for "-". E_NOT_FOUND or E_SYSTEM name the path, which is borrowed.
enum status lines_open(struct lines *lines, const char *path, struct error *error) MUST_CHECK;
void lines_close(struct lines *lines);

// The next line, without its line end and with a NUL behind, lent until the next call. *line is
// NULL at the end of the file (then `ended` is set) and, unless wait is set, when no whole line is
// there yet. A last line without line end counts. E_LIMIT for a line above LINES_BYTES_MAX,
// E_SYSTEM for a failed read or no memory.
enum status lines_next(struct lines *lines, bool wait, const char **line, size_t *line_bytes,
                       struct error *error) MUST_CHECK;
