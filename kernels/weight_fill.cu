// SPDX-License-Identifier: Apache-2.0
// weight_fill.cu -- eight values a thread; their stores are combined in the cache.
#include "kernels/device/launch.cuh"

extern "C" {
#include "kernels/weight_fill.h"
}

enum { FILL_THREADS = 256, FILL_VALUES = 8, FILL_BLOCKS_MAX = 1 << 20 };

static __device__ bf16 value_at(const struct weight_fill &op, uint64_t index)
{
    uint64_t z = op.seed + (index + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    int32_t n = static_cast<int32_t>(z >> 40) - (1 << 23);
    return bf16_from_float(__fadd_rn(op.centre, __fmul_rn(static_cast<float>(n), op.step)));
}

static __global__ void fill_kernel(struct weight_fill op, int64_t count)
{
    int64_t first = (static_cast<int64_t>(blockIdx.x) * FILL_THREADS + threadIdx.x) * FILL_VALUES;
    int64_t stride = static_cast<int64_t>(gridDim.x) * FILL_THREADS * FILL_VALUES;
    for (; first < count; first += stride) {
        int64_t row = first / op.columns, column = first % op.columns;
        bf16 values[FILL_VALUES];
        int here = static_cast<int>(min(count - first, static_cast<int64_t>(FILL_VALUES)));
        for (int i = 0; i < here; i++) {
            values[i] = value_at(
                op, static_cast<uint64_t>((op.row + row) * op.tensor_columns + op.column + column));
            if (++column == op.columns) {
                column = 0;
                row++;
            }
        }
        if (op.is_f32) {
            for (int i = 0; i < here; i++)
                static_cast<float *>(op.out)[first + i] = bf16_to_float(values[i]);
            continue;
        }
        for (int i = 0; i < here; i++)
            static_cast<bf16 *>(op.out)[first + i] = values[i];
    }
}

extern "C" void weight_fill(struct stream *stream, const struct weight_fill *op)
{
    ASSERT(op->column + op->columns <= op->tensor_columns);
    int64_t count = op->rows * op->columns;
    if (count == 0)
        return;
    int64_t blocks = (count + FILL_THREADS * FILL_VALUES - 1) / (FILL_THREADS * FILL_VALUES);
    fill_kernel<<<static_cast<unsigned>(blocks < FILL_BLOCKS_MAX ? blocks : FILL_BLOCKS_MAX),
                  FILL_THREADS, 0, stream->handle>>>(*op, count);
    LAUNCH_CHECK();
}
