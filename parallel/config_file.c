// SPDX-License-Identifier: Apache-2.0
// config_file.c -- opens, reads and parses.
#include "parallel/config_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "parallel/base/git_lfs.h"

enum status config_file_parse(json_t **out, const char *name, const char *json, size_t json_bytes,
                              struct error *error)
{
    json_error_t problem;
    *out = json_loadb(json, json_bytes, JSON_REJECT_DUPLICATES, &problem);
    if (*out == NULL)
        return error_set(error, E_MALFORMED, "%s: line %d, column %d: %s", name, problem.line,
                         problem.column, problem.text);
    if (!json_is_object(*out)) {
        json_decref(*out);
        return error_set(error, E_MALFORMED, "%s: a JSON object is expected", name);
    }
    return OK;
}

static enum status read_bytes(char *out, size_t bytes, int fd, const char *path,
                              struct error *error)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t got = read(fd, out + done, bytes - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set(error, E_SYSTEM, "%s: %s", path, strerror(errno));
        if (got == 0)
            return error_set(error, E_INPUT, "%s: became shorter while it was read", path);
        done += (size_t)got;
    }
    return OK;
}

static enum status read_open(json_t **out, int fd, const char *path, struct error *error)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return error_set(error, E_SYSTEM, "%s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return error_set(error, E_INPUT, "%s: not a regular file", path);
    if (info.st_size > CONFIG_BYTES_MAX)
        return error_set(error, E_LIMIT, "%s: larger than %d bytes", path, CONFIG_BYTES_MAX);
    size_t bytes = (size_t)info.st_size;
    char *json = malloc(bytes + 1);
    if (json == NULL)
        return error_set(error, E_SYSTEM, "%s: out of memory", path);
    enum status status = read_bytes(json, bytes, fd, path, error);
    if (status == OK)
        status = git_lfs_check(path, json, bytes, error);
    if (status == OK)
        status = config_file_parse(out, path, json, bytes, error);
    free(json);
    return status;
}

enum status config_file_read(json_t **out, const char *path, struct error *error)
{
    // Without O_NONBLOCK the open of a FIFO waits for a writer, maybe for ever.
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_set(error, errno == ENOENT || errno == ENOTDIR ? E_NOT_FOUND : E_SYSTEM,
                         "%s: %s", path, strerror(errno));
    enum status status = read_open(out, fd, path, error);
    close(fd);
    return status;
}
