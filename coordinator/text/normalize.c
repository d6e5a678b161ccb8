// SPDX-License-Identifier: Apache-2.0
// normalize.c -- NFC: decompose and compose by utf8proc, the marks put in order here (utf8proc's
// own ordering is quadratic in a run of marks); see normalize.h.
#include "coordinator/text/normalize.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "coordinator/text/code_point.h"

enum {
    DECOMPOSED_MAX = 8,      // code points that one canonically decomposes to: 4 in Unicode 16
    POINTS_PER_BYTE_MAX = 2, // decomposed: 1.5, for the 2 bytes of U+0390 that become 3
    INSERTION_MAX = 32,      // longer runs of marks are counted instead
    COMBINING_CLASSES = 256,
    // Every code point below is a starter that no later one composes with from behind, and is its
    // own NFC: normalization cannot reach across the place before it.
    FIRST_COMBINING = 0x300,
};

// Code points that got a combining class, a decomposition or a part in a composition after Unicode
// 9. Hugging Face's normalizer does not know them: each stays, and keeps its neighbours apart.
// Found by asking it about every code point of Unicode 17; tests/golden/text holds its answers.
static const uint32_t newer_than_unicode_9[][2] = {
    {0x5c8, 0x5c9},     {0x7fd, 0x7fd},     {0x897, 0x89f},     {0x8ca, 0x8d3},
    {0x9fe, 0x9fe},     {0xc3c, 0xc3c},     {0xd3b, 0xd3c},     {0xeba, 0xeba},
    {0x1715, 0x1715},   {0x1abf, 0x1af0},   {0x1df6, 0x1dfa},   {0xa82c, 0xa82c},
    {0x105c9, 0x105c9}, {0x105d2, 0x105d2}, {0x105da, 0x105da}, {0x105e4, 0x105e4},
    {0x10d24, 0x10d27}, {0x10d69, 0x10d6d}, {0x10eab, 0x10eac}, {0x10ecb, 0x10ecf},
    {0x10ef0, 0x10efb}, {0x10efd, 0x10eff}, {0x10f46, 0x10f50}, {0x10f82, 0x10f85},
    {0x11070, 0x11070}, {0x1133b, 0x1133b}, {0x11383, 0x11383}, {0x11385, 0x11385},
    {0x1138e, 0x1138e}, {0x11391, 0x11391}, {0x113b8, 0x113b8}, {0x113bb, 0x113bb},
    {0x113c2, 0x113c2}, {0x113c5, 0x113c5}, {0x113c7, 0x113c9}, {0x113ce, 0x113d0},
    {0x1145e, 0x1145e}, {0x11839, 0x1183a}, {0x11930, 0x11930}, {0x11938, 0x11938},
    {0x1193d, 0x1193e}, {0x11943, 0x11943}, {0x119e0, 0x119e0}, {0x11a34, 0x11a34},
    {0x11a47, 0x11a47}, {0x11a99, 0x11a99}, {0x11d42, 0x11d42}, {0x11d44, 0x11d45},
    {0x11d97, 0x11d97}, {0x11f41, 0x11f42}, {0x1611e, 0x16129}, {0x1612f, 0x1612f},
    {0x16d67, 0x16d6a}, {0x16ff0, 0x16ff1}, {0x1d127, 0x1d128}, {0x1d250, 0x1d252},
    {0x1d25b, 0x1d25c}, {0x1d25f, 0x1d25f}, {0x1d280, 0x1d281}, {0x1e08f, 0x1e08f},
    {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef},
    {0x1e5ee, 0x1e5ef}, {0x1e6e3, 0x1e6e3}, {0x1e6e6, 0x1e6e6}, {0x1e6ee, 0x1e6ef},
    {0x1e6f5, 0x1e6f5},
};

void normalize_scratch_init(struct normalize_scratch *scratch, size_t bytes_max)
{
    *scratch = (struct normalize_scratch){0};
    text_buffer_init(&scratch->text, bytes_max);
}

void normalize_scratch_fini(struct normalize_scratch *scratch)
{
    free(scratch->points);
    free(scratch->sorted);
    text_buffer_fini(&scratch->text);
    *scratch = (struct normalize_scratch){0};
}

static bool is_newer(uint32_t point)
{
    size_t low = 0, high = sizeof newer_than_unicode_9 / sizeof newer_than_unicode_9[0];
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (point > newer_than_unicode_9[middle][1])
            low = middle + 1;
        else
            high = middle;
    }
    return low < sizeof newer_than_unicode_9 / sizeof newer_than_unicode_9[0] &&
           point >= newer_than_unicode_9[low][0];
}

static uint8_t class_of(int32_t point)
{
    return point < FIRST_COMBINING ? 0 : (uint8_t)utf8proc_get_property(point)->combining_class;
}

