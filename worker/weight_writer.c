// SPDX-License-Identifier: Apache-2.0
// weight_writer.c -- lays rectangles one behind the other and cuts the result into chunks for the
// threads that read.
#include "worker/weight_writer.h"

#include <stdio.h>
#include <string.h>

#include "kernels/weight_fill.h"
#include "parallel/dummy.h"

enum { REPORT_BYTES = 1 << 30 }; // between two words of progress of made weights

void weight_writer_init(struct weight_writer *writer, const struct tensor_list *tensors,
                        struct checkpoint *checkpoint, void (*progress)(double share),
                        struct error *error)
{
    *writer = (struct weight_writer){
        .tensors = tensors,
        .checkpoint = checkpoint,
        .progress = progress,
        .error = error,
        .status = OK,
    };
}

// Hands the chunk at hand over and begins the next.
static void flush(struct weight_writer *writer)
{
    struct weight_chunk *chunk = &writer->chunk;
    if (chunk->bytes > 0 && !weight_reader_put(writer->reader, chunk))
        writer->status = E_FAILED; // which error it was, weight_reader_close says
    chunk->to_dev = writer->memory_dev + writer->at_bytes;
    chunk->bytes = 0;
    chunk->pieces_count = 0;
    if (writer->progress != NULL)
        writer->progress((double)weight_reader_bytes(writer->reader) /
                         (double)writer->memory_bytes);
}

// Made weights: the host runs ahead by a bounded share, so that progress means something.
static void report_made(struct weight_writer *writer)
{
    uint64_t made_bytes = writer->at_bytes - writer->reported_bytes;
    bool all = writer->at_bytes == writer->memory_bytes && made_bytes > 0;
    if (writer->memory_dev == NULL || writer->checkpoint != NULL ||
        (made_bytes < REPORT_BYTES && !all))
        return;
    stream_synchronize(writer->stream);
    writer->reported_bytes = writer->at_bytes;
    if (writer->progress != NULL)
        writer->progress((double)writer->at_bytes / (double)writer->memory_bytes);
}

static bool is_writing(const struct weight_writer *writer)
{
    return writer->memory_dev != NULL && writer->status == OK;
}

// Zeroes up to the next boundary, so that the block's bytes are a function of the model alone.
static void align(struct weight_writer *writer)
{
    size_t pad = (size_t)(-writer->at_bytes % WEIGHT_ALIGN_BYTES);
    if (is_writing(writer) && pad > 0 && writer->checkpoint == NULL)
        stream_zero(writer->stream, writer->memory_dev + writer->at_bytes, pad);
    else if (is_writing(writer) && writer->chunk.bytes + pad > WEIGHT_CHUNK_BYTES)
        flush(writer);
    writer->at_bytes += pad;
    if (is_writing(writer) && writer->checkpoint != NULL)
        writer->chunk.bytes += pad;
}

// What writes: a stream for made weights, threads for read ones.
static enum status open_sources(struct weight_writer *writer)
{
    if (writer->checkpoint != NULL)
        return weight_reader_open(&writer->reader, writer->checkpoint, writer->error);
    return stream_open(&writer->stream, writer->error);
}

void weight_writer_begin(struct weight_writer *writer)
{
    align(writer);
    writer->memory_bytes = writer->at_bytes;
    writer->at_bytes = 0;
    if (writer->status != OK)
        return;
    writer->memory_dev = runtime_alloc(writer->memory_bytes);
    if (writer->memory_dev == NULL)
        writer->status =
            error_set(writer->error, E_LIMIT,
                      "the weights take %.3f GB on this rank; device memory free: "
                      "%.3f GB",
                      (double)writer->memory_bytes * 1e-9, (double)runtime_bytes_free() * 1e-9);
    else
        writer->status = open_sources(writer);
    writer->chunk.to_dev = writer->memory_dev;
}

enum status weight_writer_end(struct weight_writer *writer)
{
    align(writer);
    if (is_writing(writer)) {
        ASSERT(writer->at_bytes == writer->memory_bytes);
        if (writer->checkpoint != NULL)
            flush(writer);
        report_made(writer);
    }
    enum status read = weight_reader_close(writer->reader, writer->error);
    writer->status = read != OK ? read : writer->status;
    if (writer->progress != NULL && writer->status == OK && writer->checkpoint != NULL)
        writer->progress(1);
    if (writer->stream != NULL)
        stream_close(writer->stream);
    if (writer->status != OK && writer->memory_dev != NULL) {
        runtime_free(writer->memory_dev);
        writer->memory_dev = NULL;
    }
    return writer->status;
}

