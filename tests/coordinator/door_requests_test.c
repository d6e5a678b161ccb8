// SPDX-License-Identifier: Apache-2.0
// door_requests_test.c -- the door's table: numbers that never come back, places that do, clients
// that use the same id.
#include "coordinator/door_requests.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct socket_peer peer_of(uint8_t byte)
{
    return (struct socket_peer){.bytes_count = 2, .bytes = {0, byte}};
}

static void a_place_is_taken_found_and_given_back(void **state)
{
    struct door_requests requests;
    struct socket_peer a = peer_of(1), b = peer_of(2);
    (void)state;
    assert_int_equal(door_requests_open(&requests, 3, 5, NULL), OK);
    struct door_request *first = door_requests_take(&requests, &a, "x");
    struct door_request *second = door_requests_take(&requests, &b, "x");
    struct door_request *third = door_requests_take(&requests, &a, "y");
    assert_true(first != NULL && second != NULL && third != NULL);
    assert_null(door_requests_take(&requests, &a, "z")); // bounded
    assert_ptr_equal(door_requests_by_id(&requests, &a, "x"), first);
    assert_ptr_equal(door_requests_by_id(&requests, &b, "x"), second);
    assert_null(door_requests_by_id(&requests, &b, "y"));
    assert_ptr_equal(door_requests_by_number(&requests, third->number), third);
    assert_int_equal(first->number >> 56, 5); // how the shell finds the door
    uint64_t old = second->number;
    door_requests_give_back(&requests, second);
    assert_null(door_requests_by_number(&requests, old));
    assert_null(door_requests_by_id(&requests, &b, "x"));
    struct door_request *again = door_requests_take(&requests, &b, "x");
    assert_ptr_equal(again, second);
    assert_true(again->number != old); // late news of the old one find nobody
    assert_null(door_requests_by_number(&requests, old));
    door_requests_close(&requests);
}

static void numbers_of_nobody_are_nobody(void **state)
{
    struct door_requests requests;
    (void)state;
    assert_int_equal(door_requests_open(&requests, 4, 0, NULL), OK);
    assert_null(door_requests_by_number(&requests, 0));
    assert_null(door_requests_by_number(&requests, 3));
    assert_null(door_requests_by_number(&requests, 4));
    assert_null(door_requests_by_number(&requests, UINT64_MAX));
    door_requests_close(&requests);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_place_is_taken_found_and_given_back),
        cmocka_unit_test(numbers_of_nobody_are_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
