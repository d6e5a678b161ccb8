// SPDX-License-Identifier: Apache-2.0
// prefix_cache.h -- which beginnings of prompts a group still holds: a tree of KV pages of 64
// committed tokens each, and checkpoints (recurrent state, conv columns, last hidden row) at some
// of their ends. A prompt can start after a node only where that node has a checkpoint; pages below
// the last checkpoint of a branch are of no use and are let go. One per group. Pure: memory is
// given by the caller.
//
// A node is found by a hash of its parent's hash and its 64 tokens, and taken only when the parent
// is the very same node and the tokens are equal one by one. So a path stands for exactly one text
// whatever the hash does, and a collision costs time, never a wrong token. The hash is keyed, so
// that nobody can choose tokens that collide.
//
// A request holds the path to a node (prefix_cache_take, _save) as long as it has a slot; whatever
// is held is neither evicted nor given to another. What nobody holds is evicted leaf by leaf, least
// recently used first. Checkpoints have an order of use of their own; one that a step in flight
// names stays. A request that decodes reserves a checkpoint before anybody knows the text or the
// step for it; when both are known it goes into the tree, or back.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordinator/kv_pages.h"
#include "coordinator/token_pool.h"

enum { PREFIX_NONE = -1, PREFIX_RESERVED = -2, PREFIX_PAGE_TOKENS = TOKEN_BLOCK_TOKENS };

struct prefix_node {
    int32_t tokens[PREFIX_PAGE_TOKENS];
    uint64_t hash;
    int32_t page, parent; // parent PREFIX_NONE: the first page of a prompt
    int32_t depth;        // pages from the beginning to this one, at least 1
    int32_t holders;      // requests whose path goes through here
    int32_t children;
    int32_t checkpoint;     // after this page, PREFIX_NONE = none
    int32_t bucket_next;    // also the free list
    int32_t previous, next; // among leaves that nobody holds, least recently used first
    uint64_t used;          // count of uses when it was used last
};

struct prefix_checkpoint {
    int32_t node;           // PREFIX_NONE = free, PREFIX_RESERVED = in a request's hands
    uint64_t saved_step;    // what later steps can copy
    uint64_t busy_step;     // the last step that names it
    int32_t pins;           // hits whose copy no step has named yet
    int32_t previous, next; // least recently used first; next also the free list
};

struct prefix_list {
    int32_t first, last;
};

// Since the start; tokens of the prompts that were looked up, and of those that were found.
struct prefix_counts {
    uint64_t query_tokens, hit_tokens, queries, hits;
    uint64_t checkpoints_saved, checkpoints_evicted, pages_evicted;
};

struct prefix_cache {
    struct prefix_node *nodes;             // [nodes_max]
    struct prefix_checkpoint *checkpoints; // [checkpoints_max]
    int32_t *buckets;                      // [buckets_count] a power of two
    int32_t nodes_max, checkpoints_max, buckets_count;
    int32_t nodes_used, nodes_held; // held: by at least one request
    int32_t nodes_fresh;            // this node and all after it were never used
    int32_t nodes_free_first;
    int32_t checkpoints_used, checkpoints_reserved, checkpoints_free_first;
    struct prefix_list leaves, checkpoints_by_use;
    uint64_t key, uses;
    uint64_t hash_mask; // all ones; a test's way to collisions
    struct prefix_counts counts;
};

// Bytes of memory for so many, and an empty cache over such memory. No checkpoints: nothing is ever
// found. key: any secret number.
size_t prefix_cache_bytes(int32_t nodes, int32_t checkpoints);
void prefix_cache_init(struct prefix_cache *cache, void *memory, int32_t nodes, int32_t checkpoints,
                       uint64_t key);

// A text: tokens of a chain, whose blocks are pages.
struct prefix_text {
    const struct token_pool *pool;
    const struct token_chain *chain;
};

