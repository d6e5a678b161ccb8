// SPDX-License-Identifier: Apache-2.0
// requests_test.c -- the table finds every number that is in it and no other, whatever came and
// went before; lists keep their order.
#include "coordinator/requests.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CAPACITY = 40, NUMBERS = 200 };

static void open_table(struct requests *requests, int32_t capacity)
{
    size_t bytes = requests_bytes(capacity);
    void *memory = malloc(bytes);
    memset(memory, 0xA5, bytes);
    requests_init(requests, memory, capacity);
}

static void test_take_and_find(void **state)
{
    (void)state;
    struct requests requests;
    open_table(&requests, 2);
    assert_int_equal(requests_find(&requests, 5), REQUEST_NONE_INDEX);
    int32_t a = requests_take(&requests, 5);
    int32_t b = requests_take(&requests, 0); // a number like any other
    assert_int_not_equal(a, b);
    assert_int_equal(requests_find(&requests, 5), a);
    assert_int_equal(requests_find(&requests, 0), b);
    assert_int_equal(requests_take(&requests, 6), REQUEST_NONE_INDEX);
    assert_int_equal(requests.table[a].phase, PHASE_FREE);
    assert_int_equal(requests.table[a].tokens.first, TOKEN_BLOCK_NONE);
    requests_forget(&requests, a);
    assert_int_equal(requests_find(&requests, 5), REQUEST_NONE_INDEX);
    assert_int_equal(requests_take(&requests, 5), REQUEST_NONE_INDEX); // its place is still taken
    requests_forget(&requests, a);                                     // twice is once
    assert_int_equal(requests_find(&requests, 0), b);
    requests_give_back(&requests, a);
    assert_int_equal(requests_take(&requests, 5), a);
    assert_int_equal(requests_find(&requests, 5), a);
    free(requests.table);
}

// A number may be used again while its former owner still closes.
static void test_number_again(void **state)
{
    (void)state;
    struct requests requests;
    open_table(&requests, 4);
    int32_t old = requests_take(&requests, 9);
    requests_forget(&requests, old);
    int32_t new = requests_take(&requests, 9);
    assert_int_not_equal(old, new);
    assert_int_equal(requests_find(&requests, 9), new);
    requests_give_back(&requests, old); // must not take the new one's entry with it
    assert_int_equal(requests_find(&requests, 9), new);
    free(requests.table);
}

static void test_churn(void **state)
{
    (void)state;
    struct requests requests;
    int32_t index[NUMBERS];
    int used = 0, full = 0;
    srand(11);
    open_table(&requests, CAPACITY);
    for (int n = 0; n < NUMBERS; n++)
        index[n] = REQUEST_NONE_INDEX;
    for (int round = 0; round < 50000; round++) {
        int n = rand() % NUMBERS;
        // Doors count in the low bits and say who they are in the high ones.
        uint64_t number = (uint64_t)(n % 3) << 56 | (uint64_t)(n / 3);
        if (index[n] != REQUEST_NONE_INDEX) {
            requests_give_back(&requests, index[n]);
            index[n] = REQUEST_NONE_INDEX;
            used--;
        } else {
            index[n] = requests_take(&requests, number);
            assert_int_equal(index[n] == REQUEST_NONE_INDEX, used == CAPACITY);
            full += used == CAPACITY;
            used += index[n] != REQUEST_NONE_INDEX;
        }
        for (int k = 0; k < 3; k++) {
            int other = rand() % NUMBERS;
            uint64_t other_number = (uint64_t)(other % 3) << 56 | (uint64_t)(other / 3);
            assert_int_equal(requests_find(&requests, other_number), index[other]);
        }
    }
    assert_true(full > 0);
    free(requests.table);
}

static void check_list(const struct requests *requests, const struct request_list *list,
                       const int32_t *expected, int count)
{
    int32_t previous = REQUEST_NONE_INDEX, at = list->first;
    assert_int_equal(list->count, count);
    for (int i = 0; i < count; i++) {
        assert_int_equal(at, expected[i]);
        assert_int_equal(requests->table[at].previous, previous);
        previous = at;
        at = requests->table[at].next;
    }
    assert_int_equal(at, REQUEST_NONE_INDEX);
    assert_int_equal(list->last, previous);
}

static void test_lists(void **state)
{
    (void)state;
    struct requests requests;
    struct request_list other;
    int32_t r[4];
    open_table(&requests, 4);
    request_list_init(&other);
    check_list(&requests, &other, NULL, 0);
    for (uint64_t i = 0; i < 4; i++) {
        r[i] = requests_take(&requests, i);
        request_list_insert(&requests.queued, &requests, r[i]);
    }
    check_list(&requests, &requests.queued, r, 4);
    request_list_remove(&requests.queued, &requests, r[1]); // in the middle
    check_list(&requests, &requests.queued, (int32_t[]){r[0], r[2], r[3]}, 3);
    request_list_insert(&other, &requests, r[1]);
    check_list(&requests, &other, &r[1], 1);
    request_list_remove(&requests.queued, &requests, r[0]); // the first
    request_list_remove(&requests.queued, &requests, r[3]); // the last
    check_list(&requests, &requests.queued, &r[2], 1);
    request_list_insert(&requests.queued, &requests, r[0]);
    check_list(&requests, &requests.queued, (int32_t[]){r[2], r[0]}, 2);
    request_list_remove(&requests.queued, &requests, r[2]);
    request_list_remove(&requests.queued, &requests, r[0]);
    check_list(&requests, &requests.queued, NULL, 0);
    check_list(&requests, &other, &r[1], 1);
    free(requests.table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_take_and_find),
        cmocka_unit_test(test_number_again),
        cmocka_unit_test(test_churn),
        cmocka_unit_test(test_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
