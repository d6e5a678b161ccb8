// SPDX-License-Identifier: Apache-2.0
// weights_test.c -- every fused weight element by element against the dummy rule, and loading from
// a checkpoint of each layout against LOAD_DUMMY, bit for bit, at every degree.
#include "worker/weights.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/runtime.h"
#include "parallel/dummy.h"
#include "parallel/memory_plan.h"
#include "parallel/plan.h"
#include "tests/fixtures/checkpoint.h"

#define GOLDEN(name) SOURCE_DIR "/tests/golden/" name

static struct model_config config_of(const char *golden)
{
    char dir[512];
    struct model_config config;
    struct error error = {0};
    snprintf(dir, sizeof dir, GOLDEN("%s"), golden);
    if (config_load(&config, dir, &error) != OK)
        fail_msg("%s", error.text);
    return config;
}

static struct shard shard_of(const struct model_config *config, int rank, int ranks)
{
    struct shard shard;
    struct error error = {0};
    if (shard_make(&shard, config, rank, ranks, &error) != OK)
        fail_msg("%s", error.text);
    return shard;
}

static void open_or_fail(struct model_weights *weights, const struct weights_request *request)
{
    struct error error = {0};
    if (weights_open(weights, request, &error) != OK)
        fail_msg("%s", error.text);
}

// ---------------------------------------------------------------- fused weights by element

// What the checks read: the weights at hand and where their next row is.
struct reader {
    const struct model_config *config;
    const struct shard *shard;
    char layer[32];
    const struct weight *weight;
    int row; // of weight, the next to be compared
};

static uint16_t canonical(const struct reader *reader, const char *name, int64_t row,
                          int64_t column, int64_t columns)
{
    char full[128];
    snprintf(full, sizeof full, "%s%s", reader->layer, name);
    struct dummy_tensor dummy = dummy_tensor(full, columns);
    return dummy_value(&dummy, (uint64_t)(row * columns + column));
}

// The next row of the weight is that row of a canonical tensor with `columns` columns, from
// first_column on.
static void next_row_is(struct reader *reader, const char *name, int64_t row, int64_t first_column,
                        int64_t columns)
{
    const struct weight *weight = reader->weight;
    assert_true(reader->row < weight->rows);
    const bf16 *values = weight_bf16(weight) + (int64_t)reader->row * weight->columns;
    for (int i = 0; i < weight->columns; i++) {
        if (values[i].bits != canonical(reader, name, row, first_column + i, columns))
            fail_msg("%s%s, rank %d of %d: fused row %d is not row %lld (column %d)", reader->layer,
                     name, reader->shard->rank, reader->shard->ranks, reader->row, (long long)row,
                     i);
    }
    reader->row++;
}

static void begin(struct reader *reader, const struct weight *weight)
{
    assert_int_equal(weight->format, WEIGHT_BF16);
    assert_int_equal((uintptr_t)weight->data % 256, 0);
    assert_int_equal(weight->block, 0);
    assert_null(weight->scales);
    reader->weight = weight;
    reader->row = 0;
}

static void end(const struct reader *reader)
{
    assert_int_equal(reader->row, reader->weight->rows);
}

// Row i of the weight is row i of the tensor, cut to own columns.
static void check_columns(struct reader *reader, const struct weight *weight, const char *name,
                          struct span own, int64_t columns)
{
    begin(reader, weight);
    assert_int_equal(weight->columns, own.count);
    for (int i = 0; i < weight->rows; i++)
        next_row_is(reader, name, i, own.first, columns);
    end(reader);
}

static void check_vector(const struct reader *reader, const float *vector, const char *name,
                         struct span own)
{
    assert_int_equal((uintptr_t)vector % 256, 0);
    for (int i = 0; i < own.count; i++) {
        uint16_t bits = canonical(reader, name, 0, own.first + i, 1 << 20);
        if (vector[i] != bf16_to_float((bf16){bits}))
            fail_msg("%s%s, rank %d: element %d", reader->layer, name, reader->shard->rank, i);
    }
}

