// SPDX-License-Identifier: Apache-2.0
// embed.cu -- one block copies one row of the table, 16 bytes a thread and turn.
#include "kernels/device/bf16.cuh"
#include "kernels/device/launch.cuh"

extern "C" {
#include "kernels/embed.h"
}

enum { EMBED_THREADS = 128 };

// grid tokens; y [tokens, hidden], table [vocab, hidden] bf16, hidden % 8 == 0.
static __global__ void embed_kernel(bf16x8 *y, const int32_t *ids, const bf16x8 *table, int vectors)
{
    int64_t row = blockIdx.x;
    pdl_wait();
    pdl_trigger();
    int64_t id = ids[row];
    for (int i = threadIdx.x; i < vectors; i += EMBED_THREADS) {
        bf16x8 value = {make_uint4(0, 0, 0, 0)};
        if (id >= 0)
            value = table[id * vectors + i];
        y[row * vectors + i] = value;
    }
}

extern "C" void embed(struct stream *stream, bf16 *y, const int32_t *ids,
                      const struct weight *table, int tokens)
{
    ASSERT(table->format == WEIGHT_BF16 && table->columns % BF16_VECTOR == 0);
    if (tokens == 0)
        return;
    launch_chained(embed_kernel, dim3(static_cast<unsigned>(tokens)), dim3(EMBED_THREADS), 0,
                   stream->handle, reinterpret_cast<bf16x8 *>(y), ids,
                   static_cast<const bf16x8 *>(table->data), table->columns / BF16_VECTOR);
}
