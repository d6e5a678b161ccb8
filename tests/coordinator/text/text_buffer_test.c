// SPDX-License-Identifier: Apache-2.0
// text_buffer_test.c -- growth, and the limit at the very byte.
#include "coordinator/text/text_buffer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void appends_keep_what_was_there(void **state)
{
    (void)state;
    struct text_buffer buffer;
    text_buffer_init(&buffer, 100000);
    for (unsigned i = 0; i < 10000; i++) {
        const char byte = (char)(i * 7);
        assert_int_equal(text_buffer_append(&buffer, &byte, 1, NULL), OK);
    }
    assert_int_equal(buffer.count, 10000);
    for (unsigned i = 0; i < 10000; i++)
        assert_int_equal(buffer.bytes[i], (char)(i * 7));
    text_buffer_fini(&buffer);
}

static void the_limit_is_exact(void **state)
{
    (void)state;
    struct text_buffer buffer;
    struct error error;
    text_buffer_init(&buffer, 10);
    assert_int_equal(text_buffer_append_text(&buffer, "1234567890", &error), OK);
    assert_int_equal(text_buffer_append(&buffer, NULL, 0, &error), OK);
    assert_int_equal(text_buffer_append_text(&buffer, "x", &error), E_LIMIT);
    assert_non_null(strstr(error.text, "10 bytes"));
    assert_int_equal(buffer.count, 10);
    assert_int_equal(text_buffer_reserve(&buffer, SIZE_MAX, &error), E_LIMIT);
    buffer.count = 0;
    assert_int_equal(text_buffer_append_text(&buffer, "12345678901", &error), E_LIMIT);
    text_buffer_fini(&buffer);
}

static void arrays_grow_by_doubling_and_refuse_to_overflow(void **state)
{
    (void)state;
    size_t capacity = 0;
    uint32_t *items = text_buffer_grow_items(NULL, &capacity, 1, sizeof *items);
    assert_non_null(items);
    assert_true(capacity >= 1);
    const size_t before = capacity;
    items[before - 1] = 42;
    items = text_buffer_grow_items(items, &capacity, before + 1, sizeof *items);
    assert_non_null(items);
    assert_int_equal(capacity, 2 * before);
    assert_int_equal(items[before - 1], 42);
    assert_null(text_buffer_grow_items(items, &capacity, SIZE_MAX / 2, sizeof *items));
    assert_null(text_buffer_grow_items(items, &capacity, SIZE_MAX, sizeof *items));
    assert_int_equal(capacity, 2 * before);
    free(items);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appends_keep_what_was_there),
        cmocka_unit_test(the_limit_is_exact),
        cmocka_unit_test(arrays_grow_by_doubling_and_refuse_to_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
