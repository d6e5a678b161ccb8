// SPDX-License-Identifier: Apache-2.0
// moe_push.c -- routed and shared experts, their weighted sum and the push on the CPU. Owns
// nothing. First products run expert by expert with the tokens that picked it gathered; second
// ones run token by token, so that a token's sum keeps the order of its picks, unrounded.
#include "kernels/moe_push.h"

#include <math.h>
#include <string.h>

#include "kernels/moe_route.h"
#include "kernels/runtime_cpu.h"
#include "kernels/twins/linear.h"
#include "kernels/twins/twins.h"

// Up to 16 (token, pick) pairs of one expert; to[i] is where their silu(gate) * up goes.
struct gathered {
    const bf16 *x[LINEAR_TILE_TOKENS];
    bf16 *to[LINEAR_TILE_TOKENS];
    int count;
};

// middle = silu(gate) * up for gathered rows; gate_up [2 * width, hidden].
static void first_product(const struct gathered *rows, const bf16 *gate_up, int width, int hidden)
{
    double gate[LINEAR_TILE_TOKENS][LINEAR_TILE_ROWS], up[LINEAR_TILE_TOKENS][LINEAR_TILE_ROWS];
    struct linear_tile tile = {.tokens = rows->count, .columns = hidden};
    memcpy(tile.x, rows->x, sizeof tile.x);
    for (int row = 0; row < width; row += LINEAR_TILE_ROWS) {
        tile.rows = width - row < LINEAR_TILE_ROWS ? width - row : LINEAR_TILE_ROWS;
        tile.w = gate_up + (size_t)row * (size_t)hidden;
        linear_tile_sum(gate, &tile);
        tile.w = gate_up + (size_t)(width + row) * (size_t)hidden;
        linear_tile_sum(up, &tile);
        for (int i = 0; i < rows->count; i++) {
            for (int j = 0; j < tile.rows; j++) {
                double silu = gate[i][j] / (1 + exp(-gate[i][j]));
                rows->to[i][row + j] = bf16_from_double(silu * up[i][j]);
            }
        }
    }
}

static size_t middle_stride(const struct moe_push *op)
{
    return (size_t)op->picks * (size_t)op->width + (size_t)op->shared_width;
}

static void run_expert(const struct moe_push *op, int expert)
{
    const bf16 *gate_up =
        weight_bf16(&op->gate_up) + (size_t)expert * 2 * (size_t)op->width * (size_t)op->hidden;
    struct gathered rows = {.count = 0};
    for (int token = 0; token < op->tokens; token++) {
        for (int i = 0; i < op->picks; i++) {
            if (op->expert_ids[(size_t)token * (size_t)op->picks + (size_t)i] != expert)
                continue;
            rows.x[rows.count] = op->x + (size_t)token * (size_t)op->hidden;
            rows.to[rows.count++] =
                op->middle + (size_t)token * middle_stride(op) + (size_t)i * (size_t)op->width;
            if (rows.count == LINEAR_TILE_TOKENS) {
                first_product(&rows, gate_up, op->width, op->hidden);
                rows.count = 0;
            }
        }
    }
    if (rows.count > 0)
        first_product(&rows, gate_up, op->width, op->hidden);
}

static void run_shared(const struct moe_push *op)
{
    for (int token = 0; token < op->tokens; token += LINEAR_TILE_TOKENS) {
        int count = op->tokens - token;
        struct gathered rows = {.count = count < LINEAR_TILE_TOKENS ? count : LINEAR_TILE_TOKENS};
        for (int i = 0; i < rows.count; i++) {
            rows.x[i] = op->x + (size_t)(token + i) * (size_t)op->hidden;
            rows.to[i] = op->middle + (size_t)(token + i) * middle_stride(op) +
                         (size_t)op->picks * (size_t)op->width;
        }
        first_product(&rows, weight_bf16(&op->shared_gate_up), op->shared_width, op->hidden);
    }
}

