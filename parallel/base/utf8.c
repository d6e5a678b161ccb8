// SPDX-License-Identifier: Apache-2.0
// utf8.c -- one pass over the bytes by the table of RFC 3629, section 4.
#include "parallel/base/utf8.h"

#include <stdint.h>
#include <string.h>

// Length of the sequence at `at`, 0 when it is not valid within `left` bytes.
static size_t sequence_bytes(const uint8_t *at, size_t left)
{
    uint8_t first = at[0];
    if (first < 0x80)
        return 1;
    size_t bytes = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    if (first < 0xC2 || first > 0xF4 || left < bytes)
        return 0;
    // Only the second byte has a narrower range: overlong forms, surrogates, above U+10FFFF.
    uint8_t low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    uint8_t high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    if (at[1] < low || at[1] > high)
        return 0;
    for (size_t i = 2; i < bytes; i++) {
        if ((at[i] & 0xC0) != 0x80)
            return 0;
    }
    return bytes;
}

size_t utf8_valid_bytes(const void *bytes, size_t bytes_count)
{
    const uint8_t *at = bytes;
    size_t done = 0;
    while (done < bytes_count) {
        uint64_t eight;
        if (bytes_count - done >= 8) { // eight ASCII bytes at once: prompts are megabytes
            memcpy(&eight, at + done, 8);
            if ((eight & 0x8080808080808080u) == 0) {
                done += 8;
                continue;
            }
        }
        size_t step = sequence_bytes(at + done, bytes_count - done);
        if (step == 0)
            return done;
        done += step;
    }
    return done;
}
