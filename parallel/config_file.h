// SPDX-License-Identifier: Apache-2.0
// config_file.h -- a small JSON file of a model's folder, read whole. Knows no field.
#pragma once

#include <jansson.h>
#include <stddef.h>

#include "parallel/base/status.h"

enum { CONFIG_BYTES_MAX = 16 << 20 }; // quantised releases list 882 module names: 60 KB

// The object that these bytes are; *out is the caller's to release. E_MALFORMED names `name`, line
// and column.
enum status config_file_parse(json_t **out, const char *name, const char *json, size_t json_bytes,
                              struct error *error) MUST_CHECK;

// The same of a file. E_NOT_FOUND when there is none; E_INPUT when it is no regular file, which is
// never waited for, or a Git LFS pointer; E_LIMIT above CONFIG_BYTES_MAX. Texts name the path.
enum status config_file_read(json_t **out, const char *path, struct error *error) MUST_CHECK;
