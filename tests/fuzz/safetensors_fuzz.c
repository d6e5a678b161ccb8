// SPDX-License-Identifier: Apache-2.0
// safetensors_fuzz.c -- headers and indexes of any bytes: refused or believed, never more. Input:
// one byte 'i' (an index follows) or 'h' (four bytes, little-endian size of the data behind the
// header, then the header).
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "worker/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

// What a header was believed to say must lie inside the file, end to end.
static void check_believed(const struct safetensors *set, uint64_t data_bytes)
{
    uint64_t sum = 0;
    for (int i = 0; i < set->tensors_count; i++) {
        const struct stored_tensor *tensor = &set->tensors[i];
        ASSERT(tensor->offset_bytes <= set->files[0].bytes);
        ASSERT(tensor->bytes <= set->files[0].bytes - tensor->offset_bytes);
        sum += tensor->bytes;
    }
    ASSERT(sum == data_bytes);
}

static void try_header(struct safetensors *set, const uint8_t *data, size_t bytes,
                       struct error *error)
{
    if (bytes < 4)
        return;
    uint64_t data_bytes = (uint64_t)data[0] | (uint64_t)data[1] << 8 | (uint64_t)data[2] << 16 |
                          (uint64_t)data[3] << 24;
    set->files = calloc(1, sizeof *set->files);
    ASSERT(set->files != NULL);
    set->files_count = 1;
    set->files[0] = (struct stored_file){strdup("file"), -1, 8 + (bytes - 4) + data_bytes};
    if (safetensors_parse_header(set, 0, (const char *)data + 4, bytes - 4, error) == OK)
        check_believed(set, data_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct safetensors set = {0};
    struct error error = {0};
    if (bytes > 0 && data[0] == 'h') {
        try_header(&set, data + 1, bytes - 1, &error);
    } else if (bytes > 0 && data[0] == 'i') {
        if (safetensors_parse_index(&set, "dir", (const char *)data + 1, bytes - 1, &error) == OK)
            ASSERT(safetensors_check_index(&set, &error) == E_MALFORMED); // no headers: all missing
    }
    ASSERT(error.status == OK || error.text[0] != '\0');
    safetensors_close(&set);
    return 0;
}
