// SPDX-License-Identifier: Apache-2.0
// sample_logprobs.cu -- a block of 32 warps per entry, each warp with a segment of the shard's row:
// it keeps its segment's best id that has not been taken, and looks anew only when its own was
// taken. Merging is a thread per entry.
#include "kernels/device/launch.cuh"

extern "C" {
#include "kernels/sample_logprobs.h"
}

enum { LOGPROB_THREADS = 1024, LOGPROB_WARPS = LOGPROB_THREADS / 32, MERGE_THREADS = 64 };

struct best_logit {
    float logit;
    int32_t index; // in the shard, INT32_MAX: none
};

// Larger logits first, then lower ids.
static __device__ bool is_before(struct best_logit a, struct best_logit b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.index < b.index);
}

static __device__ int32_t token_of(const struct sample_logprobs &op, int entry)
{
    if (op.tops[entry] < 0)
        return -1;
    return op.tokens[op.token_rows != NULL ? op.token_rows[entry] : entry];
}

// The first of logits[first, last) behind `taken`; the same on all lanes.
static __device__ struct best_logit segment_best(const float *logits, int first, int last,
                                                 struct best_logit taken)
{
    struct best_logit best = {-INFINITY, INT32_MAX};
    for (int i = first + static_cast<int>(threadIdx.x % 32); i < last; i += 32) {
        struct best_logit one = {logits[i], i};
        if (one.logit > -INFINITY && is_before(taken, one) && is_before(one, best))
            best = one;
    }
    for (int offset = 16; offset > 0; offset /= 2) {
        struct best_logit other = {__shfl_xor_sync(~0u, best.logit, offset),
                                   __shfl_xor_sync(~0u, best.index, offset)};
        if (is_before(other, best))
            best = other;
    }
    return best;
}

