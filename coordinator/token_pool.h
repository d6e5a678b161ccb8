// SPDX-License-Identifier: Apache-2.0
// token_pool.h -- the tokens of all unfinished requests in one array sized at start: chains of
// fixed blocks. Memory is touched only once it is used, so a pool may be sized for the worst case.
// Pure: memory is given by the caller.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TOKEN_BLOCK_TOKENS = 64, TOKEN_BLOCK_NONE = -1 };

struct token_pool {
    int32_t *tokens; // [blocks, TOKEN_BLOCK_TOKENS]
    int32_t *next;   // [blocks] chain or free list, TOKEN_BLOCK_NONE at the end
    int32_t blocks, blocks_free;
    int32_t free_first; // given back before
    int32_t fresh;      // this block and all after it were never taken
};

// A sequence of tokens in the pool; zero tokens hold no block.
struct token_chain {
    int32_t first, last; // blocks
    int32_t tokens;
};

// Blocks that so many tokens hold.
int32_t token_pool_blocks(int64_t tokens);

// Bytes of memory for a pool of at least `tokens` tokens, and the pool itself over such memory.
size_t token_pool_bytes(int64_t tokens);
void token_pool_init(struct token_pool *pool, void *memory, int64_t tokens);

// Copies tokens into a new chain. False, and nothing taken, when the pool has too few free blocks.
bool token_pool_take(struct token_pool *pool, struct token_chain *out, const int32_t *tokens,
                     int32_t count);
// Copies tokens to the end of a chain. False, and nothing changed, when too few blocks are free.
bool token_pool_append(struct token_pool *pool, struct token_chain *chain, const int32_t *tokens,
                       int32_t count);
void token_pool_give_back(struct token_pool *pool, struct token_chain *chain);

// Copies chain[first .. first + count) to out; the range must lie inside the chain.
void token_pool_read(const struct token_pool *pool, const struct token_chain *chain, int32_t first,
                     int32_t count, int32_t *out);
