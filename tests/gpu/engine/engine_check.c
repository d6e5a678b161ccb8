// SPDX-License-Identifier: Apache-2.0
// engine_check.c -- the engine of a worker on the random checkpoints of tests/golden, run from the
// repository's root: engine_check [--goldens | --scripts] [CASE..]. Lines that do not depend on
// times; with DELTAMESH_PDL=0 they must be the same. engine_check --small CASE is for sanitizers.
// And for layer_check.py:
// engine_check --dump MODEL_DIR FILE VOCAB SEQUENCES TOKENS STEPS.
#include "tests/gpu/engine/engine_check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fixtures/golden.h"

static const char *const all_cases[] = {
    "dense_tied_r1", "dense_untied_r2", "dense_flat_r3", "dense_deep_r4",
    "dense_yarn",    "moe_e8_r2",       "moe_e16_tp8",   "next_e8_r2",
};

void near_ties_of(struct near_ties *ties, const json_t *root)
{
    ties->real_ids = (int)golden_number(root, "real_ids");
    ties->tolerance = ties->expert_tolerance =
        2 * golden_number(root, "bf16_minus_f32.hf.logits.max");
    // As for drafts. A gap is the difference of two logits, two runs are sqrt(2) rms apart in each:
    // four standard deviations of what is 2 rms, and near ties are few.
    ties->text_tolerance = 6 * sqrt(2) * golden_number(root, "bf16_minus_f32.hf.logits.rms");
    if (json_object_get(root, "router_margin_selected") != NULL) {
        ties->router_tolerance = golden_number(root, "router_margin_selected");
        ties->expert_tolerance = 2 * golden_number(root, "bf16_minus_f32_natural.hf.logits.max");
        ties->text_tolerance = ties->expert_tolerance;
    }
}

int near_ties_best(const struct near_ties *ties, const float *logits)
{
    int best = 0;
    for (int id = 1; id < ties->real_ids; id++)
        best = logits[id] > logits[best] ? id : best;
    return best;
}

static int check_cases(int count, char **names, bool goldens, bool scripts)
{
    int failed = 0;
    int cases = count > 0 ? count : (int)(sizeof all_cases / sizeof *all_cases);
    for (int i = 0; i < cases; i++) {
        const char *name = count > 0 ? names[i] : all_cases[i];
        failed += goldens ? golden_check(name) : 0;
        failed += scripts ? script_check(name) : 0;
        fflush(stdout);
    }
    printf("%d checks failed\n", failed);
    return failed > 0;
}

int main(int count, char **arguments)
{
    struct error error = {.text = ""};
    const char *mode = count > 1 && arguments[1][0] == '-' ? arguments[1] : "";
    int first = *mode != '\0' ? 2 : 1, code = 0;
    if (runtime_open(0, &error) != OK)
        DIE("%s", error.text);
    if (strcmp(mode, "--small") == 0 && count == 3) {
        code = small_check(arguments[2]);
    } else if (strcmp(mode, "--dump") == 0 && count == 8) {
        struct dump_size size = {.vocab = atoi(arguments[4]),
                                 .sequences = atoi(arguments[5]),
                                 .tokens = atoi(arguments[6]),
                                 .steps = atoi(arguments[7])};
        dump_logits(arguments[2], arguments[3], &size);
    } else {
        code = check_cases(count - first, arguments + first, strcmp(mode, "--scripts") != 0,
                           strcmp(mode, "--goldens") != 0);
    }
    runtime_close();
    return code;
}
