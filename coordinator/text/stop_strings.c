// SPDX-License-Identifier: Apache-2.0
// stop_strings.c -- Knuth, Morris and Pratt's search, one state per string. The text that may still
// become a stop string is the longest matched beginning, so it need not be stored.
#include "coordinator/text/stop_strings.h"

#include <stdlib.h>
#include <string.h>

static void fill_borders(uint16_t *borders, const struct stop_string *string)
{
    size_t border = 0;
    borders[0] = 0;
    for (size_t i = 1; i < string->count; i++) {
        while (border > 0 && string->bytes[i] != string->bytes[border])
            border = borders[border - 1];
        if (string->bytes[i] == string->bytes[border])
            border++;
        borders[i] = (uint16_t)border;
    }
}

enum status stop_strings_init(struct stop_strings *stops, const struct stop_string *strings,
                              int count, struct error *error)
{
    size_t bytes = 0;
    *stops = (struct stop_strings){.count = count};
    if (count > STOP_STRINGS_MAX) {
        return error_set(error, E_LIMIT, "%d stop strings, accepted is up to %d", count,
                         STOP_STRINGS_MAX);
    }
    for (int i = 0; i < count; i++) {
        if (strings[i].count == 0)
            return error_set(error, E_INPUT, "stop string %d is empty", i);
        if (strings[i].count > STOP_STRINGS_BYTES_MAX) {
            return error_set(error, E_LIMIT, "stop string %d has %zu bytes, accepted is up to %d",
                             i, strings[i].count, STOP_STRINGS_BYTES_MAX);
        }
        bytes += strings[i].count;
    }
    if (count == 0)
        return OK;
    stops->memory = malloc(bytes * sizeof *stops->memory);
    if (stops->memory == NULL)
        return error_set(error, E_SYSTEM, "no memory for %d stop strings", count);
    uint16_t *next = stops->memory;
    for (int i = 0; i < count; i++) {
        stops->strings[i] = strings[i];
        stops->borders[i] = next;
        fill_borders(next, &strings[i]);
        next += strings[i].count;
    }
    return OK;
}

void stop_strings_fini(struct stop_strings *stops)
{
    free(stops->memory);
    *stops = (struct stop_strings){0};
}

// Takes one byte into every search. The index of the longest string that is now complete, or -1.
static int advance(struct stop_strings *stops, char byte)
{
    int found = -1;
    for (int i = 0; i < stops->count; i++) {
        const struct stop_string *string = &stops->strings[i];
        size_t matched = stops->matched[i];
        while (matched > 0 && string->bytes[matched] != byte)
            matched = stops->borders[i][matched - 1];
        if (string->bytes[matched] == byte)
            matched++;
        stops->matched[i] = matched;
        if (matched == string->count && (found < 0 || matched > stops->strings[found].count))
            found = i;
    }
    return found;
}

static void start_anew(struct stop_strings *stops)
{
    memset(stops->matched, 0, sizeof stops->matched);
    stops->held = 0;
}

// The text so far not passed on is what was held and `byte`; passes on all but its last `keep`
// bytes.
static enum status pass_on(const struct stop_strings *stops, struct text_buffer *out, char byte,
                           size_t keep)
{
    size_t count = stops->held + 1 - keep;
    size_t from_held = count < stops->held ? count : stops->held;
    if (from_held > 0)
        TRY(text_buffer_append(out, stops->strings[stops->holder].bytes, from_held, NULL));
    return count > from_held ? text_buffer_append(out, &byte, 1, NULL) : OK;
}

static void hold_longest(struct stop_strings *stops)
{
    stops->held = 0;
    for (int i = 0; i < stops->count; i++) {
        if (stops->matched[i] > stops->held) {
            stops->held = stops->matched[i];
            stops->holder = i;
        }
    }
}

static size_t longest_matched(const struct stop_strings *stops)
{
    size_t longest = 0;
    for (int i = 0; i < stops->count; i++)
        longest = stops->matched[i] > longest ? stops->matched[i] : longest;
    return longest;
}

int stop_strings_feed(struct stop_strings *stops, struct text_buffer *out, const char *text,
                      size_t bytes, size_t *used, enum status *status)
{
    *used = bytes;
    *status = OK;
    if (stops->count == 0) {
        *status = text_buffer_append(out, text, bytes, NULL);
        return -1;
    }
    for (size_t i = 0; i < bytes && *status == OK; i++) {
        int found = advance(stops, text[i]);
        size_t keep = found >= 0 ? stops->strings[found].count : longest_matched(stops);
        *status = pass_on(stops, out, text[i], keep);
        if (found >= 0) {
            start_anew(stops);
            *used = i + 1;
            return found;
        }
        hold_longest(stops);
    }
    return -1;
}

enum status stop_strings_finish(struct stop_strings *stops, struct text_buffer *out)
{
    size_t held = stops->held;
    const char *bytes = stops->strings[stops->holder].bytes;
    start_anew(stops);
    return held > 0 ? text_buffer_append(out, bytes, held, NULL) : OK;
}
