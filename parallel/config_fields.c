// SPDX-License-Identifier: Apache-2.0
// config_fields.c -- typed, bounded reads of a JSON object with a sticky error. Knows no model.
#include "parallel/config_fields.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VALUE_TEXT_BYTES = 80 }; // of a value shown in a message, longer ones are cut

const json_t *config_fields_get(const struct config_fields *fields, const char *name)
{
    const json_t *value = json_object_get(fields->object, name);
    return json_is_null(value) ? NULL : value;
}

void config_fields_fail(struct config_fields *fields, enum status status, const char *format, ...)
{
    if (fields->status != OK)
        return;
    char text[sizeof fields->error->text];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fields->status = error_set(fields->error, status, "%s", text);
}

// The value as it stands in the file, cut to what a person wants to read.
static void value_text(char text[VALUE_TEXT_BYTES], const json_t *value)
{
    char *dump = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII);
    snprintf(text, VALUE_TEXT_BYTES, "%s", dump != NULL ? dump : "?");
    if (dump != NULL && strlen(dump) >= VALUE_TEXT_BYTES)
        memcpy(text + VALUE_TEXT_BYTES - 4, "...", 4);
    free(dump);
}

void config_fields_refuse(struct config_fields *fields, enum status status, const char *name,
                          const char *expected)
{
    char text[VALUE_TEXT_BYTES];
    value_text(text, json_object_get(fields->object, name));
    config_fields_fail(fields, status, "%s: %s%s is %s; %s", fields->file, fields->where, name,
                       text, expected);
}

static int64_t int_checked(struct config_fields *fields, const char *name, const json_t *value,
                           int64_t min, int64_t max)
{
    if (!json_is_integer(value) || json_integer_value(value) < min ||
        json_integer_value(value) > max) {
        char expected[96];
        snprintf(expected, sizeof expected, "an integer in [%" PRId64 ", %" PRId64 "] is expected",
                 min, max);
        config_fields_refuse(fields, E_INPUT, name, expected);
        return min;
    }
    return json_integer_value(value);
}

int64_t config_fields_int(struct config_fields *fields, const char *name, int64_t min, int64_t max)
{
    const json_t *value = config_fields_get(fields, name);
    if (value == NULL) {
        config_fields_fail(fields, E_INPUT, "%s: %s%s is missing", fields->file, fields->where,
                           name);
        return min;
    }
    return int_checked(fields, name, value, min, max);
}

int64_t config_fields_int_or(struct config_fields *fields, const char *name, int64_t fallback,
                             int64_t min, int64_t max)
{
    const json_t *value = config_fields_get(fields, name);
    return value == NULL ? fallback : int_checked(fields, name, value, min, max);
}

double config_fields_number_or(struct config_fields *fields, const char *name, double fallback,
                               double min, double max)
{
    const json_t *value = config_fields_get(fields, name);
    if (value == NULL)
        return fallback;
    double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= min && number <= max)) {
        char expected[96];
        snprintf(expected, sizeof expected, "a number in [%g, %g] is expected", min, max);
        config_fields_refuse(fields, E_INPUT, name, expected);
        return min;
    }
    return number;
}

bool config_fields_bool_or(struct config_fields *fields, const char *name, bool fallback)
{
    const json_t *value = config_fields_get(fields, name);
    if (value == NULL)
        return fallback;
    if (!json_is_boolean(value)) {
        config_fields_refuse(fields, E_INPUT, name, "true or false is expected");
        return fallback;
    }
    return json_is_true(value);
}

const char *config_fields_text(struct config_fields *fields, const char *name)
{
    const json_t *value = config_fields_get(fields, name);
    if (value != NULL && !json_is_string(value))
        config_fields_refuse(fields, E_INPUT, name, "a string is expected");
    return json_string_value(value);
}
