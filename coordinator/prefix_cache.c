// SPDX-License-Identifier: Apache-2.0
// prefix_cache.c -- a tree in a hash table, and two lists in order of use. Every leaf that nobody
// holds has a checkpoint: what loses its last use is let go at once (settle).
#include "coordinator/prefix_cache.h"

#include <string.h>

#include "parallel/base/status.h"

static size_t align_up(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static int32_t buckets_for(int32_t nodes)
{
    int32_t buckets = 16;
    while (buckets < nodes)
        buckets *= 2;
    return buckets;
}

size_t prefix_cache_bytes(int32_t nodes, int32_t checkpoints)
{
    return align_up((size_t)nodes * sizeof(struct prefix_node)) +
           align_up((size_t)checkpoints * sizeof(struct prefix_checkpoint)) +
           align_up((size_t)buckets_for(nodes) * sizeof(int32_t));
}

void prefix_cache_init(struct prefix_cache *cache, void *memory, int32_t nodes, int32_t checkpoints,
                       uint64_t key)
{
    uint8_t *at = (uint8_t *)memory;
    *cache = (struct prefix_cache){
        .nodes = (struct prefix_node *)(void *)at,
        .nodes_max = nodes,
        .checkpoints_max = checkpoints,
        .buckets_count = buckets_for(nodes),
        .nodes_free_first = PREFIX_NONE,
        .checkpoints_free_first = checkpoints > 0 ? 0 : PREFIX_NONE,
        .leaves = {PREFIX_NONE, PREFIX_NONE},
        .checkpoints_by_use = {PREFIX_NONE, PREFIX_NONE},
        .key = key,
        .hash_mask = UINT64_MAX,
    };
    at += align_up((size_t)nodes * sizeof(struct prefix_node));
    cache->checkpoints = (struct prefix_checkpoint *)(void *)at;
    at += align_up((size_t)checkpoints * sizeof(struct prefix_checkpoint));
    cache->buckets = (int32_t *)(void *)at;
    for (int32_t i = 0; i < checkpoints; i++) {
        cache->checkpoints[i] = (struct prefix_checkpoint){
            .node = PREFIX_NONE, .next = i + 1 < checkpoints ? i + 1 : PREFIX_NONE};
    }
    for (int32_t i = 0; i < cache->buckets_count; i++)
        cache->buckets[i] = PREFIX_NONE;
}

// ---- lists in order of use ----

// Where its last use says: at the end, but for a node whose children have just been evicted.
static void leaf_insert(struct prefix_cache *cache, int32_t index)
{
    struct prefix_node *node = &cache->nodes[index];
    node->previous = cache->leaves.last;
    while (node->previous != PREFIX_NONE && cache->nodes[node->previous].used > node->used)
        node->previous = cache->nodes[node->previous].previous;
    int32_t *link =
        node->previous == PREFIX_NONE ? &cache->leaves.first : &cache->nodes[node->previous].next;
    node->next = *link;
    *link = index;
    *(node->next == PREFIX_NONE ? &cache->leaves.last : &cache->nodes[node->next].previous) = index;
}

static void leaf_remove(struct prefix_cache *cache, int32_t index)
{
    const struct prefix_node *node = &cache->nodes[index];
    *(node->previous == PREFIX_NONE ? &cache->leaves.first : &cache->nodes[node->previous].next) =
        node->next;
    *(node->next == PREFIX_NONE ? &cache->leaves.last : &cache->nodes[node->next].previous) =
        node->previous;
}

static void use_append(struct prefix_cache *cache, int32_t index)
{
    struct prefix_checkpoint *checkpoint = &cache->checkpoints[index];
    struct prefix_list *list = &cache->checkpoints_by_use;
    checkpoint->previous = list->last;
    checkpoint->next = PREFIX_NONE;
    *(list->last == PREFIX_NONE ? &list->first : &cache->checkpoints[list->last].next) = index;
    list->last = index;
}

static void use_remove(struct prefix_cache *cache, int32_t index)
{
    const struct prefix_checkpoint *checkpoint = &cache->checkpoints[index];
    struct prefix_list *list = &cache->checkpoints_by_use;
    *(checkpoint->previous == PREFIX_NONE ? &list->first
                                          : &cache->checkpoints[checkpoint->previous].next) =
        checkpoint->next;
    *(checkpoint->next == PREFIX_NONE ? &list->last
                                      : &cache->checkpoints[checkpoint->next].previous) =
        checkpoint->previous;
}

// ---- nodes ----

static bool is_loose_leaf(const struct prefix_node *node)
{
    return node->holders == 0 && node->children == 0;
}

static uint64_t hash_page(const struct prefix_cache *cache, uint64_t parent_hash,
                          const int32_t *tokens)
{
    uint64_t hash = cache->key ^ parent_hash;
    for (int i = 0; i < PREFIX_PAGE_TOKENS; i++) {
        hash = (hash ^ (uint32_t)tokens[i]) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 29;
    }
    return hash & cache->hash_mask;
}

static int32_t *bucket_of(const struct prefix_cache *cache, uint64_t hash)
{
    return &cache->buckets[hash & (uint64_t)(cache->buckets_count - 1)];
}

// The child of `parent` with these tokens, PREFIX_NONE when there is none.
static int32_t find_child(const struct prefix_cache *cache, int32_t parent, const int32_t *tokens)
{
    uint64_t hash = hash_page(cache, parent == PREFIX_NONE ? 0 : cache->nodes[parent].hash, tokens);
    int32_t index = *bucket_of(cache, hash);
    while (index != PREFIX_NONE) {
        const struct prefix_node *node = &cache->nodes[index];
#ifdef PLANT_prefix_hash_only
        if (node->hash == hash)
            break;
#else
        if (node->hash == hash && node->parent == parent &&
            memcmp(node->tokens, tokens, sizeof node->tokens) == 0)
            break;
#endif
        index = node->bucket_next;
    }
    return index;
}

static void unlink_bucket(struct prefix_cache *cache, int32_t index)
{
    int32_t *link = bucket_of(cache, cache->nodes[index].hash);
    while (*link != index)
        link = &cache->nodes[*link].bucket_next;
    *link = cache->nodes[index].bucket_next;
}

static void to_free_list(struct prefix_cache *cache, int32_t index)
{
    cache->checkpoints[index].node = PREFIX_NONE;
    cache->checkpoints[index].next = cache->checkpoints_free_first;
    cache->checkpoints_free_first = index;
}

static void free_checkpoint(struct prefix_cache *cache, int32_t index)
{
    use_remove(cache, index);
    cache->nodes[cache->checkpoints[index].node].checkpoint = PREFIX_NONE;
    to_free_list(cache, index);
    cache->checkpoints_used--;
}

// Lets go of a leaf that nobody holds and that has no checkpoint.
static void free_node(struct prefix_cache *cache, struct kv_pages *kv, int32_t index)
{
    struct prefix_node *node = &cache->nodes[index];
    ASSERT(is_loose_leaf(node) && node->checkpoint == PREFIX_NONE);
    unlink_bucket(cache, index);
    kv_pages_give_back(kv, &node->page, 1);
    if (node->parent != PREFIX_NONE)
        cache->nodes[node->parent].children--;
    node->page = KV_PAGE_NONE;
    node->bucket_next = cache->nodes_free_first;
    cache->nodes_free_first = index;
    cache->nodes_used--;
}

// After a node lost a holder, a child or its checkpoint: it and its ancestors go as far as they are
// of no use any more; the first that is of use and can be evicted becomes a leaf.
static void settle(struct prefix_cache *cache, struct kv_pages *kv, int32_t index)
{
    while (index != PREFIX_NONE && is_loose_leaf(&cache->nodes[index])) {
        int32_t parent = cache->nodes[index].parent;
        if (cache->nodes[index].checkpoint != PREFIX_NONE) {
            leaf_insert(cache, index);
            return;
        }
        free_node(cache, kv, index);
        cache->counts.pages_evicted++;
        index = parent;
    }
}

// One more request goes through this node.
static void hold(struct prefix_cache *cache, int32_t index)
{
    struct prefix_node *node = &cache->nodes[index];
    if (is_loose_leaf(node))
        leaf_remove(cache, index);
    cache->nodes_held += node->holders == 0;
    node->holders++;
}

void prefix_cache_leave(struct prefix_cache *cache, struct kv_pages *kv, int32_t node)
{
    for (int32_t i = node; i != PREFIX_NONE; i = cache->nodes[i].parent) {
        struct prefix_node *held = &cache->nodes[i];
        ASSERT(held->holders > 0);
        held->holders--;
        cache->nodes_held -= held->holders == 0;
        held->used = ++cache->uses;
    }
    settle(cache, kv, node);
}

// ---- looking up ----

// The tokens of a page of the text, and the block after it.
static const int32_t *page_tokens(struct prefix_text text, int32_t block)
{
    return text.pool->tokens + (size_t)block * TOKEN_BLOCK_TOKENS;
}

// The block of the text that follows the path to `node`.
static int32_t block_after(const struct prefix_cache *cache, struct prefix_text text, int32_t node)
{
    int32_t block = text.chain->first;
    for (int32_t i = node == PREFIX_NONE ? 0 : cache->nodes[node].depth; i > 0; i--)
        block = text.pool->next[block];
    return block;
}

struct prefix_hit prefix_cache_find(const struct prefix_cache *cache, struct prefix_text text,
                                    int32_t limit, uint64_t step)
{
    struct prefix_hit hit = {.node = PREFIX_NONE, .checkpoint = PREFIX_NONE};
    int32_t node = PREFIX_NONE, block = text.chain->first;
    ASSERT(limit <= text.chain->tokens);
    if (cache->nodes_used == 0)
        return hit;
    for (int32_t end = PREFIX_PAGE_TOKENS; end <= limit; end += PREFIX_PAGE_TOKENS) {
        node = find_child(cache, node, page_tokens(text, block));
        if (node == PREFIX_NONE)
            break;
        hit.known = end;
        int32_t checkpoint = cache->nodes[node].checkpoint;
        if (checkpoint != PREFIX_NONE && cache->checkpoints[checkpoint].saved_step < step) {
            hit.position = end;
            hit.node = node;
            hit.checkpoint = checkpoint;
        }
        block = text.pool->next[block];
    }
    return hit;
}

void prefix_cache_take(struct prefix_cache *cache, struct kv_pages *kv,
                       const struct prefix_hit *hit, int32_t tokens_count, int32_t *page_ids)
{
    cache->counts.queries++;
    cache->counts.query_tokens += (uint64_t)tokens_count;
    if (hit->node == PREFIX_NONE)
        return;
    cache->counts.hits++;
    cache->counts.hit_tokens += (uint64_t)hit->position;
    cache->checkpoints[hit->checkpoint].pins++;
    use_remove(cache, hit->checkpoint);
    use_append(cache, hit->checkpoint);
    for (int32_t i = hit->node; i != PREFIX_NONE; i = cache->nodes[i].parent) {
        page_ids[cache->nodes[i].depth - 1] = cache->nodes[i].page;
        hold(cache, i);
        cache->nodes[i].used = ++cache->uses;
    }
    kv_pages_share(kv, page_ids, hit->position / PREFIX_PAGE_TOKENS);
}

void prefix_cache_unpin(struct prefix_cache *cache, int32_t checkpoint, uint64_t step)
{
    struct prefix_checkpoint *pinned = &cache->checkpoints[checkpoint];
    ASSERT(pinned->pins > 0);
    pinned->pins--;
    pinned->busy_step = step > pinned->busy_step ? step : pinned->busy_step;
}

bool prefix_cache_has(const struct prefix_cache *cache, struct prefix_text text, int32_t node,
                      int32_t position)
{
    int32_t block = block_after(cache, text, node);
    int32_t depth = node == PREFIX_NONE ? 0 : cache->nodes[node].depth;
    for (; depth < position / PREFIX_PAGE_TOKENS; depth++) {
        node = find_child(cache, node, page_tokens(text, block));
        if (node == PREFIX_NONE)
            return false;
        block = text.pool->next[block];
    }
    return node != PREFIX_NONE && cache->nodes[node].checkpoint != PREFIX_NONE;
}

// ---- saving ----

// Whether somebody may still read or write it: it is named by a step in flight, or will be.
static bool is_busy(const struct prefix_checkpoint *checkpoint, uint64_t step_done)
{
#ifdef PLANT_checkpoint_in_flight
    step_done = UINT64_MAX;
#endif
    return checkpoint->pins > 0 || checkpoint->busy_step > step_done;
}

// A checkpoint that is not busy: a free one, else the least recently used.
static int32_t checkpoint_at_rest(const struct prefix_cache *cache, uint64_t step_done)
{
    int32_t index = cache->checkpoints_free_first;
    while (index != PREFIX_NONE && is_busy(&cache->checkpoints[index], step_done))
        index = cache->checkpoints[index].next;
    if (index != PREFIX_NONE)
        return index;
    index = cache->checkpoints_by_use.first;
    while (index != PREFIX_NONE && is_busy(&cache->checkpoints[index], step_done))
        index = cache->checkpoints[index].next;
    return index;
}

bool prefix_cache_can_save(const struct prefix_cache *cache, uint64_t step_done)
{
    return checkpoint_at_rest(cache, step_done) != PREFIX_NONE;
}

static void evict_leaf(struct prefix_cache *cache, struct kv_pages *kv)
{
    int32_t index = cache->leaves.first;
    leaf_remove(cache, index);
    free_checkpoint(cache, cache->nodes[index].checkpoint);
    cache->counts.checkpoints_evicted++;
    settle(cache, kv, index);
}

static void evict_checkpoint(struct prefix_cache *cache, struct kv_pages *kv, int32_t index)
{
    int32_t node = cache->checkpoints[index].node;
    if (is_loose_leaf(&cache->nodes[node]))
        leaf_remove(cache, node);
    free_checkpoint(cache, index);
    cache->counts.checkpoints_evicted++;
    settle(cache, kv, node);
}

int32_t prefix_cache_reserve(struct prefix_cache *cache, struct kv_pages *kv, uint64_t step_done)
{
    int32_t index = checkpoint_at_rest(cache, step_done);
    if (index == PREFIX_NONE)
        return PREFIX_NONE;
    if (cache->checkpoints[index].node != PREFIX_NONE)
        evict_checkpoint(cache, kv, index);
    int32_t *link = &cache->checkpoints_free_first;
    while (*link != index)
        link = &cache->checkpoints[*link].next;
    *link = cache->checkpoints[index].next;
    cache->checkpoints[index].node = PREFIX_RESERVED;
    cache->checkpoints_reserved++;
    return index;
}

void prefix_cache_name(struct prefix_cache *cache, int32_t checkpoint, uint64_t step)
{
    ASSERT(cache->checkpoints[checkpoint].node == PREFIX_RESERVED);
    cache->checkpoints[checkpoint].busy_step = step;
}

void prefix_cache_release(struct prefix_cache *cache, int32_t checkpoint)
{
    ASSERT(cache->checkpoints[checkpoint].node == PREFIX_RESERVED);
    to_free_list(cache, checkpoint);
    cache->checkpoints_reserved--;
}

// A new child, held once. There must be a node free or never used.
static int32_t add_child(struct prefix_cache *cache, int32_t parent, const int32_t *tokens,
                         int32_t page)
{
    int32_t index = cache->nodes_free_first;
    if (index != PREFIX_NONE)
        cache->nodes_free_first = cache->nodes[index].bucket_next;
    else
        index = cache->nodes_fresh++;
    struct prefix_node *node = &cache->nodes[index];
    uint64_t parent_hash = parent == PREFIX_NONE ? 0 : cache->nodes[parent].hash;
    uint64_t hash = hash_page(cache, parent_hash, tokens);
    int32_t *bucket = bucket_of(cache, hash);
    *node = (struct prefix_node){
        .hash = hash,
        .page = page,
        .parent = parent,
        .depth = parent == PREFIX_NONE ? 1 : cache->nodes[parent].depth + 1,
        .holders = 1,
        .checkpoint = PREFIX_NONE,
        .bucket_next = *bucket,
        .used = ++cache->uses,
    };
    memcpy(node->tokens, tokens, sizeof node->tokens);
    *bucket = index;
    if (parent != PREFIX_NONE)
        cache->nodes[parent].children++;
    cache->nodes_used++;
    cache->nodes_held++;
    return index;
}

// Nodes from the path to save->node on that are not there yet, or that nobody holds.
static int32_t nodes_to_hold(const struct prefix_cache *cache, const struct prefix_save *save)
{
    int32_t node = save->node, held = 0;
    int32_t block = block_after(cache, save->text, node);
    int32_t first = node == PREFIX_NONE ? 0 : cache->nodes[node].depth;
    int32_t pages = save->position / PREFIX_PAGE_TOKENS;
    for (int32_t depth = first; depth < pages; depth++) {
        node = find_child(cache, node, page_tokens(save->text, block));
        if (node == PREFIX_NONE)
            break;
        held += cache->nodes[node].holders > 0;
        block = save->text.pool->next[block];
    }
    return pages - first - held;
}

// Whether a checkpoint may stand there.
static bool has_room(const struct prefix_cache *cache, const struct prefix_save *save)
{
    ASSERT(save->position % PREFIX_PAGE_TOKENS == 0 && save->position <= save->text.chain->tokens);
    return !prefix_cache_has(cache, save->text, save->node, save->position) &&
           nodes_to_hold(cache, save) <= cache->nodes_max - cache->nodes_held;
}

// Holds the path to the place, with new nodes where there are none; returns its end.
static int32_t hold_path(struct prefix_cache *cache, struct kv_pages *kv,
                         const struct prefix_save *save)
{
    int32_t pages = save->position / PREFIX_PAGE_TOKENS, at = save->node;
    int32_t block = block_after(cache, save->text, at);
    for (int32_t depth = at == PREFIX_NONE ? 0 : cache->nodes[at].depth; depth < pages; depth++) {
        const int32_t *tokens = page_tokens(save->text, block);
        int32_t child = find_child(cache, at, tokens);
        if (child == PREFIX_NONE) {
            if (cache->nodes_used == cache->nodes_max)
                evict_leaf(cache, kv);
            child = add_child(cache, at, tokens, save->page_ids[depth]);
            kv_pages_share(kv, &save->page_ids[depth], 1);
        } else {
            hold(cache, child);
        }
        at = child;
        block = save->text.pool->next[block];
    }
    return at;
}

bool prefix_cache_fill(struct prefix_cache *cache, struct kv_pages *kv,
                       const struct prefix_save *save, int32_t checkpoint, int32_t *node)
{
    struct prefix_checkpoint *filled = &cache->checkpoints[checkpoint];
    ASSERT(filled->node == PREFIX_RESERVED && filled->busy_step >= save->step);
    if (!has_room(cache, save))
        return false;
    int32_t at = hold_path(cache, kv, save);
    filled->node = at;
    filled->saved_step = save->step;
    filled->pins = 0;
    use_append(cache, checkpoint);
    cache->nodes[at].checkpoint = checkpoint;
    cache->checkpoints_reserved--;
    cache->checkpoints_used++;
    cache->counts.checkpoints_saved++;
    for (int32_t i = at; i != PREFIX_NONE; i = cache->nodes[i].parent)
        cache->nodes[i].used = ++cache->uses;
    *node = at;
    return true;
}

int32_t prefix_cache_save(struct prefix_cache *cache, struct kv_pages *kv,
                          const struct prefix_save *save, int32_t *node)
{
    if (!has_room(cache, save))
        return PREFIX_NONE;
    int32_t checkpoint = prefix_cache_reserve(cache, kv, save->step_done);
    if (checkpoint == PREFIX_NONE)
        return PREFIX_NONE;
    prefix_cache_name(cache, checkpoint, save->step);
    bool filled = prefix_cache_fill(cache, kv, save, checkpoint, node);
    ASSERT(filled); // evicting one makes no less room
    return checkpoint;
}

// ---- room ----

int32_t prefix_cache_evictable(const struct prefix_cache *cache, int32_t node)
{
    int32_t evictable = cache->nodes_used - cache->nodes_held;
    for (; node != PREFIX_NONE && cache->nodes[node].holders == 0; node = cache->nodes[node].parent)
        evictable--;
    return evictable;
}

void prefix_cache_make_room(struct prefix_cache *cache, struct kv_pages *kv, int32_t pages_free)
{
    while (kv->pages_free < pages_free && cache->leaves.first != PREFIX_NONE)
        evict_leaf(cache, kv);
}

// ---- invariants ----

static const char *check_node(const struct prefix_cache *cache, const struct kv_pages *kv,
                              int32_t index)
{
    const struct prefix_node *node = &cache->nodes[index];
    const struct prefix_node *parent =
        node->parent == PREFIX_NONE ? NULL : &cache->nodes[node->parent];
    if (parent != NULL && (parent->page == KV_PAGE_NONE || parent->depth + 1 != node->depth))
        return "a cached page follows its parent";
    if (parent != NULL && parent->holders < node->holders)
        return "who holds a cached page holds what lies before it";
    if (parent != NULL && parent->used < node->used)
        return "a path is used as lately as its end";
    if (kv->holders[node->page] < 1 || (node->holders == 0 && kv->holders[node->page] != 1))
        return "a cached page that no request holds has one holder, the cache";
    if (is_loose_leaf(node) && node->checkpoint == PREFIX_NONE)
        return "a leaf that nobody holds has a checkpoint";
    if (find_child(cache, node->parent, node->tokens) != index)
        return "a cached page is found by its tokens";
    return NULL;
}

static const char *check_checkpoints(const struct prefix_cache *cache)
{
    int32_t used = 0, free_count = 0, reserved = 0;
    for (int32_t i = cache->checkpoints_by_use.first; i != PREFIX_NONE;
         i = cache->checkpoints[i].next) {
        int32_t node = cache->checkpoints[i].node;
        if (node == PREFIX_NONE || cache->nodes[node].checkpoint != i)
            return "a checkpoint in use stands at the end of a page";
        used++;
    }
    for (int32_t i = cache->checkpoints_free_first; i != PREFIX_NONE;
         i = cache->checkpoints[i].next) {
        if (cache->checkpoints[i].node != PREFIX_NONE || cache->checkpoints[i].pins != 0)
            return "a free checkpoint stands nowhere and nobody wants it";
        free_count++;
    }
    for (int32_t i = 0; i < cache->checkpoints_max; i++)
        reserved += cache->checkpoints[i].node == PREFIX_RESERVED;
    return used == cache->checkpoints_used && reserved == cache->checkpoints_reserved &&
                   used + reserved + free_count == cache->checkpoints_max
               ? NULL
               : "free checkpoints + used ones + reserved ones = all checkpoints";
}

const char *prefix_cache_check(const struct prefix_cache *cache, const struct kv_pages *kv)
{
    int32_t used = 0, held = 0, loose = 0, children = 0, roots = 0, with_children = 0;
    for (int32_t i = 0; i < cache->nodes_fresh; i++) {
        const struct prefix_node *node = &cache->nodes[i];
        if (node->page == KV_PAGE_NONE)
            continue;
        const char *broken = check_node(cache, kv, i);
        if (broken != NULL)
            return broken;
        used++;
        held += node->holders > 0;
        loose += is_loose_leaf(node);
        roots += node->parent == PREFIX_NONE;
        children += node->parent != PREFIX_NONE;
        with_children += node->children;
    }
    if (used != cache->nodes_used || held != cache->nodes_held || children != with_children ||
        roots + children != used)
        return "cached pages are counted right";
    for (int32_t i = cache->leaves.first; i != PREFIX_NONE; i = cache->nodes[i].next) {
        int32_t next = cache->nodes[i].next;
        if (next != PREFIX_NONE && cache->nodes[next].used < cache->nodes[i].used)
            return "leaves stand in order of use";
        loose--;
    }
    return loose == 0 ? check_checkpoints(cache) : "every leaf that nobody holds can be evicted";
}
