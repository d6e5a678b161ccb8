// SPDX-License-Identifier: Apache-2.0
// config_test.c -- config.json: every golden config's numbers, every refusal by name, defaults.
#include "parallel/config.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define GOLDEN(name) SOURCE_DIR "/tests/golden/" name

static json_t *document_of(const char *name)
{
    char path[512];
    json_error_t problem;
    snprintf(path, sizeof path, GOLDEN("%s/config.json"), name);
    json_t *document = json_load_file(path, 0, &problem);
    if (document == NULL)
        fail_msg("%s: %s", path, problem.text);
    return document;
}

static enum status parse(struct model_config *config, const json_t *document, struct error *error)
{
    char *json = json_dumps(document, JSON_ENCODE_ANY);
    *error = (struct error){0};
    enum status status = config_parse(config, json, strlen(json), error);
    free(json);
    return status;
}

static struct model_config parsed(const json_t *document)
{
    struct model_config config;
    struct error error;
    if (parse(&config, document, &error) != OK)
        fail_msg("%s", error.text);
    return config;
}

// Sets a field of the document at a path with dots; value is JSON, NULL deletes.
static void change(json_t *document, const char *path, const char *value)
{
    char name[128];
    json_t *object = document;
    const char *dot;
    for (; (dot = strchr(path, '.')) != NULL; path = dot + 1) {
        snprintf(name, sizeof name, "%.*s", (int)(dot - path), path);
        object = json_object_get(object, name);
        assert_non_null(object);
    }
    if (value == NULL) {
        assert_int_equal(json_object_del(object, path), 0);
        return;
    }
    json_error_t problem;
    json_t *parsed_value = json_loads(value, JSON_DECODE_ANY, &problem);
    if (parsed_value == NULL)
        fail_msg("test value %s: %s", value, problem.text);
    json_object_set_new(object, path, parsed_value);
}

struct change_case {
    const char *path, *value; // value NULL: the field is deleted
    enum status status;
    const char *text; // a part of the error, NULL when OK
};

static void check_change(const char *golden, const struct change_case *c)
{
    json_t *document = document_of(golden);
    struct model_config config = {.layers = -1};
    struct error error;
    change(document, c->path, c->value);
    enum status status = parse(&config, document, &error);
    json_decref(document);
    if (status != c->status)
        fail_msg("%s = %s: status %s, %s expected; %s", c->path, c->value, status_name(status),
                 status_name(c->status), error.text);
    if (status == OK)
        return;
    assert_int_equal(config.layers, -1); // out is not written on failure
    if (strstr(error.text, c->text) == NULL)
        fail_msg("%s = %s: \"%s\" does not say \"%s\"", c->path, c->value, error.text, c->text);
}

static void test_dense_numbers(void **state)
{
    (void)state;
    json_t *document = document_of("dense_untied_r2");
    struct model_config config = parsed(document);
    json_decref(document);
    assert_int_equal(config.layout, LAYOUT_QWEN35);
    assert_string_equal(config.model_type, "qwen3_5_text");
    assert_int_equal(config.layers, 4);
    assert_int_equal(config.layer_is_attention[2], false);
    assert_int_equal(config.layer_is_attention[3], true);
    assert_int_equal(config.hidden, 128);
    assert_int_equal(config.vocab, 384);
    assert_false(config.tied);
    assert_int_equal(config.max_position_embeddings, 4096);
    assert_true(config.rms_norm_eps > 0.99e-6 && config.rms_norm_eps < 1.01e-6);
    assert_int_equal(config.heads, 4);
    assert_int_equal(config.kv_heads, 2);
    assert_int_equal(config.head_dim, 256);
    assert_int_equal(config.rope.type, ROPE_DEFAULT);
    assert_int_equal(config.rope.rotary_dim, 64);
    assert_true(config.rope.theta == 1e7);
    assert_true(config.rope.attention_factor == 1);
    assert_int_equal(config.key_heads, 2);
    assert_int_equal(config.value_heads, 4);
    assert_int_equal(config.key_dim, 128);
    assert_int_equal(config.value_dim, 128);
    assert_int_equal(config.conv_width, 4);
    assert_int_equal(config_conv_channels(&config), 2 * 2 * 128 + 4 * 128);
    assert_int_equal(config.intermediate, 256);
    assert_int_equal(config.experts, 0);
    assert_int_equal(config.mtp_layers, 1);
    assert_int_equal(config.eos_count, 1);
    assert_int_equal(config.eos_ids[0], 363);
}

