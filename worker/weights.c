// SPDX-License-Identifier: Apache-2.0
// weights.c -- which rectangles of which canonical tensors make up each fused weight of a rank.
// Reading and regrouping are checkpoint.c's, placing and copying weight_writer.c's.
#include "worker/weights.h"

#include <stdio.h>
#include <string.h>

#include "kernels/runtime.h"
#include "worker/checkpoint.h"
#include "worker/weight_writer.h"

// What every function here needs.
struct context {
    struct weight_writer *writer;
    const struct model_config *config;
    const struct shard *shard;
    char layer[32]; // prefix of the layer at hand: "layers.3." or "mtp.layers.0."
};

static const struct tensor *layer_tensor(const struct context *context, const char *name)
{
    return weight_writer_find(context->writer, "%s%s", context->layer, name);
}

static const float *whole_vector(const struct context *context, const struct tensor *tensor)
{
    const float *vector = weight_writer_vector(context->writer);
    weight_writer_add_rows(context->writer, tensor, 0, 1);
    return vector;
}

static const float *sliced_vector(const struct context *context, const char *name, struct span span)
{
    const float *vector = weight_writer_vector(context->writer);
    weight_writer_add_columns(context->writer, layer_tensor(context, name), span.first, span.count);
    return vector;
}

// Some columns of all rows of one tensor: o_proj and the down projections.
static struct weight sliced_columns(const struct context *context, const char *name,
                                    struct span span)
{
    const struct tensor *tensor = layer_tensor(context, name);
    struct weight weight = weight_writer_matrix(context->writer, tensor->rows, span.count);
    weight_writer_add_columns(context->writer, tensor, span.first, span.count);
    return weight;
}

// The span of heads as a span of their rows or columns.
static struct span widened(struct span heads, int width)
{
    return (struct span){heads.first * width, heads.count * width};
}

// Adds the three segments [all q | all k | all v] of own heads.
static void add_qkv_segments(const struct context *context, const char *name)
{
    const struct model_config *config = context->config;
    const struct tensor *tensor = layer_tensor(context, name);
    struct span keys = widened(context->shard->key_heads, config->key_dim);
    struct span values = widened(context->shard->value_heads, config->value_dim);
    int key_rows = config->key_heads * config->key_dim;
    weight_writer_add_rows(context->writer, tensor, keys.first, keys.count);
    weight_writer_add_rows(context->writer, tensor, key_rows + keys.first, keys.count);
    weight_writer_add_rows(context->writer, tensor, 2 * key_rows + values.first, values.count);
}

static void load_gdn(struct gdn_weights *out, const struct context *context)
{
    const struct model_config *config = context->config;
    const struct shard *shard = context->shard;
    struct span heads = shard->value_heads, values = widened(heads, config->value_dim);
    struct weight_writer *writer = context->writer;
    out->in_proj = weight_writer_matrix(writer, shard_gdn_rows(shard, config), config->hidden);
    add_qkv_segments(context, "linear_attn.in_proj_qkv.weight");
    weight_writer_add_rows(writer, layer_tensor(context, "linear_attn.in_proj_z.weight"),
                           values.first, values.count);
    weight_writer_add_rows(writer, layer_tensor(context, "linear_attn.in_proj_b.weight"),
                           heads.first, heads.count);
    weight_writer_add_rows(writer, layer_tensor(context, "linear_attn.in_proj_a.weight"),
                           heads.first, heads.count);
    out->out_proj = sliced_columns(context, "linear_attn.out_proj.weight", values);
    out->conv = weight_writer_vector(writer);
    add_qkv_segments(context, "linear_attn.conv1d.weight");
    out->a_log = sliced_vector(context, "linear_attn.A_log", heads);
    out->dt_bias = sliced_vector(context, "linear_attn.dt_bias", heads);
    out->norm = whole_vector(context, layer_tensor(context, "linear_attn.norm.weight"));
}

