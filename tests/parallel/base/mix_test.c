// SPDX-License-Identifier: Apache-2.0
// mix_test.c -- the generator's known numbers, so that weights and seeds stay what they are.
#include "parallel/base/mix.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

// The first numbers of Vigna's splitmix64.c started at 1234567.
static void the_published_numbers(void **state)
{
    (void)state;
    static const uint64_t known[] = {
        6457827717110365317u, 3203168211198807973u,  9817491932198370423u,
        4593380528125082431u, 16408922859458223821u,
    };
    for (uint64_t i = 0; i < sizeof known / sizeof known[0]; i++)
        assert_true(mix_at(1234567, i + 1) == known[i]);
}

static void the_seed_itself(void **state)
{
    (void)state;
    assert_true(mix_at(0, 0) == 0);
    assert_true(mix_at(0x9E3779B97F4A7C15u, 0) == mix_at(0, 1));
    assert_true(mix_at(UINT64_MAX, 1) == mix_at(0x9E3779B97F4A7C14u, 0)); // it wraps
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_published_numbers),
        cmocka_unit_test(the_seed_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
