// SPDX-License-Identifier: Apache-2.0
// sample_logprobs.c -- log-sum-exp and the likeliest ids of a shard, and their merge, on the CPU.
// Owns nothing.
#include "kernels/sample_logprobs.h"

#include <math.h>

#include "kernels/runtime_cpu.h"

static int32_t token_of(const struct sample_logprobs *op, int entry)
{
    if (op->tops[entry] < 0)
        return -1;
    return op->tokens[op->token_rows != NULL ? op->token_rows[entry] : entry];
}

// Keeps the list sorted by falling logit; an equal one goes behind, since its id is higher.
static void insert(struct sample_logprob_part *part, int top, int32_t id, float logit)
{
    int at = part->top_count;
    if (at == top && (top == 0 || !(logit > part->top_logits[top - 1])))
        return;
    if (at == top)
        at--;
    else
        part->top_count++;
    for (; at > 0 && logit > part->top_logits[at - 1]; at--) {
        part->top_ids[at] = part->top_ids[at - 1];
        part->top_logits[at] = part->top_logits[at - 1];
    }
    part->top_ids[at] = id;
    part->top_logits[at] = logit;
}

static void fill_part(struct sample_logprob_part *part, const struct sample_logprobs *op, int entry,
                      int32_t token)
{
    int row = op->rows != NULL ? op->rows[entry] : entry;
    const float *logits = op->logits + (size_t)row * (size_t)op->vocab_count;
    int real = op->vocab_real - op->vocab_first;
    int count = real < op->vocab_count ? real : op->vocab_count;
    for (int i = 0; i < count; i++) {
        if (!(logits[i] > -INFINITY)) // NaN too
            continue;
        part->maximum = logits[i] > part->maximum ? logits[i] : part->maximum;
        insert(part, op->tops[entry], op->vocab_first + i, logits[i]);
        if (op->vocab_first + i == token)
            part->chosen = logits[i];
    }
    for (int i = 0; i < count; i++) {
        if (logits[i] > -INFINITY)
            part->sum += exp((double)logits[i] - (double)part->maximum);
    }
}

static void run_shard(const void *arguments)
{
    const struct sample_logprobs *op = arguments;
    for (int entry = 0; entry < op->rows_count; entry++) {
        struct sample_logprob_part part = {.maximum = -INFINITY, .chosen = -INFINITY};
        int32_t token = token_of(op, entry);
        for (int i = 0; i < SAMPLE_LOGPROBS_TOP_MAX; i++) {
            part.top_ids[i] = -1;
            part.top_logits[i] = -INFINITY;
        }
        ASSERT(op->tops[entry] <= SAMPLE_LOGPROBS_TOP_MAX);
        if (token >= 0)
            fill_part(&part, op, entry, token);
        op->parts[entry] = part;
    }
}

void sample_logprobs_shard(struct stream *stream, const struct sample_logprobs *op)
{
    ASSERT(op->logits != NULL && op->tokens != NULL && op->tops != NULL && op->parts != NULL);
    ASSERT(op->rows_count >= 0 && op->vocab_count > 0 && op->vocab_real > 0);
    stream_run(stream, run_shard, op, sizeof *op);
}

struct merge_arguments {
    struct sample_logprob *results;
    const struct sample_logprob_part *gathered;
    struct sample_logprobs op;
    int ranks;
};

static const struct sample_logprob_part *part_of(const struct merge_arguments *merge, int rank,
                                                 int entry)
{
    return &merge->gathered[(size_t)rank * (size_t)merge->op.rows_count + (size_t)entry];
}

// log sum exp over all ranks.
static double normaliser(const struct merge_arguments *merge, int entry)
{
    double maximum = -INFINITY, sum = 0;
    for (int rank = 0; rank < merge->ranks; rank++)
        maximum = fmax(maximum, (double)part_of(merge, rank, entry)->maximum);
    for (int rank = 0; rank < merge->ranks; rank++) {
        const struct sample_logprob_part *part = part_of(merge, rank, entry);
        if (part->sum > 0)
            sum += part->sum * exp((double)part->maximum - maximum);
    }
    return maximum + log(sum);
}

// Takes the best of the ranks' lists again and again: lower ranks hold lower ids.
static void merge_tops(const struct merge_arguments *merge, int entry, double norm,
                       struct sample_logprob *out)
{
    int taken[64] = {0};
    ASSERT(merge->ranks <= 64);
    while (out->top_count < merge->op.tops[entry]) {
        int best = -1;
        for (int rank = 0; rank < merge->ranks; rank++) {
            const struct sample_logprob_part *part = part_of(merge, rank, entry);
            if (taken[rank] < part->top_count &&
                (best < 0 || part->top_logits[taken[rank]] >
                                 part_of(merge, best, entry)->top_logits[taken[best]]))
                best = rank;
        }
        if (best < 0)
            return;
        const struct sample_logprob_part *part = part_of(merge, best, entry);
        out->top_ids[out->top_count] = part->top_ids[taken[best]];
        out->top_logprobs[out->top_count++] =
            (float)((double)part->top_logits[taken[best]++] - norm);
    }
}

static void run_merge(const void *arguments)
{
    const struct merge_arguments *merge = arguments;
    for (int entry = 0; entry < merge->op.rows_count; entry++) {
        struct sample_logprob out = {.id = token_of(&merge->op, entry)};
        for (int i = 0; i < SAMPLE_LOGPROBS_TOP_MAX; i++)
            out.top_ids[i] = -1;
        if (out.id >= 0) {
            float chosen = -INFINITY;
            double norm = normaliser(merge, entry);
            for (int rank = 0; rank < merge->ranks; rank++)
                chosen = fmaxf(chosen, part_of(merge, rank, entry)->chosen);
            out.logprob = (float)((double)chosen - norm);
            merge_tops(merge, entry, norm, &out);
        }
        merge->results[entry] = out;
    }
}

void sample_logprobs_merge(struct stream *stream, struct sample_logprob *results,
                           const struct sample_logprob_part *gathered, int ranks,
                           const struct sample_logprobs *op)
{
    ASSERT(results != NULL && gathered != NULL && ranks >= 1 && op->rows_count >= 0);
    struct merge_arguments arguments = {results, gathered, *op, ranks};
    stream_run(stream, run_merge, &arguments, sizeof arguments);
}
