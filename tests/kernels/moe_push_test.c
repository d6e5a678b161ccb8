// SPDX-License-Identifier: Apache-2.0
// moe_push_test.c -- experts and their weighted sum against a loop over tokens and picks; many
// tokens on one expert; rows alone and together; what is pushed.
#include "kernels/moe_push.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/twins/twins.h"
#include "tests/fixtures/ops.h"

struct shape {
    int tokens, hidden, experts, picks, width, shared_width;
};

static double value(const bf16 *values, size_t i)
{
    return (double)bf16_to_float(values[i]);
}

// Distinct experts per token; every third token starts at expert 0, so that it gets many.
static void fill_picks(struct ops *ops, int32_t *ids, float *weights, const struct shape *shape)
{
    for (int token = 0; token < shape->tokens; token++) {
        int first = token % 3 == 0 ? 0 : (int)(ops_random(ops) % (uint64_t)shape->experts);
        for (int i = 0; i < shape->picks; i++) {
            ids[token * shape->picks + i] = (first + i) % shape->experts;
            weights[token * shape->picks + i] = (float)ops_uniform(ops, 0, 1);
        }
    }
}

static struct moe_push make_op(struct ops *ops, const struct shape *shape)
{
    size_t tokens = (size_t)shape->tokens, picks = tokens * (size_t)shape->picks;
    int hidden = shape->hidden, width = shape->width, shared = shape->shared_width;
    size_t middle = picks * (size_t)width + tokens * (size_t)shared;
    int32_t *ids = ops_alloc(ops, picks * sizeof *ids);
    float *weights = ops_alloc(ops, picks * sizeof *weights);
    fill_picks(ops, ids, weights, shape);
    return (struct moe_push){
        .push = &ops->exchanges[0],
        .x = ops_bf16(ops, tokens * (size_t)hidden, 1),
        .tokens = shape->tokens,
        .hidden = hidden,
        .experts = shape->experts,
        .picks = shape->picks,
        .expert_ids = ids,
        .expert_weights = weights,
        .shared_weights = ops_float(ops, tokens, 1),
        .gate_up = ops_weight(ops, shape->experts * 2 * width, hidden, 0.3),
        .down = ops_weight(ops, shape->experts * hidden, width, 0),
        .width = width,
        .shared_gate_up = ops_weight(ops, 2 * shared, hidden, 0.3),
        .shared_down = ops_weight(ops, hidden, shared, 0),
        .shared_width = shared,
        .partial = ops_alloc(ops, tokens * (size_t)hidden * sizeof(bf16)),
        .middle = ops_alloc(ops, middle * sizeof(bf16)),
    };
}

static double dot(const bf16 *x, const bf16 *w, int count)
{
    double sum = 0;
    for (size_t i = 0; i < (size_t)count; i++)
        sum += value(x, i) * value(w, i);
    return sum;
}

// middle [width] of one MLP: checked element by element against one rounding of the formula.
static void check_middle(const bf16 *middle, const bf16 *x, const bf16 *gate_up, int width,
                         int hidden)
{
    for (int i = 0; i < width; i++) {
        double gate = dot(x, gate_up + (size_t)i * (size_t)hidden, hidden);
        double up = dot(x, gate_up + (size_t)(width + i) * (size_t)hidden, hidden);
        double exact = gate / (1 + exp(-gate)) * up;
        // Sums of `hidden` products below 0.3 in size, each side off by 2^-52 of that sum.
        double error = hidden * 0.3 * hidden * 0x1p-52 * (2 + fabs(gate) + fabs(up));
        assert_true(ops_rounded_bf16(middle[i], exact, error));
    }
}

// The loop that the op stands for, on the middles as stored.
static double combined(const struct moe_push *op, int token, int column, double *size)
{
    const bf16 *middle =
        op->middle + (size_t)token * (size_t)(op->picks * op->width + op->shared_width);
    double sum = 0;
    *size = 0;
    for (int i = 0; i < op->picks; i++) {
        size_t expert = (size_t)op->expert_ids[token * op->picks + i];
        const bf16 *w = weight_bf16(&op->down) +
                        (expert * (size_t)op->hidden + (size_t)column) * (size_t)op->width;
        double part = (double)op->expert_weights[token * op->picks + i] *
                      dot(middle + i * op->width, w, op->width);
        sum += part;
        *size += fabs(part);
    }
    const bf16 *w = weight_bf16(&op->shared_down) + (size_t)column * (size_t)op->shared_width;
    double part = (double)op->shared_weights[token] *
                  dot(middle + op->picks * op->width, w, op->shared_width);
    *size += fabs(part);
    return sum + part;
}

