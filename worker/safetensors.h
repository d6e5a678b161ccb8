// SPDX-License-Identifier: Apache-2.0
// safetensors.h -- the files of a checkpoint as a list of named byte ranges: headers and index
// parsed and checked, data read on demand. Knows no model.
//
// Format (github.com/huggingface/safetensors): 8 bytes little-endian header length, a JSON header
// {name: {dtype, shape, data_offsets: [begin, end)}}, then the data, covered by the tensors
// without overlap or hole. An index names the shard file of every tensor.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "parallel/base/status.h"

enum {
    SAFETENSORS_HEADER_BYTES_MAX = 100 << 20, // the format's own limit
    SAFETENSORS_FILES_MAX = 512,              // descriptors stay open; the largest public has 94
    SAFETENSORS_DIMS_MAX = 8,
};

struct stored_tensor {
    char *name;
    const char *dtype; // as the format spells it: "BF16", "F32", ...
    int element_bits;
    int dims_count;
    int64_t dims[SAFETENSORS_DIMS_MAX];
    int file;              // index into files
    uint64_t offset_bytes; // from the start of the file
    uint64_t bytes;
    uint64_t bytes_read; // so far
};

struct stored_file {
    char *path;
    int fd;
    uint64_t bytes;
};

// What an index says: this tensor is in that file.
struct stored_claim {
    char *name;
    int file; // index into files
};

struct safetensors {
    struct stored_file *files;
    int files_count;
    struct stored_tensor *tensors;
    int tensors_count;
    struct stored_claim *claims; // in order of name; none without an index
    int claims_count;
    uint64_t bytes_read; // of data, headers not counted
};

// Opens DIR/model.safetensors.index.json and every file it names, or else DIR/model.safetensors.
// Reads headers only. E_NOT_FOUND, E_MALFORMED, E_LIMIT, E_UNSUPPORTED (a dtype), E_SYSTEM; the
// text names file and tensor. On failure *out is empty.
enum status safetensors_open(struct safetensors *out, const char *dir,
                             struct error *error) MUST_CHECK;

// Closes the files and frees the lists.
void safetensors_close(struct safetensors *set);

// Reads bytes of a tensor's data from `offset_bytes` on; our bug when that is not inside it. Any
// thread, several at once.
// E_SYSTEM or E_MALFORMED (the file ends early) name the file.
enum status safetensors_read(struct safetensors *set, struct stored_tensor *tensor,
                             uint64_t offset_bytes, void *out, size_t bytes,
                             struct error *error) MUST_CHECK;

// Parses the header of set->files[file], whose size is known (8 + json_bytes + data), and appends
// its tensors to set. Pure; for safetensors_open and the fuzzer. On failure set holds some of
// them: close it.
enum status safetensors_parse_header(struct safetensors *set, int file, const char *json,
                                     size_t json_bytes, struct error *error) MUST_CHECK;

// Parses an index into set->claims and set->files: the paths it names, unopened (fd -1). Pure, as
// above. A file name with a '/' is refused: nothing outside the directory is read.
enum status safetensors_parse_index(struct safetensors *set, const char *dir, const char *json,
                                    size_t json_bytes, struct error *error) MUST_CHECK;

// After all headers: E_MALFORMED unless index (where there is one) and headers name the same
// tensors in the same files; the text names one that differs.
enum status safetensors_check_index(const struct safetensors *set, struct error *error) MUST_CHECK;