static void test_moe_numbers(void **state)
{
    (void)state;
    json_t *document = document_of("moe_e16_tp8");
    struct model_config config = parsed(document);
    json_decref(document);
    assert_int_equal(config.layout, LAYOUT_QWEN35);
    assert_int_equal(config.experts, 16);
    assert_int_equal(config.experts_per_token, 4);
    assert_int_equal(config.expert_intermediate, 128);
    assert_int_equal(config.shared_intermediate, 128);
    assert_int_equal(config.intermediate, 0);
    assert_int_equal(config.mtp_layers, 0);
}

static void test_next_numbers(void **state)
{
    (void)state;
    json_t *document = document_of("next_e8_r2");
    struct model_config config = parsed(document);
    json_decref(document);
    assert_int_equal(config.layout, LAYOUT_QWEN3_NEXT);
    assert_true(config.rope.theta == 5e6); // older fields, beside rope_scaling null
    assert_int_equal(config.rope.rotary_dim, 64);
    assert_int_equal(config.experts, 8);
    assert_int_equal(config.intermediate, 0); // of dense layers, of which there are none
    assert_int_equal(config.layer_is_attention[3], true); // by the interval's default
    assert_int_equal(config.layer_is_attention[0], false);
}

static void test_yarn_numbers(void **state)
{
    (void)state;
    json_t *document = document_of("dense_yarn");
    struct model_config config = parsed(document);
    json_decref(document);
    assert_int_equal(config.rope.type, ROPE_YARN);
    assert_true(config.rope.factor == 4);
    assert_int_equal(config.rope.original_max_position_embeddings, 512);
    assert_true(config.rope.beta_fast == 32 && config.rope.beta_slow == 1);
    assert_true(config.rope.truncate);
    assert_int_equal(config.max_position_embeddings, 2048);
}

// The context grows with the factor also where max_position_embeddings was left as it was.
static void test_yarn_stretches(void **state)
{
    (void)state;
    static const struct {
        const char *positions, *factor;
        int expected;
    } cases[] = {{"512", "4.0", 2048},
                 {"512", "1.5", 768},
                 {"4096", "4.0", 4096},
                 {"512", "null", 512},
                 {"512", "4096", 2097152}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *document = document_of("dense_yarn");
        change(document, "text_config.max_position_embeddings", cases[i].positions);
        change(document, "text_config.rope_parameters.factor", cases[i].factor);
        assert_int_equal(parsed(document).max_position_embeddings, cases[i].expected);
        json_decref(document);
    }
}

static void test_all_goldens_parse(void **state)
{
    (void)state;
    static const char *const names[] = {
        "dense_deep_r4", "dense_flat_r3", "dense_tied_r1", "dense_untied_r2",
        "dense_yarn",    "moe_e16_tp8",   "moe_e8_r2",     "next_e8_r2",
    };
    uint64_t hashes[sizeof names / sizeof names[0]];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        json_t *document = document_of(names[i]);
        struct model_config config = parsed(document);
        json_decref(document);
        assert_int_equal(config.tied, strcmp(names[i], "dense_tied_r1") == 0);
        hashes[i] = config_hash(&config);
        for (size_t j = 0; j < i; j++)
            assert_true(hashes[i] != hashes[j]);
    }
}

static void test_interval(void **state)
{
    (void)state;
    json_t *document = document_of("dense_deep_r4");
    change(document, "text_config.layer_types", NULL);
    change(document, "text_config.full_attention_interval", "3");
    struct model_config config = parsed(document);
    json_decref(document);
    for (int i = 0; i < 8; i++)
        assert_int_equal(config.layer_is_attention[i], i == 2 || i == 5);
}

