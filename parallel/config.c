// SPDX-License-Identifier: Apache-2.0
// config.c -- config.json into struct model_config: defaults, checks and refusals by name. The
// rotary embedding is in config_rope.c.
#include "parallel/config.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "parallel/config_fields.h"
#include "parallel/config_file.h"
#include "parallel/config_rope.h"

// Limits keep every product of two of them within an int and are far above any public model.
enum {
    HIDDEN_MAX = 1 << 16,
    VOCAB_MAX = 1 << 22,
    POSITIONS_MAX = 1 << 24,
    HEADS_MAX = 1024,
    INTERMEDIATE_MAX = 1 << 20,
    EXPERTS_MAX = 4096,
    EXPERT_INTERMEDIATE_MAX = 1 << 16,
};

// What the ops are written for; every public model of the family has these.
enum { HEAD_DIM = 256, GDN_HEAD_DIM = 128, CONV_WIDTH = 4 };

struct model_kind {
    const char *model_type; // of the text model
    const char *wrapper;    // of the object around text_config, NULL when there is none
    bool moe;
    enum checkpoint_layout layout;
};

static const struct model_kind kinds[] = {
    {"qwen3_5_text", "qwen3_5", false, LAYOUT_QWEN35},
    {"qwen3_5_moe_text", "qwen3_5_moe", true, LAYOUT_QWEN35},
    {"qwen3_next", NULL, true, LAYOUT_QWEN3_NEXT},
};

// The kind that goes by this name, alone or as the wrapper's.
static const struct model_kind *kind_of(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(name, kinds[i].model_type) == 0 ||
            (kinds[i].wrapper != NULL && strcmp(name, kinds[i].wrapper) == 0))
            return &kinds[i];
    }
    return NULL;
}

// Both levels may name the model; they must not contradict each other.
static const struct model_kind *parse_kind(struct config_fields *top, struct config_fields *text)
{
    static const char served[] = "qwen3_5, qwen3_5_moe and qwen3_next are served";
    const char *outer = config_fields_text(top, "model_type");
    const char *inner = config_fields_text(text, "model_type");
    if (outer == NULL && inner == NULL) {
        config_fields_fail(top, E_INPUT, "%s: model_type is missing; %s", top->file, served);
        return &kinds[0];
    }
    const struct model_kind *outer_kind = outer != NULL ? kind_of(outer) : NULL;
    const struct model_kind *inner_kind = inner != NULL ? kind_of(inner) : NULL;
    if (outer != NULL && outer_kind == NULL)
        config_fields_refuse(top, E_UNSUPPORTED, "model_type", served);
    if (inner != NULL && inner_kind == NULL)
        config_fields_refuse(text, E_UNSUPPORTED, "model_type", served);
    if (outer_kind != NULL && inner_kind != NULL && outer_kind != inner_kind)
        config_fields_refuse(text, E_INPUT, "model_type", "it contradicts the outer model_type");
    if (inner_kind != NULL)
        return inner_kind;
    return outer_kind != NULL ? outer_kind : &kinds[0];
}

static void parse_layers(struct model_config *out, struct config_fields *text)
{
    out->layers = (int)config_fields_int(text, "num_hidden_layers", 1, LAYERS_MAX);
    const json_t *types = config_fields_get(text, "layer_types");
    if (types == NULL) {
        int interval = (int)config_fields_int_or(text, "full_attention_interval", 4, 1, LAYERS_MAX);
        for (int i = 0; i < out->layers; i++)
            out->layer_is_attention[i] = (i + 1) % interval == 0;
        return;
    }
    if (!json_is_array(types) || json_array_size(types) != (size_t)out->layers) {
        config_fields_fail(text, E_INPUT,
                           "%s: %slayer_types has %zu entries; an array of "
                           "num_hidden_layers = %d is expected",
                           text->file, text->where, json_array_size(types), out->layers);
        return;
    }
    for (int i = 0; i < out->layers; i++) {
        const char *type = json_string_value(json_array_get(types, (size_t)i));
        out->layer_is_attention[i] = type != NULL && strcmp(type, "full_attention") == 0;
        if (type == NULL || (!out->layer_is_attention[i] && strcmp(type, "linear_attention") != 0))
            config_fields_fail(text, E_UNSUPPORTED,
                               "%s: %slayer_types[%d] is %.40s; \"linear_attention\" or "
                               "\"full_attention\" is expected",
                               text->file, text->where, i, type != NULL ? type : "no string");
    }
}

