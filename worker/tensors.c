// SPDX-License-Identifier: Apache-2.0
// tensors.c -- lists a model's canonical tensors. Source of names and shapes: the state dicts of
// qwen3_5 and qwen3_5_moe in Hugging Face transformers.
#include "worker/tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// A GDN layer with experts has most: 2 norms, 9 of the mixer, 7 of the feed-forward.
enum { TENSORS_PER_LAYER_MAX = 18, TENSORS_BESIDE_LAYERS_MAX = 8 };

// Appends a tensor; dims of 0 end the shape.
static void add(struct tensor_list *list, const char *prefix, const char *name, int64_t dim0,
                int64_t dim1, int64_t dim2)
{
    struct tensor *tensor = &list->items[list->count++];
    int bytes = snprintf(tensor->name, sizeof tensor->name, "%s%s", prefix, name);
    ASSERT(bytes < (int)sizeof tensor->name);
    tensor->dims[0] = dim0;
    tensor->dims[1] = dim1;
    tensor->dims[2] = dim2;
    tensor->dims_count = dim2 != 0 ? 3 : dim1 != 0 ? 2 : 1;
    tensor->columns = tensor->dims[tensor->dims_count - 1];
    tensor->rows = tensor->dims_count == 1 ? 1 : tensor->dims_count == 2 ? dim0 : dim0 * dim1;
    tensor->is_f32 = tensor->dims_count == 1;
}

static void add_feed_forward(struct tensor_list *list, const char *layer,
                             const struct model_config *config)
{
    int64_t hidden = config->hidden, experts = config->experts;
    if (experts == 0) {
        add(list, layer, "mlp.gate_proj.weight", config->intermediate, hidden, 0);
        add(list, layer, "mlp.up_proj.weight", config->intermediate, hidden, 0);
        add(list, layer, "mlp.down_proj.weight", hidden, config->intermediate, 0);
        return;
    }
    int64_t columns = config->expert_intermediate, shared = config->shared_intermediate;
    add(list, layer, "mlp.gate.weight", experts, hidden, 0);
    add(list, layer, "mlp.experts.gate_up_proj", experts, 2 * columns, hidden);
    add(list, layer, "mlp.experts.down_proj", experts, hidden, columns);
    add(list, layer, "mlp.shared_expert.gate_proj.weight", shared, hidden, 0);
    add(list, layer, "mlp.shared_expert.up_proj.weight", shared, hidden, 0);
    add(list, layer, "mlp.shared_expert.down_proj.weight", hidden, shared, 0);
    add(list, layer, "mlp.shared_expert_gate.weight", 1, hidden, 0);
}

static void add_attention(struct tensor_list *list, const char *layer,
                          const struct model_config *config)
{
    int64_t hidden = config->hidden, head_dim = config->head_dim;
    int64_t width = config->heads * head_dim, kv_width = config->kv_heads * head_dim;
    add(list, layer, "self_attn.q_proj.weight", 2 * width, hidden, 0);
    add(list, layer, "self_attn.k_proj.weight", kv_width, hidden, 0);
    add(list, layer, "self_attn.v_proj.weight", kv_width, hidden, 0);
    add(list, layer, "self_attn.o_proj.weight", hidden, width, 0);
    add(list, layer, "self_attn.q_norm.weight", head_dim, 0, 0);
    add(list, layer, "self_attn.k_norm.weight", head_dim, 0, 0);
}

static void add_gdn(struct tensor_list *list, const char *layer, const struct model_config *config)
{
    int64_t hidden = config->hidden, channels = config_conv_channels(config);
    int64_t heads = config->value_heads, width = heads * config->value_dim;
    add(list, layer, "linear_attn.in_proj_qkv.weight", channels, hidden, 0);
    add(list, layer, "linear_attn.in_proj_z.weight", width, hidden, 0);
    add(list, layer, "linear_attn.in_proj_b.weight", heads, hidden, 0);
    add(list, layer, "linear_attn.in_proj_a.weight", heads, hidden, 0);
    add(list, layer, "linear_attn.conv1d.weight", channels, 1, config->conv_width);
    list->items[list->count - 1].is_f32 = true;
    add(list, layer, "linear_attn.A_log", heads, 0, 0);
    add(list, layer, "linear_attn.dt_bias", heads, 0, 0);
    add(list, layer, "linear_attn.norm.weight", config->value_dim, 0, 0);
    add(list, layer, "linear_attn.out_proj.weight", hidden, width, 0);
}

static void add_layer(struct tensor_list *list, const char *layer,
                      const struct model_config *config, bool is_attention)
{
    add(list, layer, "input_layernorm.weight", config->hidden, 0, 0);
    add(list, layer, "post_attention_layernorm.weight", config->hidden, 0, 0);
    if (is_attention)
        add_attention(list, layer, config);
    else
        add_gdn(list, layer, config);
    add_feed_forward(list, layer, config);
}

enum status tensors_init(struct tensor_list *out, const struct model_config *config, bool mtp,
                         struct error *error)
{
    size_t room = (size_t)(config->layers + 1) * TENSORS_PER_LAYER_MAX + TENSORS_BESIDE_LAYERS_MAX;
    struct tensor_list list = {calloc(room, sizeof *list.items), 0};
    if (list.items == NULL)
        return error_set(error, E_SYSTEM, "out of memory for a list of %zu tensors", room);
    int64_t hidden = config->hidden;
    add(&list, "", "embed_tokens.weight", config->vocab, hidden, 0);
    add(&list, "", "norm.weight", hidden, 0, 0);
    if (!config->tied)
        add(&list, "", "lm_head.weight", config->vocab, hidden, 0);
    for (int i = 0; i < config->layers; i++) {
        char layer[32];
        snprintf(layer, sizeof layer, "layers.%d.", i);
        add_layer(&list, layer, config, config->layer_is_attention[i]);
    }
    if (mtp) {
        add(&list, "", "mtp.fc.weight", hidden, 2 * hidden, 0);
        add(&list, "", "mtp.pre_fc_norm_embedding.weight", hidden, 0, 0);
        add(&list, "", "mtp.pre_fc_norm_hidden.weight", hidden, 0, 0);
        add(&list, "", "mtp.norm.weight", hidden, 0, 0);
        add_layer(&list, "mtp.layers.0.", config, true);
    }
    ASSERT((size_t)list.count <= room);
    *out = list;
    return OK;
}

void tensors_fini(struct tensor_list *list)
{
    free(list->items);
    *list = (struct tensor_list){0};
}

const struct tensor *tensors_find(const struct tensor_list *list, const char *name)
{
    for (int i = 0; i < list->count; i++) {
        if (strcmp(list->items[i].name, name) == 0)
            return &list->items[i];
    }
    return NULL;
}
