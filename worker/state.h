// SPDX-License-Identifier: Apache-2.0
// state.h -- all device memory of a rank beside the weights: slots, block tables, KV pages,
// recurrent and convolution state, pending rows, workspace. Allocated once from the memory plan,
// addresses stable for life. Knows sizes, not meaning.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "kernels/attention.h"
#include "kernels/gdn.h"
#include "kernels/sample_lists.h"
#include "kernels/slots.h"
#include "kernels/state_checkpoint.h"
#include "parallel/config.h"
#include "parallel/memory_plan.h"
#include "parallel/shard.h"

// The KV pages of one attention layer: [pages, kv_heads own, 64, head_dim].
struct kv_layer {
    bf16 *k_pages, *v_pages;
};

// Activations of one step. tokens = step_tokens of the plan, samples = state_samples_max.
struct workspace {
    bf16 *residual;        // [tokens, hidden]
    bf16 *normed;          // [tokens, hidden]
    bf16 *hidden;          // [tokens, hidden] after the final norm
    bf16 *projected;       // [tokens, widest fused projection]
    bf16 *mixed;           // [tokens, widest of o and attention output]
    bf16 *gated;           // [tokens, value_heads * value_dim]
    bf16 *partial;         // [tokens, hidden]
    bf16 *middle;          // [tokens, widest FFN middle], dense: gate_up uses `projected`
    bf16 *joined;          // [tokens, 2 * hidden], MTP head only
    float *router_logits;  // [tokens, experts + 1]
    int32_t *expert_ids;   // [tokens, picks]
    float *expert_weights; // [tokens, picks]
    float *shared_weights; // [tokens]
    void *expert_products; // moe_products_bytes of kernels/moe_push.h
    int32_t *expert_lists; // moe_lists_count
    float *logits;         // [samples, vocab own]
    struct attention_workspace attention;
    struct gdn_workspace gdn;
};

// What prefix reuse keeps; nothing when the plan has no checkpoints.
struct prefix_state {
    struct state_checkpoint_layer layers[LAYERS_MAX]; // of GDN layers
    struct state_checkpoint_layer *layers_dev;        // the same on the device
    int layers_count;
    struct gdn_checkpoints checkpoints[LAYERS_MAX]; // GDN layers only
    bf16 *checkpoint_hidden;                        // [checkpoints, hidden]
    int32_t *page_tokens;                           // [pages, 64], kernels/sample_penalty.h
};

struct rank_state {
    struct slots slots;
    struct kv_layer kv[LAYERS_MAX];   // attention layers only
    struct gdn_state gdn[LAYERS_MAX]; // GDN layers only
    struct gdn_state *gdn_dev;        // [gdn_count] the same on the device, without gaps
    int gdn_count;
    bool bf16_state;     // of the GDN layers and their checkpoints
    int pending_columns; // of every GDN layer
    struct kv_layer mtp_kv;
    struct prefix_state prefix;
    bf16 *slot_hidden; // [sequences, hidden] h of each slot's last committed token, for the head
    struct workspace workspace;
    float *inverse_frequencies; // [rotary_dim / 2]
    uint16_t *drawn_counts;     // [sequences, vocab own], kernels/sample_penalty.h
    int32_t *lists, *recent;    // [sequences, SAMPLE_LISTS_MAX], [sequences, SAMPLE_RECENT_MAX]
    void *memory;               // one device allocation
    uint64_t memory_bytes;
};

// Most rows that are sampled in one step.
int state_samples_max(const struct memory_plan *plan);

// E_LIMIT with bytes needed and there when the device has too little.
enum status state_open(struct rank_state *out, const struct model_config *config,
                       const struct shard *shard, const struct memory_plan *plan, bool mtp,
                       struct error *error) MUST_CHECK;
void state_close(struct rank_state *state);
