// SPDX-License-Identifier: Apache-2.0
// shard.h -- which heads, experts' columns and vocabulary rows a rank owns. Pure.
//
// Rules (Megatron-style tensor parallelism, restated for this family): attention by query head
// with KV heads replicated when there are fewer of them than ranks; GDN by key head together with
// exactly its value heads; feed-forward by intermediate column; lm_head by vocabulary row; norms,
// router, shared-expert gate, embedding and mtp.fc on every rank.
#pragma once

#include "parallel/base/status.h"
#include "parallel/config.h"

// first is an index in the whole model, count is what this rank owns.
struct span {
    int first, count;
};

struct shard {
    int rank, ranks;
    struct span heads;               // query heads
    struct span kv_heads;            // may overlap with other ranks' (replicated)
    struct span key_heads;           // GDN
    struct span value_heads;         // GDN: those of key_heads
    struct span intermediate;        // dense FFN columns; count 0 when MoE
    struct span expert_intermediate; // columns of every expert; count 0 when dense
    struct span shared_intermediate; // columns of the shared expert
    struct span vocab;               // rows of lm_head
};

// The part of rank `rank` of `ranks`. E_INPUT when the model does not divide: the text names the
// first dimension that blocks, its size, and the degrees up to RANKS_MAX that would work.
enum status shard_make(struct shard *out, const struct model_config *config, int rank, int ranks,
                       struct error *error) MUST_CHECK;

// Writes the tensor-parallel degrees (1..RANKS_MAX) that divide the model; returns their count.
int shard_degrees(int degrees[8], const struct model_config *config);

// Rows of the fused projections of one layer on this rank, in their fixed order:
// GDN [q | k | v | z | b | a], attention [q | gate | k | v].
int shard_gdn_rows(const struct shard *shard, const struct model_config *config);
int shard_attention_rows(const struct shard *shard, const struct model_config *config);

// Convolution channels of this rank: [q | k | v].
int shard_conv_channels(const struct shard *shard, const struct model_config *config);
