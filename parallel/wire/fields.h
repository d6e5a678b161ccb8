// SPDX-License-Identifier: Apache-2.0
// fields.h -- a flat struct and its msgpack map, described by one table that both encodes and
// decodes. Private to parallel/wire; messages with arrays are written out by hand.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "parallel/base/status.h"
#include "parallel/wire/reader.h"
#include "parallel/wire/writer.h"

enum field_kind {
    FIELD_INT32,  // int32_t or uint32_t up to INT32_MAX, within [min, max]
    FIELD_UINT64, // uint64_t, any
    FIELD_TEXT,   // char[bytes] with a NUL
    FIELD_BYTES,  // uint8_t[bytes], all of them
};

struct field {
    const char *key;
    enum field_kind kind;
    size_t offset; // in the struct
    size_t bytes;  // of the struct's member
    int32_t min, max;
};

struct field_table {
    const char *type;           // the value of "t"
    const struct field *fields; // [count]
    int32_t count;
};

// Writes {"t": type, key: value, ...} of the struct at `message` as one frame.
enum status fields_encode(void *buffer, size_t buffer_bytes, size_t *bytes_out,
                          const struct field_table *table, const void *message) MUST_CHECK;

// The strict reverse. Fills the struct at `out` also on failure: decode into a copy.
enum status fields_decode(void *out, const struct field_table *table, const void *frame,
                          size_t frame_bytes, struct error *error) MUST_CHECK;

// Reads the value of "t", which has to be `type`.
void fields_read_type(struct reader *reader, const char *type);
