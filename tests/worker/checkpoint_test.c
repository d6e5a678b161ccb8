// SPDX-License-Identifier: Apache-2.0
// checkpoint_test.c -- what a checkpoint may hold and what it must: each fault by its name. And
// that a rank reads its own ranges and no others. Values are compared in weights_test.c.
#include "worker/checkpoint.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixtures/checkpoint.h"

#define GOLDEN(name) SOURCE_DIR "/tests/golden/" name "/config.json"

static struct model_config config_in(const char *dir)
{
    struct model_config config;
    struct error error = {0};
    if (config_load(&config, dir, &error) != OK)
        fail_msg("%s", error.text);
    return config;
}

static void check_refused(const struct checkpoint_fixture *fixture, enum status status,
                          const char *text)
{
    char dir[CHECKPOINT_FIXTURE_DIR_BYTES];
    checkpoint_fixture_write(dir, fixture);
    struct model_config config = config_in(dir);
    struct checkpoint *checkpoint = NULL;
    struct error error = {0};
    enum status found = checkpoint_open(&checkpoint, dir, &config, &error);
    checkpoint_fixture_remove(dir);
    if (found != status)
        fail_msg("%s (%s), %s expected", status_name(found), error.text, status_name(status));
    assert_null(checkpoint);
    if (strstr(error.text, text) == NULL || strncmp(error.text, dir, strlen(dir)) != 0)
        fail_msg("\"%s\" does not say %s and \"%s\"", error.text, dir, text);
}

