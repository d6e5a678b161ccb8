// SPDX-License-Identifier: Apache-2.0
// reader.c -- the heads of msgpack values (msgpack/spec.md), and the checks on top of them.
#include "parallel/wire/reader.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "parallel/base/utf8.h"

// What stands before a value's body.
struct head {
    enum reader_kind kind;
    size_t bytes;    // of the head itself
    uint64_t number; // INT: two's complement; BOOL; REAL: bits of a double; else bytes or elements
    bool negative;   // INT: number is below zero
};

static const char *const kind_names[] = {
    [READER_NOTHING] = "nothing",  [READER_NIL] = "nil",        [READER_BOOL] = "a bool",
    [READER_INT] = "an integer",   [READER_REAL] = "a real",    [READER_STR] = "a string",
    [READER_BIN] = "a binary",     [READER_ARRAY] = "an array", [READER_MAP] = "a map",
    [READER_EXT] = "an extension",
};

static uint64_t big_endian(const uint8_t *at, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++)
        value = value << 8 | at[i];
    return value;
}

// Heads of one byte, which carry their number in themselves.
static bool short_head(struct head *head, uint8_t first)
{
    *head = (struct head){.bytes = 1};
    if (first < 0x80) {
        head->kind = READER_INT;
        head->number = first;
    } else if (first >= 0xE0) {
        head->kind = READER_INT;
        head->number = (uint64_t)(int64_t)(int8_t)first;
        head->negative = true;
    } else if (first < 0x90) {
        head->kind = READER_MAP;
        head->number = first & 0x0F;
    } else if (first < 0xA0) {
        head->kind = READER_ARRAY;
        head->number = first & 0x0F;
    } else if (first < 0xC0) {
        head->kind = READER_STR;
        head->number = first & 0x1F;
    } else if (first == 0xC0) {
        head->kind = READER_NIL;
    } else if (first == 0xC2 || first == 0xC3) {
        head->kind = READER_BOOL;
        head->number = first & 1;
    } else {
        return false;
    }
    return true;
}

// 0xC4 .. 0xDF: kind and the bytes of the number that follows the first byte.
static const struct {
    enum reader_kind kind;
    uint8_t number_bytes;
} long_heads[] = {
    {READER_BIN, 1},   {READER_BIN, 2},   {READER_BIN, 4},  {READER_EXT, 1},  // C4 .. C7
    {READER_EXT, 2},   {READER_EXT, 4},   {READER_REAL, 4}, {READER_REAL, 8}, // C8 .. CB
    {READER_INT, 1},   {READER_INT, 2},   {READER_INT, 4},  {READER_INT, 8},  // CC .. CF, unsigned
    {READER_INT, 1},   {READER_INT, 2},   {READER_INT, 4},  {READER_INT, 8},  // D0 .. D3, signed
    {READER_EXT, 0},   {READER_EXT, 0},   {READER_EXT, 0},  {READER_EXT, 0},  // D4 .. D7
    {READER_EXT, 0},   {READER_STR, 1},   {READER_STR, 2},  {READER_STR, 4},  // D8 .. DB
    {READER_ARRAY, 2}, {READER_ARRAY, 4}, {READER_MAP, 2},  {READER_MAP, 4},  // DC .. DF
};

static uint64_t double_bits(uint64_t bits, size_t bytes)
{
    if (bytes == 4) {
        uint32_t single_bits = (uint32_t)bits;
        float single;
        memcpy(&single, &single_bits, 4);
        double wide = (double)single;
        memcpy(&bits, &wide, 8);
    }
    return bits;
}

// Reads the head at `at`; false when it is cut off or 0xC1, which msgpack never uses.
static bool read_head(struct head *head, const uint8_t *at, const uint8_t *end)
{
    if (at == end)
        return false;
    if (short_head(head, *at))
        return true;
    if (*at < 0xC4)
        return false;
    unsigned row = *at - 0xC4u;
    size_t bytes = long_heads[row].number_bytes;
    if ((size_t)(end - at) < 1 + bytes)
        return false;
    *head = (struct head){long_heads[row].kind, 1 + bytes, big_endian(at + 1, bytes), false};
    if (head->kind == READER_REAL) {
        head->number = double_bits(head->number, bytes);
    } else if (head->kind == READER_INT && *at >= 0xD0) {
        unsigned shift = (unsigned)(64 - 8 * bytes);
        int64_t value = (int64_t)(head->number << shift) >> shift;
        head->number = (uint64_t)value;
        head->negative = value < 0;
    } else if (head->kind == READER_EXT) {
        if (bytes == 0)
            head->number = 1u << (*at - 0xD4);
        head->number += 1; // the type byte is counted as body
    }
    return true;
}