static void check_attention(struct reader *reader, const struct attention_weights *attention)
{
    const struct shard *shard = reader->shard;
    int hidden = reader->config->hidden;
    begin(reader, &attention->in_proj);
    assert_int_equal(attention->in_proj.columns, hidden);
    for (int part = 0; part < 2; part++) { // per stored head: 256 query rows, 256 gate rows
        for (int head = shard->heads.first; head < shard->heads.first + shard->heads.count; head++)
            for (int i = 0; i < 256; i++)
                next_row_is(reader, "self_attn.q_proj.weight", head * 512 + part * 256 + i, 0,
                            hidden);
    }
    for (int i = 0; i < 256 * shard->kv_heads.count; i++)
        next_row_is(reader, "self_attn.k_proj.weight", 256 * shard->kv_heads.first + i, 0, hidden);
    for (int i = 0; i < 256 * shard->kv_heads.count; i++)
        next_row_is(reader, "self_attn.v_proj.weight", 256 * shard->kv_heads.first + i, 0, hidden);
    end(reader);
    struct span columns = {256 * shard->heads.first, 256 * shard->heads.count};
    check_columns(reader, &attention->out_proj, "self_attn.o_proj.weight", columns,
                  256 * reader->config->heads);
    check_vector(reader, attention->q_norm, "self_attn.q_norm.weight", (struct span){0, 256});
    check_vector(reader, attention->k_norm, "self_attn.k_norm.weight", (struct span){0, 256});
}

static void check_gdn(struct reader *reader, const struct gdn_weights *gdn)
{
    const struct model_config *config = reader->config;
    const struct shard *shard = reader->shard;
    int hidden = config->hidden, keys = 128 * config->key_heads;
    // First row of each segment in the whole projection, and own rows of it.
    const struct span segments[] = {
        {128 * shard->key_heads.first, 128 * shard->key_heads.count},
        {keys + 128 * shard->key_heads.first, 128 * shard->key_heads.count},
        {2 * keys + 128 * shard->value_heads.first, 128 * shard->value_heads.count},
    };
    begin(reader, &gdn->in_proj);
    assert_int_equal(gdn->in_proj.columns, hidden);
    const float *taps = gdn->conv;
    for (int s = 0; s < 3; s++) {
        for (int i = 0; i < segments[s].count; i++, taps += 4) {
            int row = segments[s].first + i;
            next_row_is(reader, "linear_attn.in_proj_qkv.weight", row, 0, hidden);
            for (int tap = 0; tap < 4; tap++)
                assert_true(taps[tap] == bf16_to_float((bf16){canonical(
                                             reader, "linear_attn.conv1d.weight", row, tap, 4)}));
        }
    }
    for (int i = 0; i < 128 * shard->value_heads.count; i++)
        next_row_is(reader, "linear_attn.in_proj_z.weight", 128 * shard->value_heads.first + i, 0,
                    hidden);
    for (int i = 0; i < shard->value_heads.count; i++)
        next_row_is(reader, "linear_attn.in_proj_b.weight", shard->value_heads.first + i, 0,
                    hidden);
    for (int i = 0; i < shard->value_heads.count; i++)
        next_row_is(reader, "linear_attn.in_proj_a.weight", shard->value_heads.first + i, 0,
                    hidden);
    end(reader);
    struct span columns = {128 * shard->value_heads.first, 128 * shard->value_heads.count};
    check_columns(reader, &gdn->out_proj, "linear_attn.out_proj.weight", columns,
                  128 * config->value_heads);
    check_vector(reader, gdn->a_log, "linear_attn.A_log", shard->value_heads);
    check_vector(reader, gdn->dt_bias, "linear_attn.dt_bias", shard->value_heads);
    check_vector(reader, gdn->norm, "linear_attn.norm.weight", (struct span){0, 128});
}

static void check_gate_up(struct reader *reader, const struct weight *weight, const char *gate,
                          const char *up, struct span own)
{
    int hidden = reader->config->hidden;
    begin(reader, weight);
    for (int i = 0; i < own.count; i++)
        next_row_is(reader, gate, own.first + i, 0, hidden);
    for (int i = 0; i < own.count; i++)
        next_row_is(reader, up, own.first + i, 0, hidden);
    end(reader);
}

