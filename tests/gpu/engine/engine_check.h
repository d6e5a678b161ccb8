// SPDX-License-Identifier: Apache-2.0
// engine_check.h -- the parts of engine_check: each checks one case of tests/golden and returns how
// many of its checks failed, having printed a line for each.
#pragma once

#include <jansson.h>

#include "tests/gpu/engine/rig.h"

// The near-tie rule of tests/worker/model_qwen35_test.c, and what was counted by it.
struct near_ties {
    double tolerance, expert_tolerance; // of logits, without and with a near tie of the router
    double router_tolerance;            // of the router's logits, 0 = there is no router
    double text_tolerance;              // of texts that nobody chose, between two runs in bf16
    int real_ids;
    int tokens, changed, unexplained;
    double gap_max;
};

// Tolerances of a golden's logits.json.
void near_ties_of(struct near_ties *ties, const json_t *root);

// The largest logit of the real ids.
int near_ties_best(const struct near_ties *ties, const float *logits);

// Logits, greedy tokens and drafts against those of transformers.
int golden_check(const char *name);

// One sequence of plans again and again: the same reports; its texts against prompts.
int script_check(const char *name);

// A few steps through every op of the model and every class of sampling, for sanitizers.
int small_check(const char *name);

struct dump_size {
    int sequences, tokens, steps; // tokens of each prompt; steps of one row per sequence
    int vocab;                    // as in the model's config
};

// Writes f32 logits: [sequences, tokens, vocab] of the prompts, [steps, sequences, vocab] behind
// them. Tokens are a function of sequence and position.
void dump_logits(const char *model_dir, const char *path, const struct dump_size *size);
