// SPDX-License-Identifier: Apache-2.0
// model_qwen35.c -- Qwen3.5 / 3.6 (and Qwen3-Next): embedding, layers of {GDN or gated attention}
// + {dense or MoE feed-forward}, final norm, head. Read it top to bottom; how fast an op is for
// how many tokens is decided in kernels/.
#include "worker/model.h"

#include "kernels/attention.h"
#include "kernels/embed.h"
#include "kernels/gdn.h"
#include "kernels/linear_push.h"
#include "kernels/lm_head.h"
#include "kernels/moe_push.h"
#include "kernels/moe_route.h"
#include "kernels/mtp_input.h"
#include "kernels/norm_linear_pull.h"
#include "kernels/silu_mul.h"

// What the last op pushed and where parts of it stand; NULLs: nothing.
struct pushed {
    struct exchange *pull;
    const struct push_parts *parts;
};

// Pull what the last op pushed, normalise, and project: every mixer and dense FFN begins so.
static void norm_project(const struct model *model, struct pushed pushed, const float *norm,
                         const struct weight *weight, int tokens)
{
    struct workspace *w = &model->state->workspace;
    norm_linear_pull(model->stream, &(struct norm_linear_pull){
                                        .pull = pushed.pull,
                                        .parts = pushed.parts,
                                        .residual = w->residual,
                                        .norm = norm,
                                        .eps = (float)model->config.rms_norm_eps,
                                        .tokens = tokens,
                                        .hidden = model->config.hidden,
                                        .normed = w->normed,
                                        .weight = *weight,
                                        .y = w->projected,
                                    });
}

// Pull and normalise only, into `normed`.
static void norm_only(const struct model *model, struct pushed pushed, const float *norm,
                      bf16 *normed, int tokens)
{
    norm_linear_pull(model->stream, &(struct norm_linear_pull){
                                        .pull = pushed.pull,
                                        .parts = pushed.parts,
                                        .residual = model->state->workspace.residual,
                                        .norm = norm,
                                        .eps = (float)model->config.rms_norm_eps,
                                        .tokens = tokens,
                                        .hidden = model->config.hidden,
                                        .normed = normed,
                                        .weight = {.format = WEIGHT_NONE},
                                    });
}

static void mix_gdn(const struct model *model, const struct step_tables *tables, int layer,
                    const struct gdn_weights *weights)
{
    struct workspace *w = &model->state->workspace;
    const struct shard *shard = &model->shard;
    int stride = weights->in_proj.rows;
    int value_width = shard->value_heads.count * model->config.value_dim;
    gdn(model->stream, &(struct gdn){
                           .tables = *tables,
                           .slots = model->state->slots,
                           .state = model->state->gdn[layer],
                           .bf16_state = model->state->bf16_state,
                           .checkpoints = model->state->prefix.checkpoints[layer],
                           .workspace = w->gdn,
                           .projected = w->projected,
                           .projected_stride = stride,
                           .conv_weight = weights->conv,
                           .a_log = weights->a_log,
                           .dt_bias = weights->dt_bias,
                           .key_heads = shard->key_heads.count,
                           .value_heads = shard->value_heads.count,
                           .o = w->mixed,
                       });
    linear_push(model->stream,
                &(struct linear_push){
                    .push = group_exchange(model->group),
                    .x = w->mixed,
                    .x_stride = value_width,
                    .weight = weights->out_proj,
                    .tokens = tables->tokens_count,
                    .partial = w->partial,
                    .gate = w->projected + shard_conv_channels(shard, &model->config),
                    .gate_stride = stride,
                    .norm = weights->norm,
                    .eps = (float)model->config.rms_norm_eps,
                    .heads = shard->value_heads.count,
                    .dim = model->config.value_dim,
                    .gated = w->gated,
                });
}

