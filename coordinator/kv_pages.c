// SPDX-License-Identifier: Apache-2.0
// kv_pages.c -- a free list with counts of holders.
#include "coordinator/kv_pages.h"

#include "parallel/base/status.h"
#include "parallel/memory_plan.h"

size_t kv_pages_bytes(int32_t pages)
{
    return (size_t)pages * 3 * sizeof(int32_t);
}

void kv_pages_init(struct kv_pages *kv, void *memory, int32_t pages)
{
    kv->pages = pages;
    kv->pages_free = pages;
    kv->next = (int32_t *)memory;
    kv->holders = kv->next + pages;
    kv->counted = kv->holders + pages;
    kv->free_first = pages > 0 ? 0 : KV_PAGE_NONE;
    for (int32_t i = 0; i < pages; i++) {
        kv->next[i] = i + 1 < pages ? i + 1 : KV_PAGE_NONE;
        kv->holders[i] = 0;
    }
}

bool kv_pages_take(struct kv_pages *kv, int32_t count, int32_t *ids)
{
    ASSERT(count >= 0);
    if (count > kv->pages_free)
        return false;
    for (int32_t i = 0; i < count; i++) {
        int32_t page = kv->free_first;
        kv->free_first = kv->next[page];
        ASSERT(kv->holders[page] == 0);
        kv->holders[page] = 1;
        ids[i] = page;
    }
    kv->pages_free -= count;
    return true;
}

void kv_pages_share(struct kv_pages *kv, const int32_t *ids, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        ASSERT(ids[i] >= 0 && ids[i] < kv->pages && kv->holders[ids[i]] > 0);
        kv->holders[ids[i]]++;
    }
}

void kv_pages_give_back(struct kv_pages *kv, const int32_t *ids, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        ASSERT(ids[i] >= 0 && ids[i] < kv->pages && kv->holders[ids[i]] > 0);
        if (--kv->holders[ids[i]] > 0)
            continue;
        kv->next[ids[i]] = kv->free_first;
        kv->free_first = ids[i];
        kv->pages_free++;
    }
}

int32_t kv_pages_for_tokens(int32_t tokens)
{
    return (tokens + TOKENS_PER_PAGE - 1) / TOKENS_PER_PAGE;
}
