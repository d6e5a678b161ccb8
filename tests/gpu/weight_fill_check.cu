// SPDX-License-Identifier: Apache-2.0
// weight_fill_check.cu -- made-up values are the twin's, bit for bit.
#include "tests/gpu/check.cuh"

extern "C" {
#include "kernels/weight_fill.h"
}

CPU_FUNCTION(weight_fill);

static void launch(struct stream *stream, const void *op)
{
    weight_fill(stream, static_cast<const struct weight_fill *>(op));
}

static void check_rectangle(int64_t rows, int64_t columns, int64_t tensor_columns, bool is_f32)
{
    check_begin("weight_fill %dx%d of %d%s", static_cast<int>(rows), static_cast<int>(columns),
                static_cast<int>(tensor_columns), is_f32 ? " f32" : "");
    size_t count = static_cast<size_t>(rows * columns), size = is_f32 ? 4 : 2;
    struct weight_fill op = {};
    op.out = check_array(ARRAY_OUTPUT, count * size);
    op.is_f32 = is_f32;
    op.seed = check_random();
    op.centre = 0.25f;
    op.step = 1.0e-8f;
    op.row = (INT64_C(1) << 33) / tensor_columns; // indices past 32 bits
    op.rows = rows;
    op.column = tensor_columns - columns;
    op.columns = columns;
    op.tensor_columns = tensor_columns;
    struct weight_fill dev = op;
    dev.out = check_dev(static_cast<char *>(op.out));
    check_run(launch, &dev);
    cpu_weight_fill(check_cpu_stream(), &op);
    check_cpu_wait();
    check_equal("out", op.out, op.out, count, size);
    check_end();
}

CHECK(weight_fill)
{
    check_rectangle(1, 1, 1, false);
    check_rectangle(3, 37, 41, false);
    check_rectangle(3, 37, 41, true);
    check_rectangle(1000, 512, 2048, false);
    check_rectangle(999, 2048, 2048, true);
}

SMALL(weight_fill)
{
    check_rectangle(3, 37, 41, false);
    check_rectangle(3, 37, 41, true);
}
