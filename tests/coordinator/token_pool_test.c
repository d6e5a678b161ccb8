// SPDX-License-Identifier: Apache-2.0
// token_pool_test.c -- chains of blocks: what is taken is read back, what is given back is free,
// what does not fit takes nothing.
#include "coordinator/token_pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { CHAINS = 20, TOKENS_MAX = 700 };

static void open_pool(struct token_pool *pool, int64_t tokens)
{
    token_pool_init(pool, malloc(token_pool_bytes(tokens)), tokens);
}

static void test_sizes(void **state)
{
    (void)state;
    struct token_pool pool;
    open_pool(&pool, 1);
    assert_int_equal(pool.blocks, 1);
    free(pool.tokens);
    open_pool(&pool, 64);
    assert_int_equal(pool.blocks, 1);
    free(pool.tokens);
    open_pool(&pool, 65);
    assert_int_equal(pool.blocks, 2);
    assert_int_equal(pool.blocks_free, 2);
    free(pool.tokens);
    pool.free_first = 5;
    token_pool_init(&pool, NULL, 0);
    assert_int_equal(token_pool_blocks(0), 0);
    assert_int_equal(token_pool_blocks(64), 1);
    assert_int_equal(token_pool_blocks(65), 2);
    assert_int_equal(token_pool_bytes(0), 0);
    assert_int_equal(pool.free_first, TOKEN_BLOCK_NONE);
}

static void test_full(void **state)
{
    (void)state;
    struct token_pool pool;
    struct token_chain a, b, c = {.first = 33, .tokens = 44};
    int32_t tokens[200];
    for (int i = 0; i < 200; i++)
        tokens[i] = i;
    open_pool(&pool, 192);
    assert_true(token_pool_take(&pool, &a, tokens, 65));
    assert_int_equal(pool.blocks_free, 1);
    assert_false(token_pool_take(&pool, &c, tokens, 65));
    assert_int_equal(pool.blocks_free, 1); // nothing was taken
    assert_true(token_pool_take(&pool, &b, tokens + 100, 64));
    assert_int_equal(pool.blocks_free, 0);
    assert_false(token_pool_take(&pool, &c, tokens, 1));
    assert_true(token_pool_take(&pool, &c, tokens, 0)); // nothing needs nothing
    assert_int_equal(c.first, TOKEN_BLOCK_NONE);
    token_pool_give_back(&pool, &a);
    assert_int_equal(a.first, TOKEN_BLOCK_NONE);
    assert_int_equal(a.tokens, 0);
    assert_int_equal(pool.blocks_free, 2);
    token_pool_give_back(&pool, &a); // an empty chain holds nothing
    assert_int_equal(pool.blocks_free, 2);
    int32_t out[64];
    token_pool_read(&pool, &b, 0, 64, out);
    assert_memory_equal(out, tokens + 100, sizeof out);
    free(pool.tokens);
}

// Every range of a chain that spans blocks, with guards around the output.
static void test_read_ranges(void **state)
{
    (void)state;
    struct token_pool pool;
    struct token_chain first, chain;
    int32_t tokens[200], out[202];
    for (int i = 0; i < 200; i++)
        tokens[i] = 1000 + i;
    open_pool(&pool, 1024);
    assert_true(token_pool_take(&pool, &first, tokens, 100));
    assert_true(token_pool_take(&pool, &chain, tokens, 200));
    for (int from = 0; from <= 200; from++) {
        for (int count = 0; from + count <= 200; count++) {
            for (int i = 0; i < 202; i++)
                out[i] = -1;
            token_pool_read(&pool, &chain, from, count, out + 1);
            for (int i = 0; i < count; i++)
                assert_int_equal(out[1 + i], 1000 + from + i);
            assert_int_equal(out[0], -1);
            assert_int_equal(out[1 + count], -1);
        }
    }
    free(pool.tokens);
}

// A chain that grows by every count from every length reads back as if it had been taken at once.
static void test_append(void **state)
{
    (void)state;
    struct token_pool pool;
    int32_t tokens[200], out[200];
    for (int i = 0; i < 200; i++)
        tokens[i] = 7 * i;
    open_pool(&pool, 256);
    for (int first = 0; first <= 130; first++) {
        for (int count = 0; count <= 70; count++) {
            struct token_chain chain;
            assert_true(token_pool_take(&pool, &chain, tokens, first));
            assert_true(token_pool_append(&pool, &chain, tokens + first, count));
            assert_int_equal(chain.tokens, first + count);
            assert_int_equal(pool.blocks_free, 4 - token_pool_blocks(first + count));
            token_pool_read(&pool, &chain, 0, first + count, out);
            assert_memory_equal(out, tokens, (size_t)(first + count) * sizeof out[0]);
            token_pool_give_back(&pool, &chain);
            assert_int_equal(pool.blocks_free, 4);
        }
    }
    struct token_chain a, b;
    assert_true(token_pool_take(&pool, &a, tokens, 130)); // three blocks
    assert_true(token_pool_take(&pool, &b, tokens, 64));
    assert_true(token_pool_append(&pool, &a, tokens, 62)); // to the end of its last
    assert_false(token_pool_append(&pool, &a, tokens, 1));
    assert_int_equal(a.tokens, 192);
    token_pool_give_back(&pool, &b);
    assert_true(token_pool_append(&pool, &a, tokens, 64));
    assert_int_equal(pool.blocks_free, 0);
    free(pool.tokens);
}

// Chains come and go in any order; each holds what it was given.
static void test_churn(void **state)
{
    (void)state;
    struct token_pool pool;
    struct token_chain chains[CHAINS] = {0};
    int32_t tokens[TOKENS_MAX], out[TOKENS_MAX], blocks = 0;
    int refused = 0;
    srand(17);
    open_pool(&pool, 4000);
    for (int i = 0; i < CHAINS; i++)
        chains[i].first = TOKEN_BLOCK_NONE;
    for (int round = 0; round < 5000; round++) {
        int i = rand() % CHAINS;
        struct token_chain *chain = &chains[i];
        if (chain->tokens > 0) {
            token_pool_read(&pool, chain, 0, chain->tokens, out);
            for (int t = 0; t < chain->tokens; t++)
                assert_int_equal(out[t], i * 10000 + t);
            blocks -= (chain->tokens + 63) / 64;
            token_pool_give_back(&pool, chain);
        } else {
            int count = 1 + rand() % TOKENS_MAX;
            for (int t = 0; t < count; t++)
                tokens[t] = i * 10000 + t;
            bool fits = (count + 63) / 64 <= pool.blocks - blocks;
            assert_int_equal(token_pool_take(&pool, chain, tokens, count), fits);
            blocks += fits ? (count + 63) / 64 : 0;
            refused += !fits;
        }
        assert_int_equal(pool.blocks_free, pool.blocks - blocks);
    }
    assert_true(refused > 0);
    free(pool.tokens);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),       cmocka_unit_test(test_full),
        cmocka_unit_test(test_read_ranges), cmocka_unit_test(test_append),
        cmocka_unit_test(test_churn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
