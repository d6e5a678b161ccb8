// SPDX-License-Identifier: Apache-2.0
// moe_route.c -- router and top-k on the CPU. Owns nothing.
#include "kernels/moe_route.h"

#include <math.h>

#include "kernels/norm_linear_pull.h"
#include "kernels/runtime_cpu.h"
#include "kernels/twins/linear.h"

enum { EXPERTS_MAX = 1024 };

// The largest logits in order, equal ones by id. A NaN is taken last, so ids are always valid.
static void pick(int32_t *ids, const float *logits, int experts, int picks)
{
    for (int rank = 0; rank < picks; rank++) {
        int best = -1;
        for (int id = 0; id < experts; id++) {
            int taken = 0;
            for (int earlier = 0; earlier < rank; earlier++)
                taken |= ids[earlier] == id;
            if (taken)
                continue;
            if (best < 0 || logits[id] > logits[best] ||
                (isnan(logits[best]) && !isnan(logits[id])))
                best = id;
        }
        ids[rank] = best;
    }
}

static void route_token(const struct moe_route *op, int token)
{
    const float *logits = op->logits + (size_t)token * (size_t)(op->experts + 1);
    int32_t *ids = op->expert_ids + (size_t)token * (size_t)op->picks;
    float *weights = op->expert_weights + (size_t)token * (size_t)op->picks;
    double shares[MOE_PICKS_MAX], sum = 0;
    pick(ids, logits, op->experts, op->picks);
    for (int i = 0; i < op->picks; i++) {
        shares[i] = exp((double)logits[ids[i]] - (double)logits[ids[0]]);
        sum += shares[i];
    }
    for (int i = 0; i < op->picks; i++)
#ifdef PLANT_moe_share
        weights[i] = (float)shares[i]; // not normalised over the picks
#else
        weights[i] = (float)(shares[i] / sum);
#endif
    op->shared_weights[token] = (float)(1 / (1 + exp(-(double)logits[op->experts])));
}

static void run(const void *arguments)
{
    const struct moe_route *op = arguments;
    struct linear_rows linear = {
        .x = op->x,
        .x_stride = (size_t)op->hidden,
        .w = weight_bf16(&op->router),
        .tokens = op->tokens,
        .rows = op->experts + 1,
        .columns = op->hidden,
    };
    linear_rows_float(op->logits, &linear);
    for (int token = 0; token < op->tokens; token++)
        route_token(op, token);
}

void moe_route(struct stream *stream, const struct moe_route *op)
{
    ASSERT(op->logits != NULL && op->expert_ids != NULL);
    ASSERT(op->expert_weights != NULL && op->shared_weights != NULL && op->tokens >= 0);
    ASSERT(op->experts > 0 && op->experts <= EXPERTS_MAX);
    ASSERT(op->picks > 0 && op->picks <= MOE_PICKS_MAX && op->picks <= op->experts);
    ASSERT(op->router.format == WEIGHT_BF16 && op->router.rows == op->experts + 1);
    ASSERT(op->x != NULL && op->router.columns == op->hidden && op->hidden > 0);
    ASSERT(op->norm != NULL || op->pull == NULL);
    if (op->norm != NULL)
        norm_linear_pull(stream, &(struct norm_linear_pull){
                                     .pull = op->pull,
                                     .residual = op->residual,
                                     .norm = op->norm,
                                     .eps = op->eps,
                                     .tokens = op->tokens,
                                     .hidden = op->hidden,
                                     .normed = op->x,
                                     .weight = {.format = WEIGHT_NONE},
                                 });
    stream_run(stream, run, op, sizeof *op);
}
