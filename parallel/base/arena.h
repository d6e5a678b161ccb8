// SPDX-License-Identifier: Apache-2.0
// arena.h -- takes aligned pieces off the front of memory that the caller owns. Nothing is given
// back piece by piece. With memory NULL it only counts, so that one piece of code both measures
// and lays out a region.
#pragma once

#include <stddef.h>
#include <stdint.h>

struct arena {
    uint8_t *memory; // borrowed; NULL = count only
    size_t bytes;    // of memory
    size_t used;     // bytes taken so far, gaps for alignment included
};

// Memory should be aligned as strictly as any piece that will be taken.
void arena_init(struct arena *arena, void *memory, size_t bytes);

// The next piece of `bytes` bytes at an offset that is a multiple of align (a power of two); not
// zeroed. NULL, with nothing taken, when it does not fit, and always when counting only.
void *arena_take(struct arena *arena, size_t bytes, size_t align);
