// SPDX-License-Identifier: Apache-2.0
// openai_json.h -- JSON as the HTTP door meets it: a body from outside becomes values under limits,
// values become numbers and flags with errors that name the field, and text becomes a JSON string.
// Pure; knows no field by name.
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "coordinator/openai_error.h"
#include "coordinator/text/text_buffer.h"

enum {
    OPENAI_BODY_BYTES_MAX = 16 << 20,
    OPENAI_DEPTH_MAX = 64,       // of nested arrays and objects
    OPENAI_VALUES_MAX = 2 << 20, // in one body: a longest prompt as token ids, and some
};

// A new reference to the object that body[bytes] is. E_MALFORMED: no JSON, or a name twice, with
// the place; E_INPUT: no object; E_LIMIT: too deep, or too many values (each may take 100 bytes of
// memory, so this is looked at before anything is parsed).
MUST_CHECK enum status openai_json_parse(json_t **out, const char *body, size_t bytes,
                                         struct openai_error *error);

// Reads a value into *out; E_INPUT names `name`, the value and what is accepted.
MUST_CHECK enum status openai_json_bool(bool *out, const json_t *value, const char *name,
                                        struct openai_error *error);
MUST_CHECK enum status openai_json_integer(int64_t *out, const json_t *value, const char *name,
                                           const int64_t limits[2], struct openai_error *error);
MUST_CHECK enum status openai_json_number(double *out, const json_t *value, const char *name,
                                          const double limits[2], struct openai_error *error);

// A JSON array of token ids, each in [0, vocab), malloc'ed into *ids_out for the caller to free.
// E_INPUT names `name` and the first element that is none; E_LIMIT: more than
// REQUEST_PROMPT_TOKENS_MAX; E_SYSTEM.
MUST_CHECK enum status openai_json_ids(int32_t **ids_out, int32_t *ids_count, const json_t *value,
                                       const char *name, int32_t vocab, struct openai_error *error);

// Appends text[bytes] as a JSON string, quotes included. Bytes that are no UTF-8 become U+FFFD.
MUST_CHECK enum status openai_json_string(struct text_buffer *out, const char *text, size_t bytes);