// What attention and attention_append share: projected has the rows of `projection`.
static struct attention attention_of(const struct model *model, const struct step_tables *tables,
                                     const struct kv_layer *kv,
                                     const struct attention_weights *weights,
                                     const struct weight *projection)
{
    const struct model_config *config = &model->config;
    return (struct attention){
        .tables = *tables,
        .slots = model->state->slots,
        .k_pages = kv->k_pages,
        .v_pages = kv->v_pages,
        .projected = model->state->workspace.projected,
        .projected_stride = projection->rows,
        .k_norm = weights->k_norm,
        .eps = (float)config->rms_norm_eps,
        .inverse_frequencies = model->state->inverse_frequencies,
        .rotary_scale = (float)config->rope.attention_factor,
        .heads = model->shard.heads.count,
        .kv_heads = model->shard.kv_heads.count,
        .head_dim = config->head_dim,
        .rotary_dim = config->rope.rotary_dim,
    };
}

static void mix_attention(const struct model *model, const struct step_tables *tables,
                          const struct kv_layer *kv, const struct attention_weights *weights,
                          int position_first)
{
    struct workspace *w = &model->state->workspace;
    const struct model_config *config = &model->config;
    struct attention op = attention_of(model, tables, kv, weights, &weights->in_proj);
    op.q_norm = weights->q_norm;
    op.position_first = position_first;
    op.y = w->mixed;
    op.workspace = w->attention;
    attention(model->stream, &op);
    linear_push(model->stream, &(struct linear_push){
                                   .push = group_exchange(model->group),
                                   .x = w->mixed,
                                   .x_stride = model->shard.heads.count * config->head_dim,
                                   .weight = weights->out_proj,
                                   .tokens = tables->tokens_count,
                                   .partial = w->partial,
                               });
}

static void feed_forward_dense(const struct model *model, const struct layer_weights *layer,
                               int tokens)
{
    struct workspace *w = &model->state->workspace;
    int width = model->shard.intermediate.count;
    struct pushed mixed = {.pull = group_exchange(model->group)};
    norm_project(model, mixed, layer->post_norm, &layer->mlp.gate_up, tokens);
    silu_mul(model->stream, w->middle, w->projected, tokens, width);
    linear_push(model->stream, &(struct linear_push){
                                   .push = group_exchange(model->group),
                                   .x = w->middle,
                                   .x_stride = width,
                                   .weight = layer->mlp.down,
                                   .tokens = tokens,
                                   .partial = w->partial,
                               });
}

static void feed_forward_moe(const struct model *model, const struct layer_weights *layer,
                             int tokens, struct push_parts *parts)
{
    struct workspace *w = &model->state->workspace;
    const struct model_config *config = &model->config;
    moe_route(model->stream, &(struct moe_route){
                                 .pull = group_exchange(model->group),
                                 .residual = w->residual,
                                 .norm = layer->post_norm,
                                 .eps = (float)config->rms_norm_eps,
                                 .x = w->normed,
                                 .router = layer->moe.router,
                                 .tokens = tokens,
                                 .hidden = config->hidden,
                                 .experts = config->experts,
                                 .picks = config->experts_per_token,
                                 .logits = w->router_logits,
                                 .expert_ids = w->expert_ids,
                                 .expert_weights = w->expert_weights,
                                 .shared_weights = w->shared_weights,
                             });
    moe_push(model->stream, &(struct moe_push){
                                .push = group_exchange(model->group),
                                .parts = parts,
                                .x = w->normed,
                                .tokens = tokens,
                                .hidden = config->hidden,
                                .experts = config->experts,
                                .picks = config->experts_per_token,
                                .expert_ids = w->expert_ids,
                                .expert_weights = w->expert_weights,
                                .shared_weights = w->shared_weights,
                                .gate_up = layer->moe.gate_up,
                                .down = layer->moe.down,
                                .width = model->shard.expert_intermediate.count,
                                .shared_gate_up = layer->moe.shared_gate_up,
                                .shared_down = layer->moe.shared_down,
                                .shared_width = model->shard.shared_intermediate.count,
                                .partial = w->partial,
                                .middle = w->middle,
                                .products = w->expert_products,
                                .lists = w->expert_lists,
                            });
}

// The residual's next pull; parts: room for what it says of them.
static struct pushed feed_forward(const struct model *model, const struct layer_weights *layer,
                                  int tokens, struct push_parts *parts)
{
    *parts = (struct push_parts){.products = NULL};
    if (model->config.experts > 0)
        feed_forward_moe(model, layer, tokens, parts);
    else
        feed_forward_dense(model, layer, tokens);
    return (struct pushed){.pull = group_exchange(model->group), .parts = parts};
}

