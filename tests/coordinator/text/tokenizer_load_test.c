// SPDX-License-Identifier: Apache-2.0
// tokenizer_load_test.c -- pipelines that are not ours, each refused by file, field and value;
// broken files; the ids that end a text.
#include "coordinator/text/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/fixtures/text_golden.h"

// Bends one field of a good file and wants a refusal that holds every given word.
static void refuse(const char *path, const char *value, enum status status, const char *word,
                   const char *other_word)
{
    struct tokenizer tokenizer;
    struct error error;
    json_t *root = text_golden_json();
    text_golden_set(root, path, value);
    assert_int_equal(text_golden_load_json(&tokenizer, root, &error), status);
    if (strstr(error.text, "bent.json") == NULL || strstr(error.text, word) == NULL ||
        strstr(error.text, other_word) == NULL)
        fail_msg("%s = %s: \"%s\" lacks \"%s\" or \"%s\"", path, value, error.text, word,
                 other_word);
    json_decref(root);
}

static void other_models_are_refused_by_name(void **state)
{
    (void)state;
    refuse("model.type", "\"WordPiece\"", E_UNSUPPORTED, "model.type", "\"WordPiece\"");
    refuse("model.type", "\"Unigram\"", E_UNSUPPORTED, "model.type", "\"Unigram\"");
    refuse("model.type", NULL, E_UNSUPPORTED, "model.type", "absent");
    refuse("model.type", "3", E_UNSUPPORTED, "model.type", "3");
    refuse("model.dropout", "0.1", E_UNSUPPORTED, "model.dropout", "0.1");
    refuse("model.unk_token", "\"<unk>\"", E_UNSUPPORTED, "model.unk_token", "<unk>");
    refuse("model.byte_fallback", "true", E_UNSUPPORTED, "model.byte_fallback", "true");
    refuse("model.ignore_merges", "true", E_UNSUPPORTED, "model.ignore_merges", "true");
    refuse("model.continuing_subword_prefix", "\"##\"", E_UNSUPPORTED,
           "model.continuing_subword_prefix", "##");
    refuse("model.end_of_word_suffix", "\"</w>\"", E_UNSUPPORTED, "model.end_of_word_suffix",
           "</w>");
    refuse("model", NULL, E_INPUT, "\"model\"", "absent");
    refuse("model", "[]", E_MALFORMED, "expected {", "byte");
}

static void other_pipelines_are_refused_by_name(void **state)
{
    (void)state;
    refuse("normalizer", "{\"type\": \"NFKC\"}", E_UNSUPPORTED, "normalizer", "NFKC");
    refuse("normalizer", "null", E_UNSUPPORTED, "normalizer", "null");
    refuse("normalizer", "{\"type\": \"Lowercase\"}", E_UNSUPPORTED, "normalizer", "Lowercase");
    refuse("pre_tokenizer", "null", E_UNSUPPORTED, "pre_tokenizer", "absent");
    refuse("pre_tokenizer.type", "\"Metaspace\"", E_UNSUPPORTED, "pre_tokenizer.type", "Metaspace");
    refuse("pre_tokenizer.pretokenizers", "[]", E_UNSUPPORTED, "pretokenizers", "0 steps");
    refuse("pre_tokenizer.pretokenizers.0.behavior", "\"Removed\"", E_UNSUPPORTED,
           "pretokenizers[0].behavior", "Removed");
    refuse("pre_tokenizer.pretokenizers.0.invert", "true", E_UNSUPPORTED, "pretokenizers[0].invert",
           "true");
    refuse("pre_tokenizer.pretokenizers.0.pattern", "{\"Regex\": \"\\\\d{1,3}\"}", E_UNSUPPORTED,
           "pretokenizers[0].pattern", "\\d{1,3}");
    refuse("pre_tokenizer.pretokenizers.0.pattern", "{\"String\": \" \"}", E_UNSUPPORTED,
           "pretokenizers[0].pattern", "Regex");
    refuse("pre_tokenizer.pretokenizers.1.add_prefix_space", "true", E_UNSUPPORTED,
           "pretokenizers[1].add_prefix_space", "true");
    refuse("pre_tokenizer.pretokenizers.1.use_regex", "true", E_UNSUPPORTED,
           "pretokenizers[1].use_regex", "true");
    refuse("decoder.type", "\"WordPiece\"", E_UNSUPPORTED, "decoder.type", "WordPiece");
    refuse("decoder", NULL, E_UNSUPPORTED, "decoder.type", "absent");
    refuse("post_processor", "{\"type\": \"TemplateProcessing\"}", E_UNSUPPORTED,
           "post_processor.type", "TemplateProcessing");
    refuse("truncation", "{\"max_length\": 512}", E_UNSUPPORTED, "truncation", "512");
    refuse("padding", "{\"strategy\": \"BatchLongest\"}", E_UNSUPPORTED, "padding", "BatchLongest");
    refuse("version", "\"2.0\"", E_UNSUPPORTED, "version", "2.0");
}

