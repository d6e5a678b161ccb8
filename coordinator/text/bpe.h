// SPDX-License-Identifier: Apache-2.0
// bpe.h -- byte-pair encoding of one piece of text: the table of merges and the merging itself.
// Knows ids and ranks only; how text is cut into pieces and what ids mean is not here.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "parallel/base/status.h"

enum { BPE_NO_RANK = UINT32_MAX >> 1 }; // "these two do not merge"; above every real rank

struct bpe_merge {
    uint32_t left, right; // ids; left UINT32_MAX: an empty slot
    uint32_t rank;        // 0 merges first
    uint32_t id;          // of the merged token
};

struct bpe {
    struct bpe_merge *merges; // [merge_mask + 1], open addressing
    uint32_t merge_mask;
    uint32_t byte_ids[256]; // the id of each single byte, set by the caller
};

// One part of a piece under way: a token and the rank of its merge with the part that follows.
struct bpe_part {
    uint32_t id, rank;
    uint32_t before, after; // indices of the neighbours, BPE_END at both ends
};

// Room that encoding works in; one thread's. Starts zeroed, grows, never shrinks but by fini.
struct bpe_scratch {
    struct bpe_part *parts; // [parts_capacity]
    size_t parts_capacity;
    uint64_t *heap; // [heap_capacity] rank << 32 | index of the left part
    size_t heap_capacity;
    uint32_t *ids; // [ids_capacity] the result
    size_t ids_capacity;
};

// An empty table for up to merges_max merges. E_SYSTEM: no memory.
MUST_CHECK enum status bpe_init(struct bpe *bpe, size_t merges_max, struct error *error);
void bpe_fini(struct bpe *bpe);
void bpe_scratch_fini(struct bpe_scratch *scratch);

// Adds a merge. The same pair a second time replaces the first (as Hugging Face's map does).
// At most merges_max distinct pairs.
void bpe_add(struct bpe *bpe, struct bpe_merge merge);

// The merge of two ids, or NULL.
const struct bpe_merge *bpe_find(const struct bpe *bpe, uint32_t left, uint32_t right);

// Encodes piece[bytes], bytes >= 1: single bytes, then always the merge of least rank, leftmost
// first, until none applies. *ids points into scratch and holds *count ids until the next call.
// O(n log n) in time and 36 bytes of scratch for a byte of the longest piece. E_SYSTEM: no memory.
MUST_CHECK enum status bpe_encode(const struct bpe *bpe, struct bpe_scratch *scratch,
                                  const char *piece, size_t bytes, size_t *count,
                                  struct error *error);
