// SPDX-License-Identifier: Apache-2.0
// text_buffer.h -- a byte string that grows up to a stated limit, and the growth of arrays. Owns
// its bytes; knows nothing of their encoding.
#pragma once

#include <stddef.h>

#include "parallel/base/status.h"

struct text_buffer {
    char *bytes; // [capacity], the first `count` are in use; not terminated
    size_t count;
    size_t capacity;
    size_t bytes_max; // growing past this is E_LIMIT
};

// An empty buffer that allocates nothing yet. `buffer` is the caller's; fini frees its bytes.
void text_buffer_init(struct text_buffer *buffer, size_t bytes_max);
void text_buffer_fini(struct text_buffer *buffer);

// Appends `count` bytes; the buffer is unchanged when it fails. E_LIMIT names bytes_max, E_SYSTEM
// is out of memory.
MUST_CHECK enum status text_buffer_append(struct text_buffer *buffer, const char *bytes,
                                          size_t count, struct error *error);

// Appends a C string.
MUST_CHECK enum status text_buffer_append_text(struct text_buffer *buffer, const char *text,
                                               struct error *error);

// Makes room for `count` more bytes beyond those in use, so that the caller may write them at
// bytes + count itself. Same errors as append.
MUST_CHECK enum status text_buffer_reserve(struct text_buffer *buffer, size_t count,
                                           struct error *error);

// An array's growth: returns `items` (from malloc or NULL) moved to hold at least `needed` items
// and sets *capacity, or NULL when out of memory, in which case items and *capacity stay as they
// were. Doubles, so that appending one by one is linear.
void *text_buffer_grow_items(void *items, size_t *capacity, size_t needed, size_t item_bytes);