static void what_changes_nothing_is_accepted(void **state)
{
    (void)state;
    static const struct {
        const char *path, *value;
    } cases[] = {
        {"model.continuing_subword_prefix", "\"\""},
        {"model.end_of_word_suffix", NULL},
        {"model.fuse_unk", "true"},
        {"model.ignore_merges", NULL},
        {"post_processor", "{\"type\": \"ByteLevel\", \"trim_offsets\": true}"},
        {"post_processor", NULL},
        {"truncation", NULL},
        {"a_field_of_the_future", "{\"type\": [1, {\"x\": \"}\"}]}"},
        {"added_tokens", "null"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tokenizer tokenizer;
        struct error error;
        json_t *root = text_golden_json();
        text_golden_set(root, cases[i].path, cases[i].value == NULL ? "null" : cases[i].value);
        if (cases[i].value == NULL)
            text_golden_set(root, cases[i].path, NULL);
        if (text_golden_load_json(&tokenizer, root, &error) != OK)
            fail_msg("%s: %s", cases[i].path, error.text);
        tokenizer_fini(&tokenizer);
        json_decref(root);
    }
}

static void broken_files_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        enum status status;
        const char *word;
    } cases[] = {
        {"", E_MALFORMED, "byte 0"},
        {"[]", E_MALFORMED, "expected {"},
        {"{}", E_INPUT, "\"model\" is absent"},
        {"{} x", E_MALFORMED, "byte 3"},
        {"{\"model\": {}, \"model\": {}}", E_INPUT, "\"model\" appears twice"},
        {"{\"model\": {\"type\": nope}}", E_MALFORMED, "type"},
        {"{\"model\": {\"type\": \"BPE\", \"type\": \"BPE\"}}", E_INPUT, "\"type\" appears twice"},
        {"{\"model\": {\"type\": \"BPE\"}}", E_UNSUPPORTED, "normalizer"},
        {"{\"mod\xff\": 1}", E_MALFORMED, "byte 5: not UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tokenizer tokenizer;
        struct error error;
        assert_int_equal(tokenizer_load_json(&tokenizer, "broken.json", cases[i].json,
                                             strlen(cases[i].json), &error),
                         cases[i].status);
        if (strstr(error.text, cases[i].word) == NULL || strstr(error.text, "broken.json") == NULL)
            fail_msg("%s: \"%s\" lacks \"%s\"", cases[i].json, error.text, cases[i].word);
    }
}

static void a_file_cut_anywhere_is_refused(void **state)
{
    (void)state;
    size_t bytes;
    char *json = text_golden_file("tests/golden/text/family/tokenizer.json", &bytes);
    struct tokenizer tokenizer;
    struct error error;
    for (size_t cut = 0; cut < bytes; cut += cut < 2000 ? 7 : 331) {
        const enum status status = tokenizer_load_json(&tokenizer, "cut.json", json, cut, &error);
        assert_int_equal(status, E_MALFORMED);
        assert_non_null(strstr(error.text, "cut.json: byte "));
    }
    assert_int_equal(tokenizer_load_json(&tokenizer, "whole.json", json, bytes, &error), OK);
    tokenizer_fini(&tokenizer);
    free(json);
}

// A model directory of the test's own.
struct folder {
    char path[64];
};

static void folder_write(const struct folder *folder, const char *name, const char *content)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder->path, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_true(fwrite(content, 1, strlen(content), file) == strlen(content));
    fclose(file);
}

static void folder_open(struct folder *folder)
{
    size_t bytes;
    char *json = text_golden_file("tests/golden/text/family/tokenizer.json", &bytes);
    strcpy(folder->path, "/tmp/tokenizer_load_test_XXXXXX");
    assert_non_null(mkdtemp(folder->path));
    folder_write(folder, "tokenizer.json", json);
    free(json);
}

static void folder_close(const struct folder *folder)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json",
                                        "generation_config.json", "chat_template.jinja"};
    char path[128];
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", folder->path, names[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(folder->path), 0);
}

static void ids_that_end_a_text_are_read_from_both_files(void **state)
{
    (void)state;
    struct folder folder;
    struct tokenizer tokenizer;
    folder_open(&folder);
    assert_int_equal(tokenizer_load(&tokenizer, folder.path, NULL), OK);
    assert_int_equal(tokenizer.eos_count, 0);
    const uint32_t end_of_text = tokenizer.base_count, end_of_turn = tokenizer.base_count + 2;
    tokenizer_fini(&tokenizer);
    char config[128];
    snprintf(config, sizeof config, "{\"eos_token_id\": [%u, %u, %u]}", end_of_turn, end_of_text,
             end_of_turn);
    folder_write(&folder, "generation_config.json", config);
    folder_write(&folder, "tokenizer_config.json", "{\"eos_token\": {\"content\": \"<think>\"}}");
    assert_int_equal(tokenizer_load(&tokenizer, folder.path, NULL), OK);
    assert_int_equal(tokenizer.eos_count, 3);
    assert_int_equal(tokenizer.eos_ids[0], end_of_turn);
    assert_int_equal(tokenizer.eos_ids[1], end_of_text);
    assert_int_equal(tokenizer.eos_ids[2], tokenizer.base_count + 5);
    tokenizer_fini(&tokenizer);
    folder_write(&folder, "generation_config.json", "{\"eos_token_id\": 0}");
    folder_write(&folder, "tokenizer_config.json", "{\"eos_token\": \"<|im_end|>\"}");
    assert_int_equal(tokenizer_load(&tokenizer, folder.path, NULL), OK);
    assert_int_equal(tokenizer.eos_count, 2);
    assert_int_equal(tokenizer.eos_ids[0], 0);
    tokenizer_fini(&tokenizer);
    folder_close(&folder);
}