static void check_moe(struct reader *reader, const struct moe_weights *moe)
{
    const struct model_config *config = reader->config;
    const struct shard *shard = reader->shard;
    int hidden = config->hidden, width = config->expert_intermediate;
    struct span own = shard->expert_intermediate;
    begin(reader, &moe->router);
    for (int i = 0; i < config->experts; i++)
        next_row_is(reader, "mlp.gate.weight", i, 0, hidden);
    next_row_is(reader, "mlp.shared_expert_gate.weight", 0, 0, hidden);
    end(reader);
    begin(reader, &moe->gate_up);
    for (int expert = 0; expert < config->experts; expert++) {
        for (int i = 0; i < own.count; i++)
            next_row_is(reader, "mlp.experts.gate_up_proj", expert * 2 * width + own.first + i, 0,
                        hidden);
        for (int i = 0; i < own.count; i++)
            next_row_is(reader, "mlp.experts.gate_up_proj",
                        expert * 2 * width + width + own.first + i, 0, hidden);
    }
    end(reader);
    assert_int_equal(moe->down.rows, config->experts * hidden);
    check_columns(reader, &moe->down, "mlp.experts.down_proj", own, width);
    check_gate_up(reader, &moe->shared_gate_up, "mlp.shared_expert.gate_proj.weight",
                  "mlp.shared_expert.up_proj.weight", shard->shared_intermediate);
    check_columns(reader, &moe->shared_down, "mlp.shared_expert.down_proj.weight",
                  shard->shared_intermediate, config->shared_intermediate);
}

static void check_layer(struct reader *reader, const struct layer_weights *layer, bool is_attention)
{
    struct span hidden = {0, reader->config->hidden};
    assert_int_equal(layer->is_attention, is_attention);
    check_vector(reader, layer->input_norm, "input_layernorm.weight", hidden);
    check_vector(reader, layer->post_norm, "post_attention_layernorm.weight", hidden);
    if (is_attention)
        check_attention(reader, &layer->attention);
    else
        check_gdn(reader, &layer->gdn);
    if (reader->config->experts > 0) {
        check_moe(reader, &layer->moe);
        return;
    }
    struct span own = reader->shard->intermediate;
    check_gate_up(reader, &layer->mlp.gate_up, "mlp.gate_proj.weight", "mlp.up_proj.weight", own);
    check_columns(reader, &layer->mlp.down, "mlp.down_proj.weight", own,
                  reader->config->intermediate);
}

static void check_model(const struct model_config *config, const struct shard *shard,
                        const struct model_weights *weights)
{
    struct reader reader = {.config = config, .shard = shard};
    struct span hidden = {0, config->hidden};
    check_columns(&reader, &weights->embedding, "embed_tokens.weight", hidden, config->hidden);
    assert_int_equal(weights->embedding.rows, config->vocab);
    begin(&reader, &weights->lm_head);
    assert_int_equal(weights->lm_head.rows, shard->vocab.count);
    for (int i = 0; i < shard->vocab.count; i++)
        next_row_is(&reader, config->tied ? "embed_tokens.weight" : "lm_head.weight",
                    shard->vocab.first + i, 0, config->hidden);
    check_vector(&reader, weights->norm, "norm.weight", hidden);
    for (int i = 0; i < config->layers; i++) {
        snprintf(reader.layer, sizeof reader.layer, "layers.%d.", i);
        check_layer(&reader, &weights->layers[i], config->layer_is_attention[i]);
    }
    assert_int_equal(weights->has_mtp, config->mtp_layers > 0);
    if (!weights->has_mtp)
        return;
    reader.layer[0] = '\0';
    check_columns(&reader, &weights->mtp.fc, "mtp.fc.weight", (struct span){0, 2 * config->hidden},
                  2 * config->hidden);
    check_vector(&reader, weights->mtp.embedding_norm, "mtp.pre_fc_norm_embedding.weight", hidden);
    check_vector(&reader, weights->mtp.hidden_norm, "mtp.pre_fc_norm_hidden.weight", hidden);
    check_vector(&reader, weights->mtp.norm, "mtp.norm.weight", hidden);
    snprintf(reader.layer, sizeof reader.layer, "mtp.layers.0.");
    check_layer(&reader, &weights->mtp.layer, true);
}

