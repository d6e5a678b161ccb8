// SPDX-License-Identifier: Apache-2.0
// safetensors.c -- opens a checkpoint's files and reads byte ranges. What the JSON parts say is
// checked in safetensors_parse.c.
#include "worker/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "parallel/base/git_lfs.h"

static const char index_name[] = "model.safetensors.index.json";
static const char single_name[] = "model.safetensors";

enum { PATH_BYTES = 4096 };

// Reads exactly bytes at offset_bytes.
static enum status read_exactly(const struct stored_file *file, uint64_t offset_bytes, void *out,
                                size_t bytes, struct error *error)
{
    size_t done = 0;
    while (done < bytes) {
        ssize_t got =
            pread(file->fd, (char *)out + done, bytes - done, (off_t)(offset_bytes + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set(error, E_SYSTEM, "%s: %s", file->path, strerror(errno));
        if (got == 0)
            return error_set(error, E_MALFORMED, "%s: ends at byte %llu, before its data does",
                             file->path, (unsigned long long)(offset_bytes + done));
        done += (size_t)got;
    }
    return OK;
}

static enum status file_open(struct stored_file *file, struct error *error)
{
    struct stat info;
    file->fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a FIFO is not waited for
    if (file->fd < 0 || fstat(file->fd, &info) != 0)
        return error_set(error, errno == ENOENT ? E_NOT_FOUND : E_SYSTEM, "%s: %s", file->path,
                         strerror(errno));
    if (!S_ISREG(info.st_mode))
        return error_set(error, E_INPUT, "%s: not a regular file", file->path);
    file->bytes = (uint64_t)info.st_size;
    char begin[GIT_LFS_BYTES];
    size_t begin_bytes = file->bytes < sizeof begin ? (size_t)file->bytes : sizeof begin;
    TRY(read_exactly(file, 0, begin, begin_bytes, error));
    return git_lfs_check(file->path, begin, begin_bytes, error);
}

static enum status header_read(struct safetensors *set, int number, struct error *error)
{
    const struct stored_file *file = &set->files[number];
    uint8_t prefix[8];
    if (file->bytes < sizeof prefix)
        return error_set(error, E_MALFORMED, "%s: %llu bytes are no safetensors file", file->path,
                         (unsigned long long)file->bytes);
    TRY(read_exactly(file, 0, prefix, sizeof prefix, error));
    uint64_t bytes = 0;
    for (int i = 7; i >= 0; i--)
        bytes = bytes << 8 | prefix[i];
    if (bytes > SAFETENSORS_HEADER_BYTES_MAX)
        return error_set(error, E_LIMIT, "%s: its header claims %llu bytes; %d are allowed",
                         file->path, (unsigned long long)bytes, SAFETENSORS_HEADER_BYTES_MAX);
    if (bytes > file->bytes - sizeof prefix)
        return error_set(error, E_MALFORMED, "%s: its header claims %llu bytes; the file has %llu",
                         file->path, (unsigned long long)bytes, (unsigned long long)file->bytes);
    char *json = malloc((size_t)bytes + 1);
    if (json == NULL)
        return error_set(error, E_SYSTEM, "%s: no memory for its header", file->path);
    enum status status = read_exactly(file, sizeof prefix, json, (size_t)bytes, error);
    if (status == OK)
        status = safetensors_parse_header(set, number, json, (size_t)bytes, error);
    free(json);
    return status;
}

// Reads the index file whole; its size is bounded like a header's.
static enum status index_read(struct safetensors *set, const char *dir, struct stored_file *index,
                              struct error *error)
{
    if (index->bytes > SAFETENSORS_HEADER_BYTES_MAX)
        return error_set(error, E_LIMIT, "%s: %llu bytes; %d are allowed", index->path,
                         (unsigned long long)index->bytes, SAFETENSORS_HEADER_BYTES_MAX);
    char *json = malloc((size_t)index->bytes + 1);
    if (json == NULL)
        return error_set(error, E_SYSTEM, "%s: no memory", index->path);
    enum status status = read_exactly(index, 0, json, (size_t)index->bytes, error);
    if (status == OK)
        status = safetensors_parse_index(set, dir, json, (size_t)index->bytes, error);
    free(json);
    return status;
}

// Without an index there is one file.
static enum status single_file(struct safetensors *set, const char *dir, struct error *error)
{
    char path[PATH_BYTES];
    if (snprintf(path, sizeof path, "%s/%s", dir, single_name) >= (int)sizeof path)
        return error_set(error, E_LIMIT, "the model's path is longer than %d bytes", PATH_BYTES);
    if (access(path, F_OK) != 0)
        return error_set(error, E_NOT_FOUND, "%s: neither %s nor %s is there", dir, index_name,
                         single_name);
    set->files = calloc(1, sizeof *set->files);
    if (set->files == NULL)
        return error_set(error, E_SYSTEM, "%s: no memory", path);
    set->files_count = 1;
    set->files[0].fd = -1;
    set->files[0].path = strdup(path);
    return set->files[0].path != NULL ? OK : error_set(error, E_SYSTEM, "%s: no memory", path);
}

static enum status find_files(struct safetensors *set, const char *dir, struct error *error)
{
    struct stat info;
    if (stat(dir, &info) != 0)
        return error_set(error, E_NOT_FOUND, "model directory %s: %s", dir, strerror(errno));
    char path[PATH_BYTES];
    if (snprintf(path, sizeof path, "%s/%s", dir, index_name) >= (int)sizeof path)
        return error_set(error, E_LIMIT, "the model's path is longer than %d bytes", PATH_BYTES);
    struct stored_file index = {.path = path, .fd = -1};
    enum status status = file_open(&index, error);
    if (status == OK)
        status = index_read(set, dir, &index, error);
    else if (status == E_NOT_FOUND)
        status = single_file(set, dir, error);
    if (index.fd >= 0)
        close(index.fd);
    return status;
}

enum status safetensors_open(struct safetensors *out, const char *dir, struct error *error)
{
    memset(out, 0, sizeof *out);
    struct safetensors set = {0};
    enum status status = find_files(&set, dir, error);
    for (int i = 0; status == OK && i < set.files_count; i++) {
        status = file_open(&set.files[i], error);
        if (status == OK)
            status = header_read(&set, i, error);
    }
    if (status == OK)
        status = safetensors_check_index(&set, error);
    if (status == OK)
        *out = set;
    else
        safetensors_close(&set);
    return status;
}

void safetensors_close(struct safetensors *set)
{
    for (int i = 0; i < set->files_count; i++) {
        if (set->files[i].fd >= 0)
            close(set->files[i].fd);
        free(set->files[i].path);
    }
    for (int i = 0; i < set->tensors_count; i++)
        free(set->tensors[i].name);
    for (int i = 0; i < set->claims_count; i++)
        free(set->claims[i].name);
    free(set->files);
    free(set->tensors);
    free(set->claims);
    memset(set, 0, sizeof *set);
}

enum status safetensors_read(struct safetensors *set, struct stored_tensor *tensor,
                             uint64_t offset_bytes, void *out, size_t bytes, struct error *error)
{
    ASSERT(offset_bytes <= tensor->bytes && bytes <= tensor->bytes - offset_bytes);
    TRY(read_exactly(&set->files[tensor->file], tensor->offset_bytes + offset_bytes, out, bytes,
                     error));
    __atomic_fetch_add(&tensor->bytes_read, bytes, __ATOMIC_RELAXED);
    __atomic_fetch_add(&set->bytes_read, bytes, __ATOMIC_RELAXED);
    return OK;
}
