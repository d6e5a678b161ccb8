// SPDX-License-Identifier: Apache-2.0
// code_point.h -- one code point at a time in UTF-8, by table 3-7 of The Unicode Standard: look,
// decode, encode. Whether a whole text is UTF-8 is parallel/base/utf8.h's question.
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { CODE_POINT_BYTES_MAX = 4 }; // bytes of one code point

enum code_point_verdict {
    CODE_POINT_WHOLE,   // a well-formed sequence
    CODE_POINT_INVALID, // can never become one, whatever follows
    CODE_POINT_CUT,     // well-formed so far, but the bytes end
};

// Looks at the sequence that starts at text[0]; bytes >= 1. *length becomes its length: of the
// code point, or of the "maximal subpart" that one U+FFFD stands for when it is invalid or cut.
enum code_point_verdict code_point_look(const char *text, size_t bytes, size_t *length);

// The code point at text[*at], which must be well-formed; *at moves past it.
uint32_t code_point_next(const char *text, size_t *at);

// Writes a code point (no surrogate, <= 0x10ffff) to out[CODE_POINT_BYTES_MAX]; returns its bytes.
size_t code_point_encode(char *out, uint32_t code_point);