void reader_init(struct reader *reader, const void *frame, size_t frame_bytes, const char *message,
                 struct error *error)
{
    const uint8_t *start = frame_bytes > 0 ? frame : (const uint8_t *)"";
    *reader = (struct reader){.at = start,
                              .end = start + frame_bytes,
                              .status = OK,
                              .status_value = E_MALFORMED,
                              .message = message,
                              .index = -1,
                              .error = error};
}

void reader_fail(struct reader *reader, enum status status, const char *format, ...)
{
    if (reader->status != OK)
        return;
    char text[320], where[24] = "";
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (reader->index >= 0)
        snprintf(where, sizeof where, "[%" PRId32 "]", reader->index);
    if (reader->field != NULL)
        reader->status = error_set(reader->error, status, "%s: '%s'%s: %s", reader->message,
                                   reader->field, where, text);
    else
        reader->status = error_set(reader->error, status, "%s: %s", reader->message, text);
    reader->at = reader->end;
}

enum status reader_end(struct reader *reader)
{
    reader->field = NULL;
#ifndef PLANT_reader_rest // bytes left over go unnoticed
    if (reader->at != reader->end)
        reader_fail(reader, E_MALFORMED, "%zu bytes too many", (size_t)(reader->end - reader->at));
#endif
    return reader->status;
}

enum reader_kind reader_peek(const struct reader *reader)
{
    struct head head;
    if (reader->status != OK || !read_head(&head, reader->at, reader->end))
        return READER_NOTHING;
    return head.kind;
}

// Reads the head of a value that has to be of a kind; false after an error.
static bool take_head(struct reader *reader, struct head *head, enum reader_kind kind)
{
    if (reader->status != OK)
        return false;
    if (!read_head(head, reader->at, reader->end)) {
        if (reader->at != reader->end && *reader->at == 0xC1)
            reader_fail(reader, E_MALFORMED, "byte 0xc1 begins no value");
        else
            reader_fail(reader, E_MALFORMED, "the frame ends too early");
        return false;
    }
    bool integer_for_real = kind == READER_REAL && head->kind == READER_INT;
    if (head->kind != kind && !integer_for_real) {
        reader_fail(reader, reader->status_value, "%s where %s belongs", kind_names[head->kind],
                    kind_names[kind]);
        return false;
    }
    reader->at += head->bytes;
    return true;
}

bool reader_nil(struct reader *reader)
{
    if (reader_peek(reader) != READER_NIL)
        return false;
    reader->at++;
    return true;
}

bool reader_bool(struct reader *reader)
{
    struct head head;
    return take_head(reader, &head, READER_BOOL) && head.number != 0;
}

int64_t reader_int(struct reader *reader, int64_t min, int64_t max)
{
    struct head head;
    if (!take_head(reader, &head, READER_INT))
        return 0;
    if (!head.negative && head.number > INT64_MAX) {
        reader_fail(reader, reader->status_value, "%" PRIu64 " is outside %" PRId64 " .. %" PRId64,
                    head.number, min, max);
        return 0;
    }
    int64_t value = (int64_t)head.number;
    if (value < min || value > max) {
        reader_fail(reader, reader->status_value, "%" PRId64 " is outside %" PRId64 " .. %" PRId64,
                    value, min, max);
        return 0;
    }
    return value;
}

int32_t reader_int32(struct reader *reader, int32_t min, int32_t max)
{
    return (int32_t)reader_int(reader, min, max);
}

uint64_t reader_uint64(struct reader *reader)
{
    struct head head;
    if (!take_head(reader, &head, READER_INT))
        return 0;
    if (head.negative) {
        reader_fail(reader, reader->status_value, "%" PRId64 " is outside 0 .. %" PRIu64,
                    (int64_t)head.number, UINT64_MAX);
        return 0;
    }
    return head.number;
}

double reader_real(struct reader *reader, double min, double max)
{
    struct head head;
    if (!take_head(reader, &head, READER_REAL))
        return 0;
    double value;
    if (head.kind == READER_INT)
        value = head.negative ? (double)(int64_t)head.number : (double)head.number;
    else
        memcpy(&value, &head.number, 8);
    if (!isfinite(value) || value < min || value > max) {
        reader_fail(reader, reader->status_value, "%g is outside %g .. %g", value, min, max);
        return 0;
    }
    return value;
}

