// SPDX-License-Identifier: Apache-2.0
// shard_test.c -- spans cover the model once, replication of KV heads, and the degrees that the
// public models allow.
#include "parallel/shard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "parallel/plan.h"

// Sizes of the public models (their config.json). What the shard does not look at is left 0.
static struct model_config dense(int heads, int kv_heads, int value_heads, int intermediate)
{
    return (struct model_config){
        .layers = 4,
        .layer_is_attention = {[3] = true},
        .hidden = 1024,
        .vocab = 248320,
        .heads = heads,
        .kv_heads = kv_heads,
        .head_dim = 256,
        .key_heads = 16,
        .value_heads = value_heads,
        .key_dim = 128,
        .value_dim = 128,
        .conv_width = 4,
        .intermediate = intermediate,
    };
}

static struct model_config moe(int heads, int value_heads, int experts, int width)
{
    struct model_config config = dense(heads, 2, value_heads, 0);
    config.experts = experts;
    config.experts_per_token = 8;
    config.expert_intermediate = width;
    config.shared_intermediate = width;
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

static void check_cover(struct span previous_end, struct span span, int rank, int ranks, int whole)
{
    assert_int_equal(span.first, rank == 0 ? 0 : previous_end.first);
    assert_int_equal(span.count * ranks, whole);
}

static void next(struct span *end, struct span span)
{
    end->first = span.first + span.count;
}

static void check_model(const struct model_config *config, int ranks)
{
    struct span heads = {0}, keys = {0}, values = {0}, columns = {0}, experts = {0}, vocab = {0};
    for (int rank = 0; rank < ranks; rank++) {
        struct shard s = shard_of(config, rank, ranks);
        assert_int_equal(s.rank, rank);
        assert_int_equal(s.ranks, ranks);
        check_cover(heads, s.heads, rank, ranks, config->heads);
        check_cover(keys, s.key_heads, rank, ranks, config->key_heads);
        check_cover(values, s.value_heads, rank, ranks, config->value_heads);
        check_cover(columns, s.intermediate, rank, ranks, config->intermediate);
        check_cover(experts, s.expert_intermediate, rank, ranks, config->expert_intermediate);
        check_cover(experts, s.shared_intermediate, rank, ranks, config->shared_intermediate);
        check_cover(vocab, s.vocab, rank, ranks, config->vocab);
        next(&heads, s.heads);
        next(&keys, s.key_heads);
        next(&values, s.value_heads);
        next(&columns, s.intermediate);
        next(&experts, s.expert_intermediate);
        next(&vocab, s.vocab);
        // Each own query head's KV head is here, and no KV head is here for nothing.
        int group = config->heads / config->kv_heads;
        int last = s.kv_heads.first + s.kv_heads.count;
        for (int h = s.heads.first; h < s.heads.first + s.heads.count; h++)
            assert_true(h / group >= s.kv_heads.first && h / group < last);
        assert_int_equal(s.heads.first / group, s.kv_heads.first);
        assert_int_equal((s.heads.first + s.heads.count - 1) / group, last - 1);
        // Value heads j * r .. j * r + r - 1 belong to key head j.
        int r = config->value_heads / config->key_heads;
        for (int v = s.value_heads.first; v < s.value_heads.first + s.value_heads.count; v++)
            assert_true(v / r >= s.key_heads.first &&
                        v / r < s.key_heads.first + s.key_heads.count);
        assert_int_equal(shard_conv_channels(&s, config) * ranks, config_conv_channels(config));
        assert_int_equal(shard_gdn_rows(&s, config),
                         shard_conv_channels(&s, config) + 130 * s.value_heads.count);
        assert_int_equal(shard_attention_rows(&s, config),
                         512 * s.heads.count + 512 * s.kv_heads.count);
    }
}

static void check_degrees(const struct model_config *config, const int *expected, int count)
{
    int degrees[RANKS_MAX];
    assert_int_equal(shard_degrees(degrees, config), count);
    for (int i = 0; i < count; i++) {
        assert_int_equal(degrees[i], expected[i]);
        check_model(config, degrees[i]);
    }
}

static void test_public_models(void **state)
{
    (void)state;
    static const int powers[] = {1, 2, 4, 8};
    const struct model_config models[] = {
        dense(8, 2, 16, 3584),   dense(8, 2, 16, 6144),   dense(16, 4, 32, 9216),
        dense(16, 4, 32, 12288), dense(24, 4, 48, 17408), moe(16, 32, 256, 512),
        moe(32, 64, 256, 1024),  moe(32, 64, 512, 1024),  moe(16, 32, 512, 512),
    };
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++)
        check_degrees(&models[i], powers, 4);
}

static void test_odd_degrees(void **state)
{
    (void)state;
    struct model_config config = dense(12, 6, 12, 768);
    config.key_heads = 12;
    config.vocab = 600;
    static const int expected[] = {1, 2, 3, 6}; // 4 neither divides 6 KV heads nor is a multiple
    check_degrees(&config, expected, 4);
}

static void test_kv_replication(void **state)
{
    (void)state;
    struct model_config config = dense(16, 2, 32, 9216);
    static const int first[] = {0, 0, 0, 0, 1, 1, 1, 1};
    for (int rank = 0; rank < 8; rank++) {
        struct shard shard = shard_of(&config, rank, 8);
        assert_int_equal(shard.kv_heads.first, first[rank]);
        assert_int_equal(shard.kv_heads.count, 1);
    }
}

static void check_refused(const struct model_config *config, int ranks, const char *text)
{
    struct shard shard = {.ranks = -1};
    struct error error = {0};
    assert_int_equal(shard_make(&shard, config, 0, ranks, &error), E_INPUT);
    assert_int_equal(shard.ranks, -1);
    if (strstr(error.text, text) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", error.text, text);
}

static void test_refusals(void **state)
{
    (void)state;
    struct model_config config = dense(8, 2, 16, 3584);
    check_refused(&config, 3,
                  "tensor parallel 3 does not divide this model's num_attention_heads "
                  "= 8; degrees that work: 1, 2, 4, 8");
    check_refused(&config, 9, "1 to 8 are served");
    check_refused(&config, 0, "1 to 8 are served");
    config.key_heads = 2;
    config.value_heads = 2;
    check_refused(&config, 4, "linear_num_key_heads = 2; degrees that work: 1, 2");
    config = dense(8, 2, 16, 3586);
    check_refused(&config, 4, "intermediate_size = 3586; degrees that work: 1, 2");
    config = dense(8, 2, 16, 3584);
    config.vocab = 2001;
    check_refused(&config, 2, "vocab_size = 2001; degrees that work: 1");
    config = moe(16, 32, 256, 12);
    check_refused(&config, 8, "moe_intermediate_size = 12; degrees that work: 1, 2, 4");
    config = moe(16, 32, 256, 16);
    config.shared_intermediate = 2;
    check_refused(&config, 4, "shared_expert_intermediate_size = 2");
    config = dense(12, 6, 12, 768);
    config.key_heads = 12;
    check_refused(&config, 4, "num_key_value_heads = 6");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_public_models),
        cmocka_unit_test(test_odd_degrees),
        cmocka_unit_test(test_kv_replication),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
