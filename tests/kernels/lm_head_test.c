// SPDX-License-Identifier: Apache-2.0
// lm_head_test.c -- logits of gathered rows against a plain sum; sharded vocabulary against whole.
#include "kernels/lm_head.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixtures/ops.h"

enum { VOCAB = 96, HIDDEN = 320, TOKENS = 9, SAMPLES = 18 };

static void fill_samples(int32_t *sample_tokens)
{
    for (int i = 0; i < SAMPLES; i++)
        sample_tokens[i] = (i * 5 + 2) % TOKENS;
}

static void multiplies_the_sampled_rows(void **state)
{
    (void)state;
    struct ops ops;
    int32_t sample_tokens[SAMPLES];
    ops_open(&ops, 1, 256, 1);
    fill_samples(sample_tokens);
    const bf16 *hidden_rows = ops_bf16_wide(&ops, TOKENS * HIDDEN);
    struct weight weight = ops_weight(&ops, VOCAB, HIDDEN, 0);
    float *logits = ops_alloc(&ops, SAMPLES * VOCAB * sizeof *logits);
    lm_head(ops.streams[0], logits, hidden_rows, sample_tokens, &weight, SAMPLES, NULL);
    ops_wait(&ops);
    for (int sample = 0; sample < SAMPLES; sample++) {
        for (int id = 0; id < VOCAB; id++) {
            double sum = 0, size = 0;
            for (int i = 0; i < HIDDEN; i++) {
                double product =
                    (double)bf16_to_float(hidden_rows[sample_tokens[sample] * HIDDEN + i]) *
                    (double)bf16_to_float(weight_bf16(&weight)[id * HIDDEN + i]);
                sum += product;
                size += fabs(product);
            }
            double error = HIDDEN * 0x1p-52 * size;
            assert_true(ops_rounded_float(logits[sample * VOCAB + id], sum, error));
        }
    }
    ops_close(&ops);
}

// A shard's logits are the bits of the whole vocabulary's, and a row alone those of many.
static void shards_and_single_rows_agree(void **state)
{
    (void)state;
    struct ops ops;
    int32_t sample_tokens[SAMPLES];
    ops_open(&ops, 1, 256, 2);
    fill_samples(sample_tokens);
    const bf16 *hidden_rows = ops_bf16_wide(&ops, TOKENS * HIDDEN);
    struct weight whole = ops_weight(&ops, VOCAB, HIDDEN, 0);
    float *logits = ops_alloc(&ops, SAMPLES * VOCAB * sizeof *logits);
    lm_head(ops.streams[0], logits, hidden_rows, sample_tokens, &whole, SAMPLES, NULL);
    for (int ranks = 2; ranks <= 8; ranks *= 2) {
        int own = VOCAB / ranks;
        for (int rank = 0; rank < ranks; rank++) {
            struct weight shard = whole;
            shard.rows = own;
            shard.data = weight_bf16(&whole) + rank * own * HIDDEN;
            float *part = ops_alloc(&ops, (size_t)own * sizeof *part);
            int sample = (rank * 7) % SAMPLES;
            lm_head(ops.streams[0], part, hidden_rows, sample_tokens + sample, &shard, 1, NULL);
            ops_wait(&ops);
            assert_memory_equal(part, logits + sample * VOCAB + rank * own,
                                (size_t)own * sizeof *part);
        }
    }
    ops_close(&ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(multiplies_the_sampled_rows),
        cmocka_unit_test(shards_and_single_rows_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
