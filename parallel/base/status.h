// SPDX-License-Identifier: Apache-2.0
// status.h -- the three ways of failing: our bug (ASSERT), the outside world (enum status), and
// a fault that no process survives (die). Owns no state.
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#if defined(__GNUC__)
#define MUST_CHECK               __attribute__((warn_unused_result))
#define PRINTF_LIKE(text, first) __attribute__((format(printf, text, first)))
#define NO_RETURN                __attribute__((noreturn))
#else
#define MUST_CHECK
#define PRINTF_LIKE(text, first)
#define NO_RETURN
#endif

enum status {
    OK = 0,
    E_USAGE,       // the command line is wrong
    E_INPUT,       // a model, file or request field is wrong; the text names field, value, limit
    E_UNSUPPORTED, // understood and refused: not a feature of this build
    E_NOT_FOUND,   // a file, tensor or request that does not exist
    E_MALFORMED,   // bytes from a peer or a file that do not parse
    E_LIMIT,       // larger than a stated limit
    E_OVERLOADED,  // a bounded queue or pool is full; retry later
    E_SYSTEM,      // the operating system said no; the text carries its words
    E_CONNECTION,  // no peer, or the peer went away
    E_TIMEOUT,     // a bounded wait ended
    E_MISMATCH,    // the peer is of another version, model or layout
    E_ABORTED,     // ended on request
    E_FAILED,      // the group of ranks that served this is gone
    STATUS_COUNT
};

// What went wrong, for a person: `text` names what, where and the limit. Empty when OK.
struct error {
    enum status status;
    char text[480];
};

// A short lower-case word for logs and the wire: "ok", "bad_input", ... Never NULL.
const char *status_name(enum status status);

// The status of a word that status_name printed; E_FAILED for a word nobody knows.
enum status status_from_name(const char *name);

// The exit code of the command line: 0 ok, 1 usage, 2 bad input, 3 no connection, 4 failed.
int status_exit_code(enum status status);

// Fills error (which may be NULL) with a formatted text and returns status, so that a function
// can `return error_set(error, E_INPUT, "...")`.
enum status error_set(struct error *error, enum status status, const char *format, ...)
    PRINTF_LIKE(3, 4);

// Prints text to stderr with file and line and aborts. Used by ASSERT and for GPU faults.
NO_RETURN void status_die(const char *file, int line, const char *format, ...) PRINTF_LIKE(3, 4);

// Our own bug if false: stays on in release builds.
#define ASSERT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition))                                                                          \
            status_die(__FILE__, __LINE__, "assertion failed: %s", #condition);                    \
    } while (0)

#define DIE(...) status_die(__FILE__, __LINE__, __VA_ARGS__)

// Returns from the calling function when expression is not OK. Only where nothing needs release.
#define TRY(expression)                                                                            \
    do {                                                                                           \
        enum status try_status_ = (expression);                                                    \
        if (try_status_ != OK)                                                                     \
            return try_status_;                                                                    \
    } while (0)
