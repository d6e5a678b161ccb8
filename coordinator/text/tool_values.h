// SPDX-License-Identifier: Apache-2.0
// tool_values.h -- from the text of a tool call's parameter to JSON, by the type that the tool's
// schema gives it, as vLLM's qwen3_coder parser converts (chosen so that clients need not care who
// serves them). Knows no tags; tool_calls.h finds the texts.
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "coordinator/text/text_buffer.h"
#include "parallel/base/status.h"

enum tool_value_type {
    TOOL_VALUES_STRING,
    TOOL_VALUES_INTEGER,
    TOOL_VALUES_NUMBER,
    TOOL_VALUES_BOOLEAN,
    TOOL_VALUES_CONTAINER, // an object or a list
};

struct tool_value_kind {
    enum tool_value_type type;
    bool nullable; // the schema names null beside the type
};

// The properties of the function of that name[bytes] in a request's list of tools, borrowed from
// it; NULL when there is none. `tools` may be NULL or malformed.
const json_t *tool_values_properties(const json_t *tools, const char *name, size_t bytes);

// What the schema says of a parameter: by "type", by the first type of a list of types or of
// "anyOf" and "oneOf" that is not null; a string where it says nothing that is known.
struct tool_value_kind tool_values_kind(const json_t *properties, const char *name, size_t bytes);

// Whether text[bytes] may, with more text, become a null of this kind: "null" or "none" in any
// case. Of strings only nullable ones do.
bool tool_values_may_be_null(struct tool_value_kind kind, const char *text, size_t bytes);

// Appends the JSON of text[bytes]: null; a number; true, or false for anything else that should be
// boolean; an object or list as json.dumps prints it; a string for any text that is not of the
// kind. A number is an integer where it is whole (and, written
// with a point or exponent, below 2^53). E_LIMIT, E_SYSTEM.
MUST_CHECK enum status tool_values_append(struct text_buffer *out, struct tool_value_kind kind,
                                          const char *text, size_t bytes, struct error *error);
