// SPDX-License-Identifier: Apache-2.0
// openai_json.c -- bounds first, then jansson.
#include "coordinator/openai_json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/base/utf8.h"
#include "parallel/wire/requests.h"

// ---- bodies ----

// Nesting and number of values, without looking closer: what is no JSON is jansson's to find.
static enum status check_bounds(const char *body, size_t bytes, struct openai_error *error)
{
    int64_t depth = 0, values = 1;
    bool in_string = false;
    for (size_t i = 0; i < bytes; i++) {
        char c = body[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
            continue;
        }
        in_string = c == '"';
        if (c == '[' || c == '{') {
            depth++;
            values++;
        } else if (c == ']' || c == '}') {
            depth--;
        } else if (c == ',' || c == ':') {
            values++;
        }
        if (depth > OPENAI_DEPTH_MAX) {
            return error_set(&error->error, E_LIMIT,
                             "the body is nested deeper than %d at byte %zu", OPENAI_DEPTH_MAX, i);
        }
        if (values > OPENAI_VALUES_MAX)
            return error_set(&error->error, E_LIMIT, "the body has more than %d values",
                             OPENAI_VALUES_MAX);
    }
    return OK;
}

enum status openai_json_parse(json_t **out, const char *body, size_t bytes,
                              struct openai_error *error)
{
    json_error_t problem;
    TRY(check_bounds(body, bytes, error));
    json_t *root = json_loadb(body, bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &problem);
    if (root == NULL) {
        return error_set(&error->error, E_MALFORMED, "the body is no JSON: line %d column %d: %s",
                         problem.line, problem.column, problem.text);
    }
    if (!json_is_object(root)) {
        json_decref(root);
        return error_set(&error->error, E_INPUT, "the body is JSON, but no object");
    }
    *out = root;
    return OK;
}

// ---- values ----

// A short look at a value for an error's text.
static void describe(char *out, size_t bytes, const json_t *value)
{
    static const char *const kinds[] = {"an object", "an array", "a string", "an integer",
                                        "a number",  "true",     "false",    "null"};
    if (json_is_integer(value))
        snprintf(out, bytes, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        snprintf(out, bytes, "%g", json_real_value(value));
    else
        snprintf(out, bytes, "%s", value == NULL ? "absent" : kinds[json_typeof(value)]);
}

enum status openai_json_bool(bool *out, const json_t *value, const char *name,
                             struct openai_error *error)
{
    char given[64];
    if (json_is_boolean(value)) {
        *out = json_is_true(value);
        return OK;
    }
    describe(given, sizeof given, value);
    return openai_error_of(
        error, name,
        error_set(&error->error, E_INPUT, "%s is %s, accepted is true or false", name, given));
}

enum status openai_json_integer(int64_t *out, const json_t *value, const char *name,
                                const int64_t limits[2], struct openai_error *error)
{
    char given[64];
    int64_t integer = json_integer_value(value);
    if (json_is_integer(value) && integer >= limits[0] && integer <= limits[1]) {
        *out = integer;
        return OK;
    }
    describe(given, sizeof given, value);
    return openai_error_of(error, name,
                           error_set(&error->error, E_INPUT,
                                     "%s is %s, accepted is a whole number from %lld to %lld", name,
                                     given, (long long)limits[0], (long long)limits[1]));
}

enum status openai_json_number(double *out, const json_t *value, const char *name,
                               const double limits[2], struct openai_error *error)
{
    char given[64];
    double number = json_number_value(value);
    if (json_is_number(value) && number >= limits[0] && number <= limits[1]) {
        *out = number;
        return OK;
    }
    describe(given, sizeof given, value);
    return openai_error_of(error, name,
                           error_set(&error->error, E_INPUT,
                                     "%s is %s, accepted is a number from %g to %g", name, given,
                                     limits[0], limits[1]));
}

enum status openai_json_ids(int32_t **ids_out, int32_t *ids_count, const json_t *value,
                            const char *name, int32_t vocab, struct openai_error *error)
{
    size_t count = json_array_size(value);
    if (count > REQUEST_PROMPT_TOKENS_MAX) {
        return openai_error_of(error, name,
                               error_set(&error->error, E_LIMIT,
                                         "%s has %zu token ids, accepted is up to %d", name, count,
                                         REQUEST_PROMPT_TOKENS_MAX));
    }
    int32_t *ids = malloc((count + 1) * sizeof *ids);
    if (ids == NULL)
        return error_set(&error->error, E_SYSTEM, "no memory for %zu token ids", count);
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(value, i);
        json_int_t id = json_integer_value(item);
        if (!json_is_integer(item) || id < 0 || id >= vocab) {
            char given[64];
            describe(given, sizeof given, item);
            free(ids);
            return openai_error_of(error, name,
                                   error_set(&error->error, E_INPUT,
                                             "%s[%zu] is %s, accepted is a token id from 0 to %d",
                                             name, i, given, vocab - 1));
        }
        ids[i] = (int32_t)id;
    }
    *ids_out = ids;
    *ids_count = (int32_t)count;
    return OK;
}

// ---- strings ----

static const char *escape_of(unsigned char byte, char space[8])
{
    switch (byte) {
    case '"': return "\\\"";
    case '\\': return "\\\\";
    case '\n': return "\\n";
    case '\r': return "\\r";
    case '\t': return "\\t";
    default: snprintf(space, 8, "\\u%04x", byte); return space;
    }
}

static enum status append_escaped(struct text_buffer *out, const char *text, size_t bytes)
{
    size_t plain = 0; // bytes before i that need no escape and are not yet written
    char space[8];
    for (size_t i = 0; i < bytes; i++) {
        unsigned char byte = (unsigned char)text[i];
        if (byte >= 0x20 && byte != '"' && byte != '\\') {
            plain++;
            continue;
        }
        TRY(text_buffer_append(out, text + i - plain, plain, NULL));
        TRY(text_buffer_append_text(out, escape_of(byte, space), NULL));
        plain = 0;
    }
    return text_buffer_append(out, text + bytes - plain, plain, NULL);
}

enum status openai_json_string(struct text_buffer *out, const char *text, size_t bytes)
{
    TRY(text_buffer_append(out, "\"", 1, NULL));
    while (bytes > 0) {
        size_t valid = utf8_valid_bytes(text, bytes);
        TRY(append_escaped(out, text, valid));
        text += valid;
        bytes -= valid;
        if (bytes == 0)
            break;
        TRY(text_buffer_append(out, "\xef\xbf\xbd", 3, NULL));
        text++;
        bytes--;
    }
    return text_buffer_append(out, "\"", 1, NULL);
}
