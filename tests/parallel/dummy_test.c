// SPDX-License-Identifier: Apache-2.0
// dummy_test.c -- the dummy rule against values that an independent implementation wrote
// (tests/golden/dummy.py), and its statistics.
#include "parallel/dummy.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static float value_of(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

static void check_tensor(const json_t *entry)
{
    const char *name = json_string_value(json_object_get(entry, "name"));
    const json_t *shape = json_object_get(entry, "shape");
    const json_t *indices = json_object_get(entry, "indices"),
                 *bits = json_object_get(entry, "bits");
    json_int_t fan_in = json_integer_value(json_array_get(shape, json_array_size(shape) - 1));
    struct dummy_tensor tensor = dummy_tensor(name, fan_in);
    char seed[17];
    snprintf(seed, sizeof seed, "%016llx", (unsigned long long)tensor.seed);
    assert_string_equal(seed, json_string_value(json_object_get(entry, "seed")));
    for (size_t i = 0; i < json_array_size(indices); i++) {
        uint64_t index = (uint64_t)json_integer_value(json_array_get(indices, i));
        if (dummy_value(&tensor, index) != json_integer_value(json_array_get(bits, i)))
            fail_msg("%s at %llu: %u, golden %lld", name, (unsigned long long)index,
                     dummy_value(&tensor, index),
                     (long long)json_integer_value(json_array_get(bits, i)));
    }
}

static void test_golden_values(void **state)
{
    (void)state;
    json_error_t problem;
    json_t *golden = json_load_file(SOURCE_DIR "/tests/golden/dummy_values.json", 0, &problem);
    assert_non_null(golden);
    assert_true(json_array_size(golden) >= 10);
    for (size_t i = 0; i < json_array_size(golden); i++)
        check_tensor(json_array_get(golden, i));
    json_decref(golden);
}

static void test_fill_is_value(void **state)
{
    (void)state;
    struct dummy_tensor tensor = dummy_tensor("layers.0.mlp.up_proj.weight", 64);
    uint16_t values[100];
    dummy_fill(values, &tensor, 12345678901u, 100);
    for (uint64_t i = 0; i < 100; i++)
        assert_int_equal(values[i], dummy_value(&tensor, 12345678901u + i));
}

// Values that lie exactly between two bf16 (found with tests/golden/dummy.py): to the even one.
static void test_ties(void **state)
{
    (void)state;
    static const struct {
        uint64_t index;
        uint16_t bits;
    } ties[] = {{104504, 15502}, {130872, 15832}, {156675, 15934}, {238709, 48678},
                {255100, 15740}, {426277, 47856}, {472838, 48584}};
    struct dummy_tensor tensor = dummy_tensor("layers.0.mlp.up_proj.weight", 64);
    for (size_t i = 0; i < sizeof ties / sizeof ties[0]; i++)
        assert_int_equal(dummy_value(&tensor, ties[i].index), ties[i].bits);
}

// Mean and spread of a uniform value in [-a, a), a^2 = 3 / fan_in, over n values: the mean's own
// spread is 1/sqrt(n fan_in) and the mean square's sqrt(4/5 / n) of it; six of those are allowed.
static void test_spread(void **state)
{
    (void)state;
    enum { COUNT = 100000 };
    struct dummy_tensor tensor = dummy_tensor("layers.0.mlp.down_proj.weight", 192);
    double sum = 0, squares = 0;
    for (uint64_t i = 0; i < COUNT; i++) {
        double value = (double)value_of(dummy_value(&tensor, i));
        assert_true(fabs(value) <= sqrt(3.0 / 192) * (1 + 1.0 / 256));
        sum += value;
        squares += value * value;
    }
    assert_true(fabs(sum / COUNT) < 6 / sqrt(192.0 * COUNT));
    assert_true(fabs(squares / COUNT * 192 - 1) < 6 * sqrt(0.8 / COUNT));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_values),
        cmocka_unit_test(test_fill_is_value),
        cmocka_unit_test(test_ties),
        cmocka_unit_test(test_spread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
