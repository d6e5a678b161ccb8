// SPDX-License-Identifier: Apache-2.0
// weight_writer_test.c -- sizes measured are sizes written, across the staging buffer's end and at
// odd widths, and a failure leaves nothing behind.
#include "worker/weight_writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "parallel/dummy.h"
#include "tests/fixtures/checkpoint.h"

// Rows of three values: 6 bytes, so that the staging buffer ends within the matrix at a place
// that is no multiple of 4 from its beginning; then vectors of f32.
static struct tensor items[] = {
    {.name = "wide", .dims_count = 2, .rows = 6000001, .columns = 3},
    {.name = "norm.weight", .dims_count = 1, .rows = 1, .columns = 77, .is_f32 = true},
    {.name = "tail", .dims_count = 2, .rows = 5, .columns = 7},
};
static const struct tensor_list list = {items, 3};

struct pieces {
    struct weight wide, tail;
    const float *vector;
};

static void lay_out(struct pieces *out, struct weight_writer *writer)
{
    out->wide = weight_writer_matrix(writer, items[0].rows, 3);
    weight_writer_add_rows(writer, weight_writer_find(writer, "%s", "wide"), 0, items[0].rows);
    out->vector = weight_writer_vector(writer);
    weight_writer_add_columns(writer, weight_writer_find(writer, "norm.%s", "weight"), 7, 70);
    out->tail = weight_writer_matrix(writer, 4, 2);
    weight_writer_add(writer, &(struct tensor_range){&items[2], 1, 3, 5, 2});
    weight_writer_add(writer, &(struct tensor_range){&items[2], 0, 1, 0, 2});
}

static double last_share;

static void note_share(double share)
{
    assert_true(share > last_share && share <= 1);
    last_share = share;
}

static void test_written_as_measured(void **state)
{
    (void)state;
    struct weight_writer writer;
    struct pieces pieces;
    struct error error = {0};
    last_share = 0;
    weight_writer_init(&writer, &list, NULL, note_share, &error);
    lay_out(&pieces, &writer);
    assert_null(pieces.wide.data);
    assert_null(pieces.vector);
    weight_writer_begin(&writer);
    lay_out(&pieces, &writer);
    if (weight_writer_end(&writer) != OK)
        fail_msg("%s", error.text);
    assert_true(last_share == 1);
    uint64_t wide_bytes = (36000006 + 255) / 256 * 256;
    assert_int_equal(writer.memory_bytes, wide_bytes + 512 + 256);
    assert_int_equal((const uint8_t *)pieces.wide.data - writer.memory_dev, 0);
    assert_int_equal((const uint8_t *)pieces.vector - writer.memory_dev, wide_bytes);
    assert_int_equal((const uint8_t *)pieces.tail.data - writer.memory_dev, wide_bytes + 512);

    struct dummy_tensor wide = dummy_tensor("wide", 3);
    for (uint64_t i = 0; i < 3 * 6000001u; i++)
        if (weight_bf16(&pieces.wide)[i].bits != dummy_value(&wide, i))
            fail_msg("value %llu of the matrix", (unsigned long long)i);
    struct dummy_tensor norm = dummy_tensor("norm.weight", 77);
    for (int i = 0; i < 70; i++)
        assert_true(pieces.vector[i] ==
                    bf16_to_float((bf16){dummy_value(&norm, (uint64_t)(7 + i))}));
    struct dummy_tensor tail = dummy_tensor("tail", 7);
    static const uint64_t indices[] = {12, 13, 19, 20, 26, 27, 0, 1};
    for (int i = 0; i < 8; i++)
        assert_int_equal(weight_bf16(&pieces.tail)[i].bits, dummy_value(&tail, indices[i]));
    // Padding is zero: the block is a function of the model alone.
    for (uint64_t i = 36000006; i < wide_bytes; i++)
        assert_int_equal(writer.memory_dev[i], 0);
    for (uint64_t i = wide_bytes + 512 + 16; i < writer.memory_bytes; i++)
        assert_int_equal(writer.memory_dev[i], 0);
    runtime_free(writer.memory_dev);
}

// A file that shrinks after it was opened: the error is kept, memory is given back, sizes hold.
static void test_read_fails(void **state)
{
    (void)state;
    char dir[CHECKPOINT_FIXTURE_DIR_BYTES], path[2 * CHECKPOINT_FIXTURE_DIR_BYTES];
    struct checkpoint_fixture fixture = {.config_path =
                                             SOURCE_DIR "/tests/golden/dense_tied_r1/config.json"};
    checkpoint_fixture_write(dir, &fixture);
    struct model_config config;
    struct checkpoint *checkpoint;
    struct error error = {0};
    assert_int_equal(config_load(&config, dir, &error), OK);
    assert_int_equal(checkpoint_open(&checkpoint, dir, &config, &error), OK);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    FILE *file = fopen(path, "wb"); // the same file, emptied
    assert_non_null(file);
    fclose(file);

    struct weight_writer writer;
    weight_writer_init(&writer, checkpoint_tensors(checkpoint), checkpoint, NULL, &error);
    uint64_t measured = 0;
    for (int pass = 0; pass < 2; pass++) {
        (void)weight_writer_matrix(&writer, config.vocab, config.hidden);
        weight_writer_add_rows(&writer, weight_writer_find(&writer, "embed_tokens.weight"), 0,
                               config.vocab);
        (void)weight_writer_vector(&writer);
        weight_writer_add_rows(&writer, weight_writer_find(&writer, "norm.weight"), 0, 1);
        if (pass == 0) {
            measured = writer.at_bytes;
            weight_writer_begin(&writer);
        }
    }
    assert_int_equal(writer.at_bytes, measured);
    assert_int_equal(weight_writer_end(&writer), E_MALFORMED);
    assert_null(writer.memory_dev);
    assert_non_null(strstr(error.text, "model.safetensors: ends at byte"));
    checkpoint_close(checkpoint);
    checkpoint_fixture_remove(dir);
}

#ifndef DELTAMESH_SANITIZED // the sanitizers' allocators abort instead of refusing
// More than any machine has: bytes needed and there are named.
static void test_too_large(void **state)
{
    (void)state;
    static struct tensor huge[] = {
        {.name = "huge", .dims_count = 2, .rows = 2000000000, .columns = 1 << 20}};
    const struct tensor_list huge_list = {huge, 1};
    struct weight_writer writer;
    struct error error = {0};
    weight_writer_init(&writer, &huge_list, NULL, NULL, &error);
    for (int pass = 0; pass < 2; pass++) {
        (void)weight_writer_matrix(&writer, huge[0].rows, huge[0].columns);
        weight_writer_add_rows(&writer, &huge[0], 0, huge[0].rows);
        if (pass == 0)
            weight_writer_begin(&writer);
    }
    assert_int_equal(weight_writer_end(&writer), E_LIMIT);
    assert_null(writer.memory_dev);
    assert_non_null(strstr(error.text, "the weights take 4194304.000 GB on this rank"));
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_written_as_measured),
        cmocka_unit_test(test_read_fails),
#ifndef DELTAMESH_SANITIZED
        cmocka_unit_test(test_too_large),
#endif
    };
    struct error error = {0};
    if (runtime_open(0, &error) != OK)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    runtime_close();
    return failed;
}
