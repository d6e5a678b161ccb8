// SPDX-License-Identifier: Apache-2.0
// log.h -- one line per event on stderr: UTC time, level, who, text. An error is logged once, where
// it is handled, with who, what, how much and which limit. Never called from pure files.
#pragma once

#include "parallel/base/status.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR, LOG_LEVELS };

enum log_format {
    LOG_TEXT, // 2026-11-21T00:54:12.345Z info deltamesh-worker-cpu[1]: request x: text
    LOG_JSON, // {"time":"..","level":"info","program":"..","rank":1,"request":"x","text":".."}
};

enum { LOG_LINE_BYTES_MAX = 1024 }; // a longer line is cut and ends in "..."

// Who writes: program ("deltamesh-worker-cpu") and rank, -1 when the program has none. Once the
// rank is known it may be called again. Before the first call lines say "deltamesh".
void log_set_name(const char *program, int rank);

// Lines below `least` are dropped; LOG_INFO until set.
void log_set_level(enum log_level least);

// How lines look from now on; LOG_TEXT until set. A JSON line leaves out what does not apply.
void log_set_format(enum log_format format);
enum log_format log_format(void);

// Writes one line with one write(2), so that lines of threads and processes do not mix. Control
// characters in the text become spaces: what a client sent cannot forge a line. Any thread.
void log_info(const char *format, ...) PRINTF_LIKE(1, 2);
void log_warning(const char *format, ...) PRINTF_LIKE(1, 2);
void log_error(const char *format, ...) PRINTF_LIKE(1, 2);

// The same about a client's request, whose id comes from outside; "" when it has none.
void log_request(enum log_level level, const char *id, const char *format, ...) PRINTF_LIKE(3, 4);
