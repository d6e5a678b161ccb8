// SPDX-License-Identifier: Apache-2.0
// ring.c -- the single-writer single-reader queue.
#include "parallel/base/ring.h"

#include "parallel/base/status.h"

void ring_init(struct ring *ring, void *items, size_t item_bytes, uint64_t items_max)
{
    ASSERT(items_max > 0 && item_bytes > 0);
    ring->items = items;
    ring->item_bytes = item_bytes;
    ring->items_max = items_max;
    atomic_init(&ring->written, 0);
    atomic_init(&ring->read, 0);
}

static void *place_of(struct ring *ring, uint64_t number)
{
    return ring->items + (size_t)(number % ring->items_max) * ring->item_bytes;
}

void *ring_write_begin(struct ring *ring)
{
    uint64_t written = atomic_load_explicit(&ring->written, memory_order_relaxed);
    // Acquire: the reader is done with the place before we write there again.
    uint64_t read = atomic_load_explicit(&ring->read, memory_order_acquire);
#ifdef PLANT_ring_overfull
    read++; // one more than there is room for
#endif
    return written - read < ring->items_max ? place_of(ring, written) : NULL;
}

void ring_write_end(struct ring *ring)
{
    uint64_t written = atomic_load_explicit(&ring->written, memory_order_relaxed);
    atomic_store_explicit(&ring->written, written + 1, memory_order_release);
}

void *ring_read_begin(struct ring *ring)
{
    uint64_t read = atomic_load_explicit(&ring->read, memory_order_relaxed);
    uint64_t written = atomic_load_explicit(&ring->written, memory_order_acquire);
    return read < written ? place_of(ring, read) : NULL;
}

void ring_read_end(struct ring *ring)
{
    uint64_t read = atomic_load_explicit(&ring->read, memory_order_relaxed);
    atomic_store_explicit(&ring->read, read + 1, memory_order_release);
}

uint64_t ring_written(const struct ring *ring)
{
    return atomic_load_explicit(&ring->written, memory_order_acquire);
}

uint64_t ring_read(const struct ring *ring)
{
    return atomic_load_explicit(&ring->read, memory_order_acquire);
}
