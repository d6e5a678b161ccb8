// SPDX-License-Identifier: Apache-2.0
// safetensors_parse_test.c -- headers and indexes that lie, each with what its error must say.
#include "worker/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// A set with one file of that many bytes of data behind the header.
static struct safetensors set_of(const char *json, uint64_t data_bytes)
{
    struct safetensors set = {.files = calloc(1, sizeof *set.files), .files_count = 1};
    assert_non_null(set.files);
    set.files[0] = (struct stored_file){strdup("FILE"), -1, 8 + strlen(json) + data_bytes};
    return set;
}

static void check_header(const char *json, uint64_t data_bytes, enum status status,
                         const char *text)
{
    struct safetensors set = set_of(json, data_bytes);
    struct error error = {0};
    enum status found = safetensors_parse_header(&set, 0, json, strlen(json), &error);
    if (found != status)
        fail_msg("%s: %s (%s), %s expected", json, status_name(found), error.text,
                 status_name(status));
    if (status != OK && (strstr(error.text, text) == NULL || strstr(error.text, "FILE") == NULL))
        fail_msg("%s: \"%s\" does not say FILE and \"%s\"", json, error.text, text);
    safetensors_close(&set);
}

#define TENSOR(name, dtype, shape, offsets)                                                        \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void test_good_header(void **state)
{
    (void)state;
    const char *json =
        "{\"__metadata__\":{\"format\":\"pt\"}," TENSOR("b", "F32", "[2]", "[12,20]") "," TENSOR(
            "a", "BF16", "[2,3]", "[0,12]") "," TENSOR("none", "BF16", "[0,7]",
                                                       "[12,12]") "," TENSOR("scalar", "U8", "[]",
                                                                             "[20,21]") "}   ";
    struct safetensors set = set_of(json, 21);
    struct error error = {0};
    if (safetensors_parse_header(&set, 0, json, strlen(json), &error) != OK)
        fail_msg("%s", error.text);
    assert_int_equal(set.tensors_count, 4);
    for (int i = 0; i < 4; i++) {
        const struct stored_tensor *tensor = &set.tensors[i];
        if (strcmp(tensor->name, "a") == 0) {
            assert_string_equal(tensor->dtype, "BF16");
            assert_int_equal(tensor->element_bits, 16);
            assert_int_equal(tensor->dims_count, 2);
            assert_int_equal(tensor->dims[0], 2);
            assert_int_equal(tensor->dims[1], 3);
            assert_int_equal(tensor->bytes, 12);
            assert_int_equal(tensor->offset_bytes, 8 + strlen(json)); // in the file
        }
    }
    safetensors_close(&set);
}

