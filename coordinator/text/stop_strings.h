// SPDX-License-Identifier: Apache-2.0
// stop_strings.h -- looks for the first of several strings in a text that comes in pieces, and
// never passes on a byte that may belong to it. How the text was cut into pieces changes nothing.
// Knows no tokens and no request.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordinator/text/text_buffer.h"
#include "parallel/base/status.h"

enum {
    STOP_STRINGS_MAX = 16,
    STOP_STRINGS_BYTES_MAX = 512, // of one string
};

struct stop_string {
    const char *bytes; // [count], borrowed
    size_t count;      // 1 .. STOP_STRINGS_BYTES_MAX
};

// One text under way. What is held back is the beginning of strings[holder], `held` bytes of it.
struct stop_strings {
    struct stop_string strings[STOP_STRINGS_MAX];
    uint16_t *borders[STOP_STRINGS_MAX]; // [count] longest border of each beginning
    size_t matched[STOP_STRINGS_MAX];    // bytes of each string that the text ends with
    int count;
    int holder;
    size_t held;
    uint16_t *memory;
};

// strings[count] are borrowed until fini; count 0 passes every text on. E_INPUT: a string that is
// empty; E_LIMIT: too many or too long; E_SYSTEM. `stops` is the caller's storage.
MUST_CHECK enum status stop_strings_init(struct stop_strings *stops,
                                         const struct stop_string *strings, int count,
                                         struct error *error);
void stop_strings_fini(struct stop_strings *stops);

// Appends to out what is certain to lie before any stop string. Returns the index of the string
// that was found, or -1. The one that ends first is found; of several that end together, the
// longest. *used is the number of bytes read: all of them, or up to the end of the string found,
// after which the search begins anew. E_LIMIT and E_SYSTEM of out go to *status.
int stop_strings_feed(struct stop_strings *stops, struct text_buffer *out, const char *text,
                      size_t bytes, size_t *used, enum status *status);

// The text has ended: appends what was held back.
MUST_CHECK enum status stop_strings_finish(struct stop_strings *stops, struct text_buffer *out);