// The body of a string or binary whose head has just been read.
static const uint8_t *take_body(struct reader *reader, uint64_t bytes, size_t bytes_max)
{
    if (bytes > (size_t)(reader->end - reader->at)) {
        reader_fail(reader, E_MALFORMED, "claims %" PRIu64 " bytes, %zu are left", bytes,
                    (size_t)(reader->end - reader->at));
        return NULL;
    }
    if (bytes > bytes_max) {
        reader_fail(reader, reader->status_value == E_MALFORMED ? E_MALFORMED : E_LIMIT,
                    "%" PRIu64 " bytes, the limit is %zu", bytes, bytes_max);
        return NULL;
    }
    const uint8_t *body = reader->at;
    reader->at += bytes;
    return body;
}

const char *reader_str(struct reader *reader, size_t *bytes, size_t bytes_max)
{
    struct head head;
    *bytes = 0;
    if (!take_head(reader, &head, READER_STR))
        return "";
    const uint8_t *body = take_body(reader, head.number, bytes_max);
    if (body == NULL)
        return "";
    size_t count = (size_t)head.number;
    size_t valid = utf8_valid_bytes(body, count);
    const uint8_t *nul = memchr(body, 0, count);
    if (valid < count) {
        reader_fail(reader, reader->status_value, "invalid UTF-8 at byte %zu of %zu", valid, count);
        return "";
    }
    if (nul != NULL) {
        reader_fail(reader, reader->status_value, "a NUL at byte %zu of %zu", (size_t)(nul - body),
                    count);
        return "";
    }
    *bytes = count;
    return (const char *)body;
}

const uint8_t *reader_bin(struct reader *reader, size_t *bytes, size_t bytes_max)
{
    struct head head;
    *bytes = 0;
    if (!take_head(reader, &head, READER_BIN))
        return (const uint8_t *)"";
    const uint8_t *body = take_body(reader, head.number, bytes_max);
    if (body == NULL)
        return (const uint8_t *)"";
    *bytes = (size_t)head.number;
    return body;
}

void reader_text(struct reader *reader, char *buffer, size_t buffer_bytes)
{
    size_t bytes;
    const char *text = reader_str(reader, &bytes, buffer_bytes - 1);
    memcpy(buffer, text, bytes);
    buffer[bytes] = '\0';
}

void reader_bytes(struct reader *reader, void *buffer, size_t bytes)
{
    size_t count;
    const uint8_t *body = reader_bin(reader, &count, SIZE_MAX);
    if (reader->status == OK && count != bytes)
        reader_fail(reader, reader->status_value, "%zu bytes where %zu belong", count, bytes);
    if (reader->status == OK)
        memcpy(buffer, body, bytes);
}

