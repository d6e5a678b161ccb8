// SPDX-License-Identifier: Apache-2.0
// vocabulary_test.c -- texts to ids and back through growth; what may not be added.
#include "coordinator/text/vocabulary.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static enum status add(struct vocabulary *vocabulary, const char *text, uint32_t id,
                       struct error *error)
{
    assert_int_equal(text_buffer_append_text(&vocabulary->texts, text, error), OK);
    return vocabulary_add_last(vocabulary, strlen(text), id, error);
}

static void every_text_is_found_after_growth(void **state)
{
    (void)state;
    struct vocabulary vocabulary;
    struct error error;
    char text[32];
    assert_int_equal(vocabulary_init(&vocabulary, 10, &error), OK);
    for (uint32_t i = 0; i < 20000; i++) { // far more than the ten expected
        snprintf(text, sizeof text, "token %u", i * 2654435761u);
        assert_int_equal(add(&vocabulary, text, 19999 - i, &error), OK);
    }
    assert_int_equal(vocabulary.count, 20000);
    assert_int_equal(vocabulary.id_end, 20000);
    for (uint32_t i = 0; i < 20000; i++) {
        uint32_t id;
        size_t bytes;
        snprintf(text, sizeof text, "token %u", i * 2654435761u);
        assert_true(vocabulary_find(&vocabulary, text, strlen(text), &id));
        assert_int_equal(id, 19999 - i);
        assert_memory_equal(vocabulary_text_of(&vocabulary, id, &bytes), text, strlen(text));
        assert_int_equal(bytes, strlen(text));
        assert_false(vocabulary_find(&vocabulary, text, strlen(text) - 1, &id) && id == 19999 - i);
    }
    vocabulary_fini(&vocabulary);
}

static void doubles_empty_texts_and_large_ids_are_refused(void **state)
{
    (void)state;
    struct vocabulary vocabulary;
    struct error error;
    size_t bytes;
    assert_int_equal(vocabulary_init(&vocabulary, 10, &error), OK);
    assert_int_equal(add(&vocabulary, "a", 5, &error), OK);
    assert_int_equal(add(&vocabulary, "a", 6, &error), E_INPUT);
    assert_string_equal(error.text, "the token \"a\" appears twice, as ids 5 and 6");
    assert_int_equal(add(&vocabulary, "b", 5, &error), E_INPUT);
    assert_string_equal(error.text, "two tokens have the id 5, the second is \"b\"");
    assert_int_equal(add(&vocabulary, "", 7, &error), E_INPUT);
    assert_int_equal(add(&vocabulary, "c", VOCABULARY_IDS_MAX, &error), E_LIMIT);
    assert_non_null(strstr(error.text, "1048575"));
    assert_null(vocabulary_text_of(&vocabulary, 4, &bytes));
    assert_null(vocabulary_text_of(&vocabulary, 6, &bytes));
    assert_int_equal(vocabulary.count, 1);
    vocabulary_fini(&vocabulary);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_text_is_found_after_growth),
        cmocka_unit_test(doubles_empty_texts_and_large_ids_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
