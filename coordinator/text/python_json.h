// SPDX-License-Identifier: Apache-2.0
// python_json.h -- JSON values as text, byte for byte as Python's json.dumps(ensure_ascii=False)
// and str print them: the chat template that models were trained with runs in Python, and jansson
// prints 0.1 as 0.10000000000000001. Knows no messages.
#pragma once

#include <jansson.h>

#include "coordinator/text/text_buffer.h"
#include "parallel/base/status.h"

// Appends json.dumps(value): ", " and ": " between, keys in the order of the text they came from.
// Nests as deep as jansson's parser allows (2048). E_LIMIT, E_SYSTEM of the buffer; what was
// appended before stays.
MUST_CHECK enum status python_json_append(struct text_buffer *out, const json_t *value,
                                          struct error *error);

// Appends str(value): texts as they are, True, False, None; lists and objects as json.dumps. Same
// errors.
MUST_CHECK enum status python_json_append_str(struct text_buffer *out, const json_t *value,
                                              struct error *error);

// Appends the inside of the JSON string of bytes[count], without its quotes. A piece of a text
// gives a piece of its string. Same errors.
MUST_CHECK enum status python_json_append_escaped(struct text_buffer *out, const char *bytes,
                                                  size_t count, struct error *error);

// Appends a finite number as repr(float) prints it: the fewest digits that give it back. Same
// errors.
MUST_CHECK enum status python_json_append_real(struct text_buffer *out, double value,
                                               struct error *error);
