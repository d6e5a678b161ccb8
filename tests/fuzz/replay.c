// SPDX-License-Identifier: Apache-2.0
// replay.c -- runs a fuzz target over the files of a corpus, each whole and cut at up to 64 places,
// so that what fuzzing has found stays found. Any failure aborts; no file at all is a failure.
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/base/status.h"

enum { CUTS = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

// One input in memory of exactly its size, so that a sanitizer sees a byte read past it.
static void run_bytes(const uint8_t *content, size_t bytes)
{
    uint8_t *data = malloc(bytes == 0 ? 1 : bytes);
    if (data == NULL)
        DIE("out of memory for %zu bytes", bytes);
    memcpy(data, content, bytes);
    (void)LLVMFuzzerTestOneInput(data, bytes);
    free(data);
}

static void run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0)
        DIE("%s: cannot be read", path);
    const long end = ftell(file);
    if (end < 0)
        DIE("%s: has no size", path);
    rewind(file);
    const size_t bytes = (size_t)end;
    uint8_t *content = malloc(bytes + 1);
    if (content == NULL || fread(content, 1, bytes, file) != bytes)
        DIE("%s: cannot be read", path);
    fclose(file);
    run_bytes(content, bytes);
    for (size_t i = 0; i < CUTS && i < bytes; i++)
        run_bytes(content, bytes < CUTS ? i : bytes / CUTS * i);
    free(content);
}

int main(int argument_count, char **arguments)
{
    size_t files = 0;
    if (argument_count != 2)
        DIE("usage: replay CORPUS");
    DIR *folder = opendir(arguments[1]);
    if (folder == NULL)
        DIE("%s: no such corpus", arguments[1]);
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char path[4096];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", arguments[1], entry->d_name);
        run_file(path);
        files++;
    }
    closedir(folder);
    printf("%zu files\n", files);
    return files > 0 ? 0 : 1;
}
