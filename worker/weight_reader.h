// SPDX-License-Identifier: Apache-2.0
// weight_reader.h -- threads that read pieces of a checkpoint into page-locked memory and copy them
// to the device, several at a time: reading, converting and copying overlap. Knows neither model
// nor layout; worker/weight_writer.c makes the chunks.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/runtime.h"
#include "worker/checkpoint.h"

enum {
    // Of a chunk: large enough that a copy's fixed cost does not show (8 MiB are 150 us on PCIe 5),
    // small enough that a thread's two are read while the other copies are under way.
    WEIGHT_CHUNK_BYTES = 8 << 20,
    WEIGHT_CHUNK_PIECES = 256,
    WEIGHT_READERS_MAX = 8,
};

struct weight_piece {
    struct tensor_range range;
    size_t at_bytes; // in the chunk
};

// Bytes that stand one behind the other on the device; those of no piece become zero.
struct weight_chunk {
    uint8_t *to_dev;
    size_t bytes; // <= WEIGHT_CHUNK_BYTES
    int pieces_count;
    struct weight_piece pieces[WEIGHT_CHUNK_PIECES];
};

struct weight_reader; // opaque

// Starts the threads: one per processor that this process may use, WEIGHT_READERS_MAX at most, each
// with a stream and memory for two chunks. checkpoint is borrowed until close. E_SYSTEM.
enum status weight_reader_open(struct weight_reader **out, struct checkpoint *checkpoint,
                               struct error *error) MUST_CHECK;

// Hands a chunk over, which is copied; waits while too many are waiting. Chunks may run in any
// order: no two may name the same bytes of the device. False when one before it has failed.
bool weight_reader_put(struct weight_reader *reader, const struct weight_chunk *chunk);

// Bytes that have been read so far.
uint64_t weight_reader_bytes(struct weight_reader *reader);

// Waits until every chunk is on the device, ends the threads and frees all. The error is that of
// the first chunk that failed, in the order in which they were handed over. NULL is allowed.
enum status weight_reader_close(struct weight_reader *reader, struct error *error) MUST_CHECK;
