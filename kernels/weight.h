// SPDX-License-Identifier: Apache-2.0
// weight.h -- a matrix as the ops see it, whatever its storage. Not an op.
#pragma once

#include "kernels/types.h"

enum weight_format {
    WEIGHT_NONE, // no such matrix in this model
    WEIGHT_BF16,
    // Not served yet: parallel/config.c refuses a checkpoint of either by name.
    WEIGHT_FP8_BLOCK,  // e4m3 with one scale per block x block
    WEIGHT_INT4_GROUP, // signed, one scale per `block` columns
};

// y = x W^T with W [rows, columns] row-major; device memory, owned by whoever loaded it.
struct weight {
    enum weight_format format;
    int rows, columns;
    int block;          // 0 for bf16
    const void *data;   // rows * columns values
    const void *scales; // NULL for bf16
};

// Rows first .. first + count of a bf16 weight, as a weight of their own over the same memory.
static inline struct weight weight_rows(const struct weight *weight, int first, int count)
{
    struct weight rows = *weight;
    rows.data = (const bf16 *)weight->data + (int64_t)first * weight->columns;
    rows.rows = count;
    return rows;
}

// The values of a weight whose format is WEIGHT_BF16.
static inline const bf16 *weight_bf16(const struct weight *weight)
{
    return (const bf16 *)weight->data;
}
