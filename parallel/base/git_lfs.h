// SPDX-License-Identifier: Apache-2.0
// git_lfs.h -- the few lines of text that a clone without Git LFS has in place of a large file.
// Opens nothing.
#pragma once

#include <stddef.h>

#include "parallel/base/status.h"

enum { GIT_LFS_BYTES = 23 }; // of a file's beginning that tell

// E_INPUT, with the path and what to do, when a file that begins with these bytes is a pointer.
// begin_bytes may be more than GIT_LFS_BYTES, or less: then it is none.
enum status git_lfs_check(const char *path, const char *begin, size_t begin_bytes,
                          struct error *error) MUST_CHECK;
