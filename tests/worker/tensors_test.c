// SPDX-License-Identifier: Apache-2.0
// tensors_test.c -- counts of the published checkpoints, names and shapes written out by hand.
#include "worker/tensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct tensor_list list_of(const struct model_config *config, bool mtp)
{
    struct tensor_list list;
    struct error error = {0};
    if (tensors_init(&list, config, mtp, &error) != OK)
        fail_msg("%s", error.text);
    return list;
}

// Qwen3.6-27B: 64 layers of which every fourth is attention.
static struct model_config dense_27b(void)
{
    struct model_config config = {
        .layers = 64,
        .hidden = 5120,
        .vocab = 248320,
        .heads = 24,
        .kv_heads = 4,
        .head_dim = 256,
        .key_heads = 16,
        .value_heads = 48,
        .key_dim = 128,
        .value_dim = 128,
        .conv_width = 4,
        .intermediate = 17408,
    };
    for (int i = 3; i < 64; i += 4)
        config.layer_is_attention[i] = true;
    return config;
}

static struct model_config moe_35b(void)
{
    struct model_config config = dense_27b();
    config.layers = 40;
    config.hidden = 2048;
    config.heads = 16;
    config.kv_heads = 2;
    config.value_heads = 32;
    config.intermediate = 0;
    config.experts = 256;
    config.experts_per_token = 8;
    config.expert_intermediate = config.shared_intermediate = 512;
    return config;
}

static void shape_is(const struct tensor_list *list, const char *name, int64_t dim0, int64_t dim1,
                     int64_t dim2)
{
    const struct tensor *tensor = tensors_find(list, name);
    if (tensor == NULL)
        fail_msg("no %s", name);
    assert_int_equal(tensor->dims_count, dim2 > 0 ? 3 : dim1 > 0 ? 2 : 1);
    assert_int_equal(tensor->dims[0], dim0);
    if (dim1 > 0)
        assert_int_equal(tensor->dims[1], dim1);
    if (dim2 > 0)
        assert_int_equal(tensor->dims[2], dim2);
    int64_t values = dim0 * (dim1 > 0 ? dim1 : 1) * (dim2 > 0 ? dim2 : 1);
    assert_int_equal(tensor->rows * tensor->columns, values);
    bool conv = strstr(name, "conv1d") != NULL;
    assert_int_equal(tensor->is_f32, dim1 == 0 || conv);
}

// The published bf16 27B has 851 text tensors and 15 of the head.
static void test_dense_27b(void **state)
{
    (void)state;
    struct model_config config = dense_27b();
    struct tensor_list list = list_of(&config, false);
    assert_int_equal(list.count, 851);
    shape_is(&list, "embed_tokens.weight", 248320, 5120, 0);
    shape_is(&list, "lm_head.weight", 248320, 5120, 0);
    shape_is(&list, "norm.weight", 5120, 0, 0);
    shape_is(&list, "layers.0.input_layernorm.weight", 5120, 0, 0);
    shape_is(&list, "layers.63.post_attention_layernorm.weight", 5120, 0, 0);
    shape_is(&list, "layers.0.linear_attn.in_proj_qkv.weight", 10240, 5120, 0);
    shape_is(&list, "layers.0.linear_attn.in_proj_z.weight", 6144, 5120, 0);
    shape_is(&list, "layers.0.linear_attn.in_proj_b.weight", 48, 5120, 0);
    shape_is(&list, "layers.0.linear_attn.in_proj_a.weight", 48, 5120, 0);
    shape_is(&list, "layers.0.linear_attn.conv1d.weight", 10240, 1, 4);
    shape_is(&list, "layers.0.linear_attn.A_log", 48, 0, 0);
    shape_is(&list, "layers.0.linear_attn.dt_bias", 48, 0, 0);
    shape_is(&list, "layers.0.linear_attn.norm.weight", 128, 0, 0);
    shape_is(&list, "layers.0.linear_attn.out_proj.weight", 5120, 6144, 0);
    shape_is(&list, "layers.3.self_attn.q_proj.weight", 12288, 5120, 0);
    shape_is(&list, "layers.3.self_attn.k_proj.weight", 1024, 5120, 0);
    shape_is(&list, "layers.3.self_attn.v_proj.weight", 1024, 5120, 0);
    shape_is(&list, "layers.3.self_attn.o_proj.weight", 5120, 6144, 0);
    shape_is(&list, "layers.3.self_attn.q_norm.weight", 256, 0, 0);
    shape_is(&list, "layers.3.self_attn.k_norm.weight", 256, 0, 0);
    shape_is(&list, "layers.3.mlp.gate_proj.weight", 17408, 5120, 0);
    shape_is(&list, "layers.3.mlp.up_proj.weight", 17408, 5120, 0);
    shape_is(&list, "layers.3.mlp.down_proj.weight", 5120, 17408, 0);
    assert_null(tensors_find(&list, "layers.3.linear_attn.A_log"));
    assert_null(tensors_find(&list, "mtp.fc.weight"));
    tensors_fini(&list);
    list = list_of(&config, true);
    assert_int_equal(list.count, 851 + 15);
    shape_is(&list, "mtp.fc.weight", 5120, 10240, 0);
    shape_is(&list, "mtp.pre_fc_norm_embedding.weight", 5120, 0, 0);
    shape_is(&list, "mtp.pre_fc_norm_hidden.weight", 5120, 0, 0);
    shape_is(&list, "mtp.norm.weight", 5120, 0, 0);
    shape_is(&list, "mtp.layers.0.self_attn.q_proj.weight", 12288, 5120, 0);
    tensors_fini(&list);
    config.tied = true;
    list = list_of(&config, false);
    assert_int_equal(list.count, 850);
    assert_null(tensors_find(&list, "lm_head.weight"));
    tensors_fini(&list);
}

// The published 35B-A3B has 19 tensors of the head, and 34.661e9 parameters of text.
static void test_moe_35b(void **state)
{
    (void)state;
    struct model_config config = moe_35b();
    struct tensor_list list = list_of(&config, false);
    int text = list.count;
    int64_t parameters = 0;
    for (int i = 0; i < list.count; i++)
        parameters += list.items[i].rows * list.items[i].columns;
    assert_int_equal((parameters + 500000) / 1000000, 34661);
    shape_is(&list, "layers.0.mlp.gate.weight", 256, 2048, 0);
    shape_is(&list, "layers.0.mlp.experts.gate_up_proj", 256, 1024, 2048);
    shape_is(&list, "layers.0.mlp.experts.down_proj", 256, 2048, 512);
    shape_is(&list, "layers.0.mlp.shared_expert.gate_proj.weight", 512, 2048, 0);
    shape_is(&list, "layers.0.mlp.shared_expert.up_proj.weight", 512, 2048, 0);
    shape_is(&list, "layers.0.mlp.shared_expert.down_proj.weight", 2048, 512, 0);
    shape_is(&list, "layers.0.mlp.shared_expert_gate.weight", 1, 2048, 0);
    tensors_fini(&list);
    list = list_of(&config, true);
    assert_int_equal(list.count, text + 19);
    shape_is(&list, "mtp.layers.0.mlp.experts.gate_up_proj", 256, 1024, 2048);
    tensors_fini(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense_27b),
        cmocka_unit_test(test_moe_35b),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
