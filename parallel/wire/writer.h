// SPDX-License-Identifier: Apache-2.0
// writer.h -- msgpack into a caller's fixed buffer, a thin layer over msgpack-c's packer. A full
// buffer sets status and every later write is nothing, so that an encoder writes its fields in a
// straight line and asks once, at the end. Numbers take their shortest form.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "parallel/base/status.h"

struct writer {
    uint8_t *start, *at, *end; // the caller's buffer
    enum status status;        // OK or E_LIMIT
};

// Writes from the start of buffer[buffer_bytes].
void writer_init(struct writer *writer, void *buffer, size_t buffer_bytes);

// *bytes_out = bytes written, 0 unless OK; E_LIMIT when the buffer was too small.
enum status writer_end(const struct writer *writer, size_t *bytes_out) MUST_CHECK;

// Heads: `pairs` keys with values, or `elements` values, have to follow.
void writer_map(struct writer *writer, size_t pairs);
void writer_array(struct writer *writer, size_t elements);

// Single values.
void writer_nil(struct writer *writer);
void writer_bool(struct writer *writer, bool value);
void writer_int(struct writer *writer, int64_t value);
void writer_uint(struct writer *writer, uint64_t value);
void writer_float(struct writer *writer, float value);
void writer_double(struct writer *writer, double value);

// A string: writer_key of a literal, writer_text of bytes from anywhere, in which every byte that
// is no UTF-8 and every NUL becomes '?' (a text cut by snprintf must not spoil its message).
void writer_key(struct writer *writer, const char *key);
void writer_text(struct writer *writer, const char *text, size_t bytes);

// A binary; writer_int32s stores count numbers, little-endian.
void writer_bin(struct writer *writer, const void *bytes, size_t bytes_count);
void writer_int32s(struct writer *writer, const int32_t *numbers, int32_t count);

// Bytes that are msgpack already.
void writer_raw(struct writer *writer, const void *bytes, size_t bytes_count);
