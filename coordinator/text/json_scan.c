// SPDX-License-Identifier: Apache-2.0
// json_scan.c -- the scanner; see json_scan.h for why it exists beside jansson.
#include "coordinator/text/json_scan.h"

#include <string.h>

#include "coordinator/text/code_point.h"

enum { DEPTH_MAX = 64 };

void json_scan_init(struct json_scan *scan, const char *name, const char *text, size_t bytes,
                    struct error *error)
{
    *scan = (struct json_scan){
        .text = text, .bytes = bytes, .name = name, .status = OK, .error = error};
}

void json_scan_fail(struct json_scan *scan, const char *what)
{
    if (scan->status == OK)
        scan->status = error_set(scan->error, E_MALFORMED, "%s: byte %zu: %s", scan->name, scan->at,
                                 scan->at == scan->bytes ? "the file ends here" : what);
}

char json_scan_peek(struct json_scan *scan)
{
    if (scan->status != OK)
        return 0;
    while (scan->at < scan->bytes) {
        const char c = scan->text[scan->at];
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t')
            return c;
        scan->at++;
    }
    return 0;
}

void json_scan_expect(struct json_scan *scan, char wanted)
{
    if (json_scan_peek(scan) == wanted) {
        scan->at++;
        return;
    }
    const char what[] = {'e', 'x', 'p', 'e', 'c', 't', 'e', 'd', ' ', wanted, 0};
    json_scan_fail(scan, what);
}

bool json_scan_more(struct json_scan *scan, char close)
{
    const char next = json_scan_peek(scan);
    if (next == ',') {
        scan->at++;
        return true;
    }
    json_scan_expect(scan, close);
    return false;
}

bool json_scan_enter(struct json_scan *scan, char open, char close)
{
    json_scan_expect(scan, open);
    if (json_scan_peek(scan) == close) {
        scan->at++;
        return false;
    }
    return scan->status == OK;
}

// The four hexadecimal digits of \uXXXX.
static uint32_t hex4(struct json_scan *scan)
{
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) {
        const char c = scan->at < scan->bytes ? scan->text[scan->at] : 0;
        uint32_t digit;
        if (c >= '0' && c <= '9') {
            digit = (uint32_t)(c - '0');
        } else if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')) {
            digit = (uint32_t)((c | 0x20) - 'a' + 10);
        } else {
            json_scan_fail(scan, "expected four hexadecimal digits");
            return 0;
        }
        value = value << 4 | digit;
        scan->at++;
    }
    return value;
}

// The code point of \uXXXX or of a surrogate pair; the first \u has been consumed.
static uint32_t escaped_code_point(struct json_scan *scan)
{
    const uint32_t first = hex4(scan);
    if (first >= 0xd800 && first < 0xdc00) {
        uint32_t second = 0;
        if (scan->bytes - scan->at >= 2 && memcmp(scan->text + scan->at, "\\u", 2) == 0) {
            scan->at += 2;
            second = hex4(scan);
        }
        if (second >= 0xdc00 && second < 0xe000)
            return 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
    }
    if (first == 0 || (first >= 0xd800 && first < 0xe000))
        json_scan_fail(scan, "an escaped zero or a lone surrogate in a string");
    return scan->status == OK ? first : '?';
}

// Consumes the escape sequence at scan->at (a backslash) and writes what it means to out; returns
// the bytes written.
static size_t unescape(struct json_scan *scan, char out[CODE_POINT_BYTES_MAX])
{
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    scan->at++;
    const char c = scan->at < scan->bytes ? scan->text[scan->at] : 0;
    if (c == 'u') {
        scan->at++;
        return code_point_encode(out, escaped_code_point(scan));
    }
    const char *letter = c == 0 ? NULL : strchr(letters, c);
    if (letter == NULL) {
        json_scan_fail(scan, "an unknown escape in a string");
        return 0;
    }
    scan->at++;
    out[0] = meanings[letter - letters];
    return 1;
}

void json_scan_string(struct json_scan *scan, struct text_buffer *out)
{
    json_scan_expect(scan, '"');
    while (scan->status == OK) {
        const size_t start = scan->at;
        while (scan->at < scan->bytes && scan->text[scan->at] != '"' &&
               scan->text[scan->at] != '\\' && (unsigned char)scan->text[scan->at] >= 0x20)
            scan->at++;
        char escape[CODE_POINT_BYTES_MAX];
        scan->status = text_buffer_append(out, scan->text + start, scan->at - start, scan->error);
        if (scan->status != OK)
            return;
        if (scan->at == scan->bytes || (unsigned char)scan->text[scan->at] < 0x20) {
            json_scan_fail(scan, "a control character in a string");
            return;
        }
        if (scan->text[scan->at] == '"') {
            scan->at++;
            return;
        }
        const size_t written = unescape(scan, escape);
        if (scan->status == OK)
            scan->status = text_buffer_append(out, escape, written, scan->error);
    }
}

uint32_t json_scan_u32(struct json_scan *scan)
{
    json_scan_peek(scan);
    const size_t start = scan->at;
    uint64_t value = 0;
    while (scan->status == OK && scan->at < scan->bytes && scan->text[scan->at] >= '0' &&
           scan->text[scan->at] <= '9' && value <= UINT32_MAX)
        value = value * 10 + (uint64_t)(scan->text[scan->at++] - '0');
    const bool padded = scan->at - start > 1 && scan->text[start] == '0';
    const char after = scan->at < scan->bytes ? scan->text[scan->at] : 0;
    if (scan->at == start || padded || value > UINT32_MAX || after == '.' || after == 'e' ||
        after == 'E')
        json_scan_fail(scan, "expected a whole number from 0 to 4294967295");
    return scan->status == OK ? (uint32_t)value : 0;
}

// Passes over a string without looking at its escapes' meaning.
static void skip_string(struct json_scan *scan)
{
    scan->at++;
    while (scan->at < scan->bytes && scan->text[scan->at] != '"')
        scan->at += scan->text[scan->at] == '\\' && scan->at + 1 < scan->bytes ? 2 : 1;
    if (scan->at == scan->bytes)
        json_scan_fail(scan, "a string without end");
    else
        scan->at++;
}

struct json_extent json_scan_skip(struct json_scan *scan)
{
    char closes[DEPTH_MAX]; // what must close each open bracket
    size_t depth = 0;
    json_scan_peek(scan);
    const size_t start = scan->at;
    do {
        const char c = json_scan_peek(scan);
        if (scan->status != OK)
            break;
        if (c == '"') {
            skip_string(scan);
        } else if (c == '{' || c == '[') {
            if (depth == DEPTH_MAX) {
                scan->status =
                    error_set(scan->error, E_LIMIT, "%s: byte %zu: nested deeper than %d",
                              scan->name, scan->at, DEPTH_MAX);
                break;
            }
            closes[depth++] = c == '{' ? '}' : ']';
            scan->at++;
        } else if (depth > 0 && c == closes[depth - 1]) {
            depth--;
            scan->at++;
        } else if (c == 0 || c == '}' || c == ']' || (depth == 0 && (c == ',' || c == ':'))) {
            json_scan_fail(scan, "a value is missing or a bracket is not paired");
        } else if (c == ',' || c == ':') {
            scan->at++;
        } else {
            // A number or a word: up to the next byte that ends one.
            while (scan->at < scan->bytes &&
                   strchr(" \n\r\t,:]}[{\"", scan->text[scan->at]) == NULL)
                scan->at++;
        }
    } while (scan->status == OK && depth > 0);
    if (scan->status != OK)
        return (struct json_extent){0, 0};
    return (struct json_extent){start, scan->at - start};
}
