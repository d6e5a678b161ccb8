// SPDX-License-Identifier: Apache-2.0
// wire_json.c -- recursion over the cursor reader, as deep as the reader allows.
#include "coordinator/wire_json.h"

#include "parallel/wire/reader.h"
#include "parallel/wire/requests.h"

static json_t *convert(struct reader *reader, int depth);

static json_t *convert_array(struct reader *reader, int depth)
{
    json_t *array = json_array();
    int32_t count = reader_array(reader, WIRE_JSON_ITEMS_MAX);
    for (int32_t i = 0; i < count && reader->status == OK; i++) {
        json_t *item = convert(reader, depth + 1);
        if (item == NULL || json_array_append_new(array, item) != 0)
            reader_fail(reader, E_SYSTEM, "out of memory");
    }
    return array;
}

// Every key is unknown to the map reader, which also bounds their number.
static json_t *convert_map(struct reader *reader, int depth)
{
    static const char *const no_keys[] = {""};
    struct reader_map map;
    json_t *object = json_object();
    reader_map_open(reader, &map, no_keys, 0, false);
    while (reader_map_key(reader, &map) == READER_MAP_UNKNOWN && reader->status == OK) {
        const char *name = map.name;
        size_t name_bytes = map.name_bytes;
        json_t *item = convert(reader, depth + 1);
        if (item == NULL || reader->status != OK) {
            json_decref(item);
            break;
        }
        if (json_object_setn_new(object, name, name_bytes, item) != 0)
            reader_fail(reader, E_SYSTEM, "out of memory");
    }
    return object;
}

static json_t *convert_text(struct reader *reader)
{
    size_t bytes;
    const char *text = reader_str(reader, &bytes, REQUEST_TEXT_BYTES_MAX);
    return json_stringn(bytes == 0 ? "" : text, bytes);
}

static json_t *convert(struct reader *reader, int depth)
{
    if (depth >= READER_DEPTH_MAX) {
        reader_fail(reader, E_INPUT, "nested deeper than %d", READER_DEPTH_MAX);
        return NULL;
    }
    switch (reader_peek(reader)) {
    case READER_NIL: (void)reader_nil(reader); return json_null();
    case READER_BOOL: return json_boolean(reader_bool(reader));
    case READER_INT: return json_integer(reader_int(reader, INT64_MIN, INT64_MAX));
    case READER_REAL: return json_real(reader_real(reader, -1e308, 1e308));
    case READER_STR: return convert_text(reader);
    case READER_ARRAY: return convert_array(reader, depth);
    case READER_MAP: return convert_map(reader, depth);
    default: reader_fail(reader, E_INPUT, "a value that JSON does not have"); return NULL;
    }
}

enum status wire_json(json_t **out, const void *value, size_t value_bytes, const char *name,
                      struct error *error)
{
    struct reader reader;
    reader_init(&reader, value, value_bytes, name, error);
    reader.status_value = E_INPUT;
    json_t *json = convert(&reader, 0);
    enum status status = reader_end(&reader);
    if (status == OK && json == NULL)
        status = error_set(error, E_SYSTEM, "%s: out of memory", name);
    if (status != OK) {
        json_decref(json);
        return status;
    }
    *out = json;
    return OK;
}
