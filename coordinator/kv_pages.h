// SPDX-License-Identifier: Apache-2.0
// kv_pages.h -- which KV page belongs to whom: a free list, and a chain per owner. One per group.
// Pure: memory is given by the caller.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KV_PAGE_NONE = -1 };

struct kv_pages {
    int32_t *next;  // [pages] chain of its owner, or the free list
    int32_t *owner; // [pages] slot, KV_PAGE_NONE when free
    int32_t pages, pages_free;
    int32_t free_first;
};

// Bytes of memory that kv_pages_init needs for so many pages.
size_t kv_pages_bytes(int32_t pages);
// All pages free. memory is kv_pages_bytes long and stays the caller's.
void kv_pages_init(struct kv_pages *kv, void *memory, int32_t pages);

// Writes `count` page ids, now owned by slot `owner`, to ids and returns the first page of their
// chain. KV_PAGE_NONE, and nothing taken, when fewer are free. count >= 1.
int32_t kv_pages_take(struct kv_pages *kv, int32_t owner, int32_t count, int32_t *ids);

// Gives back a whole chain; KV_PAGE_NONE is an empty one.
void kv_pages_give_back(struct kv_pages *kv, int32_t first);

// Pages for `tokens` tokens.
int32_t kv_pages_for_tokens(int32_t tokens);