// Top level wins; either alone is believed; neither means untied.
static void test_tie_rule(void **state)
{
    (void)state;
    static const struct {
        const char *top, *text;
        bool tied;
    } cases[] = {
        {"true", "false", true}, {"false", "true", false}, {"true", NULL, true},
        {NULL, "true", true},    {NULL, NULL, false},      {"null", "true", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *document = document_of("dense_untied_r2");
        change(document, "tie_word_embeddings", cases[i].top);
        change(document, "text_config.tie_word_embeddings", cases[i].text);
        assert_int_equal(parsed(document).tied, cases[i].tied);
        json_decref(document);
    }
}

static void test_accepted_variants(void **state)
{
    (void)state;
    static const struct change_case cases[] = {
        {"model_type", NULL, OK, NULL}, // the inner one says it
        {"text_config.model_type", NULL, OK, NULL},
        {"text_config.output_gate_type", "\"silu\"", OK, NULL},
        {"text_config.output_gate_type", "null", OK, NULL},
        {"text_config.attn_output_gate", NULL, OK, NULL},
        {"text_config.hidden_act", NULL, OK, NULL},
        {"text_config.head_dim", NULL, OK, NULL},
        {"text_config.rms_norm_eps", NULL, OK, NULL},
        {"text_config.mlp_only_layers", "[]", OK, NULL},
        {"text_config.rope_parameters.rope_type", "\"mrope\"", OK, NULL},
        {"text_config.rope_parameters.rope_type", NULL, OK, NULL},
        {"text_config.rope_parameters.mrope_section", NULL, OK, NULL},
        {"text_config.rope_parameters.rope_theta", "1e7", OK, NULL},
        {"text_config.eos_token_id", "[1, 2, 1, 2]", OK, NULL},
        {"text_config.eos_token_id", "null", OK, NULL},
        {"quantization_config", "null", OK, NULL},
        {"text_config.unheard_of", "[1, {}]", OK, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check_change("dense_deep_r4", &cases[i]);
}

static void test_missing_fields(void **state)
{
    (void)state;
    static const char *const dense[] = {
        "num_hidden_layers",    "hidden_size",
        "vocab_size",           "num_attention_heads",
        "num_key_value_heads",  "max_position_embeddings",
        "linear_num_key_heads", "linear_num_value_heads",
        "intermediate_size",
    };
    static const char *const moe[] = {"num_experts", "num_experts_per_tok", "moe_intermediate_size",
                                      "shared_expert_intermediate_size"};
    char path[80], text[120];
    for (size_t i = 0; i < sizeof dense / sizeof dense[0]; i++) {
        snprintf(path, sizeof path, "text_config.%s", dense[i]);
        snprintf(text, sizeof text, "config.json: %s is missing", path);
        check_change("dense_deep_r4", &(struct change_case){path, NULL, E_INPUT, text});
        check_change("dense_deep_r4", &(struct change_case){path, "null", E_INPUT, text});
    }
    for (size_t i = 0; i < sizeof moe / sizeof moe[0]; i++) {
        snprintf(path, sizeof path, "text_config.%s", moe[i]);
        snprintf(text, sizeof text, "config.json: %s is missing", path);
        check_change("moe_e8_r2", &(struct change_case){path, NULL, E_INPUT, text});
    }
    check_change("dense_deep_r4",
                 &(struct change_case){"text_config.rope_parameters.rope_theta", NULL, E_INPUT,
                                       "text_config.rope_parameters.rope_theta is missing"});
    check_change("dense_yarn",
                 &(struct change_case){"text_config.rope_parameters.factor", NULL, E_INPUT,
                                       "text_config.rope_parameters.factor is missing"});
    check_change("dense_flat_r3",
                 &(struct change_case){"model_type", NULL, E_INPUT, "model_type is missing"});
}

// Understood and refused, by the name of the field and the value found.
static void test_refusals(void **state)
{
    (void)state;
    static const struct change_case cases[] = {
        {"model_type", "\"qwen4_exp\"", E_UNSUPPORTED, "model_type is \"qwen4_exp\""},
        {"model_type", "\"llama\"", E_UNSUPPORTED, "\"llama\""},
        {"text_config.model_type", "\"qwen4_exp_text\"", E_UNSUPPORTED, "\"qwen4_exp_text\""},
        {"text_config.model_type", "\"qwen3_5_moe_text\"", E_INPUT, "contradicts"},
        {"text_config.rope_parameters.rope_type", "\"llama3\"", E_UNSUPPORTED,
         "rope_type is \"llama3\""},
        {"text_config.rope_parameters.rope_type", "\"linear\"", E_UNSUPPORTED, "\"linear\""},
        {"text_config.rope_parameters.low_freq_factor", "1.5", E_UNSUPPORTED, "low_freq_factor"},
        {"text_config.rope_parameters.factor", "4.0", E_UNSUPPORTED, "factor"}, // no yarn
        {"text_config.rope_parameters.mrope_section", "[11, 11]", E_INPUT, "mrope_section"},
        {"text_config.rope_parameters.mrope_section", "[11, 11, 9.5]", E_INPUT, "mrope_section"},
        {"text_config.rope_parameters", "5", E_INPUT, "an object is expected"},
        {"text_config.output_gate_type", "\"sigmoid\"", E_UNSUPPORTED,
         "output_gate_type is \"sigmoid\""},
        {"text_config.attn_output_gate", "false", E_UNSUPPORTED, "attn_output_gate is false"},
        {"text_config.attention_bias", "true", E_UNSUPPORTED, "attention_bias is true"},
        {"text_config.hidden_act", "\"gelu\"", E_UNSUPPORTED, "hidden_act is \"gelu\""},
        {"text_config.mamba_ssm_dtype", "\"bfloat16\"", E_UNSUPPORTED, "mamba_ssm_dtype"},
        {"text_config.use_sliding_window", "true", E_UNSUPPORTED, "use_sliding_window"},
        {"text_config.mtp_use_dedicated_embeddings", "true", E_UNSUPPORTED, "dedicated"},
        {"text_config.linear_conv_kernel_dim", "3", E_UNSUPPORTED, "linear_conv_kernel_dim is 3"},
        {"text_config.linear_key_head_dim", "64", E_UNSUPPORTED, "linear_key_head_dim is 64; 128"},
        {"text_config.linear_value_head_dim", "256", E_UNSUPPORTED, "linear_value_head_dim is 256"},
        {"text_config.head_dim", "128", E_UNSUPPORTED, "head_dim is 128; 256"},
        {"text_config.layer_types", "[\"full_attention\"]", E_INPUT, "layer_types has 1 entries"},
        {"text_config.num_experts", "8", E_INPUT, "num_experts is 8"},
        {"quantization_config", "{\"quant_method\": \"fp8\"}", E_UNSUPPORTED,
         "FP8 and INT4 checkpoints are not served yet"},
        {"text_config.quantization_config", "{\"quant_method\": \"gptq\"}", E_UNSUPPORTED, "gptq"},
        {"text_config", "[]", E_INPUT, "text_config is []"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check_change("dense_deep_r4", &cases[i]);
    static const struct change_case moe[] = {
        {"text_config.norm_topk_prob", "false", E_UNSUPPORTED, "norm_topk_prob is false"},
        {"text_config.decoder_sparse_step", "2", E_UNSUPPORTED, "decoder_sparse_step is 2"},
        {"text_config.mlp_only_layers", "[0]", E_UNSUPPORTED, "mlp_only_layers is [0]"},
        {"text_config.num_experts_per_tok", "9", E_INPUT, "num_experts_per_tok is 9"},
    };
    for (size_t i = 0; i < sizeof moe / sizeof moe[0]; i++)
        check_change("moe_e8_r2", &moe[i]);
}

static void test_layer_type_unknown(void **state)
{
    (void)state;
    json_t *document = document_of("dense_flat_r3");
    struct model_config config;
    struct error error;
    json_array_set_new(json_object_get(document, "layer_types"), 2, json_string("mamba"));
    assert_int_equal(parse(&config, document, &error), E_UNSUPPORTED);
    assert_non_null(strstr(error.text, "layer_types[2] is mamba"));
    json_array_set_new(json_object_get(document, "layer_types"), 2, json_integer(3));
    assert_int_equal(parse(&config, document, &error), E_UNSUPPORTED);
    json_decref(document);
}

// Wrong types, negative and huge numbers: the limit is in the text.
static void test_types_and_limits(void **state)
{
    (void)state;
    static const struct change_case cases[] = {
        {"text_config.hidden_size", "\"64\"", E_INPUT, "hidden_size is \"64\"; an integer in [1, "},
        {"text_config.hidden_size", "64.0", E_INPUT, "hidden_size is 64.0"},
        {"text_config.hidden_size", "-64", E_INPUT, "hidden_size is -64; an integer in [1, 65536]"},
        {"text_config.hidden_size", "0", E_INPUT, "[1, 65536]"},
        {"text_config.hidden_size", "9223372036854775807", E_INPUT, "[1, 65536]"},
        {"text_config.num_hidden_layers", "129", E_INPUT, "[1, 128]"},
        {"text_config.num_hidden_layers", "true", E_INPUT, "num_hidden_layers is true"},
        {"text_config.vocab_size", "1e3", E_INPUT, "vocab_size"},
        {"text_config.vocab_size", "4294967296", E_INPUT, "[1, 4194304]"},
        {"text_config.num_key_value_heads", "3", E_INPUT, "num_key_value_heads is 3"},
        {"text_config.linear_num_value_heads", "3", E_INPUT, "linear_num_value_heads is 3"},
        {"text_config.rms_norm_eps", "-1e-6", E_INPUT, "rms_norm_eps"},
        {"text_config.rms_norm_eps", "\"small\"", E_INPUT, "a number in"},
        {"text_config.rope_parameters.rope_theta", "-1", E_INPUT, "rope_theta is -1"},
        {"text_config.rope_parameters.partial_rotary_factor", "2", E_INPUT,
         "partial_rotary_factor"},
        {"text_config.rope_parameters.partial_rotary_factor", "0.001", E_INPUT, "rotates 0 of 256"},
        {"text_config.rope_parameters.rope_type", "7", E_INPUT, "a string is expected"},
        {"text_config.full_attention_interval", "0", OK, NULL}, // layer_types are there
        {"text_config.attention_bias", "0", E_INPUT, "attention_bias is 0; true or false"},
        {"text_config.eos_token_id", "384", E_INPUT, "[0, vocab_size = 384)"},
        {"text_config.eos_token_id", "-1", E_INPUT, "eos_token_id"},
        {"text_config.eos_token_id", "[1, \"2\"]", E_INPUT, "eos_token_id"},
        {"text_config.eos_token_id", "[1,2,3,4,5,6,7,8,9]", E_LIMIT, "more than 8"},
        {"text_config.mtp_num_hidden_layers", "2", E_INPUT, "mtp_num_hidden_layers is 2"},
        {"tie_word_embeddings", "\"yes\"", E_INPUT, "tie_word_embeddings"},
        {"model_type", "5", E_INPUT, "a string is expected"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check_change("dense_deep_r4", &cases[i]);
}

static void test_not_json(void **state)
{
    (void)state;
    static const struct {
        const char *json, *text;
    } cases[] = {
        {"", "line 1"},
        {"{\"model_type\": ", "line 1"},
        {"[]", "a JSON object is expected"},
        {"{\"a\": 1, \"a\": 2}", "duplicate"},
        {"{\"a\": 1e999}", "config.json"},
        {"{\"a\": 99999999999999999999}", "config.json"},
        {"{} trailing", "config.json"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct model_config config;
        struct error error = {0};
        assert_int_equal(config_parse(&config, cases[i].json, strlen(cases[i].json), &error),
                         E_MALFORMED);
        if (strstr(error.text, cases[i].text) == NULL)
            fail_msg("%s: \"%s\" does not say \"%s\"", cases[i].json, error.text, cases[i].text);
    }
}

// Each number must have its say in the hash.
static void test_hash(void **state)
{
    (void)state;
    json_t *document = document_of("moe_e8_r2");
    struct model_config config = parsed(document);
    uint64_t hash = config_hash(&config);
    assert_true(config_hash(&config) == hash);
    json_decref(document);
    struct model_config other = config;
    memset(other.model_type, 'x', sizeof other.model_type - 1); // a name, not a number
    assert_true(config_hash(&other) == hash);
    int *const ints[] = {
        &other.layers,
        &other.hidden,
        &other.vocab,
        &other.heads,
        &other.kv_heads,
        &other.head_dim,
        &other.key_heads,
        &other.value_heads,
        &other.experts,
        &other.experts_per_token,
        &other.expert_intermediate,
        &other.shared_intermediate,
        &other.intermediate,
        &other.rope.rotary_dim,
        &other.mtp_layers,
        &other.max_position_embeddings,
    };
    for (size_t i = 0; i < sizeof ints / sizeof ints[0]; i++) {
        other = config;
        *ints[i] += 1;
        if (config_hash(&other) == hash)
            fail_msg("number %zu is not in the hash", i);
    }
    double *const reals[] = {&other.rms_norm_eps, &other.rope.theta, &other.rope.factor};
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++) {
        other = config;
        *reals[i] += 1;
        assert_true(config_hash(&other) != hash);
    }
    other = config;
    other.layer_is_attention[1] = true;
    assert_true(config_hash(&other) != hash);
}

static void put(const char *dir, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void test_load(void **state)
{
    (void)state;
    struct model_config config;
    struct error error = {0};
    assert_int_equal(config_load(&config, "/nonexistent/model", &error), E_NOT_FOUND);
    assert_non_null(strstr(error.text, "model directory /nonexistent/model"));
    char dir[] = "/tmp/deltamesh-config-XXXXXX", path[128];
    assert_non_null(mkdtemp(dir));
    assert_int_equal(config_load(&config, dir, &error), E_NOT_FOUND);
    assert_non_null(strstr(error.text, "config.json"));

    json_t *document = document_of("dense_tied_r1");
    char *json = json_dumps(document, 0);
    put(dir, "config.json", json);
    assert_int_equal(config_load(&config, dir, &error), OK);
    assert_int_equal(config.eos_count, 1);
    put(dir, "generation_config.json", "{\"eos_token_id\": [363, 7]}");
    assert_int_equal(config_load(&config, dir, &error), OK);
    assert_int_equal(config.eos_count, 2);
    assert_int_equal(config.eos_ids[0], 363);
    assert_int_equal(config.eos_ids[1], 7);
    put(dir, "generation_config.json", "{\"eos_token_id\": 384}");
    assert_int_equal(config_load(&config, dir, &error), E_INPUT);
    snprintf(path, sizeof path, "%s/generation_config.json: eos_token_id", dir);
    assert_non_null(strstr(error.text, path));
    put(dir, "generation_config.json", "nonsense");
    assert_int_equal(config_load(&config, dir, &error), E_MALFORMED);
    snprintf(path, sizeof path, "%s/generation_config.json: line 1", dir);
    assert_non_null(strstr(error.text, path));
    put(dir, "config.json", "{\"model_type\": \"llama\"}");
    assert_int_equal(config_load(&config, dir, &error), E_UNSUPPORTED);
    snprintf(path, sizeof path, "%s/config.json: model_type", dir);
    assert_int_equal(strncmp(error.text, path, strlen(path)), 0);
    free(json);
    json_decref(document);
    snprintf(path, sizeof path, "%s/config.json", dir);
    assert_int_equal(truncate(path, 17 << 20), 0); // larger than any config, sparse
    assert_int_equal(config_load(&config, dir, &error), E_LIMIT);
    unlink(path);
    snprintf(path, sizeof path, "%s/generation_config.json", dir);
    unlink(path);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense_numbers),
        cmocka_unit_test(test_moe_numbers),
        cmocka_unit_test(test_next_numbers),
        cmocka_unit_test(test_yarn_numbers),
        cmocka_unit_test(test_yarn_stretches),
        cmocka_unit_test(test_all_goldens_parse),
        cmocka_unit_test(test_interval),
        cmocka_unit_test(test_tie_rule),
        cmocka_unit_test(test_accepted_variants),
        cmocka_unit_test(test_missing_fields),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_layer_type_unknown),
        cmocka_unit_test(test_types_and_limits),
        cmocka_unit_test(test_not_json),
        cmocka_unit_test(test_hash),
        cmocka_unit_test(test_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