// A field whose one accepted value is the one the ops are written for.
static int parse_fixed(struct config_fields *text, const char *name, int value)
{
    int64_t found = config_fields_int_or(text, name, value, 1, 1 << 16);
    if (found != value) {
        char expected[64];
        snprintf(expected, sizeof expected, "%d is the one size that is served", value);
        config_fields_refuse(text, E_UNSUPPORTED, name, expected);
    }
    return value;
}

static void parse_mixers(struct model_config *out, struct config_fields *text)
{
    out->heads = (int)config_fields_int(text, "num_attention_heads", 1, HEADS_MAX);
    out->kv_heads = (int)config_fields_int(text, "num_key_value_heads", 1, HEADS_MAX);
    if (out->heads % out->kv_heads != 0)
        config_fields_refuse(text, E_INPUT, "num_key_value_heads",
                             "a divisor of num_attention_heads is expected");
    out->head_dim = parse_fixed(text, "head_dim", HEAD_DIM);
    out->key_heads = (int)config_fields_int(text, "linear_num_key_heads", 1, HEADS_MAX);
    out->value_heads = (int)config_fields_int(text, "linear_num_value_heads", 1, HEADS_MAX);
    if (out->value_heads % out->key_heads != 0)
        config_fields_refuse(text, E_INPUT, "linear_num_value_heads",
                             "a multiple of linear_num_key_heads is expected");
    out->key_dim = parse_fixed(text, "linear_key_head_dim", GDN_HEAD_DIM);
    out->value_dim = parse_fixed(text, "linear_value_head_dim", GDN_HEAD_DIM);
    out->conv_width = parse_fixed(text, "linear_conv_kernel_dim", CONV_WIDTH);
}

static void parse_feed_forward(struct model_config *out, struct config_fields *text, bool moe)
{
    if (moe)
        out->experts = (int)config_fields_int(text, "num_experts", 0, EXPERTS_MAX);
    else if (config_fields_int_or(text, "num_experts", 0, 0, EXPERTS_MAX) != 0)
        config_fields_refuse(text, E_INPUT, "num_experts", "this model_type is a dense model");
    if (out->experts == 0) {
        out->intermediate = (int)config_fields_int(text, "intermediate_size", 1, INTERMEDIATE_MAX);
        return;
    }
    out->experts_per_token = (int)config_fields_int(text, "num_experts_per_tok", 1, out->experts);
    out->expert_intermediate =
        (int)config_fields_int(text, "moe_intermediate_size", 1, EXPERT_INTERMEDIATE_MAX);
    out->shared_intermediate =
        (int)config_fields_int(text, "shared_expert_intermediate_size", 1, EXPERT_INTERMEDIATE_MAX);
    if (!config_fields_bool_or(text, "norm_topk_prob", true))
        config_fields_refuse(text, E_UNSUPPORTED, "norm_topk_prob",
                             "only renormalised expert weights are served");
    if (config_fields_int_or(text, "decoder_sparse_step", 1, 0, LAYERS_MAX) != 1)
        config_fields_refuse(text, E_UNSUPPORTED, "decoder_sparse_step",
                             "only models with experts in every layer (1) are served");
    const json_t *dense_layers = config_fields_get(text, "mlp_only_layers");
    if (dense_layers != NULL && (!json_is_array(dense_layers) || json_array_size(dense_layers) > 0))
        config_fields_refuse(text, E_UNSUPPORTED, "mlp_only_layers",
                             "only models with experts in every layer ([]) are served");
}

static void refuse_text_unless(struct config_fields *text, const char *name, const char *accepted,
                               const char *also_accepted)
{
    const char *value = config_fields_text(text, name);
    if (value == NULL || strcmp(value, accepted) == 0 || strcmp(value, also_accepted) == 0)
        return;
    char expected[64];
    snprintf(expected, sizeof expected, "\"%s\" is served", accepted);
    config_fields_refuse(text, E_UNSUPPORTED, name, expected);
}

