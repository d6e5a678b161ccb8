// SPDX-License-Identifier: Apache-2.0
// weight_reader_test.c -- chunks arrive where they belong, whoever reads them and in whatever
// order; what lies between pieces is zero; the first chunk that fails is the one whose error is
// told.
#include "worker/weight_reader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "parallel/dummy.h"
#include "tests/fixtures/checkpoint.h"

enum { CHUNK_ROWS = 5, GAP_BYTES = 18, CHUNKS_MIN = 40 }; // chunks: more than can wait

struct source {
    char dir[CHECKPOINT_FIXTURE_DIR_BYTES];
    struct model_config config;
    struct checkpoint *checkpoint;
    const struct tensor *embedding; // a matrix of bf16
};

static void open_source(struct source *source)
{
    struct checkpoint_fixture fixture = {.config_path =
                                             SOURCE_DIR "/tests/golden/dense_tied_r1/config.json"};
    struct error error = {0};
    checkpoint_fixture_write(source->dir, &fixture);
    assert_int_equal(config_load(&source->config, source->dir, &error), OK);
    if (checkpoint_open(&source->checkpoint, source->dir, &source->config, &error) != OK)
        fail_msg("%s", error.text);
    source->embedding = tensors_find(checkpoint_tensors(source->checkpoint), "embed_tokens.weight");
    assert_non_null(source->embedding);
}

static void close_source(struct source *source)
{
    checkpoint_close(source->checkpoint);
    checkpoint_fixture_remove(source->dir);
}

// Two rows of the embedding, a gap, and the rest of CHUNK_ROWS from its fourth column on.
static struct weight_chunk chunk_at(const struct source *source, uint8_t *to_dev, int64_t row)
{
    const struct tensor *tensor = source->embedding;
    struct weight_chunk chunk = {.to_dev = to_dev, .pieces_count = 2};
    struct tensor_range first = {tensor, row, 2, 0, tensor->columns};
    struct tensor_range second = {tensor, row + 2, CHUNK_ROWS - 2, 3, tensor->columns - 3};
    size_t at = 2 * checkpoint_row_bytes(&first) + GAP_BYTES;
    chunk.pieces[0] = (struct weight_piece){.range = first};
    chunk.pieces[1] = (struct weight_piece){.range = second, .at_bytes = at};
    chunk.bytes = at + (CHUNK_ROWS - 2) * checkpoint_row_bytes(&second) + GAP_BYTES;
    return chunk;
}

static void expect_values(const uint8_t **at, const struct dummy_tensor *dummy, uint64_t first,
                          int64_t count)
{
    for (int64_t i = 0; i < count; i++, *at += 2)
        assert_int_equal((*at)[0] | (*at)[1] << 8, dummy_value(dummy, first + (uint64_t)i));
}

static void expect_gap(const uint8_t **at)
{
    for (int i = 0; i < GAP_BYTES; i++)
        assert_int_equal(*(*at)++, 0);
}

static void expect_chunk(const struct source *source, const uint8_t *at, int64_t row)
{
    int64_t columns = source->embedding->columns;
    struct dummy_tensor dummy = dummy_tensor(source->embedding->name, columns);
    expect_values(&at, &dummy, (uint64_t)(row * columns), 2 * columns);
    expect_gap(&at);
    for (int64_t r = row + 2; r < row + CHUNK_ROWS; r++)
        expect_values(&at, &dummy, (uint64_t)(r * columns + 3), columns - 3);
    expect_gap(&at);
}

static void test_chunks_arrive(void **state)
{
    (void)state;
    struct source source;
    struct weight_reader *reader = NULL;
    struct error error = {0};
    open_source(&source);
    int64_t chunks = source.embedding->rows / CHUNK_ROWS;
    struct weight_chunk chunk = chunk_at(&source, NULL, 0);
    size_t stride = chunk.bytes + 1; // odd addresses, too
    uint8_t *memory_dev = runtime_alloc((size_t)chunks * stride);
    assert_non_null(memory_dev);
    assert_true(chunks > CHUNKS_MIN);
    memset(memory_dev, 0xA5, (size_t)chunks * stride);
    assert_int_equal(weight_reader_open(&reader, source.checkpoint, &error), OK);
    for (int64_t i = 0; i < chunks; i++) {
        chunk = chunk_at(&source, memory_dev + (size_t)i * stride, i * CHUNK_ROWS);
        assert_true(weight_reader_put(reader, &chunk));
    }
    assert_true(weight_reader_bytes(reader) <= (uint64_t)chunks * chunk.bytes);
    assert_int_equal(weight_reader_close(reader, &error), OK);
    for (int64_t i = 0; i < chunks; i++) {
        expect_chunk(&source, memory_dev + (size_t)i * stride, i * CHUNK_ROWS);
        assert_int_equal(memory_dev[(size_t)(i + 1) * stride - 1], 0xA5); // and nothing beside it
    }
    runtime_free(memory_dev);
    close_source(&source);
}

// The file ends within the rows of some chunk: from there on all fail, and the first is told of.
static void test_the_first_error(void **state)
{
    (void)state;
    struct source source;
    struct weight_reader *reader = NULL;
    struct error error = {0};
    char path[2 * CHECKPOINT_FIXTURE_DIR_BYTES], expected[64];
    open_source(&source);
    const struct safetensors *files = checkpoint_files(source.checkpoint);
    uint64_t begin = 0;
    for (int i = 0; i < files->tensors_count; i++) {
        if (strstr(files->tensors[i].name, "embed_tokens.weight") != NULL)
            begin = files->tensors[i].offset_bytes;
    }
    uint64_t end = begin + 7 * CHUNK_ROWS * (uint64_t)source.embedding->columns * 2 + 11;
    snprintf(path, sizeof path, "%s/model.safetensors", source.dir);
    assert_int_equal(truncate(path, (off_t)end), 0);
    snprintf(expected, sizeof expected, "ends at byte %llu", (unsigned long long)end);
    uint8_t *memory_dev = runtime_alloc(64 << 20);
    assert_non_null(memory_dev);
    assert_int_equal(weight_reader_open(&reader, source.checkpoint, &error), OK);
    bool good = true;
    int64_t put = 0;
    for (; good && put < 100000; put++) {
        // The seventh chunk is the first of all that fails; later ones begin behind the end.
        int64_t row = (put < 8 ? put : 8) * CHUNK_ROWS;
        struct weight_chunk chunk = chunk_at(&source, memory_dev + (put % 1000) * (32 << 10), row);
        good = weight_reader_put(reader, &chunk);
    }
    assert_false(good); // whoever puts learns of it before all are put
    assert_int_equal(weight_reader_close(reader, &error), E_MALFORMED);
    assert_non_null(strstr(error.text, "model.safetensors"));
    assert_non_null(strstr(error.text, expected));
    runtime_free(memory_dev);
    close_source(&source);
}

// Nothing put: nothing happens.
static void test_nothing(void **state)
{
    (void)state;
    struct source source;
    struct weight_reader *reader = NULL;
    struct error error = {0};
    open_source(&source);
    assert_int_equal(weight_reader_open(&reader, source.checkpoint, &error), OK);
    assert_int_equal(weight_reader_bytes(reader), 0);
    assert_int_equal(weight_reader_close(reader, &error), OK);
    assert_int_equal(weight_reader_close(NULL, &error), OK);
    close_source(&source);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks_arrive),
        cmocka_unit_test(test_the_first_error),
        cmocka_unit_test(test_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