static void test_dummy_by_element(void **state)
{
    (void)state;
    static const char *const goldens[] = {"dense_tied_r1", "dense_flat_r3", "dense_untied_r2",
                                          "moe_e8_r2", "moe_e16_tp8"};
    static struct model_weights weights; // tens of KB
    for (size_t g = 0; g < sizeof goldens / sizeof goldens[0]; g++) {
        struct model_config config = config_of(goldens[g]);
        int degrees[RANKS_MAX];
        int count = shard_degrees(degrees, &config);
        for (int d = 0; d < count; d++) {
            int rank = degrees[d] - 1; // the last: every offset differs from 0
            struct shard shard = shard_of(&config, rank, degrees[d]);
            struct weights_request request = {
                .format = LOAD_DUMMY, .config = &config, .shard = &shard};
            open_or_fail(&weights, &request);
            check_model(&config, &shard, &weights);
            // The coordinator plans with the same figure.
            assert_int_equal(weights.memory_bytes,
                             memory_plan_weight_bytes(&config, &shard, weights.has_mtp));
            weights_close(&weights);
        }
    }
}

// ---------------------------------------------------------------- checkpoints against dummy

static double shares[4096];
static int shares_count;

static void note_share(double share)
{
    assert_true(shares_count < (int)(sizeof shares / sizeof shares[0]));
    shares[shares_count++] = share;
}

// Loads the fixture on every rank of every degree; all bytes must be those of the dummy rule.
static void check_fixture(const struct checkpoint_fixture *fixture)
{
    static struct model_weights from_file, dummy;
    char dir[CHECKPOINT_FIXTURE_DIR_BYTES];
    checkpoint_fixture_write(dir, fixture);
    struct model_config config;
    struct error error = {0};
    assert_int_equal(config_load(&config, dir, &error), OK);
    struct model_config dummy_config = config;
    if (fixture->without_mtp)
        dummy_config.mtp_layers = 0;
    bool has_mtp;
    assert_int_equal(weights_has_mtp(&has_mtp, dir, LOAD_AUTO, &config, &error), OK);
    assert_int_equal(has_mtp, dummy_config.mtp_layers > 0);
    int degrees[RANKS_MAX];
    int count = shard_degrees(degrees, &config);
    for (int d = 0; d < count; d++) {
        for (int rank = 0; rank < degrees[d]; rank++) {
            struct shard shard = shard_of(&config, rank, degrees[d]);
            struct weights_request request = {dir, LOAD_AUTO, &config, &shard, note_share};
            struct weights_request made = {NULL, LOAD_DUMMY, &dummy_config, &shard, NULL};
            shares_count = 0;
            open_or_fail(&from_file, &request);
            open_or_fail(&dummy, &made);
            assert_int_equal(from_file.has_mtp, has_mtp);
            assert_int_equal(from_file.memory_bytes, dummy.memory_bytes);
            assert_memory_equal(from_file.memory, dummy.memory, dummy.memory_bytes);
            assert_true(shares_count > 0 && shares[shares_count - 1] == 1.0);
            weights_close(&from_file);
            weights_close(&dummy);
        }
    }
    checkpoint_fixture_remove(dir);
}

static void test_official_layouts(void **state)
{
    (void)state;
    check_fixture(&(struct checkpoint_fixture){
        .config_path = GOLDEN("moe_e8_r2/config.json"), .vision = true, .f32_vectors = true});
    check_fixture(&(struct checkpoint_fixture){.config_path = GOLDEN("moe_e16_tp8/config.json"),
                                               .shards = 5});
    check_fixture(&(struct checkpoint_fixture){
        .config_path = GOLDEN("dense_untied_r2/config.json"), .shards = 3, .vision = true});
    check_fixture(&(struct checkpoint_fixture){.config_path = GOLDEN("dense_tied_r1/config.json")});
}