// The sum of exp(logit - maximum), in a fixed order; the same on all threads.
static __device__ double block_sum(const float *logits, int count, float maximum, double *sums)
{
    double sum = 0;
    for (int i = static_cast<int>(threadIdx.x); i < count; i += LOGPROB_THREADS)
        sum += logits[i] > -INFINITY ? static_cast<double>(expf(logits[i] - maximum)) : 0.0;
    for (int offset = 16; offset > 0; offset /= 2)
        sum += __shfl_xor_sync(~0u, sum, offset);
    if (threadIdx.x % 32 == 0)
        sums[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0;
    for (int warp = 0; warp < LOGPROB_WARPS; warp++)
        sum += sums[warp];
    return sum;
}

static __device__ void empty_part(struct sample_logprob_part *part)
{
    part->sum = 0;
    part->maximum = part->chosen = -INFINITY;
    part->top_count = part->reserved = 0;
    for (int i = 0; i < SAMPLE_LOGPROBS_TOP_MAX; i++) {
        part->top_ids[i] = -1;
        part->top_logits[i] = -INFINITY;
    }
}

// grid rows_count.
static __global__ void __launch_bounds__(LOGPROB_THREADS) part_kernel(struct sample_logprobs op)
{
    __shared__ struct best_logit heads[LOGPROB_WARPS];
    __shared__ double sums[LOGPROB_WARPS];
    int entry = static_cast<int>(blockIdx.x), warp = static_cast<int>(threadIdx.x / 32);
    struct sample_logprob_part *part = &op.parts[entry];
    int32_t token = token_of(op, entry);
    int count = max(min(op.vocab_real - op.vocab_first, op.vocab_count), 0);
    if (threadIdx.x == 0)
        empty_part(part);
    if (token < 0)
        return;
    int row = op.rows != NULL ? op.rows[entry] : entry;
    const float *logits = op.logits + static_cast<int64_t>(row) * op.vocab_count;
    int own = (count + LOGPROB_WARPS - 1) / LOGPROB_WARPS;
    int first = min(warp * own, count), last = min(first + own, count);
    struct best_logit none = {INFINITY, -1};
    struct best_logit head = segment_best(logits, first, last, none);
    int32_t chosen = token - op.vocab_first;
    float maximum = -INFINITY;
    if (threadIdx.x == 0 && chosen >= 0 && chosen < count && !isnan(logits[chosen]))
        part->chosen = logits[chosen];
    for (int k = 0; k < max(op.tops[entry], 1); k++) {
        if (threadIdx.x % 32 == 0)
            heads[warp] = head;
        __syncthreads();
        struct best_logit best = {-INFINITY, INT32_MAX};
        for (int w = 0; w < LOGPROB_WARPS; w++)
            best = is_before(heads[w], best) ? heads[w] : best;
        __syncthreads();
        if (best.index == INT32_MAX)
            break;
        maximum = k == 0 ? best.logit : maximum;
        if (threadIdx.x == 0 && k < op.tops[entry]) {
            part->top_ids[k] = op.vocab_first + best.index;
            part->top_logits[k] = best.logit;
            part->top_count = k + 1;
        }
        if (head.index == best.index)
            head = segment_best(logits, first, last, best);
    }
    double sum = maximum > -INFINITY ? block_sum(logits, count, maximum, sums) : 0.0;
    if (threadIdx.x == 0) {
        part->maximum = maximum;
        part->sum = sum;
    }
}

extern "C" void sample_logprobs_shard(struct stream *stream, const struct sample_logprobs *op)
{
    if (op->rows_count == 0)
        return;
    part_kernel<<<static_cast<unsigned>(op->rows_count), LOGPROB_THREADS, 0, stream->handle>>>(*op);
    LAUNCH_CHECK();
}

static __device__ double normaliser(const struct sample_logprob_part *parts, int ranks, int stride)
{
    double maximum = -INFINITY, sum = 0;
    for (int rank = 0; rank < ranks; rank++)
        maximum = fmax(maximum, static_cast<double>(parts[rank * stride].maximum));
    for (int rank = 0; rank < ranks; rank++) {
        const struct sample_logprob_part &part = parts[rank * stride];
        if (part.sum > 0)
            sum += part.sum * exp(static_cast<double>(part.maximum) - maximum);
    }
    return maximum + log(sum);
}

// Lists of lower ranks hold lower ids, so that the first of equal ones is the right one.
static __device__ void merge_tops(struct sample_logprob *out,
                                  const struct sample_logprob_part *parts, int ranks, int stride,
                                  int top)
{
    float before = INFINITY;
    int32_t before_id = -1;
    for (int k = 0; k < top; k++) {
        float best = -INFINITY;
        int32_t id = -1;
        for (int rank = 0; rank < ranks; rank++) {
            const struct sample_logprob_part &part = parts[rank * stride];
            for (int i = 0; i < part.top_count; i++) {
                float logit = part.top_logits[i];
                bool left = logit < before || (logit == before && part.top_ids[i] > before_id);
                if (left && (id < 0 || logit > best)) {
                    best = logit;
                    id = part.top_ids[i];
                }
            }
        }
        if (id < 0)
            return;
        out->top_ids[k] = before_id = id;
        out->top_logprobs[k] = before = best; // normalised by the caller
        out->top_count = k + 1;
    }
}

static __global__ void merge_kernel(struct sample_logprob *results,
                                    const struct sample_logprob_part *gathered, int ranks,
                                    struct sample_logprobs op)
{
    int entry = static_cast<int>(blockIdx.x * MERGE_THREADS + threadIdx.x);
    if (entry >= op.rows_count)
        return;
    struct sample_logprob *out = &results[entry];
    const struct sample_logprob_part *parts = gathered + entry;
    out->id = token_of(op, entry);
    out->logprob = 0;
    out->top_count = 0;
    for (int i = 0; i < SAMPLE_LOGPROBS_TOP_MAX; i++) {
        out->top_ids[i] = -1;
        out->top_logprobs[i] = 0;
    }
    if (out->id < 0)
        return;
    double norm = normaliser(parts, ranks, op.rows_count);
    float chosen = -INFINITY;
    for (int rank = 0; rank < ranks; rank++)
        chosen = fmaxf(chosen, parts[rank * op.rows_count].chosen);
    out->logprob = static_cast<float>(static_cast<double>(chosen) - norm);
    merge_tops(out, parts, ranks, op.rows_count, op.tops[entry]);
    for (int k = 0; k < out->top_count; k++)
        out->top_logprobs[k] = static_cast<float>(static_cast<double>(out->top_logprobs[k]) - norm);
}

extern "C" void sample_logprobs_merge(struct stream *stream, struct sample_logprob *results,
                                      const struct sample_logprob_part *gathered, int ranks,
                                      const struct sample_logprobs *op)
{
    if (op->rows_count == 0)
        return;
    merge_kernel<<<static_cast<unsigned>((op->rows_count + MERGE_THREADS - 1) / MERGE_THREADS),
                   MERGE_THREADS, 0, stream->handle>>>(results, gathered, ranks, *op);
    LAUNCH_CHECK();
}
