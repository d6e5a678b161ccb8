// SPDX-License-Identifier: Apache-2.0
// weight_fill.c -- made-up values on the CPU, one after the other. Owns nothing.
#include "kernels/weight_fill.h"

#include "kernels/runtime_cpu.h"

static bf16 value_at(const struct weight_fill *op, uint64_t index)
{
    uint64_t z = op->seed + (index + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    int32_t n = (int32_t)(z >> 40) - (1 << 23);
    float product = (float)n * op->step; // rounded; the build forbids contraction
    return bf16_from_float(op->centre + product);
}

static void run(const void *arguments)
{
    const struct weight_fill *op = arguments;
    for (int64_t row = 0; row < op->rows; row++) {
        for (int64_t column = 0; column < op->columns; column++) {
            int64_t at = row * op->columns + column;
            int64_t index = (op->row + row) * op->tensor_columns + op->column + column;
            bf16 value = value_at(op, (uint64_t)index);
            if (op->is_f32)
                ((float *)op->out)[at] = bf16_to_float(value);
            else
                ((bf16 *)op->out)[at] = value;
        }
    }
}

void weight_fill(struct stream *stream, const struct weight_fill *op)
{
    ASSERT(op->out != NULL && op->rows >= 0 && op->columns >= 0);
    ASSERT(op->row >= 0 && op->column >= 0 && op->column + op->columns <= op->tensor_columns);
    stream_run(stream, run, op, sizeof *op);
}
