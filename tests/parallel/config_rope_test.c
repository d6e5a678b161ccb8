// SPDX-License-Identifier: Apache-2.0
// config_rope_test.c -- rotary frequencies against those of Hugging Face transformers
// (tests/golden/make_rope.py), parsed from the same fields.
#include "parallel/config.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static json_t *load(const char *path)
{
    json_error_t problem;
    json_t *document = json_load_file(path, 0, &problem);
    if (document == NULL)
        fail_msg("%s: %s", path, problem.text);
    return document;
}

static struct model_config parse_with(const json_t *fields)
{
    json_t *document = load(SOURCE_DIR "/tests/golden/dense_yarn/config.json");
    json_t *text = json_object_get(document, "text_config");
    json_object_del(text, "rope_parameters");
    json_object_update(text, (json_t *)(uintptr_t)fields);
    char *json = json_dumps(document, 0);
    struct model_config config;
    struct error error = {0};
    if (config_parse(&config, json, strlen(json), &error) != OK)
        fail_msg("%s", error.text);
    free(json);
    json_decref(document);
    return config;
}

// Both sides compute in single precision; their powf may differ in the last place.
static void check_case(const json_t *golden)
{
    const char *name = json_string_value(json_object_get(golden, "name"));
    struct model_config config = parse_with(json_object_get(golden, "fields"));
    const json_t *expected = json_object_get(golden, "inverse_frequencies");
    float found[ROTARY_PAIRS_MAX];
    config_rope_frequencies(found, &config.rope);
    assert_int_equal(json_array_size(expected), config.rope.rotary_dim / 2);
    for (size_t i = 0; i < json_array_size(expected); i++) {
        double value = json_number_value(json_array_get(expected, i));
        if (!(fabs((double)found[i] - value) <= 2 * ldexp(value, -23)))
            fail_msg("%s: pair %zu turns %.9g, golden %.9g", name, i, (double)found[i], value);
    }
    double factor = json_number_value(json_object_get(golden, "attention_factor"));
    if (!(fabs(config.rope.attention_factor - factor) <= 1e-14))
        fail_msg("%s: attention factor %.17g, golden %.17g", name, config.rope.attention_factor,
                 factor);
}

static void test_golden_frequencies(void **state)
{
    (void)state;
    json_t *golden = load(SOURCE_DIR "/tests/golden/rope_frequencies.json");
    assert_true(json_array_size(golden) >= 10);
    for (size_t i = 0; i < json_array_size(golden); i++)
        check_case(json_array_get(golden, i));
    json_decref(golden);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden_frequencies)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