// Features that would change the numbers and that this build does not have.
static void refuse_features(struct config_fields *text)
{
    refuse_text_unless(text, "hidden_act", "silu", "silu");
    refuse_text_unless(text, "output_gate_type", "swish", "silu");
    refuse_text_unless(text, "mamba_ssm_dtype", "float32", "float32");
    if (config_fields_bool_or(text, "attention_bias", false))
        config_fields_refuse(text, E_UNSUPPORTED, "attention_bias", "false is served");
    if (!config_fields_bool_or(text, "attn_output_gate", true))
        config_fields_refuse(text, E_UNSUPPORTED, "attn_output_gate", "true is served");
    if (config_fields_bool_or(text, "use_sliding_window", false))
        config_fields_refuse(text, E_UNSUPPORTED, "use_sliding_window", "false is served");
    if (config_fields_bool_or(text, "mtp_use_dedicated_embeddings", false))
        config_fields_refuse(text, E_UNSUPPORTED, "mtp_use_dedicated_embeddings",
                             "false is served");
}

static void refuse_quantized(struct config_fields *fields)
{
    const json_t *quantization = config_fields_get(fields, "quantization_config");
    if (quantization == NULL)
        return;
    const char *method = json_string_value(json_object_get(quantization, "quant_method"));
    config_fields_fail(fields, E_UNSUPPORTED,
                       "%s: %squantization_config (quant_method %.40s): FP8 and INT4 "
                       "checkpoints are not served yet",
                       fields->file, fields->where, method != NULL ? method : "unknown");
}

static void add_eos(struct model_config *out, struct config_fields *fields, const json_t *value)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) >= out->vocab) {
        config_fields_fail(fields, E_INPUT,
                           "%s: %seos_token_id: token ids in [0, vocab_size = %d) are expected",
                           fields->file, fields->where, out->vocab);
        return;
    }
    int id = (int)json_integer_value(value);
    for (int i = 0; i < out->eos_count; i++) {
        if (out->eos_ids[i] == id)
            return;
    }
    if (out->eos_count == EOS_IDS_MAX)
        config_fields_fail(fields, E_LIMIT, "%s: %seos_token_id: more than %d end tokens",
                           fields->file, fields->where, EOS_IDS_MAX);
    else
        out->eos_ids[out->eos_count++] = id;
}

// eos_token_id is a number, a list of them, or null.
static void parse_eos(struct model_config *out, struct config_fields *fields)
{
    const json_t *value = config_fields_get(fields, "eos_token_id");
    if (value == NULL)
        return;
    if (!json_is_array(value)) {
        add_eos(out, fields, value);
        return;
    }
    for (size_t i = 0; i < json_array_size(value); i++)
        add_eos(out, fields, json_array_get(value, i));
}

// YaRN stretches the context to factor times the original one; the model cards tell people to add
// the rope fields and leave max_position_embeddings as it was.
static void stretch_positions(struct model_config *config)
{
    const struct rope_config *rope = &config->rope;
    double stretched = rope->factor * rope->original_max_position_embeddings;
    if (rope->type != ROPE_YARN || stretched <= config->max_position_embeddings)
        return;
    config->max_position_embeddings = stretched < POSITIONS_MAX ? (int)stretched : POSITIONS_MAX;
}

static enum status parse_document(struct model_config *out, const json_t *document,
                                  const char *file, struct error *error)
{
    struct model_config config = {0};
    struct config_fields top = {document, file, "", error, OK};
    const json_t *nested = config_fields_get(&top, "text_config");
    if (nested != NULL && !json_is_object(nested))
        config_fields_refuse(&top, E_INPUT, "text_config", "an object is expected");
    struct config_fields text = {nested != NULL ? nested : document, file,
                                 nested != NULL ? "text_config." : "", error, OK};
    const struct model_kind *kind = parse_kind(&top, &text);
    refuse_quantized(&top);
    TRY(top.status);
    refuse_quantized(&text);
    config.layout = kind->layout;
    snprintf(config.model_type, sizeof config.model_type, "%s", kind->model_type);

    parse_layers(&config, &text);
    config.hidden = (int)config_fields_int(&text, "hidden_size", 1, HIDDEN_MAX);
    config.vocab = (int)config_fields_int(&text, "vocab_size", 1, VOCAB_MAX);
    config.max_position_embeddings =
        (int)config_fields_int(&text, "max_position_embeddings", 1, POSITIONS_MAX);
    config.rms_norm_eps = config_fields_number_or(&text, "rms_norm_eps", 1e-6, 1e-12, 1);
    parse_mixers(&config, &text);
    parse_feed_forward(&config, &text, kind->moe);
    refuse_features(&text);
    config_rope_parse(&config.rope, &text, config.head_dim, config.max_position_embeddings);
    config.mtp_layers = (int)config_fields_int_or(&text, "mtp_num_hidden_layers", 0, 0, 1);
    parse_eos(&config, &text);
    TRY(text.status);

    // Both levels may say it; wrappers are believed (some releases omit the inner one).
    bool tied = config_fields_bool_or(&text, "tie_word_embeddings", false);
    config.tied = config_fields_bool_or(&top, "tie_word_embeddings", tied);
    parse_eos(&config, &top);
    TRY(text.status);
    TRY(top.status);
    stretch_positions(&config);
    *out = config;
    return OK;
}

