// SPDX-License-Identifier: Apache-2.0
// wire_json.h -- a msgpack value as jansson's: how messages of an RPC request reach the chat
// format, which speaks JSON.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "parallel/base/status.h"

enum { WIRE_JSON_ITEMS_MAX = 1 << 20 }; // elements of one array or pairs of one map

// A new reference in *out. E_INPUT when the value has what JSON has not (binary, extensions, keys
// that are no strings, integers above 2^63 - 1) or is nested too deep; E_MALFORMED; E_SYSTEM.
// name says in errors whose value it is.
enum status wire_json(json_t **out, const void *value, size_t value_bytes, const char *name,
                      struct error *error) MUST_CHECK;
