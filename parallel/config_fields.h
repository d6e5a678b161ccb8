// SPDX-License-Identifier: Apache-2.0
// config_fields.h -- reads fields of a JSON object with their types and limits. The first problem
// sets status and error; every later read returns its fallback, so that a parser reads all fields
// in a straight line and checks once. Only readers of such files use it.
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "parallel/base/status.h"

struct config_fields {
    const json_t *object; // borrowed
    const char *file;     // its path, for messages
    const char *where;    // what stands before a field's name in messages, e.g. "text_config."
    struct error *error;  // may be NULL
    enum status status;   // OK, or the first error; never goes back to OK
};

// The value of a field, or NULL when it is absent or null.
const json_t *config_fields_get(const struct config_fields *fields, const char *name);

// Sets status and error unless an earlier problem did.
void config_fields_fail(struct config_fields *fields, enum status status, const char *format, ...)
    PRINTF_LIKE(3, 4);

// Fails with the field's name, its value as written and what was expected.
void config_fields_refuse(struct config_fields *fields, enum status status, const char *name,
                          const char *expected);

// Integers in [min, max]. The first fails when the field is absent or null, the second returns
// fallback. On failure both return min.
int64_t config_fields_int(struct config_fields *fields, const char *name, int64_t min, int64_t max);
int64_t config_fields_int_or(struct config_fields *fields, const char *name, int64_t fallback,
                             int64_t min, int64_t max);

// A finite number (integers too) in [min, max], or fallback when the field is absent or null.
double config_fields_number_or(struct config_fields *fields, const char *name, double fallback,
                               double min, double max);

// true or false, or fallback when the field is absent or null.
bool config_fields_bool_or(struct config_fields *fields, const char *name, bool fallback);

// A string borrowed from the object, or NULL when the field is absent or null.
const char *config_fields_text(struct config_fields *fields, const char *name);
