// SPDX-License-Identifier: Apache-2.0
// kv_pages_test.c -- a page has as many holders as took or shared it, whatever is given back.
#include "coordinator/kv_pages.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { PAGES = 50, OWNERS = 8 };

static void test_pages_for_tokens(void **state)
{
    (void)state;
    assert_int_equal(kv_pages_for_tokens(0), 0);
    assert_int_equal(kv_pages_for_tokens(1), 1);
    assert_int_equal(kv_pages_for_tokens(64), 1);
    assert_int_equal(kv_pages_for_tokens(65), 2);
    assert_int_equal(kv_pages_for_tokens(1 << 20), 1 << 14);
}

static void test_take_and_give_back(void **state)
{
    (void)state;
    struct kv_pages kv;
    int32_t ids[3] = {-9, -9, -9}, others[2] = {-9, -9};
    void *memory = malloc(kv_pages_bytes(3));
    kv_pages_init(&kv, memory, 3);
    assert_true(kv_pages_take(&kv, 2, ids));
    assert_int_not_equal(ids[0], ids[1]);
    assert_int_equal(ids[2], -9);
    assert_int_equal(kv.holders[ids[0]], 1);
    assert_int_equal(kv.holders[ids[1]], 1);
    assert_false(kv_pages_take(&kv, 2, others));
    assert_int_equal(kv.pages_free, 1); // nothing was taken
    assert_int_equal(others[0], -9);
    assert_true(kv_pages_take(&kv, 0, others));
    assert_int_equal(kv.pages_free, 1);
    kv_pages_give_back(&kv, ids, 2);
    kv_pages_give_back(&kv, ids, 0);
    assert_int_equal(kv.pages_free, 3);
    assert_true(kv_pages_take(&kv, 3, ids));
    assert_int_equal(kv.pages_free, 0);
    free(memory);
}

// A page is free when the last of its holders has given it back.
static void test_share(void **state)
{
    (void)state;
    struct kv_pages kv;
    int32_t ids[2], other;
    void *memory = malloc(kv_pages_bytes(2));
    kv_pages_init(&kv, memory, 2);
    assert_true(kv_pages_take(&kv, 2, ids));
    kv_pages_share(&kv, ids, 1);
    kv_pages_share(&kv, ids, 1);
    kv_pages_give_back(&kv, ids, 2);
    assert_int_equal(kv.holders[ids[0]], 2);
    assert_int_equal(kv.pages_free, 1); // the one that nobody shared
    assert_true(kv_pages_take(&kv, 1, &other));
    assert_int_equal(other, ids[1]);
    kv_pages_give_back(&kv, ids, 1);
    assert_false(kv_pages_take(&kv, 1, &other));
    kv_pages_give_back(&kv, ids, 1);
    assert_true(kv_pages_take(&kv, 1, &other));
    assert_int_equal(other, ids[0]);
    free(memory);
}

static void test_no_pages(void **state)
{
    (void)state;
    struct kv_pages kv;
    int32_t id;
    kv_pages_init(&kv, NULL, 0);
    assert_false(kv_pages_take(&kv, 1, &id));
}

static void check_holders(const struct kv_pages *kv, int32_t held[OWNERS][PAGES],
                          const int32_t counts[OWNERS])
{
    int32_t holders[PAGES] = {0}, used = 0;
    for (int o = 0; o < OWNERS; o++) {
        for (int i = 0; i < counts[o]; i++) {
            assert_in_range(held[o][i], 0, PAGES - 1);
            used += holders[held[o][i]]++ == 0;
        }
    }
    assert_memory_equal(kv->holders, holders, sizeof holders);
    assert_int_equal(kv->pages_free, PAGES - used);
}

static void test_churn(void **state)
{
    (void)state;
    struct kv_pages kv;
    void *memory = malloc(kv_pages_bytes(PAGES));
    int32_t held[OWNERS][PAGES], counts[OWNERS] = {0};
    int refused = 0, shared = 0;
    srand(3);
    kv_pages_init(&kv, memory, PAGES);
    for (int round = 0; round < 5000; round++) {
        int o = rand() % OWNERS, from = rand() % OWNERS;
        if (counts[o] > 0) {
            kv_pages_give_back(&kv, held[o], counts[o]);
            counts[o] = 0;
        } else if (counts[from] > 0 && rand() % 2 == 0) { // the beginning of another's
            counts[o] = 1 + rand() % counts[from];
            for (int i = 0; i < counts[o]; i++)
                held[o][i] = held[from][i];
            kv_pages_share(&kv, held[o], counts[o]);
            shared++;
        } else {
            int32_t count = 1 + rand() % 20;
            bool taken = kv_pages_take(&kv, count, held[o]);
            counts[o] = taken ? count : 0;
            refused += !taken;
        }
        check_holders(&kv, held, counts);
    }
    assert_true(refused > 0 && shared > 0);
    free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages_for_tokens),
        cmocka_unit_test(test_take_and_give_back),
        cmocka_unit_test(test_share),
        cmocka_unit_test(test_no_pages),
        cmocka_unit_test(test_churn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
