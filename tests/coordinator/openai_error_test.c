// SPDX-License-Identifier: Apache-2.0
// openai_error_test.c -- the code of every status, and a body that parses whatever the text holds.
#include "coordinator/openai_error.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

static void codes(void **state)
{
    (void)state;
    static const struct {
        enum status status;
        int code;
    } cases[] = {{E_INPUT, 400},      {E_UNSUPPORTED, 400}, {E_MALFORMED, 400}, {E_LIMIT, 400},
                 {E_NOT_FOUND, 404},  {E_OVERLOADED, 429},  {E_FAILED, 503},    {E_ABORTED, 503},
                 {E_CONNECTION, 503}, {E_SYSTEM, 500},      {E_MISMATCH, 500}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct openai_error error = {.error = {.status = cases[i].status}};
        assert_int_equal(openai_error_http_code(&error), cases[i].code);
        error.http_code = 418;
        assert_int_equal(openai_error_http_code(&error), 418);
    }
}

static void bodies(void **state)
{
    (void)state;
    struct openai_error error = {.error = {.status = OK}};
    struct text_buffer out;
    text_buffer_init(&out, 4096);
    enum status status = error_set(&error.error, E_OVERLOADED, "quote \" and \n and \xff end");
    assert_int_equal(openai_error_of(&error, "model", status), E_OVERLOADED);
    assert_int_equal(openai_error_write(&out, &error, "0123"), OK);
    json_t *root = json_loadb(out.bytes, out.count, 0, NULL);
    const json_t *body = json_object_get(root, "error");
    assert_int_equal(json_object_size(body), 5);
    assert_string_equal(json_string_value(json_object_get(body, "message")),
                        "quote \" and \n and \xef\xbf\xbd end");
    assert_string_equal(json_string_value(json_object_get(body, "type")), "rate_limit_error");
    assert_string_equal(json_string_value(json_object_get(body, "param")), "model");
    assert_string_equal(json_string_value(json_object_get(body, "code")), "overloaded");
    assert_string_equal(json_string_value(json_object_get(body, "request_id")), "0123");
    json_decref(root);
    error.param[0] = '\0';
    out.count = 0;
    assert_int_equal(openai_error_write(&out, &error, "0123"), OK);
    root = json_loadb(out.bytes, out.count, 0, NULL);
    assert_true(json_is_null(json_object_get(json_object_get(root, "error"), "param")));
    json_decref(root);
    out.bytes_max = 10;
    out.count = 0;
    assert_int_equal(openai_error_write(&out, &error, "0123"), E_LIMIT);
    text_buffer_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(codes), cmocka_unit_test(bodies)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
