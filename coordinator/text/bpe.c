// SPDX-License-Identifier: Apache-2.0
// bpe.c -- the merge table and two ways of merging with one result: a scan for short pieces, a heap
// for long ones; see bpe.h.
#include "coordinator/text/bpe.h"

#include <stdlib.h>
#include <string.h>

#include "coordinator/text/text_buffer.h"

// Words are shorter than this; the scan is quadratic, but in one or two cache lines.
enum { SCAN_BYTES_MAX = 48 };
static const uint32_t END = UINT32_MAX;   // no neighbour
static const uint32_t EMPTY = UINT32_MAX; // no merge in this slot

enum status bpe_init(struct bpe *bpe, size_t merges_max, struct error *error)
{
    *bpe = (struct bpe){0};
    size_t slots = 16;
    while (slots < 2 * merges_max)
        slots *= 2;
    bpe->merges = malloc(slots * sizeof *bpe->merges);
    if (bpe->merges == NULL || slots > UINT32_MAX)
        return error_set(error, E_SYSTEM, "out of memory for %zu merges", merges_max);
    memset(bpe->merges, 0xff, slots * sizeof *bpe->merges);
    bpe->merge_mask = (uint32_t)(slots - 1);
    return OK;
}

void bpe_fini(struct bpe *bpe)
{
    free(bpe->merges);
    *bpe = (struct bpe){0};
}

void bpe_scratch_fini(struct bpe_scratch *scratch)
{
    free(scratch->parts);
    free(scratch->heap);
    free(scratch->ids);
    *scratch = (struct bpe_scratch){0};
}

// The slot of a pair, or the empty one where it would go.
static struct bpe_merge *slot_of(const struct bpe *bpe, uint32_t left, uint32_t right)
{
    const uint64_t pair = (uint64_t)left << 32 | right;
    uint32_t at = (uint32_t)(pair * 0x9e3779b97f4a7c15u >> 32) & bpe->merge_mask;
    for (;; at = (at + 1) & bpe->merge_mask) {
        struct bpe_merge *merge = &bpe->merges[at];
        if (merge->left == EMPTY || (merge->left == left && merge->right == right))
            return merge;
    }
}

void bpe_add(struct bpe *bpe, struct bpe_merge merge)
{
    ASSERT(merge.left != EMPTY && merge.rank < BPE_NO_RANK);
    *slot_of(bpe, merge.left, merge.right) = merge;
}

const struct bpe_merge *bpe_find(const struct bpe *bpe, uint32_t left, uint32_t right)
{
    const struct bpe_merge *merge = slot_of(bpe, left, right);
    return merge->left == EMPTY ? NULL : merge;
}

static uint32_t rank_of(const struct bpe *bpe, uint32_t left, uint32_t right)
{
    const struct bpe_merge *merge = slot_of(bpe, left, right);
    return merge->left == EMPTY ? BPE_NO_RANK : merge->rank;
}

// Short pieces: find the least rank by looking at all, merge, close the gap, again.
static size_t encode_by_scan(const struct bpe *bpe, uint32_t *ids, const char *piece, size_t bytes)
{
    uint32_t ranks[SCAN_BYTES_MAX]; // of the merge of part i with part i + 1
    size_t count = bytes;
    for (size_t i = 0; i < bytes; i++)
        ids[i] = bpe->byte_ids[(uint8_t)piece[i]];
    for (size_t i = 0; i + 1 < count; i++)
        ranks[i] = rank_of(bpe, ids[i], ids[i + 1]);
    while (count > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < count; i++) {
            if (ranks[i] < ranks[best])
                best = i;
        }
        if (ranks[best] == BPE_NO_RANK)
            break;
        ids[best] = slot_of(bpe, ids[best], ids[best + 1])->id;
        count--;
        for (size_t i = best + 1; i < count; i++) {
            ids[i] = ids[i + 1];
            ranks[i - 1] = ranks[i];
        }
        if (best > 0)
            ranks[best - 1] = rank_of(bpe, ids[best - 1], ids[best]);
        if (best + 1 < count)
            ranks[best] = rank_of(bpe, ids[best], ids[best + 1]);
    }
    return count;
}

