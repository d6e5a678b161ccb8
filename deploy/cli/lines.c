// SPDX-License-Identifier: Apache-2.0
// lines.c -- read(2) into a growing buffer, poll(2) where one may not wait.
#include "deploy/cli/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { READ_BYTES = 1 << 16 };

enum status lines_open(struct lines *lines, const char *path, struct error *error)
{
    bool is_stdin = strcmp(path, "-") == 0;
    *lines = (struct lines){.name = is_stdin ? "stdin" : path};
    lines->fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (lines->fd < 0)
        return error_set(error, errno == ENOENT ? E_NOT_FOUND : E_SYSTEM, "%s: %s", path,
                         strerror(errno));
    return OK;
}

void lines_close(struct lines *lines)
{
    if (lines->fd > STDIN_FILENO)
        close(lines->fd);
    free(lines->bytes);
    *lines = (struct lines){.fd = -1, .ended = true};
}

// Moves what is left to the front and makes room for one more read and a NUL.
static enum status make_room(struct lines *lines, struct error *error)
{
    if (lines->first > 0) {
        memmove(lines->bytes, lines->bytes + lines->first, lines->count - lines->first);
        lines->count -= lines->first;
        lines->first = 0;
    }
    if (lines->count > LINES_BYTES_MAX)
        return error_set(error, E_LIMIT, "%s: line %lld is longer than %d bytes", lines->name,
                         (long long)lines->number + 1, LINES_BYTES_MAX);
    if (lines->count + READ_BYTES + 1 <= lines->capacity)
        return OK;
    size_t capacity = 2 * lines->capacity + READ_BYTES + 1;
    char *bytes = realloc(lines->bytes, capacity);
    if (bytes == NULL)
        return error_set(error, E_SYSTEM, "%s: no memory for a line of %zu bytes", lines->name,
                         capacity);
    lines->bytes = bytes;
    lines->capacity = capacity;
    return OK;
}

static bool is_readable(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};
    return poll(&one, 1, 0) > 0;
}

// Gives out [first, end) and steps over the line end, if there is one.
static void give_out(struct lines *lines, size_t end, const char **line, size_t *line_bytes)
{
    *line = lines->bytes + lines->first;
    *line_bytes = end - lines->first;
    lines->bytes[end] = '\0';
    if (*line_bytes > 0 && (*line)[*line_bytes - 1] == '\r')
        lines->bytes[lines->first + --*line_bytes] = '\0';
    lines->first = end < lines->count ? end + 1 : end;
    lines->number++;
}

enum status lines_next(struct lines *lines, bool wait, const char **line, size_t *line_bytes,
                       struct error *error)
{
    *line = NULL;
    *line_bytes = 0;
    size_t looked = lines->first; // no line end before here
    for (;;) {
        const char *end = lines->count > looked
                              ? memchr(lines->bytes + looked, '\n', lines->count - looked)
                              : NULL;
        if (end != NULL) {
            give_out(lines, (size_t)(end - lines->bytes), line, line_bytes);
            return OK;
        }
        if (lines->ended) {
            if (lines->count > lines->first)
                give_out(lines, lines->count, line, line_bytes);
            return OK;
        }
        if (!wait && !is_readable(lines->fd))
            return OK;
        TRY(make_room(lines, error));
        looked = lines->count;
        ssize_t count = read(lines->fd, lines->bytes + lines->count, READ_BYTES);
        if (count < 0 && errno != EINTR)
            return error_set(error, E_SYSTEM, "%s: %s", lines->name, strerror(errno));
        lines->ended = count == 0;
        lines->count += count > 0 ? (size_t)count : 0;
    }
}
