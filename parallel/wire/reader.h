// SPDX-License-Identifier: Apache-2.0
// reader.h -- a cursor over one borrowed msgpack frame. The first problem sets status and its text;
// every later read returns 0 and leaves both alone, so that a decoder reads its fields in a
// straight line and asks once, at the end. Trusts nothing: a claimed length is held against the
// bytes that are left, depth is bounded, nothing is allocated.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "parallel/base/status.h"

enum {
    READER_DEPTH_MAX = 32, // of a value that is skipped or borrowed
    READER_KEYS_MAX = 64,  // of one map with known keys
};

enum reader_kind {  // of the next value
    READER_NOTHING, // the frame ends, or the first byte is none of msgpack's
    READER_NIL,
    READER_BOOL,
    READER_INT,
    READER_REAL,
    READER_STR,
    READER_BIN,
    READER_ARRAY,
    READER_MAP,
    READER_EXT,
};

struct reader {
    const uint8_t *at;        // next unread byte, at <= end
    const uint8_t *end;       // one past the frame; the frame is borrowed
    enum status status;       // OK, or the first error; never goes back to OK
    enum status status_value; // for a value of a wrong type or out of range
    const char *message;      // of what this frame is, for texts
    const char *field;        // the key that is being read, for texts; may be NULL
    int32_t index;            // of the array element that is being read, -1 = none
    struct error *error;      // may be NULL
};

// Over frame[0 .. frame_bytes). message ("hello") opens every text. Values of a wrong type or out
// of range are E_MALFORMED; who reads a person's fields sets status_value to E_INPUT.
void reader_init(struct reader *reader, const void *frame, size_t frame_bytes, const char *message,
                 struct error *error);

// OK when no read failed and no byte is left over.
enum status reader_end(struct reader *reader) MUST_CHECK;

// Makes this the first error, if there is none yet; the text gets message and field in front.
void reader_fail(struct reader *reader, enum status status, const char *format, ...)
    PRINTF_LIKE(3, 4);

// The kind of the next value; reads nothing. READER_NOTHING after an error.
enum reader_kind reader_peek(const struct reader *reader);

// True, and read, when the next value is nil.
bool reader_nil(struct reader *reader);

// One value within [min, max], both allowed; anything else is an error that tells value and limit.
// A real may be written as an integer, and is finite. They return 0 after an error.
bool reader_bool(struct reader *reader);
int64_t reader_int(struct reader *reader, int64_t min, int64_t max);
int32_t reader_int32(struct reader *reader, int32_t min, int32_t max);
uint64_t reader_uint64(struct reader *reader);
double reader_real(struct reader *reader, double min, double max);

// A string or binary of at most bytes_max bytes, borrowed from the frame; strings are valid UTF-8
// without NUL. After an error *bytes is 0 and the pointer still good to pass on.
const char *reader_str(struct reader *reader, size_t *bytes, size_t bytes_max);
const uint8_t *reader_bin(struct reader *reader, size_t *bytes, size_t bytes_max);

// Copies a string into buffer[buffer_bytes], with a NUL; "" after an error.
void reader_text(struct reader *reader, char *buffer, size_t buffer_bytes);

// Reads a binary of exactly `bytes` bytes into buffer; leaves it alone after an error.
void reader_bytes(struct reader *reader, void *buffer, size_t bytes);

// A binary of little-endian int32, each at least min: copies them and returns their count.
int32_t reader_int32s(struct reader *reader, int32_t *out, int32_t count_max, int32_t min);

// Reads the head of an array of at most count_max elements (of an exact count: reader_tuple) and
// returns how many follow.
int32_t reader_array(struct reader *reader, int32_t count_max);
void reader_tuple(struct reader *reader, int32_t count);

// Reads the head of a map of at most count_max pairs with keys of any kind (of known ones:
// reader_map_open) and returns how many keys with values follow.
int32_t reader_pairs(struct reader *reader, int32_t count_max);

// Reads over one whole value and returns its bytes, borrowed: msgpack within READER_DEPTH_MAX, not
// otherwise looked at.
const uint8_t *reader_value(struct reader *reader, size_t *bytes);

// ---- A map with known keys ----

struct reader_map {
    const char *const *keys; // [keys_count]
    int32_t keys_count;
    bool strict;      // an unknown key is an error, and so is a missing one
    uint32_t left;    // pairs not yet begun
    uint64_t seen;    // bit i = keys[i] was there
    const char *name; // the key just read, borrowed, not NUL-terminated
    size_t name_bytes;
};

enum { READER_MAP_END = -1, READER_MAP_UNKNOWN = -2 };

// Reads the head of a map. Then reader_map_key gives key after key, as an index into keys, and the
// caller reads each key's value in between. READER_MAP_END ends it, also after an error. A key
// that comes twice is an error; unknown ones come as READER_MAP_UNKNOWN (the caller reads over the
// value) unless the map is strict.
void reader_map_open(struct reader *reader, struct reader_map *map, const char *const *keys,
                     int32_t keys_count, bool strict);
int32_t reader_map_key(struct reader *reader, struct reader_map *map);
