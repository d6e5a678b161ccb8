// SPDX-License-Identifier: Apache-2.0
// code_point.c -- single UTF-8 sequences; see code_point.h.
#include "coordinator/text/code_point.h"

// Length that a lead byte announces (0: not a lead byte) and the range of its second byte, which is
// where overlong forms, surrogates and code points above 0x10ffff are kept out.
struct lead {
    uint8_t length, second_min, second_max;
};

static struct lead lead_of(uint8_t byte)
{
    if (byte < 0xc2 || byte > 0xf4)
        return (struct lead){0, 0, 0};
    if (byte < 0xe0)
        return (struct lead){2, 0x80, 0xbf};
    if (byte < 0xf0)
        return (struct lead){3, byte == 0xe0 ? 0xa0 : 0x80, byte == 0xed ? 0x9f : 0xbf};
    return (struct lead){4, byte == 0xf0 ? 0x90 : 0x80, byte == 0xf4 ? 0x8f : 0xbf};
}

enum code_point_verdict code_point_look(const char *text, size_t bytes, size_t *length)
{
    const uint8_t first = (uint8_t)text[0];
    *length = 1;
    if (first < 0x80)
        return CODE_POINT_WHOLE;
    const struct lead lead = lead_of(first);
    if (lead.length == 0)
        return CODE_POINT_INVALID;
    for (size_t i = 1; i < lead.length; i++) {
        *length = i;
        if (i == bytes)
            return CODE_POINT_CUT;
        const uint8_t byte = (uint8_t)text[i];
        if (byte < (i == 1 ? lead.second_min : 0x80) || byte > (i == 1 ? lead.second_max : 0xbf))
            return CODE_POINT_INVALID;
    }
    *length = lead.length;
    return CODE_POINT_WHOLE;
}

uint32_t code_point_next(const char *text, size_t *at)
{
    const uint8_t *b = (const uint8_t *)text + *at;
    if (b[0] < 0x80) {
        *at += 1;
        return b[0];
    }
    if (b[0] < 0xe0) {
        *at += 2;
        return (b[0] & 0x1fu) << 6 | (b[1] & 0x3fu);
    }
    if (b[0] < 0xf0) {
        *at += 3;
        return (b[0] & 0x0fu) << 12 | (b[1] & 0x3fu) << 6 | (b[2] & 0x3fu);
    }
    *at += 4;
    return (b[0] & 0x07u) << 18 | (b[1] & 0x3fu) << 12 | (b[2] & 0x3fu) << 6 | (b[3] & 0x3fu);
}

size_t code_point_encode(char *out, uint32_t code_point)
{
    if (code_point < 0x80) {
        out[0] = (char)code_point;
        return 1;
    }
    if (code_point < 0x800) {
        out[0] = (char)(0xc0 | code_point >> 6);
        out[1] = (char)(0x80 | (code_point & 0x3f));
        return 2;
    }
    if (code_point < 0x10000) {
        out[0] = (char)(0xe0 | code_point >> 12);
        out[1] = (char)(0x80 | (code_point >> 6 & 0x3f));
        out[2] = (char)(0x80 | (code_point & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | code_point >> 18);
    out[1] = (char)(0x80 | (code_point >> 12 & 0x3f));
    out[2] = (char)(0x80 | (code_point >> 6 & 0x3f));
    out[3] = (char)(0x80 | (code_point & 0x3f));
    return 4;
}
