// SPDX-License-Identifier: Apache-2.0
// weight_writer.h -- lays matrices and vectors one behind the other into one device allocation,
// each put together from rectangles of canonical tensors. What is read is cut into chunks for
// worker/weight_reader.h; dummy weights are made on the device. Knows no model; worker/weights.c
// says what goes where.
//
// The same calls run twice: first to measure (no device memory, nothing read), then to write.
// The first problem sets status; later calls do nothing but keep the sizes right.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/runtime.h"
#include "kernels/weight.h"
#include "worker/checkpoint.h"
#include "worker/weight_reader.h"

enum { WEIGHT_ALIGN_BYTES = 256 }; // of every matrix and vector

struct weight_writer {
    const struct tensor_list *tensors;
    struct checkpoint *checkpoint;  // NULL: values by the dummy rule
    void (*progress)(double share); // may be NULL
    struct error *error;
    enum status status;
    uint8_t *memory_dev;          // NULL while measuring
    uint64_t memory_bytes;        // of memory_dev
    uint64_t at_bytes;            // laid out so far
    struct stream *stream;        // of made weights
    struct weight_reader *reader; // of read ones
    struct weight_chunk chunk;    // not yet handed over; it ends at at_bytes
    uint64_t reported_bytes;      // at_bytes when progress of made weights was last told
};

// Starts to measure. tensors is borrowed until fini.
void weight_writer_init(struct weight_writer *writer, const struct tensor_list *tensors,
                        struct checkpoint *checkpoint, void (*progress)(double share),
                        struct error *error);

// Ends measuring: allocates what was laid out and starts again at its beginning, to write.
void weight_writer_begin(struct weight_writer *writer);

// Waits for the rest and releases stream and threads; on failure the device memory too. Returns
// status; when OK the device memory is the caller's (runtime_free).
enum status weight_writer_end(struct weight_writer *writer) MUST_CHECK;

// Finds a canonical tensor by name in printf's form; its absence is our bug.
const struct tensor *weight_writer_find(const struct weight_writer *writer, const char *format, ...)
    PRINTF_LIKE(2, 3);

// Begins a bf16 matrix of that shape; weight_writer_add then fills its rows from the top.
struct weight weight_writer_matrix(struct weight_writer *writer, int64_t rows, int64_t columns);

// Begins `count` f32 numbers and returns where they will stand (NULL while measuring).
const float *weight_writer_vector(struct weight_writer *writer);

// Appends a rectangle to what was begun last, in the tensor's kind.
void weight_writer_add(struct weight_writer *writer, const struct tensor_range *range);

// All of the columns of some rows; some columns of all rows.
void weight_writer_add_rows(struct weight_writer *writer, const struct tensor *tensor, int64_t row,
                            int64_t rows);
void weight_writer_add_columns(struct weight_writer *writer, const struct tensor *tensor,
                               int64_t column, int64_t columns);