const struct tensor *weight_writer_find(const struct weight_writer *writer, const char *format, ...)
{
    char name[TENSOR_NAME_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    const struct tensor *tensor = tensors_find(writer->tensors, name);
    if (tensor == NULL)
        DIE("no canonical tensor %s", name);
    return tensor;
}

struct weight weight_writer_matrix(struct weight_writer *writer, int64_t rows, int64_t columns)
{
    align(writer);
    ASSERT(rows <= INT32_MAX && columns <= INT32_MAX);
    return (struct weight){
        .format = WEIGHT_BF16,
        .rows = (int)rows,
        .columns = (int)columns,
        .data = writer->memory_dev != NULL ? writer->memory_dev + writer->at_bytes : NULL,
    };
}

const float *weight_writer_vector(struct weight_writer *writer)
{
    align(writer);
    if (writer->memory_dev == NULL)
        return NULL;
    return (const float *)(const void *)(writer->memory_dev + writer->at_bytes);
}

// The dummy rule's values of a rectangle, made where they will stand.
static void queue_dummy(struct weight_writer *writer, const struct tensor_range *range)
{
    const struct tensor *tensor = range->tensor;
    struct dummy_tensor dummy = dummy_tensor(tensor->name, tensor->columns);
    weight_fill(writer->stream, &(struct weight_fill){
                                    .out = writer->memory_dev + writer->at_bytes,
                                    .is_f32 = tensor->is_f32,
                                    .seed = dummy.seed,
                                    .centre = dummy.centre,
                                    .step = dummy.step,
                                    .row = range->row,
                                    .rows = range->rows,
                                    .column = range->column,
                                    .columns = range->columns,
                                    .tensor_columns = tensor->columns,
                                });
}

// Puts as many rows of a rectangle into the chunk at hand as fit; returns how many.
static int64_t put_rows(struct weight_writer *writer, const struct tensor_range *range)
{
    struct weight_chunk *chunk = &writer->chunk;
    size_t row_bytes = checkpoint_row_bytes(range);
    if (chunk->bytes + row_bytes > WEIGHT_CHUNK_BYTES || chunk->pieces_count == WEIGHT_CHUNK_PIECES)
        flush(writer);
    int64_t fitting = (int64_t)((WEIGHT_CHUNK_BYTES - chunk->bytes) / row_bytes);
    struct weight_piece *piece = &chunk->pieces[chunk->pieces_count++];
    *piece = (struct weight_piece){.range = *range, .at_bytes = chunk->bytes};
    if (fitting < range->rows)
        piece->range.rows = fitting;
    size_t bytes = (size_t)piece->range.rows * row_bytes;
    chunk->bytes += bytes;
    writer->at_bytes += bytes;
    return piece->range.rows;
}

void weight_writer_add(struct weight_writer *writer, const struct tensor_range *range)
{
    const struct tensor *tensor = range->tensor;
    ASSERT(range->row >= 0 && range->row + range->rows <= tensor->rows);
    ASSERT(range->column >= 0 && range->column + range->columns <= tensor->columns);
    size_t row_bytes = checkpoint_row_bytes(range);
    ASSERT(row_bytes <= WEIGHT_CHUNK_BYTES);
    struct tensor_range left = *range;
    if (is_writing(writer) && writer->checkpoint == NULL && left.rows > 0 && row_bytes > 0)
        queue_dummy(writer, range);
    while (is_writing(writer) && writer->checkpoint != NULL && left.rows > 0 && row_bytes > 0) {
        int64_t rows = put_rows(writer, &left);
        left.row += rows;
        left.rows -= rows;
    }
    writer->at_bytes += (uint64_t)left.rows * row_bytes; // measuring, made, or after a failure
    report_made(writer);
}

void weight_writer_add_rows(struct weight_writer *writer, const struct tensor *tensor, int64_t row,
                            int64_t rows)
{
    struct tensor_range range = {tensor, row, rows, 0, tensor->columns};
    weight_writer_add(writer, &range);
}

void weight_writer_add_columns(struct weight_writer *writer, const struct tensor *tensor,
                               int64_t column, int64_t columns)
{
    struct tensor_range range = {tensor, 0, tensor->rows, column, columns};
    weight_writer_add(writer, &range);
}
