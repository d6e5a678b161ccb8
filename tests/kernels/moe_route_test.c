// SPDX-License-Identifier: Apache-2.0
// moe_route_test.c -- logits, picks and weights against plain code; ties, NaN, neighbours.
#include "kernels/moe_route.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/linear_push.h"
#include "kernels/norm_linear_pull.h"
#include "tests/fixtures/ops.h"

static struct moe_route make_op(struct ops *ops, int tokens, int hidden, int experts, int picks)
{
    size_t count = (size_t)tokens;
    return (struct moe_route){
        .x = ops_bf16(ops, count * (size_t)hidden, 2),
        .router = ops_weight(ops, experts + 1, hidden, 0.3),
        .tokens = tokens,
        .hidden = hidden,
        .experts = experts,
        .picks = picks,
        .logits = ops_alloc(ops, count * (size_t)(experts + 1) * sizeof(float)),
        .expert_ids = ops_alloc(ops, count * (size_t)picks * sizeof(int32_t)),
        .expert_weights = ops_alloc(ops, count * (size_t)picks * sizeof(float)),
        .shared_weights = ops_alloc(ops, count * sizeof(float)),
    };
}

static void check_logits(const struct moe_route *op)
{
    for (int token = 0; token < op->tokens; token++) {
        for (int row = 0; row <= op->experts; row++) {
            double sum = 0, size = 0;
            for (int i = 0; i < op->hidden; i++) {
                double product =
                    (double)bf16_to_float(op->x[token * op->hidden + i]) *
                    (double)bf16_to_float(weight_bf16(&op->router)[row * op->hidden + i]);
                sum += product;
                size += fabs(product);
            }
            assert_true(ops_rounded_float(op->logits[token * (op->experts + 1) + row], sum,
                                          op->hidden * 0x1p-52 * size));
        }
    }
}

// Softmax over all experts, the largest `picks`, renormalised: the form of the model's authors.
static void check_picks(const struct moe_route *op)
{
    for (int token = 0; token < op->tokens; token++) {
        const float *logits = op->logits + token * (op->experts + 1);
        const int32_t *ids = op->expert_ids + token * op->picks;
        double all = 0, picked = 0;
        for (int id = 0; id < op->experts; id++)
            all += exp((double)logits[id]);
        for (int i = 0; i < op->picks; i++)
            picked += exp((double)logits[ids[i]]) / all;
        for (int i = 0; i < op->picks; i++) {
            int better = 0;
            for (int id = 0; id < op->experts; id++) {
                better +=
                    logits[id] > logits[ids[i]] || (logits[id] == logits[ids[i]] && id < ids[i]);
            }
            assert_int_equal(better, i); // so it is the i-th of all, ties by id
            double share = exp((double)logits[ids[i]]) / all / picked;
            assert_true(
                ops_rounded_float(op->expert_weights[token * op->picks + i], share, share * 1e-13));
        }
        double shared = 1 / (1 + exp(-(double)logits[op->experts]));
        assert_true(ops_rounded_float(op->shared_weights[token], shared, shared * 1e-13));
    }
}

static void routes_like_the_plain_form(void **state)
{
    (void)state;
    static const int shapes[][4] = {{1, 64, 8, 2},    {23, 128, 16, 4}, {5, 320, 256, 8},
                                    {3, 64, 512, 10}, {2, 64, 16, 16},  {4, 32, 1024, 16}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct ops ops;
        ops_open(&ops, 1, 256, i);
        struct moe_route op = make_op(&ops, shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3]);
        moe_route(ops.streams[0], &op);
        ops_wait(&ops);
        check_logits(&op);
        check_picks(&op);
        ops_close(&ops);
    }
}

// With a norm the op is norm_linear_pull, whose rows it leaves in x, and then itself.
static void norm_comes_first(void **state)
{
    (void)state;
    enum { TOKENS = 7, HIDDEN = 64, EXPERTS = 16, PICKS = 4 };
    struct ops ops;
    ops_open(&ops, 1, TOKENS * HIDDEN * sizeof(bf16), 40);
    size_t bytes = TOKENS * HIDDEN * sizeof(bf16);
    struct moe_route op = make_op(&ops, TOKENS, HIDDEN, EXPERTS, PICKS);
    op.residual = ops_bf16_wide(&ops, TOKENS * HIDDEN);
    op.norm = ops_float(&ops, HIDDEN, 0.5);
    op.eps = 1e-6f;
    op.pull = &ops.exchanges[0];
    struct linear_push push = {
        .push = op.pull,
        .x = ops_bf16(&ops, (size_t)TOKENS * 24, 1),
        .x_stride = 24,
        .weight = ops_weight(&ops, HIDDEN, 24, 1),
        .tokens = TOKENS,
        .partial = ops_alloc(&ops, bytes),
    };
    struct norm_linear_pull norm = {
        .pull = op.pull,
        .residual = ops_copy(&ops, op.residual, bytes),
        .norm = op.norm,
        .eps = op.eps,
        .tokens = TOKENS,
        .hidden = HIDDEN,
        .normed = ops_alloc(&ops, bytes),
        .weight = {.format = WEIGHT_NONE},
    };
    linear_push(ops.streams[0], &push);
    moe_route(ops.streams[0], &op);
    norm_linear_pull(ops.streams[0], &norm); // the same lanes once more
    ops_wait(&ops);
    assert_memory_equal(op.residual, norm.residual, bytes);
    assert_memory_equal(op.x, norm.normed, bytes);
    check_logits(&op);
    check_picks(&op);
    ops_close(&ops);
}