static void check_op(const struct moe_push *op)
{
    int stride = op->picks * op->width + op->shared_width;
    for (int token = 0; token < op->tokens; token++) {
        const bf16 *x = op->x + token * op->hidden;
        const bf16 *middle = op->middle + token * stride;
        for (int i = 0; i < op->picks; i++) {
            size_t expert = (size_t)op->expert_ids[token * op->picks + i];
            check_middle(middle + i * op->width, x,
                         weight_bf16(&op->gate_up) +
                             expert * 2 * (size_t)op->width * (size_t)op->hidden,
                         op->width, op->hidden);
        }
        check_middle(middle + op->picks * op->width, x, weight_bf16(&op->shared_gate_up),
                     op->shared_width, op->hidden);
        for (int column = 0; column < op->hidden; column++) {
            double size, exact = combined(op, token, column, &size);
            assert_true(ops_rounded_bf16(op->partial[token * op->hidden + column], exact,
                                         1e-11 * (1 + size)));
        }
    }
}

static void matches_the_plain_loop(void **state)
{
    (void)state;
    static const struct shape shapes[] = {{1, 64, 4, 2, 32, 16},
                                          {40, 72, 8, 2, 24, 40},
                                          {100, 64, 3, 3, 8, 8},
                                          {7, 130, 16, 10, 65, 70}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct ops ops;
        const uint8_t *lanes[EXCHANGE_RANKS_MAX];
        size_t bytes = (size_t)shapes[i].tokens * (size_t)shapes[i].hidden * sizeof(bf16);
        ops_open(&ops, 1, bytes, i);
        struct moe_push op = make_op(&ops, &shapes[i]);
        moe_push(ops.streams[0], &op);
        ops_wait(&ops);
        check_op(&op);
        assert_true(exchange_pull(op.push, lanes));
        assert_memory_equal(lanes[0], op.partial, bytes);
        double *twin = ops_alloc(&ops, bytes / sizeof(bf16) * sizeof *twin);
        moe_push_twin(twin, &op);
        for (size_t j = 0; j < bytes / sizeof(bf16); j++)
            assert_true(ops_rounded_bf16(op.partial[j], twin[j], 0));
        ops_close(&ops);
    }
}

static void alone_is_together(void **state)
{
    (void)state;
    static const struct shape many = {37, 96, 6, 3, 40, 24};
    struct shape single = many;
    struct ops ops;
    const uint8_t *lanes[EXCHANGE_RANKS_MAX];
    ops_open(&ops, 1, (size_t)many.tokens * (size_t)many.hidden * sizeof(bf16), 9);
    struct moe_push op = make_op(&ops, &many);
    moe_push(ops.streams[0], &op);
    ops_wait(&ops);
    assert_true(exchange_pull(op.push, lanes));
    single.tokens = 1;
    for (int token = 0; token < many.tokens; token++) {
        struct moe_push one = make_op(&ops, &single);
        one.x = op.x + token * many.hidden;
        one.expert_ids = op.expert_ids + token * many.picks;
        one.expert_weights = op.expert_weights + token * many.picks;
        one.shared_weights = op.shared_weights + token;
        one.gate_up = op.gate_up;
        one.down = op.down;
        one.shared_gate_up = op.shared_gate_up;
        one.shared_down = op.shared_down;
        moe_push(ops.streams[0], &one);
        ops_wait(&ops);
        assert_true(exchange_pull(op.push, lanes));
        assert_memory_equal(one.partial, op.partial + token * many.hidden,
                            (size_t)many.hidden * sizeof(bf16));
    }
    ops_close(&ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_the_plain_loop),
        cmocka_unit_test(alone_is_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