void model_forward(const struct model *model, const struct step_tables *tables)
{
    const struct model_weights *weights = model->weights;
    struct workspace *w = &model->state->workspace;
    int tokens = tables->tokens_count;
    struct push_parts parts;
    struct pushed pushed = {.pull = NULL}; // the first layer's residual is the embedding itself
    embed(model->stream, w->residual, tables->token_ids, &weights->embedding, tokens);
    for (int i = 0; i < model->config.layers; i++) {
        const struct layer_weights *layer = &weights->layers[i];
        if (layer->is_attention) {
            norm_project(model, pushed, layer->input_norm, &layer->attention.in_proj, tokens);
            mix_attention(model, tables, &model->state->kv[i], &layer->attention, 0);
        } else {
            norm_project(model, pushed, layer->input_norm, &layer->gdn.in_proj, tokens);
            mix_gdn(model, tables, i, &layer->gdn);
        }
        pushed = feed_forward(model, layer, tokens, &parts);
    }
    norm_only(model, pushed, weights->norm, w->hidden, tokens);
}

int model_vocab_rows(const struct model *model, int ids_end)
{
    enum { TILE_ROWS = 64 }; // whole tiles of lm_head's kernels and whole loads of sample.h's
    const struct span *own = &model->shard.vocab;
    int tiles = (ids_end - own->first + TILE_ROWS - 1) / TILE_ROWS;
    int rows = tiles > 0 ? tiles * TILE_ROWS : TILE_ROWS;
    return rows < own->count ? rows : own->count;
}

void model_logits(const struct model *model, const struct step_tables *tables,
                  const bf16 *hidden_rows, int ids_end)
{
    struct weight head = weight_rows(&model->weights->lm_head, 0, model_vocab_rows(model, ids_end));
    lm_head(model->stream, model->state->workspace.logits, hidden_rows, tables->sample_tokens,
            &head, tables->samples_count, model->state->workspace.normed);
}

// The head's joined and projected input, into the residual stream.
static void join_mtp(const struct model *model, int tokens, const int32_t *ids,
                     const bf16 *hidden_rows)
{
    const struct mtp_weights *head = &model->weights->mtp;
    mtp_input(model->stream, &(struct mtp_input){
                                 .ids = ids,
                                 .hidden_rows = hidden_rows,
                                 .embedding = model->weights->embedding,
                                 .fc = head->fc,
                                 .embedding_norm = head->embedding_norm,
                                 .hidden_norm = head->hidden_norm,
                                 .eps = (float)model->config.rms_norm_eps,
                                 .tokens = tokens,
                                 .hidden = model->config.hidden,
                                 .joined = model->state->workspace.joined,
                                 .y = model->state->workspace.residual,
                             });
}

void model_mtp_known(const struct model *model, const struct step_tables *tables,
                     const int32_t *ids, const bf16 *hidden_rows)
{
    const struct layer_weights *layer = &model->weights->mtp.layer;
    const struct attention_weights *weights = &layer->attention;
    const struct model_config *config = &model->config;
    int keys_first = 2 * model->shard.heads.count * config->head_dim;
    struct weight keys_values =
        weight_rows(&weights->in_proj, keys_first, weights->in_proj.rows - keys_first);
    join_mtp(model, tables->tokens_count, ids, hidden_rows);
    norm_project(model, (struct pushed){.pull = NULL}, layer->input_norm, &keys_values,
                 tables->tokens_count);
    struct attention op = attention_of(model, tables, &model->state->mtp_kv, weights, &keys_values);
    attention_append(model->stream, &op);
}

void model_mtp(const struct model *model, const struct step_tables *tables, const int32_t *ids,
               const bf16 *hidden_rows)
{
    const struct mtp_weights *head = &model->weights->mtp;
    int tokens = tables->tokens_count;
    join_mtp(model, tokens, ids, hidden_rows);
    struct push_parts parts;
    norm_project(model, (struct pushed){.pull = NULL}, head->layer.input_norm,
                 &head->layer.attention.in_proj, tokens);
    mix_attention(model, tables, &model->state->mtp_kv, &head->layer.attention, 1);
    struct pushed pushed = feed_forward(model, &head->layer, tokens, &parts);
    norm_only(model, pushed, head->norm, model->state->workspace.hidden, tokens);
}
