// SPDX-License-Identifier: Apache-2.0
// embed.c -- rows of the embedding table on the CPU. Owns nothing.
#include "kernels/embed.h"

#include <string.h>

#include "kernels/runtime_cpu.h"

struct embed_arguments {
    bf16 *y;
    const int32_t *ids;
    struct weight table;
    int tokens;
};

static void run(const void *arguments)
{
    const struct embed_arguments *op = arguments;
    size_t hidden = (size_t)op->table.columns;
    for (int token = 0; token < op->tokens; token++) {
        int32_t id = op->ids[token];
        bf16 *to = op->y + (size_t)token * hidden;
        ASSERT(id < op->table.rows);
        if (id < 0)
            memset(to, 0, hidden * sizeof(bf16));
        else
            memcpy(to, weight_bf16(&op->table) + (size_t)id * hidden, hidden * sizeof(bf16));
    }
}

void embed(struct stream *stream, bf16 *y, const int32_t *ids, const struct weight *table,
           int tokens)
{
    ASSERT(y != NULL && ids != NULL && tokens >= 0);
    ASSERT(table->format == WEIGHT_BF16 && table->rows > 0 && table->columns > 0);
    struct embed_arguments arguments = {y, ids, *table, tokens};
    stream_run(stream, run, &arguments, sizeof arguments);
}
