// SPDX-License-Identifier: Apache-2.0
// kv_pages.c -- a free list with owners.
#include "coordinator/kv_pages.h"

#include "parallel/base/status.h"
#include "parallel/memory_plan.h"

size_t kv_pages_bytes(int32_t pages)
{
    return (size_t)pages * 2 * sizeof(int32_t);
}

void kv_pages_init(struct kv_pages *kv, void *memory, int32_t pages)
{
    kv->pages = pages;
    kv->pages_free = pages;
    kv->next = (int32_t *)memory;
    kv->owner = kv->next + pages;
    kv->free_first = pages > 0 ? 0 : KV_PAGE_NONE;
    for (int32_t i = 0; i < pages; i++) {
        kv->next[i] = i + 1 < pages ? i + 1 : KV_PAGE_NONE;
        kv->owner[i] = KV_PAGE_NONE;
    }
}

int32_t kv_pages_take(struct kv_pages *kv, int32_t owner, int32_t count, int32_t *ids)
{
    ASSERT(count >= 1 && owner >= 0);
    if (count > kv->pages_free)
        return KV_PAGE_NONE;
    int32_t first = KV_PAGE_NONE;
    int32_t *link = &first;
    for (int32_t i = 0; i < count; i++) {
        int32_t page = kv->free_first;
        kv->free_first = kv->next[page];
        ASSERT(kv->owner[page] == KV_PAGE_NONE);
        kv->owner[page] = owner;
        ids[i] = page;
        *link = page;
        link = &kv->next[page];
    }
    *link = KV_PAGE_NONE;
    kv->pages_free -= count;
    return first;
}

void kv_pages_give_back(struct kv_pages *kv, int32_t first)
{
    while (first != KV_PAGE_NONE) {
        int32_t next = kv->next[first];
        ASSERT(kv->owner[first] != KV_PAGE_NONE);
        kv->owner[first] = KV_PAGE_NONE;
        kv->next[first] = kv->free_first;
        kv->free_first = first;
        kv->pages_free++;
        first = next;
    }
}

int32_t kv_pages_for_tokens(int32_t tokens)
{
    return (tokens + TOKENS_PER_PAGE - 1) / TOKENS_PER_PAGE;
}