static void load_and_check_scalars(const struct folder *folder, bool expected)
{
    struct tokenizer tokenizer;
    assert_int_equal(tokenizer_load(&tokenizer, folder->path, NULL), OK);
    assert_int_equal(tokenizer.json_scalars, expected);
    tokenizer_fini(&tokenizer);
}

// The form of a tool call's numbers is the template's; the file comes before the member.
static void the_form_of_scalars_is_the_templates(void **state)
{
    (void)state;
    static const char json_form[] =
        "{%- set args_value = args_value | string if args_value is string else args_value | tojson "
        "| safe %}";
    struct folder folder;
    char config[256];
    folder_open(&folder);
    load_and_check_scalars(&folder, false);
    snprintf(config, sizeof config, "{\"chat_template\": \"%s\"}", json_form);
    folder_write(&folder, "tokenizer_config.json", config);
    load_and_check_scalars(&folder, true);
    folder_write(&folder, "chat_template.jinja", "{{ args_value | string }}");
    load_and_check_scalars(&folder, false);
    folder_write(&folder, "chat_template.jinja", json_form);
    folder_write(&folder, "tokenizer_config.json", "{\"chat_template\": [3]}");
    load_and_check_scalars(&folder, true);
    folder_close(&folder);
}

static void configs_that_name_no_token_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *file, *content, *word;
        enum status status;
    } cases[] = {
        {"generation_config.json", "{\"eos_token_id\": 99999}", "eos_token_id", E_INPUT},
        {"generation_config.json", "{\"eos_token_id\": -1}", "eos_token_id", E_INPUT},
        {"generation_config.json", "{\"eos_token_id\": [0, \"x\"]}", "eos_token_id", E_INPUT},
        {"generation_config.json", "{\"eos_token_id\": [0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]}",
         "limit of 16", E_LIMIT},
        {"generation_config.json", "{\"eos_tok", "line 1", E_MALFORMED},
        {"tokenizer_config.json", "{\"eos_token\": \"<nobody>\"}", "<nobody>", E_INPUT},
        {"tokenizer_config.json", "{\"eos_token\": 3}", "eos_token", E_INPUT},
        {"tokenizer.json", "version https://git-lfs.github.com/spec/v1\n", "Git LFS", E_INPUT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct folder folder;
        struct tokenizer tokenizer;
        struct error error;
        folder_open(&folder);
        folder_write(&folder, cases[i].file, cases[i].content);
        assert_int_equal(tokenizer_load(&tokenizer, folder.path, &error), cases[i].status);
        if (strstr(error.text, cases[i].file) == NULL || strstr(error.text, cases[i].word) == NULL)
            fail_msg("%s: \"%s\"", cases[i].content, error.text);
        folder_close(&folder);
    }
}

static void a_folder_without_tokenizer_is_told_apart(void **state)
{
    (void)state;
    struct tokenizer tokenizer;
    struct error error;
    assert_int_equal(tokenizer_load(&tokenizer, "/nonexistent", &error), E_NOT_FOUND);
    assert_non_null(strstr(error.text, "/nonexistent/tokenizer.json"));
    char path[5000];
    memset(path, 'x', sizeof path);
    path[sizeof path - 1] = 0;
    assert_int_equal(tokenizer_load(&tokenizer, path, &error), E_LIMIT);
}

static void a_fifo_is_not_waited_for(void **state)
{
    (void)state;
    static const char *const names[] = {"tokenizer.json", "chat_template.jinja"};
    alarm(20);
    for (size_t i = 0; i < 2; i++) {
        struct folder folder;
        struct tokenizer tokenizer;
        struct error error;
        char path[128];
        folder_open(&folder);
        snprintf(path, sizeof path, "%s/%s", folder.path, names[i]);
        unlink(path);
        assert_int_equal(mkfifo(path, 0600), 0);
        assert_int_equal(tokenizer_load(&tokenizer, folder.path, &error), E_INPUT);
        assert_non_null(strstr(error.text, path));
        assert_non_null(strstr(error.text, "not a regular file"));
        folder_close(&folder);
    }
    alarm(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_models_are_refused_by_name),
        cmocka_unit_test(other_pipelines_are_refused_by_name),
        cmocka_unit_test(what_changes_nothing_is_accepted),
        cmocka_unit_test(broken_files_are_refused),
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
        cmocka_unit_test(ids_that_end_a_text_are_read_from_both_files),
        cmocka_unit_test(the_form_of_scalars_is_the_templates),
        cmocka_unit_test(configs_that_name_no_token_are_refused),
        cmocka_unit_test(a_folder_without_tokenizer_is_told_apart),
        cmocka_unit_test(a_fifo_is_not_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
