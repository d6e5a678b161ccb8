// SPDX-License-Identifier: Apache-2.0
// json_wire.c -- a walk over jansson's values.
#include "deploy/cli/json_wire.h"

#include "parallel/wire/reader.h"

static enum status pack(struct writer *writer, const json_t *value, int depth, struct error *error);

static enum status pack_members(struct writer *writer, const json_t *object, int depth,
                                struct error *error)
{
    // jansson's iterator takes a pointer to non-const, but changes nothing.
    json_t *walked = json_incref((json_t *)(uintptr_t)object);
    enum status status = OK;
    for (void *at = json_object_iter(walked); at != NULL && status == OK;
         at = json_object_iter_next(walked, at)) {
        writer_key(writer, json_object_iter_key(at));
        status = pack(writer, json_object_iter_value(at), depth, error);
    }
    json_decref(walked);
    return status;
}

static enum status pack(struct writer *writer, const json_t *value, int depth, struct error *error)
{
    if (depth == READER_DEPTH_MAX)
        return error_set(error, E_INPUT, "nested deeper than %d levels", READER_DEPTH_MAX);
    switch (json_typeof(value)) {
    case JSON_NULL: writer_nil(writer); break;
    case JSON_TRUE: writer_bool(writer, true); break;
    case JSON_FALSE: writer_bool(writer, false); break;
    case JSON_INTEGER: writer_int(writer, json_integer_value(value)); break;
    case JSON_REAL: writer_double(writer, json_real_value(value)); break;
    case JSON_STRING:
        writer_text(writer, json_string_value(value), json_string_length(value));
        break;
    case JSON_ARRAY:
        writer_array(writer, json_array_size(value));
        for (size_t i = 0; i < json_array_size(value); i++)
            TRY(pack(writer, json_array_get(value, i), depth + 1, error));
        break;
    case JSON_OBJECT:
        writer_map(writer, json_object_size(value));
        TRY(pack_members(writer, value, depth + 1, error));
        break;
    }
    return OK;
}

enum status json_wire_value(struct writer *writer, const json_t *value, struct error *error)
{
    return pack(writer, value, 0, error);
}

enum status json_wire_members(struct writer *writer, const json_t *object, struct error *error)
{
    return pack_members(writer, object, 1, error);
}

size_t json_wire_bytes_max(size_t json_bytes)
{
    return 5 * json_bytes + 16;
}
