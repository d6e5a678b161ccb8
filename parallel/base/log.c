// SPDX-License-Identifier: Apache-2.0
// log.c -- formats a line on the stack and writes it in one piece.
#include "parallel/base/log.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "parallel/base/utf8.h"

enum { NAME_BYTES_MAX = 64, ID_BYTES_MAX = 160, JSON_BYTES_MAX = 2 * LOG_LINE_BYTES_MAX + 512 };

static const char *const level_names[LOG_LEVELS] = {
    [LOG_DEBUG] = "debug",
    [LOG_INFO] = "info",
    [LOG_WARNING] = "warning",
    [LOG_ERROR] = "error",
};

static atomic_int level_least = LOG_INFO;
static atomic_int line_format = LOG_TEXT;
static pthread_mutex_t name_mutex = PTHREAD_MUTEX_INITIALIZER;
static char name[NAME_BYTES_MAX] = "deltamesh";
static int name_rank = -1;

void log_set_name(const char *program, int rank)
{
    pthread_mutex_lock(&name_mutex);
    snprintf(name, sizeof name, "%.48s", program);
    name_rank = rank;
    pthread_mutex_unlock(&name_mutex);
}

void log_set_level(enum log_level least)
{
    atomic_store(&level_least, (int)least);
}

void log_set_format(enum log_format format)
{
    atomic_store(&line_format, (int)format);
}

enum log_format log_format(void)
{
    return (enum log_format)atomic_load(&line_format);
}

// "2026-11-21T00:54:12.345Z"
static void write_time(char *out, size_t bytes_max)
{
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t length = strftime(out, bytes_max, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(out + length, bytes_max - length, ".%03dZ", (int)(now.tv_nsec / 1000000));
}

static void copy_name(char *out, int *rank)
{
    pthread_mutex_lock(&name_mutex);
    memcpy(out, name, sizeof name);
    *rank = name_rank;
    pthread_mutex_unlock(&name_mutex);
}

// A log that cannot be written is not worth failing for.
static void write_out(const char *line, size_t length)
{
    ssize_t written = write(STDERR_FILENO, line, length);
    (void)written;
}

// "2026-11-21T00:54:12.345Z info deltamesh-worker-cpu[1]: request x: text"
static void write_text(enum log_level level, const char *id, const char *text)
{
    char line[LOG_LINE_BYTES_MAX + 1], time[32], program[NAME_BYTES_MAX], rank[16] = "";
    int number, length;
    write_time(time, sizeof time);
    copy_name(program, &number);
    if (number >= 0)
        snprintf(rank, sizeof rank, "[%d]", number);
    length = snprintf(line, sizeof line, "%s %s %s%s: %s%s%s%s", time, level_names[level], program,
                      rank, id[0] != '\0' ? "request " : "", id, id[0] != '\0' ? ": " : "", text);
    if (length > LOG_LINE_BYTES_MAX - 1) {
        length = LOG_LINE_BYTES_MAX - 1;
        memset(line + length - 3, '.', 3);
    }
    line[length] = '\n'; // the newline takes the place of the NUL
    write_out(line, (size_t)length + 1);
}

// Appends text as a JSON string; there is room for twice its length and the quotes.
static char *put_json(char *at, const char *text)
{
    *at++ = '"';
    while (*text != '\0') {
        size_t valid = utf8_valid_bytes(text, strlen(text));
        for (; valid > 0; valid--) {
            if (*text == '"' || *text == '\\')
                *at++ = '\\';
            *at++ = *text++;
        }
        if (*text != '\0') {
            *at++ = '?';
            text++;
        }
    }
    *at++ = '"';
    return at;
}

// {"time":"..","level":"info","program":"..","rank":1,"request":"..","text":".."}
static void write_json(enum log_level level, const char *id, const char *text)
{
    char line[JSON_BYTES_MAX], time[32], program[NAME_BYTES_MAX];
    int rank;
    write_time(time, sizeof time);
    copy_name(program, &rank);
    char *at = line;
    at += sprintf(at, "{\"time\":\"%s\",\"level\":\"%s\",\"program\":", time, level_names[level]);
    at = put_json(at, program);
    if (rank >= 0)
        at += sprintf(at, ",\"rank\":%d", rank);
    if (id[0] != '\0') {
        at += sprintf(at, ",\"request\":");
        at = put_json(at, id);
    }
    at += sprintf(at, ",\"text\":");
    at = put_json(at, text);
    at += sprintf(at, "}\n");
    write_out(line, (size_t)(at - line));
}

static void clean(char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = ' ';
    }
}

static void write_line(enum log_level level, const char *id, const char *format, va_list arguments)
{
    if ((int)level < atomic_load_explicit(&level_least, memory_order_relaxed))
        return;
    char text[LOG_LINE_BYTES_MAX], about[ID_BYTES_MAX];
    int length = vsnprintf(text, sizeof text, format, arguments);
    if (length < 0)
        text[0] = '\0';
    if (length >= (int)sizeof text)
        memset(text + sizeof text - 4, '.', 3);
    snprintf(about, sizeof about, "%s", id);
    clean(text);
    clean(about);
    if (log_format() == LOG_JSON)
        write_json(level, about, text);
    else
        write_text(level, about, text);
}

void log_info(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    write_line(LOG_INFO, "", format, arguments);
    va_end(arguments);
}

void log_warning(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    write_line(LOG_WARNING, "", format, arguments);
    va_end(arguments);
}

void log_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    write_line(LOG_ERROR, "", format, arguments);
    va_end(arguments);
}

void log_request(enum log_level level, const char *id, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    write_line(level, id, format, arguments);
    va_end(arguments);
}
