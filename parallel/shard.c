// SPDX-License-Identifier: Apache-2.0
// shard.c -- the slices of a rank and which tensor-parallel degrees a model allows. Pure.
#include "parallel/shard.h"

#include <stdio.h>

#include "parallel/plan.h"

// The first dimension that `ranks` does not divide, or NULL.
static const char *blocker(int *size, const struct model_config *config, int ranks)
{
    const struct {
        const char *name; // as in config.json
        int size;         // 0: the model has no such dimension
    } dimensions[] = {
        {"num_attention_heads", config->heads},
        {"linear_num_key_heads", config->key_heads},
        {"intermediate_size", config->intermediate},
        {"moe_intermediate_size", config->expert_intermediate},
        {"shared_expert_intermediate_size", config->shared_intermediate},
        {"vocab_size", config->vocab},
    };
    for (size_t i = 0; i < sizeof dimensions / sizeof dimensions[0]; i++) {
        *size = dimensions[i].size;
        if (*size % ranks != 0)
            return dimensions[i].name;
    }
    *size = config->kv_heads; // fewer heads than ranks are replicated
    return *size % ranks != 0 && ranks % *size != 0 ? "num_key_value_heads" : NULL;
}

int shard_degrees(int degrees[8], const struct model_config *config)
{
    int count = 0, size;
    for (int ranks = 1; ranks <= RANKS_MAX; ranks++) {
        if (blocker(&size, config, ranks) == NULL)
            degrees[count++] = ranks;
    }
    return count;
}

static struct span span_of(int whole, int rank, int ranks)
{
    return (struct span){.first = whole / ranks * rank, .count = whole / ranks};
}

static struct span kv_span(int kv_heads, int rank, int ranks)
{
    if (kv_heads % ranks == 0)
        return span_of(kv_heads, rank, ranks);
#ifdef PLANT_shard_kv
    return (struct span){.first = rank % kv_heads, .count = 1}; // the wrong head
#else
    return (struct span){.first = rank / (ranks / kv_heads), .count = 1};
#endif
}

enum status shard_make(struct shard *out, const struct model_config *config, int rank, int ranks,
                       struct error *error)
{
    TRY(plan_check(1, ranks, error));
    ASSERT(rank >= 0 && rank < ranks);
    int size;
    const char *name = blocker(&size, config, ranks);
    if (name != NULL) {
        int degrees[RANKS_MAX];
        char list[64] = "";
        int count = shard_degrees(degrees, config);
        for (int i = 0, at = 0; i < count; i++)
            at += snprintf(list + at, sizeof list - (size_t)at, i > 0 ? ", %d" : "%d", degrees[i]);
        return error_set(error, E_INPUT,
                         "tensor parallel %d does not divide this model's %s = %d; "
                         "degrees that work: %s",
                         ranks, name, size, list);
    }
    int values_per_key = config->value_heads / config->key_heads;
    struct span key_heads = span_of(config->key_heads, rank, ranks);
    *out = (struct shard){
        .rank = rank,
        .ranks = ranks,
        .heads = span_of(config->heads, rank, ranks),
        .kv_heads = kv_span(config->kv_heads, rank, ranks),
        .key_heads = key_heads,
        .value_heads = {key_heads.first * values_per_key, key_heads.count * values_per_key},
        .intermediate = span_of(config->intermediate, rank, ranks),
        .expert_intermediate = span_of(config->expert_intermediate, rank, ranks),
        .shared_intermediate = span_of(config->shared_intermediate, rank, ranks),
        .vocab = span_of(config->vocab, rank, ranks),
    };
    return OK;
}

int shard_gdn_rows(const struct shard *shard, const struct model_config *config)
{
    return shard_conv_channels(shard, config) +
           shard->value_heads.count * (config->value_dim + 2); // z, then b and a
}

int shard_attention_rows(const struct shard *shard, const struct model_config *config)
{
    return (2 * shard->heads.count + 2 * shard->kv_heads.count) * config->head_dim;
}

int shard_conv_channels(const struct shard *shard, const struct model_config *config)
{
    return 2 * shard->key_heads.count * config->key_dim +
           shard->value_heads.count * config->value_dim;
}