static void load_attention(struct attention_weights *out, const struct context *context)
{
    const struct shard *shard = context->shard;
    int head_dim = context->config->head_dim;
    struct span heads = widened(shard->heads, head_dim);
    struct span kv = widened(shard->kv_heads, head_dim);
    struct weight_writer *writer = context->writer;
    out->in_proj = weight_writer_matrix(writer, shard_attention_rows(shard, context->config),
                                        context->config->hidden);
    // Stored per head as [query rows | gate rows]; here all query rows, then all gate rows.
    const struct tensor *q_proj = layer_tensor(context, "self_attn.q_proj.weight");
    for (int part = 0; part < 2; part++) {
        for (int i = 0; i < shard->heads.count; i++)
            weight_writer_add_rows(writer, q_proj,
                                   2 * (heads.first + i * head_dim) + part * head_dim, head_dim);
    }
    weight_writer_add_rows(writer, layer_tensor(context, "self_attn.k_proj.weight"), kv.first,
                           kv.count);
    weight_writer_add_rows(writer, layer_tensor(context, "self_attn.v_proj.weight"), kv.first,
                           kv.count);
    out->out_proj = sliced_columns(context, "self_attn.o_proj.weight", heads);
    out->q_norm = whole_vector(context, layer_tensor(context, "self_attn.q_norm.weight"));
    out->k_norm = whole_vector(context, layer_tensor(context, "self_attn.k_norm.weight"));
}

// [gate own | up own, hidden] of two tensors whose names end in gate_proj and up_proj.
static struct weight gate_up(const struct context *context, const char *gate, const char *up,
                             struct span span)
{
    struct weight weight =
        weight_writer_matrix(context->writer, 2 * span.count, context->config->hidden);
    weight_writer_add_rows(context->writer, layer_tensor(context, gate), span.first, span.count);
    weight_writer_add_rows(context->writer, layer_tensor(context, up), span.first, span.count);
    return weight;
}

static void load_mlp(struct mlp_weights *out, const struct context *context)
{
    struct span span = context->shard->intermediate;
    out->gate_up = gate_up(context, "mlp.gate_proj.weight", "mlp.up_proj.weight", span);
    out->down = sliced_columns(context, "mlp.down_proj.weight", span);
}

static void load_moe(struct moe_weights *out, const struct context *context)
{
    const struct model_config *config = context->config;
    struct weight_writer *writer = context->writer;
    struct span span = context->shard->expert_intermediate;
    struct span shared = context->shard->shared_intermediate;
    out->router = weight_writer_matrix(writer, config->experts + 1, config->hidden);
    weight_writer_add_rows(writer, layer_tensor(context, "mlp.gate.weight"), 0, config->experts);
    weight_writer_add_rows(writer, layer_tensor(context, "mlp.shared_expert_gate.weight"), 0, 1);

    const struct tensor *experts = layer_tensor(context, "mlp.experts.gate_up_proj");
    int64_t half = config->expert_intermediate; // stored per expert: gate rows, then up rows
    out->gate_up =
        weight_writer_matrix(writer, (int64_t)config->experts * 2 * span.count, config->hidden);
    for (int64_t i = 0; i < 2 * (int64_t)config->experts; i++)
        weight_writer_add_rows(writer, experts, i * half + span.first, span.count);
    out->down = sliced_columns(context, "mlp.experts.down_proj", span);

    out->shared_gate_up = gate_up(context, "mlp.shared_expert.gate_proj.weight",
                                  "mlp.shared_expert.up_proj.weight", shared);
    out->shared_down = sliced_columns(context, "mlp.shared_expert.down_proj.weight", shared);
}

static void load_layer(struct layer_weights *out, const struct context *context, bool is_attention)
{
    out->is_attention = is_attention;
    out->input_norm = whole_vector(context, layer_tensor(context, "input_layernorm.weight"));
    if (is_attention)
        load_attention(&out->attention, context);
    else
        load_gdn(&out->gdn, context);
    out->post_norm =
        whole_vector(context, layer_tensor(context, "post_attention_layernorm.weight"));
    if (context->config->experts > 0)
        load_moe(&out->moe, context);
    else
        load_mlp(&out->mlp, context);
}

