// SPDX-License-Identifier: Apache-2.0
// tool_values.c -- schemas read leniently, texts converted strictly; see tool_values.h.
#include "coordinator/text/tool_values.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "coordinator/text/python_json.h"

enum {
    INTEGER_DIGITS_MAX = 4300, // Python's own limit; more is a string
    REAL_BYTES_MAX = 512,      // more than any sensible spelling of a double
};

// 2^53: above it many readers of JSON round whole numbers, or refuse them. Those written as reals
// (1e22) stay so.
static const double whole_limit = 9007199254740992.0;

const json_t *tool_values_properties(const json_t *tools, const char *name, size_t bytes)
{
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *tool = json_array_get(tools, i), *inner = json_object_get(tool, "function");
        const json_t *function = inner != NULL ? inner : tool;
        const json_t *given = json_object_get(function, "name");
        if (json_string_length(given) == bytes && json_is_string(given) &&
            memcmp(json_string_value(given), name, bytes) == 0)
            return json_object_get(json_object_get(function, "parameters"), "properties");
    }
    return NULL;
}

// Python's and SQL's names of types are accepted beside JSON schema's. False: it is not known.
static bool read_type(const char *name, enum tool_value_type *type)
{
    static const struct {
        const char *start;
        enum tool_value_type type;
    } starts[] = {
        {"int", TOOL_VALUES_INTEGER},      {"uint", TOOL_VALUES_INTEGER},
        {"long", TOOL_VALUES_INTEGER},     {"short", TOOL_VALUES_INTEGER},
        {"unsigned", TOOL_VALUES_INTEGER}, {"num", TOOL_VALUES_NUMBER},
        {"float", TOOL_VALUES_NUMBER},     {"bool", TOOL_VALUES_BOOLEAN},
        {"binary", TOOL_VALUES_BOOLEAN},   {"object", TOOL_VALUES_CONTAINER},
        {"arr", TOOL_VALUES_CONTAINER},    {"dict", TOOL_VALUES_CONTAINER},
        {"list", TOOL_VALUES_CONTAINER},   {"str", TOOL_VALUES_STRING},
    };
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
        if (strncasecmp(name, starts[i].start, strlen(starts[i].start)) == 0) {
            *type = starts[i].type;
            return true;
        }
    }
    return false;
}

// Adds one alternative to the kind: the first that is not null gives the type.
static void add_type(struct tool_value_kind *kind, const json_t *name, bool *found)
{
    if (!json_is_string(name))
        return;
    if (strcasecmp(json_string_value(name), "null") == 0)
        kind->nullable = true;
    else if (!*found)
        *found = read_type(json_string_value(name), &kind->type);
}

struct tool_value_kind tool_values_kind(const json_t *properties, const char *name, size_t bytes)
{
    static const char *const unions[] = {"anyOf", "oneOf"};
    struct tool_value_kind kind = {.type = TOOL_VALUES_STRING};
    const json_t *schema = json_object_getn(properties, name, bytes);
    const json_t *type = json_object_get(schema, "type");
    bool found = false;
    add_type(&kind, type, &found);
    for (size_t i = 0; i < json_array_size(type); i++)
        add_type(&kind, json_array_get(type, i), &found);
    for (size_t u = 0; u < 2 && type == NULL; u++) {
        const json_t *options = json_object_get(schema, unions[u]);
        for (size_t i = 0; i < json_array_size(options); i++)
            add_type(&kind, json_object_get(json_array_get(options, i), "type"), &found);
    }
    return kind;
}

bool tool_values_may_be_null(struct tool_value_kind kind, const char *text, size_t bytes)
{
    return (kind.type != TOOL_VALUES_STRING || kind.nullable) && bytes <= 4 &&
           (strncasecmp(text, "null", bytes) == 0 || strncasecmp(text, "none", bytes) == 0);
}

static bool is_digit(char byte)
{
    return byte >= '0' && byte <= '9';
}