static void test_expert_layouts(void **state)
{
    (void)state;
    const char *config = GOLDEN("moe_e8_r2/config.json");
    check_fixture(&(struct checkpoint_fixture){.config_path = config, .experts_split = true});
    check_fixture(&(struct checkpoint_fixture){.config_path = config, .mtp_experts_split = true});
    check_fixture(&(struct checkpoint_fixture){
        .config_path = config, .experts_split = true, .mtp_experts_split = true, .shards = 2});
    check_fixture(&(struct checkpoint_fixture){.config_path = GOLDEN("moe_e16_tp8/config.json"),
                                               .experts_split = true});
}

static void test_prefixes(void **state)
{
    (void)state;
    const char *config = GOLDEN("dense_untied_r2/config.json");
    check_fixture(&(struct checkpoint_fixture){.config_path = config, .prefix = "model."});
    check_fixture(
        &(struct checkpoint_fixture){.config_path = config, .prefix = "language_model.model."});
    check_fixture(&(struct checkpoint_fixture){
        .config_path = GOLDEN("dense_flat_r3/config.json"), .prefix = "model.", .shards = 2});
}

static void test_next_layouts(void **state)
{
    (void)state;
    const char *config = GOLDEN("next_e8_r2/config.json");
    check_fixture(&(struct checkpoint_fixture){.config_path = config,
                                               .prefix = "model.",
                                               .grouped = true,
                                               .experts_split = true,
                                               .shards = 2});
    check_fixture(
        &(struct checkpoint_fixture){.config_path = config, .prefix = "model.", .grouped = true});
    // More value heads per key head than two, and eight ranks.
    check_fixture(&(struct checkpoint_fixture){.config_path = GOLDEN("dense_deep_r4/config.json"),
                                               .grouped = true});
    check_fixture(&(struct checkpoint_fixture){
        .config_path = GOLDEN("moe_e16_tp8/config.json"), .grouped = true, .experts_split = true});
}

static void test_head_absent_and_tied_copy(void **state)
{
    (void)state;
    check_fixture(&(struct checkpoint_fixture){.config_path = GOLDEN("moe_e8_r2/config.json"),
                                               .without_mtp = true});
    check_fixture(&(struct checkpoint_fixture){.config_path = GOLDEN("dense_tied_r1/config.json"),
                                               .stored_head = true});
    check_fixture(&(struct checkpoint_fixture){.config_path = GOLDEN("dense_tied_r1/config.json"),
                                               .stored_head = true,
                                               .prefix = "language_model.model."});
}

// A directory without weights, and one that is not there.
static void test_nothing_to_load(void **state)
{
    (void)state;
    static struct model_weights weights;
    struct model_config config = config_of("dense_tied_r1");
    struct shard shard = shard_of(&config, 0, 1);
    struct error error = {0};
    struct weights_request request = {GOLDEN("dense_tied_r1"), LOAD_AUTO, &config, &shard, NULL};
    assert_int_equal(weights_open(&weights, &request, &error), E_NOT_FOUND);
    assert_non_null(strstr(error.text, "dense_tied_r1: neither model.safetensors.index.json"));
    assert_null(weights.memory);
    request.model_dir = "/nonexistent/model";
    assert_int_equal(weights_open(&weights, &request, &error), E_NOT_FOUND);
    assert_non_null(strstr(error.text, "/nonexistent/model"));
    bool has_mtp;
    assert_int_equal(weights_has_mtp(&has_mtp, "/nonexistent", LOAD_AUTO, &config, &error),
                     E_NOT_FOUND);
    assert_int_equal(weights_has_mtp(&has_mtp, NULL, LOAD_DUMMY, &config, &error), OK);
    assert_false(has_mtp);
}

static int open_runtime(void **state)
{
    (void)state;
    struct error error = {0};
    return runtime_open(0, &error) == OK ? 0 : 1;
}

static int close_runtime(void **state)
{
    (void)state;
    runtime_close();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dummy_by_element), cmocka_unit_test(test_official_layouts),
        cmocka_unit_test(test_expert_layouts),   cmocka_unit_test(test_prefixes),
        cmocka_unit_test(test_next_layouts),     cmocka_unit_test(test_head_absent_and_tied_copy),
        cmocka_unit_test(test_nothing_to_load),
    };
    return cmocka_run_group_tests(tests, open_runtime, close_runtime);
}