// Stable sort of marks by combining class, for a run of any length.
static enum status sort_by_counting(struct normalize_scratch *scratch, int32_t *marks, size_t count,
                                    struct error *error)
{
    int32_t *sorted =
        text_buffer_grow_items(scratch->sorted, &scratch->sorted_capacity, count, sizeof *sorted);
    if (sorted == NULL)
        return error_set(error, E_SYSTEM, "out of memory for %zu combining marks", count);
    scratch->sorted = sorted;
    size_t starts[COMBINING_CLASSES + 1] = {0};
    for (size_t i = 0; i < count; i++)
        starts[class_of(marks[i]) + 1]++;
    for (size_t i = 0; i < COMBINING_CLASSES; i++)
        starts[i + 1] += starts[i];
    for (size_t i = 0; i < count; i++)
        sorted[starts[class_of(marks[i])]++] = marks[i];
    memcpy(marks, sorted, count * sizeof *marks);
    return OK;
}

static void sort_by_insertion(int32_t *marks, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        const int32_t mark = marks[i];
        size_t at = i;
        for (; at > 0 && class_of(marks[at - 1]) > class_of(mark); at--)
            marks[at] = marks[at - 1];
        marks[at] = mark;
    }
}

// Canonical ordering: each run of code points whose class is not 0, sorted by class.
static enum status order_marks(struct normalize_scratch *scratch, size_t count, struct error *error)
{
    for (size_t i = 0; i < count; i++) {
        size_t end = i;
        while (end < count && class_of(scratch->points[end]) != 0)
            end++;
        if (end - i > INSERTION_MAX)
            TRY(sort_by_counting(scratch, scratch->points + i, end - i, error));
        else if (end > i)
            sort_by_insertion(scratch->points + i, end - i);
        i = end;
    }
    return OK;
}

// Appends the NFC of a stretch of text between two places that normalization cannot reach across.
static enum status append_stretch(struct normalize_scratch *scratch, const char *text, size_t bytes,
                                  struct error *error)
{
    int32_t *points =
        text_buffer_grow_items(scratch->points, &scratch->points_capacity,
                               bytes * POINTS_PER_BYTE_MAX + DECOMPOSED_MAX, sizeof *points);
    if (points == NULL)
        return error_set(error, E_SYSTEM, "out of memory to normalize %zu bytes", bytes);
    scratch->points = points;
    size_t count = 0;
    for (size_t at = 0; at < bytes;) {
        int last_class = 0;
        const utf8proc_ssize_t written = utf8proc_decompose_char(
            (utf8proc_int32_t)code_point_next(text, &at), points + count, DECOMPOSED_MAX,
            UTF8PROC_COMPOSE | UTF8PROC_STABLE, &last_class);
        ASSERT(written >= 1 && written <= DECOMPOSED_MAX);
        count += (size_t)written;
    }
    TRY(order_marks(scratch, count, error));
    const utf8proc_ssize_t composed = utf8proc_normalize_utf32(points, (utf8proc_ssize_t)count,
                                                               UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    ASSERT(composed >= 0 && (size_t)composed <= count);
    TRY(text_buffer_reserve(&scratch->text, (size_t)composed * CODE_POINT_BYTES_MAX, error));
    for (size_t i = 0; i < (size_t)composed; i++)
        scratch->text.count +=
            code_point_encode(scratch->text.bytes + scratch->text.count, (uint32_t)points[i]);
    return OK;
}

// The first place at or after `at` whose code point is FIRST_COMBINING or above; bytes if none.
static size_t skip_plain(const char *text, size_t bytes, size_t at)
{
    while (at < bytes && (uint8_t)text[at] < 0xcc) // 0xcc 0x80 is U+0300
        at++;
    return at;
}

// Text as a row of: plain text up to its last code point, copied; then a stretch, which begins with
// that code point (a mark may join it) and ends before the next plain or newer one.
static enum status normalize_all(struct normalize_scratch *scratch, const char *text, size_t bytes,
                                 struct error *error)
{
    for (size_t at = 0; at < bytes;) {
        size_t stretch = skip_plain(text, bytes, at);
        if (stretch > at && stretch < bytes) {
            stretch--;
            while (((uint8_t)text[stretch] & 0xc0) == 0x80)
                stretch--;
        }
        TRY(text_buffer_append(&scratch->text, text + at, stretch - at, error));
        size_t end = stretch, newer_end = 0;
        while (end < bytes) {
            size_t next = end;
            const uint32_t point = code_point_next(text, &next);
            if (point < FIRST_COMBINING && end > stretch)
                break;
            if (is_newer(point)) {
                newer_end = next;
                break;
            }
            end = next;
        }
        if (end > stretch)
            TRY(append_stretch(scratch, text + stretch, end - stretch, error));
        if (newer_end > 0)
            TRY(text_buffer_append(&scratch->text, text + end, newer_end - end, error));
        at = newer_end > 0 ? newer_end : end;
    }
    return OK;
}

enum status normalize_nfc(struct normalize_scratch *scratch, const char *text, size_t bytes,
                          const char **out, size_t *out_bytes, struct error *error)
{
    *out = text;
    *out_bytes = bytes;
    if (skip_plain(text, bytes, 0) == bytes)
        return OK;
    scratch->text.count = 0;
    TRY(normalize_all(scratch, text, bytes, error));
    *out = scratch->text.bytes;
    *out_bytes = scratch->text.count;
    return OK;
}