// Equal router rows give equal logits: the lower id comes first, at the cut as well.
static void ties_go_to_the_lowest_id(void **state)
{
    (void)state;
    enum { HIDDEN = 32, EXPERTS = 8, PICKS = 3 };
    struct ops ops;
    ops_open(&ops, 1, 256, 50);
    struct moe_route op = make_op(&ops, 4, HIDDEN, EXPERTS, PICKS);
    bf16 *rows = ops_copy(&ops, op.router.data, (EXPERTS + 1) * HIDDEN * sizeof *rows);
    for (int expert = 1; expert < EXPERTS; expert++)
        memcpy(rows + expert * HIDDEN, rows, HIDDEN * sizeof *rows);
    op.router.data = rows;
    moe_route(ops.streams[0], &op);
    ops_wait(&ops);
    for (int i = 0; i < 4 * PICKS; i++) {
        assert_int_equal(op.expert_ids[i], i % PICKS);
        assert_true(op.expert_weights[i] == 1.0f / 3);
    }
    ops_close(&ops);
}

// A broken step may carry NaN: ids stay valid and distinct, so that no op reads astray.
static void nan_leaves_ids_valid(void **state)
{
    (void)state;
    enum { HIDDEN = 32, EXPERTS = 8, PICKS = 8 };
    struct ops ops;
    ops_open(&ops, 1, 256, 51);
    struct moe_route op = make_op(&ops, 2, HIDDEN, EXPERTS, PICKS);
    bf16 *x = ops_copy(&ops, op.x, 2 * HIDDEN * sizeof *x);
    bf16 *rows = ops_copy(&ops, op.router.data, (EXPERTS + 1) * HIDDEN * sizeof *rows);
    x[3] = bf16_from_float(NAN);             // token 0: all logits
    rows[0] = bf16_from_float(NAN);          // expert 0 for every token
    rows[5 * HIDDEN] = bf16_from_float(NAN); // and expert 5
    op.x = x;
    op.router.data = rows;
    moe_route(ops.streams[0], &op);
    ops_wait(&ops);
    for (int token = 0; token < 2; token++) {
        unsigned seen = 0;
        for (int i = 0; i < PICKS; i++)
            seen |= 1u << op.expert_ids[token * PICKS + i];
        assert_int_equal(seen, 0xff);
    }
    assert_int_equal(op.expert_ids[PICKS + 6], 0); // NaN last
    assert_int_equal(op.expert_ids[PICKS + 7], 5);
    ops_close(&ops);
}

static void alone_is_together(void **state)
{
    (void)state;
    enum { TOKENS = 21, HIDDEN = 96, EXPERTS = 40, PICKS = 6 };
    struct ops ops;
    ops_open(&ops, 1, 256, 52);
    struct moe_route op = make_op(&ops, TOKENS, HIDDEN, EXPERTS, PICKS);
    moe_route(ops.streams[0], &op);
    ops_wait(&ops);
    for (int token = 0; token < TOKENS; token++) {
        struct moe_route one = make_op(&ops, 1, HIDDEN, EXPERTS, PICKS);
        one.x = op.x + token * HIDDEN;
        one.router = op.router;
        moe_route(ops.streams[0], &one);
        ops_wait(&ops);
        assert_memory_equal(one.expert_ids, op.expert_ids + token * PICKS, PICKS * sizeof(int32_t));
        assert_memory_equal(one.expert_weights, op.expert_weights + token * PICKS,
                            PICKS * sizeof(float));
        assert_memory_equal(one.shared_weights, op.shared_weights + token, sizeof(float));
    }
    ops_close(&ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(routes_like_the_plain_form), cmocka_unit_test(norm_comes_first),
        cmocka_unit_test(ties_go_to_the_lowest_id),   cmocka_unit_test(nan_leaves_ids_valid),
        cmocka_unit_test(alone_is_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