// Moves heap[at] down to where no child is smaller.
static void sift_down(uint64_t *heap, size_t count, size_t at)
{
    const uint64_t moving = heap[at];
    for (size_t child = 2 * at + 1; child < count; child = 2 * at + 1) {
        if (child + 1 < count && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= moving)
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moving;
}

static void sift_up(uint64_t *heap, size_t at)
{
    const uint64_t moving = heap[at];
    while (at > 0 && heap[(at - 1) / 2] > moving) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = moving;
}

// Sets parts[at].rank for its present neighbour and puts the merge, if there is one, on the heap.
// At most one entry a byte at the start and two a merge, so bytes * 3 entries in all.
static void offer(const struct bpe *bpe, struct bpe_scratch *scratch, size_t *heap_count,
                  uint32_t at)
{
    struct bpe_part *part = &scratch->parts[at];
    part->rank =
        part->after == END ? BPE_NO_RANK : rank_of(bpe, part->id, scratch->parts[part->after].id);
    if (part->rank == BPE_NO_RANK)
        return;
    scratch->heap[*heap_count] = (uint64_t)part->rank << 32 | at;
    sift_up(scratch->heap, (*heap_count)++);
}

// Every byte a part of its own, and the heap of all merges that apply at once.
static size_t lay_out(const struct bpe *bpe, struct bpe_scratch *scratch, const char *piece,
                      size_t bytes)
{
    struct bpe_part *parts = scratch->parts;
    size_t heap_count = 0;
    for (size_t i = 0; i < bytes; i++) {
        parts[i] = (struct bpe_part){
            .id = bpe->byte_ids[(uint8_t)piece[i]],
            .rank = BPE_NO_RANK,
            .before = i == 0 ? END : (uint32_t)(i - 1),
            .after = i + 1 == bytes ? END : (uint32_t)(i + 1),
        };
    }
    for (size_t i = 0; i + 1 < bytes; i++) {
        parts[i].rank = rank_of(bpe, parts[i].id, parts[i + 1].id);
        if (parts[i].rank != BPE_NO_RANK)
            scratch->heap[heap_count++] = (uint64_t)parts[i].rank << 32 | i;
    }
    for (size_t i = heap_count / 2; i-- > 0;)
        sift_down(scratch->heap, heap_count, i);
    return heap_count;
}

// Long pieces. A heap entry is stale, and dropped, when its left part is gone or has another
// neighbour by now: its rank is then no longer the part's. (A part that grew merges by a longer
// text, hence never by the same rank again.)
static size_t encode_by_heap(const struct bpe *bpe, struct bpe_scratch *scratch, const char *piece,
                             size_t bytes)
{
    struct bpe_part *parts = scratch->parts;
    uint64_t *heap = scratch->heap;
    size_t heap_count = lay_out(bpe, scratch, piece, bytes);
    while (heap_count > 0) {
        const uint32_t at = (uint32_t)heap[0], rank = (uint32_t)(heap[0] >> 32);
        heap[0] = heap[--heap_count];
        if (heap_count > 0)
            sift_down(heap, heap_count, 0);
        if (parts[at].rank != rank)
            continue;
        struct bpe_part *left = &parts[at], *right = &parts[left->after];
        left->id = slot_of(bpe, left->id, right->id)->id;
        left->after = right->after;
        right->rank = BPE_NO_RANK;
        if (left->after != END)
            parts[left->after].before = at;
        offer(bpe, scratch, &heap_count, at);
        if (left->before != END)
            offer(bpe, scratch, &heap_count, left->before);
    }
    size_t count = 0;
    for (uint32_t at = 0; at != END; at = parts[at].after)
        scratch->ids[count++] = parts[at].id;
    return count;
}

// Makes the scratch hold a piece of that many bytes.
static enum status make_room(struct bpe_scratch *scratch, size_t bytes, struct error *error)
{
    uint32_t *ids =
        text_buffer_grow_items(scratch->ids, &scratch->ids_capacity, bytes, sizeof *ids);
    if (ids == NULL)
        return error_set(error, E_SYSTEM, "out of memory for a piece of %zu bytes", bytes);
    scratch->ids = ids;
    if (bytes <= SCAN_BYTES_MAX)
        return OK;
    struct bpe_part *parts =
        text_buffer_grow_items(scratch->parts, &scratch->parts_capacity, bytes, sizeof *parts);
    if (parts != NULL)
        scratch->parts = parts;
    uint64_t *heap =
        text_buffer_grow_items(scratch->heap, &scratch->heap_capacity, 2 * bytes, sizeof *heap);
    if (heap != NULL)
        scratch->heap = heap;
    if (parts == NULL || heap == NULL)
        return error_set(error, E_SYSTEM, "out of memory for a piece of %zu bytes", bytes);
    return OK;
}

enum status bpe_encode(const struct bpe *bpe, struct bpe_scratch *scratch, const char *piece,
                       size_t bytes, size_t *count, struct error *error)
{
    ASSERT(bytes > 0 && bytes < END);
    TRY(make_room(scratch, bytes, error));
    *count = bytes <= SCAN_BYTES_MAX ? encode_by_scan(bpe, scratch->ids, piece, bytes)
                                     : encode_by_heap(bpe, scratch, piece, bytes);
    return OK;
}
