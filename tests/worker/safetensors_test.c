// SPDX-License-Identifier: Apache-2.0
// safetensors_test.c -- files on disk: truncated, lying about their length, missing; ranges read.
#include "worker/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];
static char single[96];

static const char header[] = "{\"a\":{\"dtype\":\"BF16\",\"shape\":[2,2],\"data_offsets\":[0,8]},"
                             "\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[8,11]}}";

// Writes a file: the header's claimed length, the header, then data_bytes counting bytes.
static void put(const char *path, uint64_t claimed_bytes, const char *json, int data_bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    for (int i = 0; i < 8; i++)
        fputc((int)(claimed_bytes >> (8 * i) & 0xff), file);
    fputs(json, file);
    for (int i = 0; i < data_bytes; i++)
        fputc(i, file);
    assert_int_equal(fclose(file), 0);
}

static void put_text(const char *name, const char *text)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void check_refused(enum status status, const char *text)
{
    struct safetensors set;
    struct error error = {0};
    enum status found = safetensors_open(&set, dir, &error);
    if (found != status)
        fail_msg("%s (%s), %s expected", status_name(found), error.text, status_name(status));
    if (strstr(error.text, text) == NULL || strstr(error.text, dir) == NULL)
        fail_msg("\"%s\" does not say the path and \"%s\"", error.text, text);
    assert_int_equal(set.tensors_count, 0);
    assert_null(set.files);
}

static void test_read(void **state)
{
    (void)state;
    put(single, sizeof header - 1, header, 11);
    struct safetensors set;
    struct error error = {0};
    assert_int_equal(safetensors_open(&set, dir, &error), OK);
    assert_int_equal(set.tensors_count, 2);
    struct stored_tensor *b = &set.tensors[strcmp(set.tensors[0].name, "b") != 0];
    assert_string_equal(b->name, "b");
    uint8_t bytes[4] = {0xee, 0xee, 0xee, 0xee};
    assert_int_equal(safetensors_read(&set, b, 1, bytes, 2, &error), OK);
    assert_int_equal(bytes[0], 9);
    assert_int_equal(bytes[1], 10);
    assert_int_equal(bytes[2], 0xee);
    assert_int_equal(b->bytes_read, 2);
    assert_int_equal(set.bytes_read, 2); // the header is not counted
    // The file shrinks under us: named, not a crash.
    assert_int_equal(truncate(single, (off_t)(8 + sizeof header - 1 + 9)), 0);
    assert_int_equal(safetensors_read(&set, b, 0, bytes, 3, &error), E_MALFORMED);
    assert_non_null(strstr(error.text, "ends at byte"));
    safetensors_close(&set);
}

static void test_truncated(void **state)
{
    (void)state;
    put(single, sizeof header - 1, header, 10); // one byte of data too few
    check_refused(E_MALFORMED, "tensor b ends at byte 11 of the data; the file has 10");
    assert_int_equal(truncate(single, 40), 0); // within the header
    check_refused(E_MALFORMED, "the file has 40");
    assert_int_equal(truncate(single, 5), 0); // within the length
    check_refused(E_MALFORMED, "5 bytes are no safetensors file");
    assert_int_equal(truncate(single, 0), 0);
    check_refused(E_MALFORMED, "0 bytes are no safetensors file");
}

static void test_lying_length(void **state)
{
    (void)state;
    put(single, 100u << 20, header, 11);
    check_refused(E_MALFORMED, "its header claims 104857600 bytes; the file has");
    put(single, (100u << 20) + 1, header, 11);
    check_refused(E_LIMIT, "claims 104857601 bytes; 104857600 are allowed");
    put(single, UINT64_MAX, header, 11);
    check_refused(E_LIMIT, "claims 18446744073709551615 bytes");
    put(single, sizeof header - 2, header, 11);
    check_refused(E_MALFORMED, "JSON");
    put(single, sizeof header, header, 11);
    check_refused(E_MALFORMED, "JSON");
    put(single, 0, header, 11);
    check_refused(E_MALFORMED, "JSON");
    put(single, sizeof header - 1, header, 12); // a byte that belongs to no tensor
    check_refused(E_MALFORMED, "its tensors end at byte 11 of the data; the file has 12");
}

static void test_missing_files(void **state)
{
    (void)state;
    unlink(single);
    check_refused(E_NOT_FOUND, "neither model.safetensors.index.json nor model.safetensors");
    struct safetensors set;
    struct error error = {0};
    assert_int_equal(safetensors_open(&set, "/nonexistent/model", &error), E_NOT_FOUND);
    assert_non_null(strstr(error.text, "model directory /nonexistent/model"));
    assert_int_equal(mkdir(single, 0700), 0); // a directory in its place
    check_refused(E_INPUT, "not a regular file");
    rmdir(single);
    alarm(20); // of a wait for somebody who writes
    assert_int_equal(mkfifo(single, 0600), 0);
    check_refused(E_INPUT, "not a regular file");
    unlink(single);
    char index[128];
    snprintf(index, sizeof index, "%s/model.safetensors.index.json", dir);
    assert_int_equal(mkfifo(index, 0600), 0);
    check_refused(E_INPUT, "not a regular file");
    unlink(index);
    alarm(0);
}

static void test_git_lfs_pointers(void **state)
{
    (void)state;
    static const char pointer[] =
        "version https://git-lfs.github.com/spec/v1\n"
        "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
        "size 12345\n";
    put_text("model.safetensors", pointer);
    check_refused(E_INPUT, "model.safetensors: a Git LFS pointer, not the file itself");
    put_text("model.safetensors.index.json", pointer);
    check_refused(E_INPUT, "index.json: a Git LFS pointer, not the file itself");
    char index[128];
    snprintf(index, sizeof index, "%s/model.safetensors.index.json", dir);
    unlink(index);
    unlink(single);
}

static void test_index_on_disk(void **state)
{
    (void)state;
    char shard[128], index[128];
    snprintf(shard, sizeof shard, "%s/one.safetensors", dir);
    snprintf(index, sizeof index, "%s/model.safetensors.index.json", dir);
    put_text("model.safetensors.index.json",
             "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"one.safetensors\"}}");
    check_refused(E_NOT_FOUND, "one.safetensors");
    put(shard, sizeof header - 1, header, 11);
    put(single, sizeof header - 1, "not read: the index comes first", 0);
    struct safetensors set;
    struct error error = {0};
    assert_int_equal(safetensors_open(&set, dir, &error), OK);
    assert_int_equal(set.tensors_count, 2);
    safetensors_close(&set);
    put_text("model.safetensors.index.json", "{\"weight_map\":{\"a\":\"one.safetensors\"}}");
    check_refused(E_MALFORMED, "holds tensor b, which the index does not name");
    assert_int_equal(truncate(index, (100 << 20) + 1), 0); // sparse
    check_refused(E_LIMIT, "104857600 are allowed");
    unlink(index);
    unlink(shard);
    unlink(single);
}

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/deltamesh-safetensors-XXXXXX");
    if (mkdtemp(dir) == NULL)
        return 1;
    snprintf(single, sizeof single, "%s/model.safetensors", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    unlink(single);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_lying_length),
        cmocka_unit_test(test_missing_files),
        cmocka_unit_test(test_git_lfs_pointers),
        cmocka_unit_test(test_index_on_disk),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