static void test_missing(void **state)
{
    (void)state;
    static const struct {
        const char *config, *name;
        bool split, grouped;
    } cases[] = {
        {GOLDEN("dense_untied_r2"), "lm_head.weight", false, false},
        {GOLDEN("dense_untied_r2"), "model.language_model.norm.weight", false, false},
        {GOLDEN("dense_untied_r2"), "model.language_model.layers.0.linear_attn.A_log", false,
         false},
        {GOLDEN("dense_untied_r2"), "model.language_model.layers.1.linear_attn.in_proj_a.weight",
         false, false},
        {GOLDEN("dense_untied_r2"), "model.language_model.layers.3.self_attn.k_norm.weight", false,
         false},
        {GOLDEN("dense_untied_r2"), "mtp.fc.weight", false, false},
        {GOLDEN("moe_e8_r2"), "model.language_model.layers.2.mlp.experts.down_proj", false, false},
        {GOLDEN("moe_e8_r2"), "model.language_model.layers.2.mlp.experts.7.up_proj.weight", true,
         false},
        {GOLDEN("moe_e8_r2"), "mtp.layers.0.mlp.experts.gate_up_proj", true, false},
        {GOLDEN("next_e8_r2"), "model.language_model.layers.0.linear_attn.in_proj_ba.weight", true,
         true},
        {GOLDEN("next_e8_r2"), "model.language_model.layers.0.linear_attn.in_proj_qkvz.weight",
         true, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct checkpoint_fixture fixture = {.config_path = cases[i].config,
                                             .experts_split = cases[i].split,
                                             .grouped = cases[i].grouped,
                                             .omit = cases[i].name};
        char text[200];
        snprintf(text, sizeof text, ": tensor %s is missing from the checkpoint", cases[i].name);
        check_refused(&fixture, E_INPUT, text);
    }
}

static void test_extra(void **state)
{
    (void)state;
    static const char *const names[] = {
        "model.language_model.layers.4.input_layernorm.weight",  // one layer too many
        "model.language_model.layers.0.self_attn.q_proj.weight", // attention in a GDN layer
        "model.language_model.layers.0.linear_attn.in_proj_qkvz.weight",
        "model.language_model.layers.0.mlp.up_proj.weight_scale_inv",
        "model.language_model.layers.0.mlp.experts.0.up_proj.weight",
        "model.mtp.fc.weight",
        "model.lm_head.weight",
        "mtp.layers.1.mlp.up_proj.weight",
        "something.else",
        "visual_of_another_kind.weight",
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct checkpoint_fixture fixture = {.config_path = GOLDEN("dense_untied_r2"),
                                             .extra = names[i]};
        char text[200];
        snprintf(text, sizeof text, "tensor %s is not part of this model", names[i]);
        check_refused(&fixture, E_INPUT, text);
    }
    // Packed and per expert at once.
    check_refused(
        &(struct checkpoint_fixture){
            .config_path = GOLDEN("moe_e8_r2"),
            .extra = "model.language_model.layers.0.mlp.experts.0.up_proj.weight"},
        E_INPUT, "experts.0.up_proj.weight is not part of this model");
    // The same tensor under two prefixes.
    check_refused(&(struct checkpoint_fixture){.config_path = GOLDEN("dense_untied_r2"),
                                               .extra = "model.norm.weight"},
                  E_INPUT, "model.norm.weight");
}

// An unused tensor tells how many more there are.
static void test_extra_counts(void **state)
{
    (void)state;
    char dir[CHECKPOINT_FIXTURE_DIR_BYTES];
    struct checkpoint_fixture fixture = {.config_path = GOLDEN("dense_untied_r2")};
    checkpoint_fixture_write(dir, &fixture);
    struct model_config config = config_in(dir);
    config.layers = 3; // 14 tensors of layer 3 are left: 2 norms, 6 + 3 of mixer and mlp
    struct checkpoint *checkpoint;
    struct error error = {0};
    assert_int_equal(checkpoint_open(&checkpoint, dir, &config, &error), E_INPUT);
    checkpoint_fixture_remove(dir);
    if (strstr(error.text, "layers.3.") == NULL || strstr(error.text, "(and 10 more)") == NULL)
        fail_msg("%s", error.text);
}

static void test_shape(void **state)
{
    (void)state;
    static const struct {
        struct checkpoint_fixture fixture;
        const char *text;
    } cases[] = {
        {{.config_path = GOLDEN("dense_untied_r2"), .reshape = "lm_head.weight"},
         "tensor lm_head.weight has shape [128, 384]; [384, 128] is expected"},
        {{.config_path = GOLDEN("dense_untied_r2"),
          .reshape = "model.language_model.layers.0.linear_attn.conv1d.weight"},
         "conv1d.weight has shape [1, 1024, 4]; [1024, 1, 4] is expected"},
        {{.config_path = GOLDEN("moe_e8_r2"),
          .reshape = "model.language_model.layers.1.mlp.experts.gate_up_proj"},
         "gate_up_proj has shape [128, 8, 128]; [8, 128, 128] is expected"},
        {{.config_path = GOLDEN("moe_e8_r2"),
          .experts_split = true,
          .reshape = "model.language_model.layers.1.mlp.experts.3.down_proj.weight"},
         "experts.3.down_proj.weight has shape [64, 128]; [128, 64] is expected"},
        {{.config_path = GOLDEN("next_e8_r2"),
          .grouped = true,
          .reshape = "model.language_model.layers.1.linear_attn.in_proj_ba.weight"},
         "in_proj_ba.weight has shape [128, 8]; [8, 128] is expected"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check_refused(&cases[i].fixture, E_INPUT, cases[i].text);
}

static void test_dtype(void **state)
{
    (void)state;
    check_refused(&(struct checkpoint_fixture){.config_path = GOLDEN("dense_untied_r2"),
                                               .retype = "lm_head.weight",
                                               .dtype = "F16"},
                  E_INPUT, "tensor lm_head.weight is F16; BF16 is expected");
    check_refused(&(struct checkpoint_fixture){.config_path = GOLDEN("dense_untied_r2"),
                                               .retype = "lm_head.weight",
                                               .dtype = "F32"},
                  E_INPUT, "tensor lm_head.weight is F32; BF16 is expected");
    check_refused(
        &(struct checkpoint_fixture){.config_path = GOLDEN("dense_untied_r2"),
                                     .retype = "model.language_model.layers.0.linear_attn.A_log",
                                     .dtype = "F16"},
        E_INPUT, "A_log is F16; BF16 or F32 is expected");
    check_refused(
        &(struct checkpoint_fixture){
            .config_path = GOLDEN("moe_e8_r2"),
            .experts_split = true,
            .retype = "model.language_model.layers.0.mlp.experts.2.gate_proj.weight",
            .dtype = "I16"},
        E_UNSUPPORTED, "is I16; BF16 is expected (FP8 and INT4 checkpoints are not served yet)");
}

// ---------------------------------------------------------------- what is read

static const struct stored_tensor *stored(const struct checkpoint *checkpoint, const char *suffix)
{
    const struct safetensors *files = checkpoint_files(checkpoint);
    const struct stored_tensor *found = NULL;
    for (int i = 0; i < files->tensors_count; i++) {
        size_t bytes = strlen(files->tensors[i].name), suffix_bytes = strlen(suffix);
        if (bytes >= suffix_bytes &&
            strcmp(files->tensors[i].name + bytes - suffix_bytes, suffix) == 0)
            found = &files->tensors[i];
    }
    if (found == NULL)
        fail_msg("no %s", suffix);
    return found;
}

static uint8_t scratch[CHECKPOINT_SCRATCH_BYTES];

static void read_range(struct checkpoint *checkpoint, const char *name, int64_t row, int64_t rows,
                       int64_t column, int64_t columns)
{
    static uint8_t out[1 << 20];
    const struct tensor *tensor = tensors_find(checkpoint_tensors(checkpoint), name);
    assert_non_null(tensor);
    struct tensor_range range = {tensor, row, rows, column, columns};
    assert_true((size_t)(rows * columns) * 4 <= sizeof out);
    struct error error = {0};
    if (checkpoint_read(checkpoint, out, &range, scratch, &error) != OK)
        fail_msg("%s", error.text);
}

static void test_only_ranges_are_read(void **state)
{
    (void)state;
    char dir[CHECKPOINT_FIXTURE_DIR_BYTES];
    struct checkpoint_fixture fixture = {
        .config_path = GOLDEN("moe_e16_tp8"), .vision = true, .mtp_experts_split = true};
    checkpoint_fixture_write(dir, &fixture);
    struct model_config config = config_in(dir);
    struct checkpoint *checkpoint;
    struct error error = {0};
    assert_int_equal(checkpoint_open(&checkpoint, dir, &config, &error), OK);
    const struct safetensors *files = checkpoint_files(checkpoint);
    assert_int_equal(files->bytes_read, 0); // opening reads headers alone

    read_range(checkpoint, "lm_head.weight", 48, 48, 0, 128); // rank 1 of 8
    assert_int_equal(stored(checkpoint, "lm_head.weight")->bytes_read, 48 * 128 * 2);
    assert_int_equal(files->bytes_read, 48 * 128 * 2);
    read_range(checkpoint, "layers.0.mlp.experts.gate_up_proj", 3 * 256 + 16, 16, 0, 128);
    assert_int_equal(stored(checkpoint, "layers.0.mlp.experts.gate_up_proj")->bytes_read,
                     16 * 128 * 2);
    read_range(checkpoint, "layers.0.linear_attn.A_log", 0, 1, 2, 2);
    assert_int_equal(stored(checkpoint, "layers.0.linear_attn.A_log")->bytes_read, 2 * 2);
    // Pieces of rows smaller than a page: the rows are read whole, once, and no other rows.
    read_range(checkpoint, "layers.0.linear_attn.out_proj.weight", 0, 128, 256, 256);
    assert_int_equal(stored(checkpoint, "layers.0.linear_attn.out_proj.weight")->bytes_read,
                     128 * 2048 * 2);
    read_range(checkpoint, "layers.1.linear_attn.out_proj.weight", 5, 1, 256, 256);
    assert_int_equal(stored(checkpoint, "layers.1.linear_attn.out_proj.weight")->bytes_read,
                     256 * 2);
    // Pieces of a page (2048 columns of bf16): they alone.
    read_range(checkpoint, "layers.2.linear_attn.out_proj.weight", 0, 128, 0, 2048);
    uint64_t before = files->bytes_read;
    assert_int_equal(stored(checkpoint, "model.visual.patch_embed.proj.weight")->bytes_read, 0);
    assert_int_equal(stored(checkpoint, "embed_tokens.weight")->bytes_read, 0);
    uint64_t sum = 0;
    for (int i = 0; i < files->tensors_count; i++)
        sum += files->tensors[i].bytes_read;
    assert_int_equal(sum, before);
    checkpoint_close(checkpoint);
    checkpoint_fixture_remove(dir);
}

enum { WIDE_ROWS = 16, WIDE_COLUMNS = 8192 };

// A checkpoint of that list: down_proj holds its row times 1000 plus its column modulo 1000, the
// rest zeros.
static void write_wide(const char *path, const struct tensor_list *list)
{
    char *header = NULL;
    size_t header_bytes;
    long long at = 0, down_at = 0;
    FILE *text = open_memstream(&header, &header_bytes);
    assert_non_null(text);
    for (int i = 0; i < list->count; i++) {
        const struct tensor *tensor = &list->items[i];
        long long rows = tensor->rows, columns = tensor->columns;
        if (strstr(tensor->name, "down_proj") != NULL)
            down_at = at;
        fprintf(text, "%s\"model.%s\":{\"dtype\":\"BF16\",\"shape\":[", i > 0 ? "," : "{",
                tensor->name);
        if (tensor->dims_count == 2)
            fprintf(text, "%lld,", rows);
        fprintf(text, "%lld],\"data_offsets\":[%lld,%lld]}", columns, at, at + 2 * rows * columns);
        at += 2 * rows * columns;
    }
    fprintf(text, "}");
    fclose(text);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    for (int i = 0; i < 8; i++)
        fputc((int)(header_bytes >> (8 * i) & 0xff), file);
    assert_int_equal(fwrite(header, header_bytes, 1, file), 1);
    for (long long i = -down_at / 2; i < (at - down_at) / 2; i++) {
        long long value = i < 0 ? 0 : i / WIDE_COLUMNS * 1000 + i % WIDE_COLUMNS % 1000;
        uint16_t bits = (uint16_t)value;
        assert_int_equal(fwrite(&bits, 2, 1, file), 1);
    }
    assert_int_equal(fclose(file), 0);
    free(header);
}

// A matrix wide enough that half a row is more than a page: the other half is not read.
static void test_wide_columns_alone(void **state)
{
    (void)state;
    struct model_config config = {
        .layers = 1,
        .layer_is_attention = {true},
        .hidden = WIDE_ROWS,
        .vocab = 8,
        .tied = true,
        .heads = 1,
        .kv_heads = 1,
        .head_dim = 256,
        .key_heads = 1,
        .value_heads = 1,
        .key_dim = 128,
        .value_dim = 128,
        .conv_width = 4,
        .intermediate = WIDE_COLUMNS,
    };
    char dir[] = "/tmp/deltamesh-wide-XXXXXX", path[128];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    struct tensor_list list;
    struct error error = {0};
    assert_int_equal(tensors_init(&list, &config, false, &error), OK);
    write_wide(path, &list);
    tensors_fini(&list);

    struct checkpoint *checkpoint;
    if (checkpoint_open(&checkpoint, dir, &config, &error) != OK)
        fail_msg("%s", error.text);
    static uint16_t out[WIDE_ROWS * WIDE_COLUMNS / 2];
    int half = WIDE_COLUMNS / 2;
    struct tensor_range range = {
        tensors_find(checkpoint_tensors(checkpoint), "layers.0.mlp.down_proj.weight"), 0, WIDE_ROWS,
        half, half};
    assert_int_equal(checkpoint_read(checkpoint, out, &range, scratch, &error), OK);
    assert_int_equal(checkpoint_files(checkpoint)->bytes_read, WIDE_ROWS * half * 2);
    for (int i = 0; i < WIDE_ROWS * half; i++)
        assert_int_equal(out[i], i / half * 1000 + (half + i % half) % 1000);
    checkpoint_close(checkpoint);
    remove(path);
    remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_extra),
        cmocka_unit_test(test_extra_counts),
        cmocka_unit_test(test_shape),
        cmocka_unit_test(test_dtype),
        cmocka_unit_test(test_only_ranges_are_read),
        cmocka_unit_test(test_wide_columns_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