struct prefix_hit {
    int32_t position;   // where the longest usable checkpoint stands, 0 = none
    int32_t node;       // whose end that is, PREFIX_NONE = none
    int32_t checkpoint; // PREFIX_NONE = none
    int32_t known;      // tokens that are in the tree, checkpoint or not, a multiple of 64
};

// The longest checkpoint of the text at a position <= limit that step `step` can copy, that is, one
// saved by an earlier step.
struct prefix_hit prefix_cache_find(const struct prefix_cache *cache, struct prefix_text text,
                                    int32_t limit, uint64_t step);

// Takes a hit for a request whose text is tokens_count long: its path is held from now on, its
// checkpoint pinned, all is recently used. Writes the ids of its position / 64 pages and gives each
// one more holder. A hit at 0 only counts.
void prefix_cache_take(struct prefix_cache *cache, struct kv_pages *kv,
                       const struct prefix_hit *hit, int32_t tokens_count, int32_t *page_ids);

// The pinned checkpoint of a hit is copied by `step`; 0: it is not needed any more.
void prefix_cache_unpin(struct prefix_cache *cache, int32_t checkpoint, uint64_t step);

// A request that held the path to `node` holds it no more; PREFIX_NONE is the empty path. Pages of
// the path that are of no use to others are given back.
void prefix_cache_leave(struct prefix_cache *cache, struct kv_pages *kv, int32_t node);

// Whether a checkpoint can be saved now: steps up to step_done have been reported.
bool prefix_cache_can_save(const struct prefix_cache *cache, uint64_t step_done);

// Whether the text, whose beginning is the path to `node`, has a checkpoint at `position` already.
bool prefix_cache_has(const struct prefix_cache *cache, struct prefix_text text, int32_t node,
                      int32_t position);

// What prefix_cache_save needs to know.
struct prefix_save {
    struct prefix_text text;
    int32_t node;            // whose path the request holds
    int32_t position;        // a multiple of 64 beyond node's end
    const int32_t *page_ids; // of the request, from position 0
    uint64_t step;           // whose prefill row reaches position, or whose decode row began there
    uint64_t step_done;      // only prefix_cache_save reads it
};

// Puts the text up to `position` into the tree (with pages of the request where the tree has none;
// they get one more holder) and a checkpoint at its end, evicting the least recently used one when
// all are taken. Returns the checkpoint, and in *node the new end of the path that the request
// holds. PREFIX_NONE, and nothing changed, when none can be had or there is one at this place.
int32_t prefix_cache_save(struct prefix_cache *cache, struct kv_pages *kv,
                          const struct prefix_save *save, int32_t *node);

// Takes a checkpoint for a text that is not known yet, evicting the least recently used one when
// all are taken. PREFIX_NONE when none can be had.
int32_t prefix_cache_reserve(struct prefix_cache *cache, struct kv_pages *kv, uint64_t step_done);

// Step `step` may write this reserved checkpoint.
void prefix_cache_name(struct prefix_cache *cache, int32_t checkpoint, uint64_t step);

// A reserved checkpoint goes back; it is given out again after the last step that names it.
void prefix_cache_release(struct prefix_cache *cache, int32_t checkpoint);

// prefix_cache_save with a reserved checkpoint, which save->step wrote. False, and it is still
// reserved, when the path cannot be held or there is one at this place.
bool prefix_cache_fill(struct prefix_cache *cache, struct kv_pages *kv,
                       const struct prefix_save *save, int32_t checkpoint, int32_t *node);

// Pages that eviction would free if the path to `node` (or none) were held.
int32_t prefix_cache_evictable(const struct prefix_cache *cache, int32_t node);

// Gives pages back until at least `pages_free` are free or nothing is left to evict.
void prefix_cache_make_room(struct prefix_cache *cache, struct kv_pages *kv, int32_t pages_free);

// Named invariants, for tests: NULL when all hold. Walks everything.
const char *prefix_cache_check(const struct prefix_cache *cache, const struct kv_pages *kv);
