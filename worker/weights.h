// SPDX-License-Identifier: Apache-2.0
// weights.h -- this rank's weights in device memory, fused and sliced for the ops, loaded from a
// checkpoint of any layout of the family or made by the dummy rule.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "kernels/weight.h"
#include "parallel/config.h"
#include "parallel/shard.h"

// Shapes use the counts of struct shard (own) and struct model_config (whole).
struct mlp_weights {       // dense feed-forward
    struct weight gate_up; // [gate own | up own, hidden]
    struct weight down;    // [hidden, intermediate own]
};

struct moe_weights {
    struct weight router;         // [experts + 1, hidden]: the last row is the shared expert's gate
    struct weight gate_up;        // [experts * 2 * expert_intermediate own, hidden], expert-major
    struct weight down;           // [experts * hidden, expert_intermediate own], expert-major
    struct weight shared_gate_up; // [2 * shared_intermediate own, hidden]
    struct weight shared_down;    // [hidden, shared_intermediate own]
};

struct gdn_weights {
    struct weight in_proj;  // [q | k | v | z | b | a of own heads, hidden]
    struct weight out_proj; // [hidden, value_heads own * value_dim]
    const float *conv;      // [conv channels own, conv_width], last tap = current token
    const float *a_log;     // [value_heads own]
    const float *dt_bias;   // [value_heads own]
    const float *norm;      // [value_dim], plain weight
};

struct attention_weights {
    struct weight in_proj;  // [q | gate | k | v of own heads, hidden]
    struct weight out_proj; // [hidden, heads own * head_dim]
    const float *q_norm;    // [head_dim], zero-centred
    const float *k_norm;    // [head_dim], zero-centred
};

struct layer_weights {
    bool is_attention;
    const float *input_norm; // [hidden], zero-centred
    const float *post_norm;  // [hidden], zero-centred
    struct gdn_weights gdn;
    struct attention_weights attention;
    struct mlp_weights mlp; // when the model is dense
    struct moe_weights moe; // when it is not
};

struct mtp_weights {
    struct weight fc;            // [hidden, 2 * hidden], embedding half first
    const float *embedding_norm; // [hidden], zero-centred
    const float *hidden_norm;    // [hidden], zero-centred
    const float *norm;           // [hidden], zero-centred
    struct layer_weights layer;
};

struct model_weights {
    struct weight embedding; // [vocab, hidden], whole
    struct weight lm_head;   // [vocab own, hidden]
    const float *norm;       // [hidden], zero-centred
    struct layer_weights layers[LAYERS_MAX];
    bool has_mtp;
    struct mtp_weights mtp;
    void *memory; // one device allocation that holds everything above
    uint64_t memory_bytes;
};

enum load_format { LOAD_AUTO, LOAD_DUMMY };

// Which weights: everything is borrowed for the call.
struct weights_request {
    const char *model_dir; // not read for LOAD_DUMMY
    enum load_format format;
    const struct model_config *config;
    const struct shard *shard;
    void (*progress)(double share); // may be NULL; called with the share done in [0, 1]
};

// Loads or makes the weights of one rank. Norm vectors, A_log, dt_bias and conv taps become f32.
// Reads from disk only the byte ranges that this rank needs; of a matrix whose columns are sliced
// into pieces smaller than a page, whole rows. E_NOT_FOUND, E_MALFORMED, E_INPUT, E_UNSUPPORTED
// with a text that names the file, the tensor, its shape or dtype and what was expected: a tensor
// missing, of a wrong shape or dtype, or in the checkpoint and consumed by nobody (vision towers
// `model.visual.*` and a stored lm_head of a tied model are skipped by name). E_LIMIT: bytes
// needed and there.
enum status weights_open(struct model_weights *out, const struct weights_request *request,
                         struct error *error) MUST_CHECK;

// Gives the device memory back; the pointers in weights are dead then.
void weights_close(struct model_weights *weights);

// Whether the checkpoint in model_dir holds mtp.* tensors (reads the headers only); for dummy:
// whether the config asks for the head.
enum status weights_has_mtp(bool *out, const char *model_dir, enum load_format format,
                            const struct model_config *config, struct error *error) MUST_CHECK;
