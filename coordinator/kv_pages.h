// SPDX-License-Identifier: Apache-2.0
// kv_pages.h -- which KV pages are in use, and by how many: a free list and a count per page. One
// per group. Who holds which page stands in the holders' own lists (a request's row of the block
// tables, a cache), so that a page may be held by several. Pure: memory is given by the caller.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KV_PAGE_NONE = -1 };

struct kv_pages {
    int32_t *next;    // [pages] the free list
    int32_t *holders; // [pages] 0 = free
    int32_t *counted; // [pages] scratch of whoever checks the holders (invariants.c)
    int32_t pages, pages_free;
    int32_t free_first;
};

// Bytes of memory that kv_pages_init needs for so many pages.
size_t kv_pages_bytes(int32_t pages);
// All pages free. memory is kv_pages_bytes long and stays the caller's.
void kv_pages_init(struct kv_pages *kv, void *memory, int32_t pages);

// Writes `count` free page ids, each now with one holder, to ids. False, and nothing taken, when
// fewer are free.
bool kv_pages_take(struct kv_pages *kv, int32_t count, int32_t *ids);

// One more holder of each of these pages, which must have one already.
void kv_pages_share(struct kv_pages *kv, const int32_t *ids, int32_t count);

// One holder less of each; a page without holders is free.
void kv_pages_give_back(struct kv_pages *kv, const int32_t *ids, int32_t count);

// Pages for `tokens` tokens.
int32_t kv_pages_for_tokens(int32_t tokens);
