// SPDX-License-Identifier: Apache-2.0
// silu_mul.c -- the gate of a feed-forward on the CPU. Owns nothing.
#include "kernels/silu_mul.h"

#include <math.h>
#include <stddef.h>

#include "kernels/runtime_cpu.h"
#include "kernels/twins/twins.h"

struct silu_mul_arguments {
    bf16 *y;
    const bf16 *gate_up;
    int tokens, width;
};

static double silu_mul_value(bf16 gate, bf16 up)
{
    double z = (double)bf16_to_float(gate);
    return z / (1 + exp(-z)) * (double)bf16_to_float(up);
}

void silu_mul_row_twin(double *y, const bf16 *gate_up, int width)
{
    for (int i = 0; i < width; i++)
        y[i] = silu_mul_value(gate_up[i], gate_up[width + i]);
}

static void run(const void *arguments)
{
    const struct silu_mul_arguments *op = arguments;
    for (int token = 0; token < op->tokens; token++) {
        const bf16 *from = op->gate_up + (size_t)token * 2 * (size_t)op->width;
        bf16 *to = op->y + (size_t)token * (size_t)op->width;
        for (int i = 0; i < op->width; i++)
            to[i] = bf16_from_double(silu_mul_value(from[i], from[op->width + i]));
    }
}

void silu_mul(struct stream *stream, bf16 *y, const bf16 *gate_up, int tokens, int width)
{
    ASSERT(y != NULL && gate_up != NULL && tokens >= 0 && width > 0);
    struct silu_mul_arguments arguments = {y, gate_up, tokens, width};
    stream_run(stream, run, &arguments, sizeof arguments);
}
