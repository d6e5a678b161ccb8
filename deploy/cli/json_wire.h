// SPDX-License-Identifier: Apache-2.0
// json_wire.h -- a JSON value as msgpack: what a person writes in a line becomes what the wire
// carries. Knows no field.
#pragma once

#include <jansson.h>

#include "parallel/base/status.h"
#include "parallel/wire/writer.h"

// Writes the value, or for json_wire_members an object's keys and values without the map's head.
// E_INPUT when it nests deeper than the wire allows; a full buffer shows at writer_end.
enum status json_wire_value(struct writer *writer, const json_t *value,
                            struct error *error) MUST_CHECK;
enum status json_wire_members(struct writer *writer, const json_t *object,
                              struct error *error) MUST_CHECK;

// Bytes that surely suffice for a value that was json_bytes long as text: the shortest real, "0.1"
// or "1e1", becomes nine bytes; everything else grows by less.
size_t json_wire_bytes_max(size_t json_bytes);
