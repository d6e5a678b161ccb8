// SPDX-License-Identifier: Apache-2.0
// log.c -- formats a line on the stack and writes it in one piece.
#include "parallel/base/log.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { NAME_BYTES_MAX = 64 };

static const char *const level_names[LOG_LEVELS] = {
    [LOG_DEBUG] = "debug",
    [LOG_INFO] = "info",
    [LOG_WARNING] = "warning",
    [LOG_ERROR] = "error",
};

static atomic_int level_least = LOG_INFO;
static pthread_mutex_t name_mutex = PTHREAD_MUTEX_INITIALIZER;
static char name[NAME_BYTES_MAX] = "deltamesh";

void log_set_name(const char *program, int rank)
{
    pthread_mutex_lock(&name_mutex);
    if (rank < 0)
        snprintf(name, sizeof name, "%s", program);
    else
        snprintf(name, sizeof name, "%.48s[%d]", program, rank);
    pthread_mutex_unlock(&name_mutex);
}

void log_set_level(enum log_level least)
{
    atomic_store(&level_least, (int)least);
}

// "2026-11-21T00:54:12.345Z info deltamesh-worker-cpu[1]: ", returns its length.
static size_t write_head(char *line, size_t bytes_max, enum log_level level)
{
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t length = strftime(line, bytes_max, "%Y-%m-%dT%H:%M:%S", &utc);
    pthread_mutex_lock(&name_mutex);
    int more = snprintf(line + length, bytes_max - length,
                        ".%03dZ %s %s: ", (int)(now.tv_nsec / 1000000), level_names[level], name);
    pthread_mutex_unlock(&name_mutex);
    return length + (size_t)more;
}

static void write_line(enum log_level level, const char *format, va_list arguments)
{
    if ((int)level < atomic_load_explicit(&level_least, memory_order_relaxed))
        return;
    char line[LOG_LINE_BYTES_MAX + 1]; // the newline takes the place of the NUL
    size_t head = write_head(line, LOG_LINE_BYTES_MAX, level);
    int text = vsnprintf(line + head, LOG_LINE_BYTES_MAX - head, format, arguments);
    size_t length = head + (text < 0 ? 0 : (size_t)text);
    if (length > LOG_LINE_BYTES_MAX - 1) {
        length = LOG_LINE_BYTES_MAX - 1;
        memset(line + length - 3, '.', 3);
    }
    for (size_t i = head; i < length; i++) {
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = ' ';
    }
    line[length] = '\n';
    // A log that cannot be written is not worth failing for.
    ssize_t written = write(STDERR_FILENO, line, length + 1);
    (void)written;
}

void log_debug(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    write_line(LOG_DEBUG, format, arguments);
    va_end(arguments);
}

void log_info(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    write_line(LOG_INFO, format, arguments);
    va_end(arguments);
}

void log_warning(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    write_line(LOG_WARNING, format, arguments);
    va_end(arguments);
}

void log_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    write_line(LOG_ERROR, format, arguments);
    va_end(arguments);
}
