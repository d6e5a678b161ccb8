// SPDX-License-Identifier: Apache-2.0
// weight_writer.c -- one linear stream of bytes into device memory through a staging buffer.
#include "worker/weight_writer.h"

#include <stdio.h>
#include <string.h>

#include "kernels/weight_fill.h"
#include "parallel/dummy.h"

// Large enough that a copy's fixed cost does not show, small beside any model.
enum { STAGING_BYTES = 16 << 20 };
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

static void flush(struct weight_writer *writer)
{
    if (writer->staged_bytes == 0)
        return;
    uint8_t *to_dev = writer->memory_dev + writer->at_bytes - writer->staged_bytes;
    stream_copy_to_device(writer->stream, to_dev, writer->staging, writer->staged_bytes);
    stream_synchronize(writer->stream); // staging is written again at once
    writer->staged_bytes = 0;
    if (writer->progress != NULL)
        writer->progress((double)writer->at_bytes / (double)writer->memory_bytes);
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
    if (is_writing(writer) && pad > 0 && writer->checkpoint == NULL) {
        stream_zero(writer->stream, writer->memory_dev + writer->at_bytes, pad);
    } else if (is_writing(writer) && pad > 0) {
        if (writer->staged_bytes + pad > STAGING_BYTES)
            flush(writer);
        memset(writer->staging + writer->staged_bytes, 0, pad);
        writer->staged_bytes += pad;
    }
    writer->at_bytes += pad;
    if (is_writing(writer) && writer->staged_bytes % WEIGHT_ALIGN_BYTES != 0)
        flush(writer); // after a flush within odd rows: f32 must stand aligned in staging too
}

void weight_writer_begin(struct weight_writer *writer)
{
    align(writer);
    writer->memory_bytes = writer->at_bytes;
    writer->at_bytes = 0;
    if (writer->status != OK)
        return;
    writer->status = stream_open(&writer->stream, writer->error);
    if (writer->status != OK) {
        writer->stream = NULL;
        return;
    }
    writer->staging = runtime_alloc_host(STAGING_BYTES);
    if (writer->staging == NULL) {
        writer->status =
            error_set(writer->error, E_SYSTEM, "no host memory for a staging buffer of %d bytes",
                      STAGING_BYTES);
        return;
    }
    writer->memory_dev = runtime_alloc(writer->memory_bytes);
    if (writer->memory_dev == NULL)
        writer->status =
            error_set(writer->error, E_LIMIT,
                      "the weights take %.3f GB on this rank; device memory free: "
                      "%.3f GB",
                      (double)writer->memory_bytes * 1e-9, (double)runtime_bytes_free() * 1e-9);
}

enum status weight_writer_end(struct weight_writer *writer)
{
    align(writer);
    if (is_writing(writer)) {
        ASSERT(writer->at_bytes == writer->memory_bytes);
        flush(writer);
        report_made(writer);
    }
    if (writer->staging != NULL)
        runtime_free_host(writer->staging);
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

void weight_writer_add(struct weight_writer *writer, const struct tensor_range *range)
{
    const struct tensor *tensor = range->tensor;
    ASSERT(range->row >= 0 && range->row + range->rows <= tensor->rows);
    ASSERT(range->column >= 0 && range->column + range->columns <= tensor->columns);
    size_t row_bytes = (size_t)range->columns * (tensor->is_f32 ? sizeof(float) : sizeof(bf16));
    ASSERT(row_bytes <= STAGING_BYTES);
    struct tensor_range part = *range;
    int64_t left = range->rows;
    if (is_writing(writer) && writer->checkpoint == NULL && left > 0 && row_bytes > 0)
        queue_dummy(writer, range);
    while (is_writing(writer) && writer->checkpoint != NULL && left > 0 && row_bytes > 0) {
        if (writer->staged_bytes + row_bytes > STAGING_BYTES)
            flush(writer);
        int64_t fitting = (int64_t)((STAGING_BYTES - writer->staged_bytes) / row_bytes);
        part.rows = left < fitting ? left : fitting;
        uint8_t *to = writer->staging + writer->staged_bytes;
        writer->status = checkpoint_read(writer->checkpoint, to, &part, writer->error);
        size_t bytes = (size_t)part.rows * row_bytes;
        writer->staged_bytes += bytes;
        writer->at_bytes += bytes;
        part.row += part.rows;
        left -= part.rows;
    }
    writer->at_bytes += (uint64_t)left * row_bytes; // measuring, made, or after a failure
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
