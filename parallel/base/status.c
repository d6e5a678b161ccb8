// SPDX-License-Identifier: Apache-2.0
// status.c -- names, exit codes and texts of errors.
#include "parallel/base/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[STATUS_COUNT] = {
    [OK] = "ok",
    [E_USAGE] = "usage",
    [E_INPUT] = "bad_input",
    [E_UNSUPPORTED] = "unsupported",
    [E_NOT_FOUND] = "not_found",
    [E_MALFORMED] = "malformed",
    [E_LIMIT] = "limit",
    [E_OVERLOADED] = "overloaded",
    [E_SYSTEM] = "system",
    [E_CONNECTION] = "connection",
    [E_TIMEOUT] = "timeout",
    [E_MISMATCH] = "mismatch",
    [E_ABORTED] = "aborted",
    [E_FAILED] = "failed",
};

const char *status_name(enum status status)
{
    return (unsigned)status < STATUS_COUNT ? names[status] : "unknown";
}

enum status status_from_name(const char *name)
{
    for (int i = 0; i < STATUS_COUNT; i++) {
        if (strcmp(names[i], name) == 0)
            return (enum status)i;
    }
    return E_FAILED;
}

int status_exit_code(enum status status)
{
    switch (status) {
    case OK: return 0;
    case E_USAGE: return 1;
    case E_INPUT:
    case E_UNSUPPORTED:
    case E_NOT_FOUND:
    case E_MALFORMED:
    case E_LIMIT:
    case E_MISMATCH: return 2;
    case E_CONNECTION: return 3;
    default: return 4;
    }
}

enum status error_set(struct error *error, enum status status, const char *format, ...)
{
    if (error != NULL) {
        va_list arguments;
        va_start(arguments, format);
        error->status = status;
        vsnprintf(error->text, sizeof error->text, format, arguments);
        va_end(arguments);
    }
    return status;
}

void status_die(const char *file, int line, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s:%d: ", file, line);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    abort();
}