static void test_lying_headers(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        uint64_t data_bytes;
        enum status status;
        const char *text;
    } cases[] = {
        {"", 0, E_MALFORMED, "JSON"},
        {"{\"a\":", 0, E_MALFORMED, "JSON"},
        {"[]", 0, E_MALFORMED, "a JSON object is expected"},
        {"{\"a\":1}", 0, E_MALFORMED, "tensor a is no object"},
        {"{\"a\":{}}", 0, E_MALFORMED, "tensor a has no dtype"},
        {"{\"a\":{\"dtype\":7}}", 0, E_MALFORMED, "tensor a has no dtype"},
        {"{" TENSOR("a", "Q3", "[2]", "[0,2]") "}", 2, E_UNSUPPORTED, "unknown dtype Q3"},
        {"{\"a\":{\"dtype\":\"BF16\"}}", 0, E_MALFORMED, "tensor a has no shape"},
        {"{" TENSOR("a", "BF16", "[1,1,1,1,1,1,1,1,1]", "[0,2]") "}", 2, E_MALFORMED, "no shape"},
        {"{" TENSOR("a", "BF16", "[-1]", "[0,2]") "}", 2, E_MALFORMED, "tensor a has a shape"},
        {"{" TENSOR("a", "BF16", "[1.5]", "[0,3]") "}", 3, E_MALFORMED, "tensor a has a shape"},
        {"{" TENSOR("a", "BF16", "[4294967296,4294967296]", "[0,2]") "}", 2, E_MALFORMED,
         "too large"},
        {"{" TENSOR("a", "BF16", "[9223372036854775807]", "[0,2]") "}", 2, E_MALFORMED,
         "too large"},
        {"{\"a\":{\"dtype\":\"BF16\",\"shape\":[1]}}", 2, E_MALFORMED, "no data_offsets"},
        {"{" TENSOR("a", "BF16", "[1]", "[0]") "}", 2, E_MALFORMED, "no data_offsets"},
        {"{" TENSOR("a", "BF16", "[1]", "[0,1,2]") "}", 2, E_MALFORMED, "no data_offsets"},
        {"{" TENSOR("a", "BF16", "[1]", "[-2,0]") "}", 2, E_MALFORMED, "no data_offsets"},
        {"{" TENSOR("a", "BF16", "[1]", "[4,2]") "}", 4, E_MALFORMED, "no data_offsets"},
        {"{" TENSOR("a", "BF16", "[1]", "[0,2.0]") "}", 2, E_MALFORMED, "no data_offsets"},
        {"{" TENSOR("a", "BF16", "[2]", "[0,4]") "}", 2, E_MALFORMED,
         "tensor a ends at byte 4 of the data; the file has 2"},
        {"{" TENSOR("a", "BF16", "[1]", "[0,9223372036854775807]") "}", 2, E_MALFORMED, "ends at"},
        {"{" TENSOR("a", "BF16", "[1]", "[9223372036854775805,9223372036854775807]") "}", 2,
         E_MALFORMED, "ends at"},
        {"{" TENSOR("a", "BF16", "[3]", "[0,4]") "}", 4, E_MALFORMED,
         "tensor a has 4 bytes of data; its dtype and shape come to 6"},
        {"{" TENSOR("a", "BF16", "[1]", "[0,4]") "}", 4, E_MALFORMED,
         "tensor a has 4 bytes of data; its dtype and shape come to 2"},
        {"{" TENSOR("a", "BF16", "[2]", "[0,4]") "," TENSOR("b", "BF16", "[2]", "[2,6]") "}", 6,
         E_MALFORMED, "tensor b begins at byte 2 of the data; the tensors before it end at 4"},
        {"{" TENSOR("a", "BF16", "[1]", "[0,2]") "," TENSOR("b", "BF16", "[1]", "[4,6]") "}", 6,
         E_MALFORMED, "tensor b begins at byte 4"},
        {"{" TENSOR("a", "BF16", "[1]", "[2,4]") "}", 4, E_MALFORMED, "tensor a begins at byte 2"},
        {"{" TENSOR("a", "BF16", "[1]", "[0,2]") "}", 5, E_MALFORMED,
         "its tensors end at byte 2 of the data; the file has 5"},
        {"{}", 5, E_MALFORMED, "its tensors end at byte 0"},
        {"{" TENSOR("a", "BF16", "[1]", "[0,2]") "," TENSOR("a", "BF16", "[1]", "[2,4]") "}", 4,
         E_MALFORMED, "duplicate"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check_header(cases[i].json, cases[i].data_bytes, cases[i].status, cases[i].text);
    check_header("{}", 0, OK, NULL);
}

static enum status parse_index(struct safetensors *set, const char *json, struct error *error)
{
    *set = (struct safetensors){0};
    *error = (struct error){0};
    return safetensors_parse_index(set, "DIR", json, strlen(json), error);
}

static void test_index(void **state)
{
    (void)state;
    struct safetensors set;
    struct error error;
    assert_int_equal(parse_index(&set,
                                 "{\"metadata\":{\"total_size\":5},\"weight_map\":"
                                 "{\"b\":\"two\",\"a\":\"one\",\"c\":\"two\"}}",
                                 &error),
                     OK);
    assert_int_equal(set.files_count, 2);
    assert_string_equal(set.files[0].path, "DIR/two");
    assert_string_equal(set.files[1].path, "DIR/one");
    assert_int_equal(set.claims_count, 3);
    assert_string_equal(set.claims[0].name, "a");
    assert_int_equal(set.claims[0].file, 1);
    assert_int_equal(set.claims[2].file, 0);
    safetensors_close(&set);

    static const struct {
        const char *json, *text;
    } cases[] = {
        {"", "JSON"},
        {"{}", "no weight_map"},
        {"{\"weight_map\":[]}", "no weight_map"},
        {"{\"weight_map\":{}}", "no weight_map"},
        {"{\"weight_map\":{\"a\":1}}", "no file for tensor a"},
        {"{\"weight_map\":{\"a\":\"../x\"}}", "names \"../x\""},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "names \"/etc/passwd\""},
        {"{\"weight_map\":{\"a\":\"\"}}", "names \"\""},
        {"{\"weight_map\":{\"a\":\"..\"}}", "names \"..\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(parse_index(&set, cases[i].json, &error), E_MALFORMED);
        if (strstr(error.text, cases[i].text) == NULL || strstr(error.text, "DIR") == NULL)
            fail_msg("%s: \"%s\" does not say DIR and \"%s\"", cases[i].json, error.text,
                     cases[i].text);
        safetensors_close(&set);
    }
}

static void test_index_of_too_many_files(void **state)
{
    (void)state;
    size_t room = (SAFETENSORS_FILES_MAX + 2) * 40;
    char *json = malloc(room);
    assert_non_null(json);
    size_t at = (size_t)snprintf(json, room, "{\"weight_map\":{");
    for (int i = 0; i <= SAFETENSORS_FILES_MAX; i++)
        at += (size_t)snprintf(json + at, room - at, "%s\"t%d\":\"f%d\"", i > 0 ? "," : "", i, i);
    snprintf(json + at, room - at, "}}");
    struct safetensors set;
    struct error error;
    assert_int_equal(parse_index(&set, json, &error), E_LIMIT);
    assert_non_null(strstr(error.text, "more than 512 files"));
    safetensors_close(&set);
    free(json);
}

// Index against headers: a tensor that only one of them knows, or that lies elsewhere.
static void test_index_disagrees(void **state)
{
    (void)state;
    static const struct {
        const char *index, *text; // NULL: they agree
    } cases[] = {
        {"{\"weight_map\":{\"a\":\"one\",\"b\":\"two\"}}", NULL},
        {"{\"weight_map\":{\"a\":\"one\",\"x\":\"two\"}}",
         "DIR/two: holds tensor b, which the index does not name"},
        {"{\"weight_map\":{\"a\":\"one\",\"b\":\"one\",\"c\":\"two\"}}",
         "DIR/two: holds tensor b, which the index places in another file"},
        {"{\"weight_map\":{\"a\":\"one\",\"b\":\"two\",\"c\":\"two\"}}",
         "DIR/two: tensor c is missing"},
    };
    const char *headers[] = {"{" TENSOR("a", "BF16", "[1]", "[0,2]") "}",
                             "{" TENSOR("b", "BF16", "[1]", "[0,2]") "}"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct safetensors set;
        struct error error;
        assert_int_equal(parse_index(&set, cases[i].index, &error), OK);
        assert_int_equal(set.files_count, 2);
        for (int file = 0; file < 2; file++) {
            set.files[file].bytes = 8 + strlen(headers[file]) + 2;
            assert_int_equal(
                safetensors_parse_header(&set, file, headers[file], strlen(headers[file]), &error),
                OK);
        }
        enum status status = safetensors_check_index(&set, &error);
        assert_int_equal(status, cases[i].text == NULL ? OK : E_MALFORMED);
        if (cases[i].text != NULL && strstr(error.text, cases[i].text) == NULL)
            fail_msg("%s: \"%s\" does not say \"%s\"", cases[i].index, error.text, cases[i].text);
        safetensors_close(&set);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_header),     cmocka_unit_test(test_lying_headers),
        cmocka_unit_test(test_index),           cmocka_unit_test(test_index_of_too_many_files),
        cmocka_unit_test(test_index_disagrees),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