static void load_mtp(struct mtp_weights *out, struct context *context)
{
    struct weight_writer *writer = context->writer;
    const struct tensor *fc = weight_writer_find(writer, "mtp.fc.weight");
    out->fc = weight_writer_matrix(writer, fc->rows, fc->columns);
    weight_writer_add_rows(writer, fc, 0, fc->rows);
    out->embedding_norm =
        whole_vector(context, weight_writer_find(writer, "mtp.pre_fc_norm_embedding.weight"));
    out->hidden_norm =
        whole_vector(context, weight_writer_find(writer, "mtp.pre_fc_norm_hidden.weight"));
    snprintf(context->layer, sizeof context->layer, "mtp.layers.0.");
    load_layer(&out->layer, context, true);
    out->norm = whole_vector(context, weight_writer_find(writer, "mtp.norm.weight"));
}

// The rows of lm_head that this rank owns; a tied model's are in the embedding already.
static struct weight load_lm_head(const struct context *context, const struct weight *embedding)
{
    struct span vocab = context->shard->vocab;
    int hidden = context->config->hidden;
    if (context->config->tied) {
        struct weight view = *embedding;
        view.rows = vocab.count;
        if (view.data != NULL)
            view.data = weight_bf16(embedding) + (int64_t)vocab.first * hidden;
        return view;
    }
    struct weight weight = weight_writer_matrix(context->writer, vocab.count, hidden);
    weight_writer_add_rows(context->writer, weight_writer_find(context->writer, "lm_head.weight"),
                           vocab.first, vocab.count);
    return weight;
}

// In the order in which a step uses them. Runs once to measure and once to load.
static void load_model(struct model_weights *out, struct context *context)
{
    struct weight_writer *writer = context->writer;
    const struct model_config *config = context->config;
    const struct tensor *embedding = weight_writer_find(writer, "embed_tokens.weight");
    out->embedding = weight_writer_matrix(writer, config->vocab, config->hidden);
    weight_writer_add_rows(writer, embedding, 0, config->vocab);
    for (int i = 0; i < config->layers; i++) {
        snprintf(context->layer, sizeof context->layer, "layers.%d.", i);
        load_layer(&out->layers[i], context, config->layer_is_attention[i]);
    }
    out->norm = whole_vector(context, weight_writer_find(writer, "norm.weight"));
    out->lm_head = load_lm_head(context, &out->embedding);
    if (out->has_mtp)
        load_mtp(&out->mtp, context);
}

enum status weights_open(struct model_weights *out, const struct weights_request *request,
                         struct error *error)
{
    const struct model_config *config = request->config;
    struct checkpoint *checkpoint = NULL;
    struct tensor_list made = {0};
    const struct tensor_list *tensors = &made;
    memset(out, 0, sizeof *out);
    if (request->format == LOAD_DUMMY) {
        out->has_mtp = config->mtp_layers > 0;
        TRY(tensors_init(&made, config, out->has_mtp, error));
    } else {
        TRY(checkpoint_open(&checkpoint, request->model_dir, config, error));
        out->has_mtp = checkpoint_has_mtp(checkpoint);
        tensors = checkpoint_tensors(checkpoint);
    }
    struct weight_writer writer;
    struct context context = {.writer = &writer, .config = config, .shard = request->shard};
    weight_writer_init(&writer, tensors, checkpoint, request->progress, error);
    load_model(out, &context);
    weight_writer_begin(&writer);
    load_model(out, &context);
    enum status status = weight_writer_end(&writer);
    out->memory = writer.memory_dev;
    out->memory_bytes = writer.memory_bytes;
    tensors_fini(&made);
    checkpoint_close(checkpoint);
    if (status != OK)
        memset(out, 0, sizeof *out);
    return status;
}

void weights_close(struct model_weights *weights)
{
    runtime_free(weights->memory);
    memset(weights, 0, sizeof *weights);
}

enum status weights_has_mtp(bool *out, const char *model_dir, enum load_format format,
                            const struct model_config *config, struct error *error)
{
    if (format == LOAD_DUMMY) {
        *out = config->mtp_layers > 0;
        return OK;
    }
    struct checkpoint *checkpoint;
    TRY(checkpoint_open(&checkpoint, model_dir, config, error));
    *out = checkpoint_has_mtp(checkpoint);
    checkpoint_close(checkpoint);
    return OK;
}
