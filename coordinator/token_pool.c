// SPDX-License-Identifier: Apache-2.0
// token_pool.c -- blocks that were given back, then blocks that were never taken.
#include "coordinator/token_pool.h"

#include <string.h>

#include "parallel/base/status.h"

int32_t token_pool_blocks(int64_t tokens)
{
    return (int32_t)((tokens + TOKEN_BLOCK_TOKENS - 1) / TOKEN_BLOCK_TOKENS);
}

size_t token_pool_bytes(int64_t tokens)
{
    return (size_t)token_pool_blocks(tokens) * (TOKEN_BLOCK_TOKENS + 1) * sizeof(int32_t);
}

void token_pool_init(struct token_pool *pool, void *memory, int64_t tokens)
{
    *pool = (struct token_pool){.tokens = (int32_t *)memory,
                                .blocks = token_pool_blocks(tokens),
                                .free_first = TOKEN_BLOCK_NONE};
    pool->blocks_free = pool->blocks;
    pool->next = pool->tokens + (size_t)pool->blocks * TOKEN_BLOCK_TOKENS;
}

static int32_t take_block(struct token_pool *pool)
{
    int32_t block = pool->free_first;
    if (block == TOKEN_BLOCK_NONE)
        block = pool->fresh++;
    else
        pool->free_first = pool->next[block];
    ASSERT(block < pool->blocks);
    pool->next[block] = TOKEN_BLOCK_NONE;
    pool->blocks_free--;
    return block;
}

bool token_pool_append(struct token_pool *pool, struct token_chain *chain, const int32_t *tokens,
                       int32_t count)
{
    int64_t grown = (int64_t)chain->tokens + count;
    if (token_pool_blocks(grown) - token_pool_blocks(chain->tokens) > pool->blocks_free)
        return false;
    while (count > 0) {
        int32_t at = chain->tokens % TOKEN_BLOCK_TOKENS;
        int32_t n = TOKEN_BLOCK_TOKENS - at < count ? TOKEN_BLOCK_TOKENS - at : count;
        if (at == 0) {
            int32_t block = take_block(pool);
            if (chain->tokens == 0)
                chain->first = block;
            else
                pool->next[chain->last] = block;
            chain->last = block;
        }
        memcpy(pool->tokens + (size_t)chain->last * TOKEN_BLOCK_TOKENS + at, tokens,
               (size_t)n * sizeof *tokens);
        chain->tokens += n;
        tokens += n;
        count -= n;
    }
    return true;
}

bool token_pool_take(struct token_pool *pool, struct token_chain *out, const int32_t *tokens,
                     int32_t count)
{
    struct token_chain chain = {.first = TOKEN_BLOCK_NONE, .last = TOKEN_BLOCK_NONE};
    if (!token_pool_append(pool, &chain, tokens, count))
        return false;
    *out = chain;
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
    *chain = (struct token_chain){.first = TOKEN_BLOCK_NONE, .last = TOKEN_BLOCK_NONE};
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