// As Python's int(): digits of any number, single underscores between them, a sign before them.
// True when it is one and was appended.
static enum status append_integer(struct text_buffer *out, const char *text, size_t bytes,
                                  bool *done, struct error *error)
{
    char digits[INTEGER_DIGITS_MAX + 1];
    size_t count = 0, at = 0;
    *done = false;
    const bool negative = bytes > 0 && text[0] == '-';
    if (bytes > 0 && (text[0] == '-' || text[0] == '+'))
        at++;
    for (; at < bytes; at++) {
        const bool between =
            at > 0 && is_digit(text[at - 1]) && at + 1 < bytes && is_digit(text[at + 1]);
        if (text[at] == '_' && between)
            continue;
        if (!is_digit(text[at]))
            return OK;
        if (count == 1 && digits[0] == '0')
            count = 0; // int("007") is 7
        if (count == INTEGER_DIGITS_MAX)
            return OK;
        digits[count++] = text[at];
    }
    if (count == 0)
        return OK;
    *done = true;
    if (negative && (count > 1 || digits[0] != '0'))
        TRY(text_buffer_append(out, "-", 1, error));
    return text_buffer_append(out, digits, count, error);
}

// Digits, with a point anywhere among or beside them; an exponent may follow.
static bool is_decimal(const char *text)
{
    size_t digits = 0, points = 0;
    text += *text == '-' || *text == '+' ? 1 : 0;
    for (; is_digit(*text) || *text == '.'; text++) {
        points += *text == '.' ? 1 : 0;
        digits += *text == '.' ? 0 : 1;
    }
    if (digits == 0 || points > 1)
        return false;
    if (*text != 'e' && *text != 'E')
        return *text == '\0';
    text++;
    text += *text == '-' || *text == '+' ? 1 : 0;
    return is_digit(*text) && text[strspn(text, "0123456789")] == '\0';
}

static enum status append_number(struct text_buffer *out, const char *text, size_t bytes,
                                 bool *done, struct error *error)
{
    char copy[REAL_BYTES_MAX + 1];
    TRY(append_integer(out, text, bytes, done, error));
    if (*done || bytes > REAL_BYTES_MAX || memchr(text, '\0', bytes) != NULL)
        return OK;
    memcpy(copy, text, bytes);
    copy[bytes] = '\0';
    const double value = is_decimal(copy) ? strtod(copy, NULL) : (double)INFINITY;
    if (!isfinite(value))
        return OK;
    *done = true;
    if (trunc(value) != value || fabs(value) >= whole_limit)
        return python_json_append_real(out, value, error);
    char whole[32];
    snprintf(whole, sizeof whole, "%lld", (long long)value);
    return text_buffer_append_text(out, whole, error);
}

static enum status append_container(struct text_buffer *out, const char *text, size_t bytes,
                                    bool *done, struct error *error)
{
    json_t *value = json_loadb(text, bytes, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    *done = value != NULL;
    const enum status status = *done ? python_json_append(out, value, error) : OK;
    json_decref(value);
    return status;
}

static bool is_space(char byte)
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

static enum status append_typed(struct text_buffer *out, struct tool_value_kind kind,
                                const char *text, size_t bytes, bool *done, struct error *error)
{
    if (kind.type == TOOL_VALUES_CONTAINER)
        return append_container(out, text, bytes, done, error);
    *done = kind.type == TOOL_VALUES_BOOLEAN;
    if (*done)
        return text_buffer_append_text(
            out, bytes == 4 && strncasecmp(text, "true", 4) == 0 ? "true" : "false", error);
    for (; bytes > 0 && is_space(text[0]); bytes--)
        text++;
    while (bytes > 0 && is_space(text[bytes - 1]))
        bytes--;
    if (kind.type == TOOL_VALUES_INTEGER)
        return append_integer(out, text, bytes, done, error);
    if (kind.type == TOOL_VALUES_NUMBER)
        return append_number(out, text, bytes, done, error);
    return OK;
}

enum status tool_values_append(struct text_buffer *out, struct tool_value_kind kind,
                               const char *text, size_t bytes, struct error *error)
{
    bool done = false;
    if (bytes == 4 && tool_values_may_be_null(kind, text, bytes))
        return text_buffer_append_text(out, "null", error);
    TRY(append_typed(out, kind, text, bytes, &done, error));
    if (done)
        return OK;
    TRY(text_buffer_append(out, "\"", 1, error));
    TRY(python_json_append_escaped(out, text, bytes, error));
    return text_buffer_append(out, "\"", 1, error);
}
