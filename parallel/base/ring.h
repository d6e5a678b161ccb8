// SPDX-License-Identifier: Apache-2.0
// ring.h -- a bounded first-in first-out queue of items of one size between one writing and one
// reading thread, without locks. It never blocks: who wants to sleep brings a condition variable.
#pragma once

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct ring {
    uint8_t *items; // [items_max, item_bytes], borrowed
    size_t item_bytes;
    uint64_t items_max;
    _Alignas(64) atomic_uint_fast64_t written; // items ever written; only the writer changes it
    _Alignas(64) atomic_uint_fast64_t read;    // items ever read; only the reader changes it
};

// items holds items_max items of item_bytes bytes and is aligned for them.
void ring_init(struct ring *ring, void *items, size_t item_bytes, uint64_t items_max);

// Writer: the place of the next item to fill in, or NULL when the ring is full. ring_write_end
// then hands it to the reader.
void *ring_write_begin(struct ring *ring);
void ring_write_end(struct ring *ring);

// Reader: the oldest item, or NULL when the ring is empty. It stays where it is until
// ring_read_end gives its place back to the writer.
void *ring_read_begin(struct ring *ring);
void ring_read_end(struct ring *ring);

// Items ever written and ever read (given back). Any thread.
uint64_t ring_written(const struct ring *ring);
uint64_t ring_read(const struct ring *ring);
