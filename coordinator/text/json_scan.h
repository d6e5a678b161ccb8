// SPDX-License-Identifier: Apache-2.0
// json_scan.h -- a forward scanner over one JSON text, for the two huge members of tokenizer.json.
// jansson needs 0.6 to 0.9 s for a vocabulary of 250,000 tokens (a node per string); this visits
// the same bytes in 0.1 s and allocates nothing. It finds where members lie and reads strings and
// whole numbers; every other value is cut out and given to jansson. Not a general parser.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordinator/text/text_buffer.h"
#include "parallel/base/status.h"

// The first problem sets status and error; every later call does nothing and leaves both alone, so
// that a reader checks once, at the end of its straight line.
struct json_scan {
    const char *text; // [bytes] well-formed UTF-8, borrowed
    size_t at;        // next unread byte
    size_t bytes;
    const char *name; // of the file, for errors; borrowed
    enum status status;
    struct error *error; // may be NULL
};

// A value's bytes within the scanned text, quotes and brackets included; bytes 0: absent.
struct json_extent {
    size_t start, bytes;
};

// A scan from the first byte of text, which is borrowed, as is name, while the scan is in use.
void json_scan_init(struct json_scan *scan, const char *name, const char *text, size_t bytes,
                    struct error *error);

// The next byte that is not white space, not consumed; 0 at the end or after an error.
char json_scan_peek(struct json_scan *scan);

// Consumes `wanted` (one of { } [ ] : ,) or fails with E_MALFORMED.
void json_scan_expect(struct json_scan *scan, char wanted);

// After a value within { } or [ ]: consumes a comma and returns true, or consumes `close` and
// returns false. False also after an error.
bool json_scan_more(struct json_scan *scan, char close);

// Consumes `open`; true when a first element follows, false when `close` does (consumed too) or
// after an error. For: if (enter) do { ... } while (more).
bool json_scan_enter(struct json_scan *scan, char open, char close);

// Appends the unescaped string that comes next to out. \u0000 and lone surrogates are E_MALFORMED.
void json_scan_string(struct json_scan *scan, struct text_buffer *out);

// The whole number 0..4294967295 that comes next; 0 after an error.
uint32_t json_scan_u32(struct json_scan *scan);

// Passes over any value and says where it lay. Brackets and strings are paired; what is between is
// not checked. Nesting deeper than 64 is E_LIMIT.
struct json_extent json_scan_skip(struct json_scan *scan);

// Fails the scan at its present byte, as E_MALFORMED, unless it has failed before.
void json_scan_fail(struct json_scan *scan, const char *what);
