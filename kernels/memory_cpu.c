// SPDX-License-Identifier: Apache-2.0
// memory_cpu.c -- reads /proc/meminfo and the control groups.
#include "kernels/memory_cpu.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { PATH_BYTES_MAX = 1024, LINE_BYTES_MAX = 512 };

// What differs between the two versions of control groups.
struct group_files {
    const char *mount;      // where the hierarchy of the memory controller is mounted
    const char *limit;      // file with the limit in bytes, or "max"
    const char *used;       // file with the bytes used now, page cache included
    const char *cache_line; // line of memory.stat: page cache that the kernel drops first
};

static const struct group_files version_2 = {"/sys/fs/cgroup", "memory.max", "memory.current",
                                             "inactive_file"};
static const struct group_files version_1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                                             "memory.usage_in_bytes", "total_inactive_file"};

// The number after the first line that starts with the word `key`, or the file's first number
// when key is empty. False when there is none.
static bool read_number(const char *path, const char *key, uint64_t *out)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    char line[LINE_BYTES_MAX];
    bool found = false;
    size_t key_bytes = strlen(key);
    while (!found && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, key, key_bytes) == 0)
            found = sscanf(line + key_bytes, "%" SCNu64, out) == 1;
    }
    fclose(file);
    return found;
}

// One group's room, UINT64_MAX when it sets no limit or its files cannot be read.
static uint64_t room_of_group(const char *folder, const struct group_files *files)
{
    char path[PATH_BYTES_MAX + 64];
    uint64_t limit, used, cache = 0;
    snprintf(path, sizeof path, "%s/%s", folder, files->limit);
    if (!read_number(path, "", &limit)) // "max" is no number
        return UINT64_MAX;
    snprintf(path, sizeof path, "%s/%s", folder, files->used);
    if (!read_number(path, "", &used))
        return UINT64_MAX;
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    if (read_number(path, files->cache_line, &cache))
        used -= cache < used ? cache : used;
    return limit > used ? limit - used : 0;
}

// The least room from the group at `path` up to the hierarchy's mount point. In a container the
// path may not exist below the mount; the mount point itself then is the container's group.
static uint64_t room_of_path(const char *root, const struct group_files *files, const char *path)
{
    char folder[PATH_BYTES_MAX];
    size_t mount_bytes = strlen(root) + strlen(files->mount);
    int length = snprintf(folder, sizeof folder, "%s%s%s", root, files->mount, path);
    if (length < 0 || (size_t)length >= sizeof folder)
        return UINT64_MAX;
    uint64_t least = UINT64_MAX;
    for (;;) {
        uint64_t room = room_of_group(folder, files);
        least = room < least ? room : least;
        char *slash = strrchr(folder, '/');
        if (slash == NULL || (size_t)(slash - folder) < mount_bytes)
            return least;
        *slash = '\0';
    }
}

// A line of /proc/self/cgroup is hierarchy:controllers:path; "0::path" is version 2.
static uint64_t room_of_line(const char *root, char *line)
{
    line[strcspn(line, "\n")] = '\0';
    char *controllers = strchr(line, ':');
    char *path = controllers == NULL ? NULL : strchr(controllers + 1, ':');
    if (path == NULL)
        return UINT64_MAX;
    *path++ = '\0';
    controllers++;
    if (*controllers == '\0')
        return room_of_path(root, &version_2, path);
    return strcmp(controllers, "memory") == 0 ? room_of_path(root, &version_1, path) : UINT64_MAX;
}

uint64_t memory_cpu_bytes_free(const char *root)
{
    char path[PATH_BYTES_MAX];
    uint64_t available_kib;
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    if (!read_number(path, "MemAvailable:", &available_kib))
        return 0;
    uint64_t least = available_kib * 1024;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "re");
    char line[LINE_BYTES_MAX];
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        uint64_t room = room_of_line(root, line);
        least = room < least ? room : least;
    }
    if (file != NULL)
        fclose(file);
    return least;
}