enum status config_parse(struct model_config *out, const char *json, size_t json_bytes,
                         struct error *error)
{
    json_t *document;
    TRY(config_file_parse(&document, "config.json", json, json_bytes, error));
    enum status status = parse_document(out, document, "config.json", error);
    json_decref(document);
    return status;
}

// Adds the end tokens of generation_config.json, where the chat's end of turn usually stands.
static enum status load_generation_config(struct model_config *config, const char *path,
                                          struct error *error)
{
    json_t *document;
    struct error problem;
    enum status status = config_file_read(&document, path, &problem);
    if (status == E_NOT_FOUND)
        return OK;
    if (status != OK)
        return error_set(error, status, "%s", problem.text);
    struct config_fields fields = {document, path, "", error, OK};
    parse_eos(config, &fields);
    json_decref(document);
    return fields.status;
}

enum status config_load(struct model_config *out, const char *model_dir, struct error *error)
{
    char path[4096];
    json_t *document;
    struct model_config config;
    if (snprintf(path, sizeof path, "%s/generation_config.json", model_dir) >= (int)sizeof path)
        return error_set(error, E_LIMIT, "the model's path is longer than %zu bytes", sizeof path);
    struct stat directory;
    if (stat(model_dir, &directory) != 0)
        return error_set(error, E_NOT_FOUND, "model directory %s: %s", model_dir, strerror(errno));
    snprintf(path, sizeof path, "%s/config.json", model_dir);
    TRY(config_file_read(&document, path, error));
    enum status status = parse_document(&config, document, path, error);
    json_decref(document);
    TRY(status);
    snprintf(path, sizeof path, "%s/generation_config.json", model_dir);
    TRY(load_generation_config(&config, path, error));
    *out = config;
    return OK;
}

static void hash_bytes(uint64_t *hash, const void *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        *hash = (*hash ^ ((const uint8_t *)data)[i]) * 0x100000001b3u;
}

static void hash_int(uint64_t *hash, int64_t value)
{
    hash_bytes(hash, &value, sizeof value);
}

static void hash_number(uint64_t *hash, double value)
{
    hash_bytes(hash, &value, sizeof value);
}

// FNV-1a 64, field by field: padding bytes of the struct have no say.
uint64_t config_hash(const struct model_config *config)
{
    uint64_t hash = 0xcbf29ce484222325u;
    const int numbers[] = {
        (int)config->layout,
        config->layers,
        config->hidden,
        config->vocab,
        config->tied,
        config->max_position_embeddings,
        config->heads,
        config->kv_heads,
        config->head_dim,
        config->key_heads,
        config->value_heads,
        config->key_dim,
        config->value_dim,
        config->conv_width,
        config->intermediate,
        config->experts,
        config->experts_per_token,
        config->expert_intermediate,
        config->shared_intermediate,
        config->mtp_layers,
        (int)config->rope.type,
        config->rope.rotary_dim,
        config->rope.original_max_position_embeddings,
        config->rope.truncate,
        config->eos_count,
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        hash_int(&hash, numbers[i]);
    for (int i = 0; i < config->layers; i++)
        hash_int(&hash, config->layer_is_attention[i]);
    for (int i = 0; i < config->eos_count; i++)
        hash_int(&hash, config->eos_ids[i]);
    const double reals[] = {
        config->rms_norm_eps,   config->rope.theta,     config->rope.factor,
        config->rope.beta_fast, config->rope.beta_slow, config->rope.attention_factor,
    };
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++)
        hash_number(&hash, reals[i]);
    return hash;
}

int config_conv_channels(const struct model_config *config)
{
    return 2 * config->key_heads * config->key_dim + config->value_heads * config->value_dim;
}
