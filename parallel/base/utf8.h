// SPDX-License-Identifier: Apache-2.0
// utf8.h -- is it UTF-8? The question every door asks of bytes from outside. Knows no normal forms
// and no properties of characters.
#pragma once

#include <stddef.h>

// How many of the first bytes are valid UTF-8 (RFC 3629: shortest form, no surrogates, at most
// U+10FFFF), up to the first offending sequence; bytes_count when all are.
size_t utf8_valid_bytes(const void *bytes, size_t bytes_count);
