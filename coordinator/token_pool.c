// SPDX-License-Identifier: Apache-2.0
// token_pool.c -- a free list of blocks.
#include "coordinator/token_pool.h"

#include <string.h>

#include "parallel/base/status.h"

static int32_t blocks_for(int64_t tokens)
{
    return (int32_t)((tokens + TOKEN_BLOCK_TOKENS - 1) / TOKEN_BLOCK_TOKENS);
}

size_t token_pool_bytes(int64_t tokens)
{
    return (size_t)blocks_for(tokens) * (TOKEN_BLOCK_TOKENS + 1) * sizeof(int32_t);
}

void token_pool_init(struct token_pool *pool, void *memory, int64_t tokens)
{
    pool->blocks = blocks_for(tokens);
    pool->blocks_free = pool->blocks;
    pool->tokens = (int32_t *)memory;
    pool->next = pool->tokens + (size_t)pool->blocks * TOKEN_BLOCK_TOKENS;
    pool->free_first = pool->blocks > 0 ? 0 : TOKEN_BLOCK_NONE;
    for (int32_t i = 0; i < pool->blocks; i++)
        pool->next[i] = i + 1 < pool->blocks ? i + 1 : TOKEN_BLOCK_NONE;
}

bool token_pool_take(struct token_pool *pool, struct token_chain *out, const int32_t *tokens,
                     int32_t count)
{
    int32_t needed = blocks_for(count);
    if (needed > pool->blocks_free)
        return false;
    int32_t *link = &out->first;
    for (int32_t i = 0; i < needed; i++) {
        int32_t block = pool->free_first;
        int32_t first = i * TOKEN_BLOCK_TOKENS;
        int32_t n = count - first < TOKEN_BLOCK_TOKENS ? count - first : TOKEN_BLOCK_TOKENS;
        pool->free_first = pool->next[block];
        memcpy(pool->tokens + (size_t)block * TOKEN_BLOCK_TOKENS, tokens + first,
               (size_t)n * sizeof *tokens);
        *link = block;
        link = &pool->next[block];
    }
    *link = TOKEN_BLOCK_NONE;
    out->tokens = count;
    pool->blocks_free -= needed;
    return true;
}

void token_pool_give_back(struct token_pool *pool, struct token_chain *chain)
{
    int32_t block = chain->first;
    while (block != TOKEN_BLOCK_NONE) {
        int32_t next = pool->next[block];
        pool->next[block] = pool->free_first;
        pool->free_first = block;
        pool->blocks_free++;
        block = next;
    }
    *chain = (struct token_chain){.first = TOKEN_BLOCK_NONE, .tokens = 0};
}

void token_pool_read(const struct token_pool *pool, const struct token_chain *chain, int32_t first,
                     int32_t count, int32_t *out)
{
    ASSERT(first >= 0 && count >= 0 && first + count <= chain->tokens);
    int32_t block = chain->first;
    for (int32_t skipped = TOKEN_BLOCK_TOKENS; skipped <= first; skipped += TOKEN_BLOCK_TOKENS)
        block = pool->next[block];
    int32_t at = first % TOKEN_BLOCK_TOKENS;
    while (count > 0) {
        int32_t n = TOKEN_BLOCK_TOKENS - at < count ? TOKEN_BLOCK_TOKENS - at : count;
        memcpy(out, pool->tokens + (size_t)block * TOKEN_BLOCK_TOKENS + at,
               (size_t)n * sizeof *out);
        out += n;
        count -= n;
        at = 0;
        block = pool->next[block];
    }
}
