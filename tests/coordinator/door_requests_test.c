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

// A request of several answers: its id finds the first place, its end gives all back.
static void answers_of_a_request_stay_together(void **state)
{
    struct door_requests requests;
    struct socket_peer a = peer_of(1);
    const struct usage usage = {.prompt_tokens = 7, .completion_tokens = 3, .target_steps = 3};
    (void)state;
    assert_int_equal(door_requests_open(&requests, 4, 5, NULL), OK);
    struct door_request *first = door_requests_take(&requests, &a, "x");
    struct door_request *second = door_requests_add(&requests, first);
    struct door_request *third = door_requests_add(&requests, first);
    assert_true(second->index == 1 && third->index == 2 && first->left == 3);
    assert_true(second->number != first->number && second->first == first);
    assert_ptr_equal(door_requests_by_id(&requests, &a, "x"), first);
    assert_ptr_equal(door_requests_by_number(&requests, third->number), third);
    door_requests_end(second, "stop", &usage);
    door_requests_end(first, "length", &usage);
    assert_int_equal(first->left, 1);
    assert_string_equal(first->finish_reason, "length");
    door_requests_end(third, "stop", &usage);
    assert_int_equal(first->left, 0);
    assert_int_equal(first->usage.prompt_tokens, 7); // one prompt
    assert_int_equal(first->usage.completion_tokens, 9);
    struct door_request *other = door_requests_take(&requests, &a, "y");
    assert_null(door_requests_add(&requests, other)); // bounded
    door_requests_give_back(&requests, second);
    assert_int_equal(requests.free_count, 3);
    assert_null(door_requests_by_id(&requests, &a, "x"));
    assert_null(door_requests_by_number(&requests, third->number));
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
        cmocka_unit_test(answers_of_a_request_stay_together),
        cmocka_unit_test(numbers_of_nobody_are_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