int32_t reader_int32s(struct reader *reader, int32_t *out, int32_t count_max, int32_t min)
{
    size_t bytes;
    const uint8_t *body = reader_bin(reader, &bytes, (size_t)count_max * 4);
    if (bytes % 4 != 0)
        reader_fail(reader, reader->status_value, "%zu bytes are no array of 4-byte numbers",
                    bytes);
    if (reader->status != OK)
        return 0;
    for (size_t i = 0; i < bytes / 4; i++) {
        const uint8_t *at = body + 4 * i;
        uint32_t bits =
            (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
        out[i] = (int32_t)bits;
        if (out[i] < min) {
            reader_fail(reader, reader->status_value,
                        "number %zu is %" PRId32 ", the least allowed is %" PRId32, i, out[i], min);
            return 0;
        }
    }
    return (int32_t)(bytes / 4);
}

int32_t reader_array(struct reader *reader, int32_t count_max)
{
    struct head head;
    if (!take_head(reader, &head, READER_ARRAY))
        return 0;
    if (head.number > (size_t)(reader->end - reader->at)) {
        reader_fail(reader, E_MALFORMED, "claims %" PRIu64 " elements, %zu bytes are left",
                    head.number, (size_t)(reader->end - reader->at));
        return 0;
    }
    if (head.number > (uint64_t)count_max) {
        reader_fail(reader, reader->status_value == E_MALFORMED ? E_MALFORMED : E_LIMIT,
                    "%" PRIu64 " elements, the limit is %" PRId32, head.number, count_max);
        return 0;
    }
    return (int32_t)head.number;
}

int32_t reader_pairs(struct reader *reader, int32_t count_max)
{
    struct head head;
    if (!take_head(reader, &head, READER_MAP))
        return 0;
    if (2 * head.number > (size_t)(reader->end - reader->at)) {
        reader_fail(reader, E_MALFORMED, "claims %" PRIu64 " pairs, %zu bytes are left",
                    head.number, (size_t)(reader->end - reader->at));
        return 0;
    }
    if (head.number > (uint64_t)count_max) {
        reader_fail(reader, reader->status_value == E_MALFORMED ? E_MALFORMED : E_LIMIT,
                    "%" PRIu64 " pairs, the limit is %" PRId32, head.number, count_max);
        return 0;
    }
    return (int32_t)head.number;
}

void reader_tuple(struct reader *reader, int32_t count)
{
    int32_t found = reader_array(reader, INT32_MAX);
    if (reader->status == OK && found != count)
        reader_fail(reader, reader->status_value, "%" PRId32 " elements where %" PRId32 " belong",
                    found, count);
}

const uint8_t *reader_value(struct reader *reader, size_t *bytes)
{
    const uint8_t *start = reader->at;
    uint64_t left[READER_DEPTH_MAX] = {1}; // values not yet read, by depth
    int depth = 0;
    *bytes = 0;
    while (depth >= 0) {
        if (left[depth] == 0) {
            depth--;
            continue;
        }
        left[depth]--;
        struct head head;
        if (!take_head(reader, &head, reader_peek(reader)))
            return (const uint8_t *)"";
        uint64_t inside = head.kind == READER_ARRAY ? head.number
                          : head.kind == READER_MAP ? 2 * head.number
                                                    : 0;
        if (head.kind == READER_STR || head.kind == READER_BIN || head.kind == READER_EXT) {
            if (take_body(reader, head.number, SIZE_MAX) == NULL)
                return (const uint8_t *)"";
        } else if (inside > (size_t)(reader->end - reader->at)) {
            reader_fail(reader, E_MALFORMED, "claims %" PRIu64 " values, %zu bytes are left",
                        inside, (size_t)(reader->end - reader->at));
            return (const uint8_t *)"";
        } else if (inside > 0 && depth + 1 == READER_DEPTH_MAX) {
            reader_fail(reader, E_MALFORMED, "deeper than %d levels", READER_DEPTH_MAX);
            return (const uint8_t *)"";
        } else if (inside > 0) {
            left[++depth] = inside;
        }
    }
    *bytes = (size_t)(reader->at - start);
    return start;
}

void reader_map_open(struct reader *reader, struct reader_map *map, const char *const *keys,
                     int32_t keys_count, bool strict)
{
    ASSERT(keys_count <= READER_KEYS_MAX);
    *map = (struct reader_map){.keys = keys, .keys_count = keys_count, .strict = strict};
    struct head head;
    reader->field = NULL;
    if (!take_head(reader, &head, READER_MAP))
        return;
    if (2 * head.number > (size_t)(reader->end - reader->at))
        reader_fail(reader, E_MALFORMED, "claims %" PRIu64 " pairs, %zu bytes are left",
                    head.number, (size_t)(reader->end - reader->at));
    else
        map->left = (uint32_t)head.number;
}

// The end of a map: a strict one has to have had all of its keys.
static int32_t map_end(struct reader *reader, const struct reader_map *map)
{
    for (int32_t i = 0; map->strict && i < map->keys_count; i++) {
        if ((map->seen >> i & 1) == 0) {
            reader_fail(reader, E_MALFORMED, "key '%s' is missing", map->keys[i]);
            break;
        }
    }
    return READER_MAP_END;
}

int32_t reader_map_key(struct reader *reader, struct reader_map *map)
{
    reader->field = NULL;
    reader->index = -1;
    if (reader->status != OK)
        return READER_MAP_END;
    if (map->left == 0)
        return map_end(reader, map);
    map->left--;
    map->name = reader_str(reader, &map->name_bytes, SIZE_MAX);
    if (reader->status != OK)
        return READER_MAP_END;
    for (int32_t i = 0; i < map->keys_count; i++) {
        if (strlen(map->keys[i]) != map->name_bytes ||
            memcmp(map->keys[i], map->name, map->name_bytes) != 0)
            continue;
        reader->field = map->keys[i];
        if (map->seen >> i & 1)
            reader_fail(reader, reader->status_value, "this key comes twice");
        map->seen |= (uint64_t)1 << i;
        return reader->status == OK ? i : READER_MAP_END;
    }
    if (map->strict) {
        int shown = map->name_bytes < 64 ? (int)map->name_bytes : 64;
        reader_fail(reader, E_MALFORMED, "key '%.*s' is unknown", shown, map->name);
        return READER_MAP_END;
    }
    return READER_MAP_UNKNOWN;
}
