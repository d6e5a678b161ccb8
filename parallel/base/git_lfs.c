// SPDX-License-Identifier: Apache-2.0
// git_lfs.c -- the first line of a pointer (github.com/git-lfs/git-lfs, docs/spec.md).
#include "parallel/base/git_lfs.h"

#include <string.h>

enum status git_lfs_check(const char *path, const char *begin, size_t begin_bytes,
                          struct error *error)
{
    static const char words[GIT_LFS_BYTES + 1] = "version https://git-lfs";
    if (begin_bytes < GIT_LFS_BYTES || memcmp(begin, words, GIT_LFS_BYTES) != 0)
        return OK;
    return error_set(error, E_INPUT,
                     "%s: a Git LFS pointer, not the file itself; run `git lfs pull` in its folder",
                     path);
}
