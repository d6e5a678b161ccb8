// SPDX-License-Identifier: Apache-2.0
// python_json.c -- prints JSON values as Python does; see python_json.h.
#include "coordinator/text/python_json.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DIGITS_MAX = 17,         // that a double needs
    FIXED_EXPONENT_MAX = 16, // repr prints 1e15 in full and 1e16 with an exponent
    FIXED_EXPONENT_MIN = -4,
};

enum status python_json_append_escaped(struct text_buffer *out, const char *bytes, size_t count,
                                       struct error *error)
{
    static const char letters[] = "btnvfr"; // of 8 to 13; JSON has no \v
    size_t plain = 0;
    for (size_t i = 0; i < count; i++) {
        const unsigned char byte = (unsigned char)bytes[i];
        if (byte >= 0x20 && byte != '"' && byte != '\\')
            continue;
        char escape[8];
        if (byte >= 0x20)
            snprintf(escape, sizeof escape, "\\%c", byte);
        else if (byte >= '\b' && byte <= '\r' && byte != '\v')
            snprintf(escape, sizeof escape, "\\%c", letters[byte - '\b']);
        else
            snprintf(escape, sizeof escape, "\\u%04x", byte);
        TRY(text_buffer_append(out, bytes + plain, i - plain, error));
        TRY(text_buffer_append_text(out, escape, error));
        plain = i + 1;
    }
    return text_buffer_append(out, bytes + plain, count - plain, error);
}

// The shortest digits that give value back, without their point, and the exponent of the first.
static size_t shortest_digits(double value, char digits[DIGITS_MAX + 1], int *exponent)
{
    char text[40];
    for (int precision = 1; precision <= DIGITS_MAX; precision++) {
        snprintf(text, sizeof text, "%.*e", precision - 1, value);
        if (strtod(text, NULL) == value)
            break;
    }
    size_t count = 0;
    const char *at = text;
    for (; *at != 'e'; at++) {
        if (*at >= '0' && *at <= '9')
            digits[count++] = *at;
    }
    digits[count] = '\0';
    *exponent = (int)strtol(at + 1, NULL, 10);
    return count;
}

enum status python_json_append_real(struct text_buffer *out, double value, struct error *error)
{
    char digits[DIGITS_MAX + 1], text[64];
    int exponent;
    ASSERT(isfinite(value));
    const size_t count = shortest_digits(fabs(value), digits, &exponent);
    const int last = (int)count;
    if (signbit(value))
        TRY(text_buffer_append(out, "-", 1, error));
    if (exponent >= FIXED_EXPONENT_MAX || exponent < FIXED_EXPONENT_MIN)
        snprintf(text, sizeof text, "%c%s%se%+03d", digits[0], last > 1 ? "." : "", digits + 1,
                 exponent);
    else if (exponent < 0)
        snprintf(text, sizeof text, "0.%.*s%s", -exponent - 1, "000", digits);
    else if (last > exponent + 1)
        snprintf(text, sizeof text, "%.*s.%s", exponent + 1, digits, digits + exponent + 1);
    else
        snprintf(text, sizeof text, "%s%.*s.0", digits, exponent + 1 - last, "000000000000000");
    return text_buffer_append_text(out, text, error);
}

static enum status append_string(struct text_buffer *out, const char *bytes, size_t count,
                                 struct error *error)
{
    TRY(text_buffer_append(out, "\"", 1, error));
    TRY(python_json_append_escaped(out, bytes, count, error));
    return text_buffer_append(out, "\"", 1, error);
}

static enum status append_array(struct text_buffer *out, const json_t *array, struct error *error)
{
    TRY(text_buffer_append(out, "[", 1, error));
    for (size_t i = 0; i < json_array_size(array); i++) {
        TRY(text_buffer_append_text(out, i > 0 ? ", " : "", error));
        TRY(python_json_append(out, json_array_get(array, i), error));
    }
    return text_buffer_append(out, "]", 1, error);
}

static enum status append_object(struct text_buffer *out, const json_t *object, struct error *error)
{
    const char *separator = "", *key;
    json_t *member;
    TRY(text_buffer_append(out, "{", 1, error));
    // jansson's iterator wants a table that is not const, and does not change it.
    json_object_foreach((json_t *)(uintptr_t)object, key, member)
    {
        TRY(text_buffer_append_text(out, separator, error));
        TRY(append_string(out, key, strlen(key), error));
        TRY(text_buffer_append(out, ": ", 2, error));
        TRY(python_json_append(out, member, error));
        separator = ", ";
    }
    return text_buffer_append(out, "}", 1, error);
}

static enum status append_integer(struct text_buffer *out, json_int_t value, struct error *error)
{
    char text[32];
    snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, value);
    return text_buffer_append_text(out, text, error);
}

enum status python_json_append(struct text_buffer *out, const json_t *value, struct error *error)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT: return append_object(out, value, error);
    case JSON_ARRAY: return append_array(out, value, error);
    case JSON_STRING:
        return append_string(out, json_string_value(value), json_string_length(value), error);
    case JSON_INTEGER: return append_integer(out, json_integer_value(value), error);
    case JSON_REAL: return python_json_append_real(out, json_real_value(value), error);
    case JSON_TRUE: return text_buffer_append_text(out, "true", error);
    case JSON_FALSE: return text_buffer_append_text(out, "false", error);
    case JSON_NULL: break;
    }
    return text_buffer_append_text(out, "null", error);
}

enum status python_json_append_str(struct text_buffer *out, const json_t *value,
                                   struct error *error)
{
    switch (json_typeof(value)) {
    case JSON_STRING:
        return text_buffer_append(out, json_string_value(value), json_string_length(value), error);
    case JSON_TRUE: return text_buffer_append_text(out, "True", error);
    case JSON_FALSE: return text_buffer_append_text(out, "False", error);
    case JSON_NULL: return text_buffer_append_text(out, "None", error);
    default: return python_json_append(out, value, error);
    }
}
