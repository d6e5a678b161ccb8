// SPDX-License-Identifier: Apache-2.0
// arena.c -- a bump allocator.
#include "parallel/base/arena.h"

#include "parallel/base/status.h"

void arena_init(struct arena *arena, void *memory, size_t bytes)
{
    *arena = (struct arena){.memory = memory, .bytes = bytes};
}

void *arena_take(struct arena *arena, size_t bytes, size_t align)
{
    ASSERT(align != 0 && (align & (align - 1)) == 0);
    size_t gap = (align - arena->used % align) % align;
    if (gap > arena->bytes - arena->used || bytes > arena->bytes - arena->used - gap)
        return NULL;
    size_t offset = arena->used + gap;
    arena->used = offset + bytes;
    return arena->memory == NULL ? NULL : arena->memory + offset;
}
