// SPDX-License-Identifier: Apache-2.0
// kv_pages_test.c -- a page has one owner or is free, whatever is taken and given back.
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
    int32_t ids[3] = {-9, -9, -9};
    void *memory = malloc(kv_pages_bytes(3));
    kv_pages_init(&kv, memory, 3);
    int32_t first = kv_pages_take(&kv, 5, 2, ids);
    assert_int_equal(first, ids[0]);
    assert_int_not_equal(ids[0], ids[1]);
    assert_int_equal(ids[2], -9);
    assert_int_equal(kv.owner[ids[0]], 5);
    assert_int_equal(kv.owner[ids[1]], 5);
    assert_int_equal(kv.next[ids[0]], ids[1]); // the chain, in order
    assert_int_equal(kv.next[ids[1]], KV_PAGE_NONE);
    int32_t none = kv_pages_take(&kv, 6, 2, ids);
    assert_int_equal(none, KV_PAGE_NONE);
    assert_int_equal(kv.pages_free, 1); // nothing was taken
    kv_pages_give_back(&kv, first);
    assert_int_equal(kv.pages_free, 3);
    kv_pages_give_back(&kv, KV_PAGE_NONE);
    assert_int_equal(kv.pages_free, 3);
    assert_int_not_equal(kv_pages_take(&kv, 0, 3, ids), KV_PAGE_NONE); // owner 0 is an owner
    assert_int_equal(kv.owner[ids[2]], 0);
    free(memory);
}

static void test_no_pages(void **state)
{
    (void)state;
    struct kv_pages kv;
    int32_t id;
    kv_pages_init(&kv, NULL, 0);
    assert_int_equal(kv_pages_take(&kv, 1, 1, &id), KV_PAGE_NONE);
}

static void check_owners(const struct kv_pages *kv, int32_t held[OWNERS][PAGES],
                         const int32_t counts[OWNERS])
{
    int32_t owners[PAGES], used = 0;
    for (int p = 0; p < PAGES; p++)
        owners[p] = KV_PAGE_NONE;
    for (int o = 0; o < OWNERS; o++) {
        for (int i = 0; i < counts[o]; i++) {
            assert_in_range(held[o][i], 0, PAGES - 1);
            assert_int_equal(owners[held[o][i]], KV_PAGE_NONE); // nobody else has it
            owners[held[o][i]] = o;
            used++;
        }
    }
    assert_memory_equal(kv->owner, owners, sizeof owners);
    assert_int_equal(kv->pages_free, PAGES - used);
}

static void test_churn(void **state)
{
    (void)state;
    struct kv_pages kv;
    void *memory = malloc(kv_pages_bytes(PAGES));
    int32_t held[OWNERS][PAGES], counts[OWNERS] = {0}, first[OWNERS];
    int refused = 0;
    srand(3);
    kv_pages_init(&kv, memory, PAGES);
    for (int round = 0; round < 5000; round++) {
        int o = rand() % OWNERS;
        if (counts[o] > 0) {
            kv_pages_give_back(&kv, first[o]);
            counts[o] = 0;
        } else {
            int32_t count = 1 + rand() % 20;
            first[o] = kv_pages_take(&kv, o, count, held[o]);
            counts[o] = first[o] == KV_PAGE_NONE ? 0 : count;
            refused += first[o] == KV_PAGE_NONE;
        }
        check_owners(&kv, held, counts);
    }
    assert_true(refused > 0);
    free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages_for_tokens),
        cmocka_unit_test(test_take_and_give_back),
        cmocka_unit_test(test_no_pages),
        cmocka_unit_test(test_churn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
