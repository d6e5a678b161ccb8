// SPDX-License-Identifier: Apache-2.0
// utf8.h -- UTF-8 as The Unicode Standard, table 3-7, defines it: decode, encode, check. Owns no
// state and knows nothing of normal forms or character classes.
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { UTF8_BYTES_MAX = 4 }; // bytes of one code point

enum utf8_verdict {
    UTF8_WHOLE,   // a well-formed sequence
    UTF8_INVALID, // can never become one, whatever follows
    UTF8_CUT,     // well-formed so far, but the bytes end
};

// Looks at the sequence that starts at text[0]; bytes >= 1. *length becomes its length: of the
// code point, or of the "maximal subpart" that one U+FFFD stands for when it is invalid or cut.
enum utf8_verdict utf8_look(const char *text, size_t bytes, size_t *length);

// Bytes before the first sequence that is not well-formed (invalid or cut); `bytes` if all is well.
size_t utf8_valid_bytes(const char *text, size_t bytes);

// The code point at text[*at], which must be well-formed; *at moves past it.
uint32_t utf8_next(const char *text, size_t *at);

// Writes a code point (no surrogate, <= 0x10ffff) to out[UTF8_BYTES_MAX]; returns its bytes.
size_t utf8_encode(char *out, uint32_t code_point);
