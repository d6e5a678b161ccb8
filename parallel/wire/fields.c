// SPDX-License-Identifier: Apache-2.0
// fields.c -- the loop over a table of fields, once for each direction.
#include "parallel/wire/fields.h"

#include <string.h>

static int32_t get_int32(const void *message, const struct field *field)
{
    int32_t value;
    memcpy(&value, (const char *)message + field->offset, sizeof value);
    return value;
}

static void write_field(struct writer *writer, const struct field *field, const void *message)
{
    const char *at = (const char *)message + field->offset;
    uint64_t wide;
    writer_key(writer, field->key);
    switch (field->kind) {
    case FIELD_INT32: writer_int(writer, get_int32(message, field)); break;
    case FIELD_UINT64:
        memcpy(&wide, at, sizeof wide);
        writer_uint(writer, wide);
        break;
    case FIELD_TEXT: writer_text(writer, at, strnlen(at, field->bytes - 1)); break;
    case FIELD_BYTES: writer_bin(writer, at, field->bytes); break;
    }
}

enum status fields_encode(void *buffer, size_t buffer_bytes, size_t *bytes_out,
                          const struct field_table *table, const void *message)
{
    struct writer writer;
    writer_init(&writer, buffer, buffer_bytes);
    writer_map(&writer, (size_t)table->count + 1);
    writer_key(&writer, "t");
    writer_key(&writer, table->type);
    for (int32_t i = 0; i < table->count; i++) {
        const struct field *field = &table->fields[i];
        if (field->kind == FIELD_INT32) {
            int32_t value = get_int32(message, field);
            ASSERT(value >= field->min && value <= field->max);
        }
        write_field(&writer, field, message);
    }
    return writer_end(&writer, bytes_out);
}

static void read_field(struct reader *reader, const struct field *field, void *out)
{
    char *at = (char *)out + field->offset;
    int32_t value;
    uint64_t wide;
    switch (field->kind) {
    case FIELD_INT32:
        value = reader_int32(reader, field->min, field->max);
        memcpy(at, &value, sizeof value);
        break;
    case FIELD_UINT64:
        wide = reader_uint64(reader);
        memcpy(at, &wide, sizeof wide);
        break;
    case FIELD_TEXT: reader_text(reader, at, field->bytes); break;
    case FIELD_BYTES: reader_bytes(reader, at, field->bytes); break;
    }
}

enum status fields_decode(void *out, const struct field_table *table, const void *frame,
                          size_t frame_bytes, struct error *error)
{
    const char *keys[READER_KEYS_MAX] = {"t"};
    ASSERT(table->count < READER_KEYS_MAX);
    for (int32_t i = 0; i < table->count; i++)
        keys[i + 1] = table->fields[i].key;

    struct reader reader;
    struct reader_map map;
    reader_init(&reader, frame, frame_bytes, table->type, error);
    reader_map_open(&reader, &map, keys, table->count + 1, true);
    for (int32_t key; (key = reader_map_key(&reader, &map)) >= 0;) {
        if (key == 0)
            fields_read_type(&reader, table->type);
        else
            read_field(&reader, &table->fields[key - 1], out);
    }
    return reader_end(&reader);
}

void fields_read_type(struct reader *reader, const char *type)
{
    size_t bytes;
    const char *text = reader_str(reader, &bytes, 64);
    if (reader->status == OK && (strlen(type) != bytes || memcmp(type, text, bytes) != 0))
        reader_fail(reader, E_MALFORMED, "'%.*s' where '%s' belongs", (int)bytes, text, type);
}