// y [rows] = the token's weighted sum over its picks, then the shared expert, for hidden columns
// first .. first + rows.
static void combine(double *y, const struct moe_push *op, int token, int first, int rows)
{
    double sums[LINEAR_TILE_TOKENS][LINEAR_TILE_ROWS];
    const bf16 *middle = op->middle + (size_t)token * middle_stride(op);
    size_t picks_at = (size_t)token * (size_t)op->picks;
    struct linear_tile tile = {.tokens = 1, .rows = rows, .columns = op->width};
    for (int j = 0; j < rows; j++)
        y[j] = 0;
    for (int i = 0; i < op->picks; i++) {
        size_t expert = (size_t)op->expert_ids[picks_at + (size_t)i];
        double weight = (double)op->expert_weights[picks_at + (size_t)i];
        tile.x[0] = middle + (size_t)i * (size_t)op->width;
        tile.w = weight_bf16(&op->down) +
                 (expert * (size_t)op->hidden + (size_t)first) * (size_t)op->width;
        linear_tile_sum(sums, &tile);
        for (int j = 0; j < rows; j++)
            y[j] += weight * sums[0][j];
    }
    tile.x[0] = middle + (size_t)op->picks * (size_t)op->width;
    tile.w = weight_bf16(&op->shared_down) + (size_t)first * (size_t)op->shared_width;
    tile.columns = op->shared_width;
    linear_tile_sum(sums, &tile);
    for (int j = 0; j < rows; j++)
        y[j] += (double)op->shared_weights[token] * sums[0][j];
}

// One of rounded and unrounded is not NULL.
static void run_all(bf16 *rounded, double *unrounded, const struct moe_push *op)
{
    double y[LINEAR_TILE_ROWS];
    for (int i = 0; i < op->tokens * op->picks; i++) {
        ASSERT(op->expert_ids[i] >= 0 && op->expert_ids[i] < op->experts);
        for (int j = i - i % op->picks; j < i; j++)
            ASSERT(op->expert_ids[j] != op->expert_ids[i]);
    }
    for (int expert = 0; expert < op->experts; expert++)
        run_expert(op, expert);
    run_shared(op);
    for (int first = 0; first < op->hidden; first += LINEAR_TILE_ROWS) {
        int rows = op->hidden - first < LINEAR_TILE_ROWS ? op->hidden - first : LINEAR_TILE_ROWS;
        for (int token = 0; token < op->tokens; token++) {
            size_t at = (size_t)token * (size_t)op->hidden + (size_t)first;
            combine(y, op, token, first, rows);
            for (int j = 0; j < rows; j++) {
                if (rounded != NULL)
                    rounded[at + (size_t)j] = bf16_from_double(y[j]);
                else
                    unrounded[at + (size_t)j] = y[j];
            }
        }
    }
}

void moe_push_twin(double *y, const struct moe_push *op)
{
    run_all(NULL, y, op);
}

static void run(const void *arguments)
{
    const struct moe_push *op = arguments;
    run_all(op->partial, NULL, op);
    exchange_push(op->push, op->partial, (size_t)op->tokens * (size_t)op->hidden * sizeof(bf16));
}

void moe_push(struct stream *stream, const struct moe_push *op)
{
    ASSERT(op->push != NULL && op->x != NULL && op->partial != NULL && op->middle != NULL);
    ASSERT(op->expert_ids != NULL && op->expert_weights != NULL && op->shared_weights != NULL);
    ASSERT(op->tokens >= 0 && op->hidden > 0 && op->experts > 0 && op->width > 0);
    ASSERT(op->picks > 0 && op->picks <= MOE_PICKS_MAX && op->shared_width > 0);
    ASSERT(op->gate_up.format == WEIGHT_BF16 && op->gate_up.columns == op->hidden);
    ASSERT(op->gate_up.rows == op->experts * 2 * op->width);
    ASSERT(op->down.format == WEIGHT_BF16 && op->down.columns == op->width);
    ASSERT(op->down.rows == op->experts * op->hidden);
    ASSERT(op->shared_gate_up.format == WEIGHT_BF16 && op->shared_gate_up.columns == op->hidden);
    ASSERT(op->shared_gate_up.rows == 2 * op->shared_width);
    ASSERT(op->shared_down.format == WEIGHT_BF16 && op->shared_down.rows == op->hidden);
    ASSERT(op->shared_down.columns == op->shared_width);
    ASSERT((size_t)op->tokens * (size_t)op->hidden * sizeof(bf16) <= op->push->lane_bytes);
    if (op->parts != NULL)
        op->parts->products = NULL; // all goes to the lanes
    stream_run(stream, run, op, sizeof *op);
}
