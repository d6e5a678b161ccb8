// SPDX-License-Identifier: Apache-2.0
// lm_head_check.cu -- logits of sampled rows against sums in double.
#include <math.h>
#include <stdlib.h>

#include "tests/gpu/check.cuh"

extern "C" {
#include "kernels/lm_head.h"
}

CPU_FUNCTION(lm_head);

struct lm_head_op {
    float *logits;
    bf16 *hidden_rows, *gathered;
    int32_t *sample_tokens;
    struct weight weight;
    int samples;
};

static void launch(struct stream *stream, const void *argument)
{
    const struct lm_head_op *op = static_cast<const struct lm_head_op *>(argument);
    lm_head(stream, op->logits, op->hidden_rows, op->sample_tokens, &op->weight, op->samples,
            op->gathered);
}

// Twice as many tokens as samples, some sampled twice. A sum of K products of normal numbers of
// deviations 1 and 1/sqrt(K), in f32 in some order: each of the K additions rounds a partial sum of
// size about 1 by at most 2^-24, so K 2^-24 in all.
static void check_samples(int samples, int vocab, int hidden)
{
    check_begin("lm_head T=%d %dx%d", samples, vocab, hidden);
    struct lm_head_op op = {};
    int tokens = 2 * samples;
    size_t rows_count = static_cast<size_t>(tokens) * static_cast<size_t>(hidden);
    size_t count = static_cast<size_t>(samples) * static_cast<size_t>(vocab);
    op.samples = samples;
    op.hidden_rows = static_cast<bf16 *>(check_array(ARRAY_INPUT, rows_count * sizeof(bf16)));
    op.gathered = static_cast<bf16 *>(check_array(ARRAY_SCRATCH, rows_count / 2 * sizeof(bf16)));
    op.sample_tokens = static_cast<int32_t *>(
        check_array(ARRAY_INPUT, static_cast<size_t>(samples) * sizeof(int32_t)));
    op.logits = static_cast<float *>(check_array(ARRAY_OUTPUT, count * sizeof(float)));
    op.weight = check_weight(vocab, hidden);
    check_fill(op.hidden_rows, rows_count, 1);
    for (int i = 0; i < samples; i++)
        op.sample_tokens[i] = (i * 7 + 3) % tokens;
    struct lm_head_op dev = {check_dev(op.logits),   check_dev(op.hidden_rows),
                             check_dev(op.gathered), check_dev(op.sample_tokens),
                             check_dev(op.weight),   samples};
    check_run(launch, &dev);
    cpu_lm_head(check_cpu_stream(), op.logits, op.hidden_rows, op.sample_tokens, &op.weight,
                samples, NULL);
    check_cpu_wait();
    check_float("logits", op.logits, op.logits, count, static_cast<size_t>(vocab),
                {0x1p-23, hidden * 0x1p-24});
    check_end();
}

CHECK(lm_head)
{
    for (int i = 0; i < CHECK_TOKENS_COUNT; i++)
        check_samples(CHECK_TOKENS[i], i % 2 == 0 ? 1000 : 1033, i % 3 == 0 ? 1024 : 512);
    check_samples(3, 20000, 2048);
}

SMALL(lm_head)
{
    check_samples(1, 1033, 64);
    check_samples(9, 40, 64);
    check_samples(20, 40, 64);
    check_samples(3, 40, 40);
}

struct lm_head_bench {
    struct lm_head_op op;
    bf16 *weights; // [turns, vocab, hidden]
};

static void launch_bench(struct stream *stream, const void *argument, int turn)
{
    const struct lm_head_bench *bench = static_cast<const struct lm_head_bench *>(argument);
    struct weight weight = bench->op.weight;
    weight.data = bench->weights + static_cast<int64_t>(turn % 2) * weight.rows * weight.columns;
    lm_head(stream, bench->op.logits, bench->op.hidden_rows, bench->op.sample_tokens, &weight,
            bench->op.samples, bench->op.gathered);
}

static void bench_samples(int samples, int vocab)
{
    enum { HIDDEN = 2048 };
    struct lm_head_bench bench = {};
    size_t rows = static_cast<size_t>(samples), ids = static_cast<size_t>(vocab);
    size_t weight_bytes = 2 * ids * HIDDEN;
    char shape[64];
    snprintf(shape, sizeof shape, "T=%d %dx%d", samples, vocab, HIDDEN);
    bench.op.samples = samples;
    bench.op.weight.format = WEIGHT_BF16;
    bench.op.weight.rows = vocab;
    bench.op.weight.columns = HIDDEN;
    bench.weights = static_cast<bf16 *>(bench_memory(2 * weight_bytes, 0.02));
    bench.op.hidden_rows = static_cast<bf16 *>(bench_memory(rows * HIDDEN * 2, 1));
    bench.op.gathered = static_cast<bf16 *>(bench_memory(rows * HIDDEN * 2, 1));
    bench.op.logits = static_cast<float *>(bench_memory(rows * ids * 4, 1));
    bench.op.sample_tokens = static_cast<int32_t *>(bench_memory(rows * 4, 0));
    CUDA_CHECK(cudaMemset(bench.op.sample_tokens, 0, rows * 4));
    double bytes = static_cast<double>(weight_bytes) + 4.0 * samples * vocab;
    struct bench_case what = {"lm_head", shape, bytes, 2.0 * samples * vocab * HIDDEN};
    bench_run(&what, launch_bench, &bench, 8);
    bench_clear();
}

// The whole vocabulary, and what `--draft-vocab` leaves of it for drafts.
BENCH(lm_head)
{
    for (int samples : {1, 2, 4, 8, 16, 32, 64, 256})
        bench_samples(samples, 248320);
    for (int vocab : {16384, 32768, 65536, 131072}) {
        for (int samples : {1, 8, 64, 256})
            bench_samples(samples, vocab);
    }
}
