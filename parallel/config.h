// SPDX-License-Identifier: Apache-2.0
// config.h -- the model's config.json as numbers, with every default applied and every unknown
// refused. Both programs read it: the worker to load, the coordinator to plan memory.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "parallel/base/status.h"

enum {
    LAYERS_MAX = 128,       // the largest public model has 60
    EOS_IDS_MAX = 8,        // config.json and generation_config.json together name two
    ROTARY_PAIRS_MAX = 128, // half of a fully rotated head of 256
};

enum checkpoint_layout {
    LAYOUT_QWEN35,     // Qwen3.5 / 3.6: separate in_proj_{qkv,z,b,a}
    LAYOUT_QWEN3_NEXT, // Qwen3-Next: rows grouped by key head in in_proj_{qkvz,ba}
};

enum rope_type { ROPE_DEFAULT, ROPE_YARN };

struct rope_config {
    enum rope_type type;
    int rotary_dim; // leading dimensions of a head that rotate, even
    double theta;
    // YaRN only (Peng et al., YaRN, 2023; parameter names as in config.json).
    double factor;
    int original_max_position_embeddings;
    double beta_fast, beta_slow;
    double attention_factor; // multiplies cos and sin; 1 without YaRN
    bool truncate;           // round the correction range to whole pairs
};

// All counts are whole-model counts; what a rank owns is struct shard.
struct model_config {
    enum checkpoint_layout layout;
    char model_type[40]; // of the text model, for messages
    int layers;
    bool layer_is_attention[LAYERS_MAX];
    int hidden;
    int vocab;                   // rows of embed_tokens, padding rows included
    bool tied;                   // lm_head is embed_tokens
    int max_position_embeddings; // with YaRN at least factor * original
    double rms_norm_eps;
    // Gated full attention.
    int heads, kv_heads, head_dim;
    struct rope_config rope;
    // Gated DeltaNet.
    int key_heads, value_heads; // value_heads % key_heads == 0
    int key_dim, value_dim;     // of one head
    int conv_width;             // taps, the current token included
    // Feed-forward: dense when experts == 0.
    int intermediate;
    int experts, experts_per_token, expert_intermediate, shared_intermediate;
    int mtp_layers; // 0 or 1 by config; the checkpoint decides whether the head exists
    int eos_ids[EOS_IDS_MAX];
    int eos_count;
};

// Parses the bytes of a config.json (nested with text_config, or flat). On failure *out is not
// written and error names the field, its value and what is accepted. Source of the rules: the
// configuration classes qwen3_5, qwen3_5_moe and qwen3_next of Hugging Face transformers.
enum status config_parse(struct model_config *out, const char *json, size_t json_bytes,
                         struct error *error) MUST_CHECK;

// Reads DIR/config.json, and DIR/generation_config.json for further eos ids when it is there.
enum status config_load(struct model_config *out, const char *model_dir,
                        struct error *error) MUST_CHECK;

// Fills inverse_frequencies[rope.rotary_dim / 2] (radians per position) for the rope type.
void config_rope_frequencies(float *inverse_frequencies, const struct rope_config *rope);

// A hash of every field that changes the numbers, for HELLO: two programs that disagree on it
// would compute different models.
uint64_t config_hash(const struct model_config *config);

// Channels of the causal convolution: all q, all k, all v.
int config_conv_channels(const struct model_config *config);
