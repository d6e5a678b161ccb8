// SPDX-License-Identifier: Apache-2.0
// text_buffer.c -- growing bytes; see text_buffer.h.
#include "coordinator/text/text_buffer.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

void text_buffer_init(struct text_buffer *buffer, size_t bytes_max)
{
    *buffer = (struct text_buffer){.bytes_max = bytes_max};
}

void text_buffer_fini(struct text_buffer *buffer)
{
    free(buffer->bytes);
    *buffer = (struct text_buffer){0};
}

enum status text_buffer_reserve(struct text_buffer *buffer, size_t count, struct error *error)
{
    if (count > buffer->bytes_max || buffer->count > buffer->bytes_max - count)
        return error_set(error, E_LIMIT, "text would be longer than the limit of %zu bytes",
                         buffer->bytes_max);
    if (count <= buffer->capacity - buffer->count)
        return OK;
    void *bytes =
        text_buffer_grow_items(buffer->bytes, &buffer->capacity, buffer->count + count, 1);
    if (bytes == NULL)
        return error_set(error, E_SYSTEM, "out of memory for %zu bytes of text",
                         buffer->count + count);
    buffer->bytes = bytes;
    return OK;
}

enum status text_buffer_append(struct text_buffer *buffer, const char *bytes, size_t count,
                               struct error *error)
{
    TRY(text_buffer_reserve(buffer, count, error));
    if (count != 0)
        memcpy(buffer->bytes + buffer->count, bytes, count);
    buffer->count += count;
    return OK;
}

enum status text_buffer_append_text(struct text_buffer *buffer, const char *text,
                                    struct error *error)
{
    return text_buffer_append(buffer, text, strlen(text), error);
}

void *text_buffer_grow_items(void *items, size_t *capacity, size_t needed, size_t item_bytes)
{
    if (needed <= *capacity && items != NULL)
        return items;
    size_t wanted = *capacity < 16 ? 16 : *capacity;
    while (wanted < needed) {
        if (wanted > SIZE_MAX / 2)
            return NULL;
        wanted *= 2;
    }
    if (wanted > SIZE_MAX / item_bytes)
        return NULL;
    void *moved = realloc(items, wanted * item_bytes);
    if (moved != NULL)
        *capacity = wanted;
    return moved;
}
