// SPDX-License-Identifier: Apache-2.0
// config_fuzz.c -- config.json of any bytes. Whatever is accepted must be usable: frequencies,
// shards of every degree, sizes and a memory plan without an overflow.
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "parallel/config.h"
#include "parallel/memory_plan.h"
#include "parallel/shard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check_limits(const struct model_config *config)
{
    ASSERT(config->layers >= 1 && config->layers <= LAYERS_MAX);
    ASSERT(config->heads % config->kv_heads == 0);
    ASSERT(config->value_heads % config->key_heads == 0);
    ASSERT((config->experts == 0) == (config->intermediate > 0));
    ASSERT(config->experts_per_token <= config->experts);
    ASSERT(config->mtp_layers == 0 || config->mtp_layers == 1);
    ASSERT(config->rope.rotary_dim >= 2 && config->rope.rotary_dim <= 2 * ROTARY_PAIRS_MAX);
    ASSERT(config->rope.rotary_dim % 2 == 0 && config->rope.rotary_dim <= config->head_dim);
    ASSERT(isfinite(config->rope.attention_factor));
    ASSERT(config->eos_count >= 0 && config->eos_count <= EOS_IDS_MAX);
    for (int i = 0; i < config->eos_count; i++)
        ASSERT(config->eos_ids[i] >= 0 && config->eos_ids[i] < config->vocab);
}

static void use(const struct model_config *config)
{
    float frequencies[ROTARY_PAIRS_MAX];
    config_rope_frequencies(frequencies, &config->rope);
    for (int i = 0; i < config->rope.rotary_dim / 2; i++)
        ASSERT(isfinite(frequencies[i]));
    (void)config_hash(config);
    int degrees[8];
    int count = shard_degrees(degrees, config);
    ASSERT(count >= 1 && degrees[0] == 1);
    for (int i = 0; i < count; i++) {
        struct shard shard;
        struct error error = {0};
        ASSERT(shard_make(&shard, config, degrees[i] - 1, degrees[i], &error) == OK);
        struct memory_wishes wishes = {.bytes_free = (uint64_t)1 << 40, .mtp = true};
        struct memory_plan plan;
        enum status status = memory_plan_make(&plan, config, &shard, &wishes, &error);
        ASSERT(status == OK || status == E_LIMIT);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct model_config config;
    struct error error = {0};
    if (config_parse(&config, (const char *)data, bytes, &error) == OK) {
        check_limits(&config);
        use(&config);
    } else {
        ASSERT(error.status != OK && error.text[0] != '\0');
    }
    return 0;
}
