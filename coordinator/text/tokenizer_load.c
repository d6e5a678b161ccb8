// SPDX-License-Identifier: Apache-2.0
// tokenizer_load.c -- reads a model directory's tokenizer files and refuses, by file, field and
// value, every pipeline that encoding would not reproduce exactly; declared in tokenizer.h.
#include "coordinator/text/tokenizer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "coordinator/text/json_scan.h"
#include "coordinator/text/tokenizer_tables.h"
#include "coordinator/text/vocabulary.h"
#include "parallel/base/git_lfs.h"
#include "parallel/base/utf8.h"

enum {
    VALUE_SHOWN_MAX = 120,       // bytes of a refused value that an error shows
    CONFIG_BYTES_MAX = 16 << 20, // of tokenizer_config.json (a template may be in it)
    VOCABULARY_ENTRY_BYTES = 24, // of one entry of an indented vocabulary, about
};

// A tokenizer.json under way.
struct loading {
    struct tokenizer *tokenizer;
    const char *name; // of the file
    const char *json; // [json_bytes]
    size_t json_bytes;
    struct error *error;
};

// A member of an object and where its value lies.
struct member {
    const char *key;
    struct json_extent extent;
};

// In the order of the constructors below.
enum {
    VERSION,
    TRUNCATION,
    PADDING,
    ADDED,
    NORMALIZER,
    PRE_TOKENIZER,
    POST_PROCESSOR,
    DECODER,
    MODEL,
    MEMBERS
};
enum {
    TYPE,
    DROPOUT,
    UNK_TOKEN,
    SUBWORD_PREFIX,
    WORD_SUFFIX,
    FUSE_UNK,
    BYTE_FALLBACK,
    IGNORE_MERGES,
    VOCAB,
    MERGES,
    MODEL_MEMBERS
};

// Where the wanted members of the object at the scan's place lie. Others are passed over, as
// Hugging Face does; a wanted one that comes twice is E_INPUT.
static enum status find_members(struct json_scan *scan, struct member *members, size_t count)
{
    struct text_buffer key;
    text_buffer_init(&key, 4096);
    if (json_scan_enter(scan, '{', '}')) {
        do {
            key.count = 0;
            json_scan_string(scan, &key);
            json_scan_expect(scan, ':');
            const struct json_extent extent = json_scan_skip(scan);
            for (size_t i = 0; i < count && scan->status == OK; i++) {
                if (strlen(members[i].key) != key.count ||
                    memcmp(members[i].key, key.bytes, key.count) != 0)
                    continue;
                if (members[i].extent.bytes != 0)
                    scan->status = error_set(scan->error, E_INPUT, "%s: \"%s\" appears twice",
                                             scan->name, members[i].key);
                members[i].extent = extent;
            }
        } while (json_scan_more(scan, '}'));
    }
    text_buffer_fini(&key);
    return scan->status;
}

// The value of a small member; NULL in *value when it is absent.
static enum status parse_member(const struct loading *loading, const struct member *member,
                                json_t **value)
{
    json_error_t where;
    *value = NULL;
    if (member->extent.bytes == 0)
        return OK;
    *value = json_loadb(loading->json + member->extent.start, member->extent.bytes,
                        JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &where);
    if (*value == NULL)
        return error_set(loading->error, E_MALFORMED, "%s: byte %zu, in \"%s\": %s", loading->name,
                         member->extent.start + (size_t)where.position, member->key, where.text);
    return OK;
}

// Refuses a field whose value is not one of those given as compact JSON; "" allows its absence.
static enum status require(const struct loading *loading, const char *field, const json_t *value,
                           const char *const allowed[], size_t allowed_count)
{
    char *text = value == NULL ? strdup("") : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    if (text == NULL)
        return error_set(loading->error, E_SYSTEM, "out of memory for the value of %s", field);
    bool found = false;
    for (size_t i = 0; i < allowed_count && !found; i++)
        found = strcmp(text, allowed[i]) == 0;
    enum status status = OK;
    if (!found)
        status = error_set(loading->error, E_UNSUPPORTED, "%s: %s is %.*s; only %s is supported",
                           loading->name, field, VALUE_SHOWN_MAX, value == NULL ? "absent" : text,
                           allowed[allowed_count - 1]);
    free(text);
    return status;
}

#define REQUIRE(loading, field, value, ...)                                                        \
    require(loading, field, value, (const char *const[]){__VA_ARGS__},                             \
            sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

// The pieces' expression, out of Sequence[Split(Regex, Isolated), ByteLevel].
static enum status read_pre_tokenizer(const struct loading *loading, const json_t *value)
{
    const json_t *steps = json_object_get(value, "pretokenizers");
    TRY(REQUIRE(loading, "pre_tokenizer.type", json_object_get(value, "type"), "\"Sequence\""));
    if (json_array_size(steps) != 2)
        return error_set(loading->error, E_UNSUPPORTED,
                         "%s: pre_tokenizer.pretokenizers has %zu steps; only Split, then "
                         "ByteLevel, is supported",
                         loading->name, json_array_size(steps));
    const json_t *split = json_array_get(steps, 0), *level = json_array_get(steps, 1);
    TRY(REQUIRE(loading, "pre_tokenizer.pretokenizers[0].type", json_object_get(split, "type"),
                "\"Split\""));
    TRY(REQUIRE(loading, "pre_tokenizer.pretokenizers[0].behavior",
                json_object_get(split, "behavior"), "\"Isolated\""));
    TRY(REQUIRE(loading, "pre_tokenizer.pretokenizers[0].invert", json_object_get(split, "invert"),
                "false"));
    TRY(REQUIRE(loading, "pre_tokenizer.pretokenizers[1].type", json_object_get(level, "type"),
                "\"ByteLevel\""));
    TRY(REQUIRE(loading, "pre_tokenizer.pretokenizers[1].add_prefix_space",
                json_object_get(level, "add_prefix_space"), "false"));
    TRY(REQUIRE(loading, "pre_tokenizer.pretokenizers[1].use_regex",
                json_object_get(level, "use_regex"), "false"));
    const json_t *regex = json_object_get(json_object_get(split, "pattern"), "Regex");
    if (!json_is_string(regex))
        return error_set(loading->error, E_UNSUPPORTED,
                         "%s: pre_tokenizer.pretokenizers[0].pattern has no \"Regex\"",
                         loading->name);
    struct error error;
    const enum status status =
        pretokenize_init(&loading->tokenizer->pretokenize, json_string_value(regex), &error);
    if (status != OK)
        return error_set(loading->error, status,
                         "%s: pre_tokenizer.pretokenizers[0].pattern: %.400s", loading->name,
                         error.text);
    return OK;
}

// One small member of the file: what it must be for our pipeline to be this tokenizer's.
static enum status check_member(const struct loading *loading, int which, const json_t *value)
{
    switch (which) {
    case VERSION: return REQUIRE(loading, "version", value, "", "\"1.0\"");
    case TRUNCATION: return REQUIRE(loading, "truncation", value, "", "null");
    case PADDING: return REQUIRE(loading, "padding", value, "", "null");
    case NORMALIZER: return REQUIRE(loading, "normalizer", value, "{\"type\":\"NFC\"}");
    case PRE_TOKENIZER: return read_pre_tokenizer(loading, value);
    case DECODER:
        return REQUIRE(loading, "decoder.type", json_object_get(value, "type"), "\"ByteLevel\"");
    case POST_PROCESSOR:
        // ByteLevel here only moves offsets, which we do not give.
        if (value == NULL || json_is_null(value))
            return OK;
        return REQUIRE(loading, "post_processor.type", json_object_get(value, "type"),
                       "\"ByteLevel\"");
    default: return OK;
    }
}

// One small member of "model".
static enum status check_model_member(const struct loading *loading, int which, const json_t *value)
{
    switch (which) {
    case TYPE: return REQUIRE(loading, "model.type", value, "\"BPE\"");
    case DROPOUT: return REQUIRE(loading, "model.dropout", value, "", "null");
    case UNK_TOKEN: return REQUIRE(loading, "model.unk_token", value, "", "null");
    case SUBWORD_PREFIX:
        return REQUIRE(loading, "model.continuing_subword_prefix", value, "", "\"\"", "null");
    case WORD_SUFFIX:
        return REQUIRE(loading, "model.end_of_word_suffix", value, "", "\"\"", "null");
    // Without unk_token this has no effect, so either value will do.
    case FUSE_UNK: return REQUIRE(loading, "model.fuse_unk", value, "", "true", "false");
    case BYTE_FALLBACK: return REQUIRE(loading, "model.byte_fallback", value, "", "null", "false");
    case IGNORE_MERGES: return REQUIRE(loading, "model.ignore_merges", value, "", "null", "false");
    default: return OK;
    }
}

// Parses and checks the members [0, count) but the long ones, which `skipped` has bits for.
static enum status check_members(const struct loading *loading, const struct member *members,
                                 int count, unsigned skipped,
                                 enum status (*check)(const struct loading *, int, const json_t *))
{
    for (int i = 0; i < count; i++) {
        if (skipped >> i & 1)
            continue;
        json_t *value;
        TRY(parse_member(loading, &members[i], &value));
        const enum status status = check(loading, i, value);
        json_decref(value);
        TRY(status);
    }
    return OK;
}

// A scan over one member alone, so that reading cannot leave it.
static struct json_scan scan_of(const struct loading *loading, const struct member *member)
{
    struct json_scan scan;
    json_scan_init(&scan, loading->name, loading->json, member->extent.start + member->extent.bytes,
                   loading->error);
    scan.at = member->extent.start;
    return scan;
}

// The long members, in the order in which they need each other.
static enum status read_tables(const struct loading *loading, struct vocabulary *vocabulary,
                               const struct member *model, const struct member *added)
{
    for (int i = VOCAB; i <= MERGES; i++) {
        if (model[i].extent.bytes == 0)
            return error_set(loading->error, E_INPUT, "%s: model.%s is absent", loading->name,
                             model[i].key);
    }
    struct json_scan scan = scan_of(loading, &model[VOCAB]);
    TRY(tokenizer_tables_read_vocabulary(loading->tokenizer, vocabulary, &scan));
    scan = scan_of(loading, &model[MERGES]);
    TRY(tokenizer_tables_read_merges(loading->tokenizer, vocabulary, &scan));
    json_t *value;
    TRY(parse_member(loading, added, &value));
    const enum status status = tokenizer_tables_finish(loading->tokenizer, vocabulary, value,
                                                       loading->name, loading->error);
    json_decref(value);
    return status;
}

static enum status load(const struct loading *loading)
{
    struct member members[MEMBERS] = {
        {"version", {0}},        {"truncation", {0}}, {"padding", {0}},
        {"added_tokens", {0}},   {"normalizer", {0}}, {"pre_tokenizer", {0}},
        {"post_processor", {0}}, {"decoder", {0}},    {"model", {0}}};
    struct member model[MODEL_MEMBERS] = {{"type", {0}},
                                          {"dropout", {0}},
                                          {"unk_token", {0}},
                                          {"continuing_subword_prefix", {0}},
                                          {"end_of_word_suffix", {0}},
                                          {"fuse_unk", {0}},
                                          {"byte_fallback", {0}},
                                          {"ignore_merges", {0}},
                                          {"vocab", {0}},
                                          {"merges", {0}}};
    const size_t valid = utf8_valid_bytes(loading->json, loading->json_bytes);
    if (valid != loading->json_bytes)
        return error_set(loading->error, E_MALFORMED, "%s: byte %zu: not UTF-8", loading->name,
                         valid);
    struct json_scan scan;
    json_scan_init(&scan, loading->name, loading->json, loading->json_bytes, loading->error);
    TRY(find_members(&scan, members, MEMBERS));
    if (json_scan_peek(&scan) != 0)
        json_scan_fail(&scan, "text after the end of the object");
    TRY(scan.status);
    if (members[MODEL].extent.bytes == 0)
        return error_set(loading->error, E_INPUT, "%s: \"model\" is absent", loading->name);
    scan = scan_of(loading, &members[MODEL]);
    TRY(find_members(&scan, model, MODEL_MEMBERS));
    TRY(check_members(loading, model, MODEL_MEMBERS, 1u << VOCAB | 1u << MERGES,
                      check_model_member));
    TRY(check_members(loading, members, MEMBERS, 1u << ADDED | 1u << MODEL, check_member));
    struct vocabulary vocabulary;
    enum status status = vocabulary_init(
        &vocabulary, model[VOCAB].extent.bytes / VOCABULARY_ENTRY_BYTES, loading->error);
    if (status == OK)
        status = read_tables(loading, &vocabulary, model, &members[ADDED]);
    vocabulary_fini(&vocabulary);
    return status;
}

enum status tokenizer_load_json(struct tokenizer *tokenizer, const char *name, const char *json,
                                size_t json_bytes, struct error *error)
{
    *tokenizer = (struct tokenizer){0};
    const struct loading loading = {tokenizer, name, json, json_bytes, error};
    const enum status status = load(&loading);
    if (status != OK)
        tokenizer_fini(tokenizer);
    return status;
}

// Reads a whole file into *bytes (from malloc). E_NOT_FOUND when it does not exist.
static enum status read_file(const char *path, size_t bytes_max, char **bytes, size_t *count,
                             struct error *error)
{
    struct stat stat;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a FIFO is not waited for
    if (fd < 0)
        return error_set(error, errno == ENOENT ? E_NOT_FOUND : E_SYSTEM, "%s: %s", path,
                         strerror(errno));
    enum status status = OK;
    *bytes = NULL;
    *count = 0;
    if (fstat(fd, &stat) != 0)
        status = error_set(error, E_SYSTEM, "%s: %s", path, strerror(errno));
    else if (!S_ISREG(stat.st_mode))
        status = error_set(error, E_INPUT, "%s: not a regular file", path);
    else if ((uintmax_t)stat.st_size > bytes_max)
        status = error_set(error, E_LIMIT, "%s: %jd bytes, above the limit of %zu", path,
                           (intmax_t)stat.st_size, bytes_max);
    else if ((*bytes = malloc((size_t)stat.st_size + 1)) == NULL)
        status = error_set(error, E_SYSTEM, "%s: out of memory", path);
    while (status == OK && *count < (size_t)stat.st_size) {
        const ssize_t got = read(fd, *bytes + *count, (size_t)stat.st_size - *count);
        if (got < 0 && errno != EINTR)
            status = error_set(error, E_SYSTEM, "%s: %s", path, strerror(errno));
        if (got == 0)
            status = error_set(error, E_INPUT, "%s: became shorter while it was read", path);
        *count += got > 0 ? (size_t)got : 0;
    }
    close(fd);
    if (status == OK)
        status = git_lfs_check(path, *bytes, *count, error);
    if (status != OK) {
        free(*bytes);
        *bytes = NULL;
    }
    return status;
}

// A small JSON file of the directory; *value stays NULL when there is none.
static enum status read_config(const char *path, json_t **value, struct error *error)
{
    char *bytes;
    size_t count;
    json_error_t where;
    *value = NULL;
    const enum status status = read_file(path, CONFIG_BYTES_MAX, &bytes, &count, error);
    if (status != OK)
        return status == E_NOT_FOUND ? OK : status;
    *value = json_loadb(bytes, count, JSON_REJECT_DUPLICATES, &where);
    free(bytes);
    if (*value == NULL)
        return error_set(error, E_MALFORMED, "%s: line %d: %s", path, where.line, where.text);
    return OK;
}

static enum status add_eos(struct tokenizer *tokenizer, const char *path, const json_t *id,
                           struct error *error)
{
    if (!json_is_integer(id) || json_integer_value(id) < 0 ||
        json_integer_value(id) >= (json_int_t)tokenizer->id_count)
        return error_set(error, E_INPUT,
                         "%s: eos_token_id must be one or several token ids below %u", path,
                         tokenizer->id_count);
    const uint32_t eos = (uint32_t)json_integer_value(id);
    for (uint32_t i = 0; i < tokenizer->eos_count; i++) {
        if (tokenizer->eos_ids[i] == eos)
            return OK;
    }
    if (tokenizer->eos_count == TOKENIZER_EOS_MAX)
        return error_set(error, E_LIMIT, "%s: more than the limit of %d ids end a text", path,
                         TOKENIZER_EOS_MAX);
    tokenizer->eos_ids[tokenizer->eos_count++] = eos;
    return OK;
}

// generation_config.json's eos_token_id: an id or a list of them.
static enum status read_eos_ids(struct tokenizer *tokenizer, const char *path, const json_t *config,
                                struct error *error)
{
    const json_t *ids = json_object_get(config, "eos_token_id");
    if (ids == NULL || json_is_null(ids))
        return OK;
    if (!json_is_array(ids))
        return add_eos(tokenizer, path, ids, error);
    for (size_t i = 0; i < json_array_size(ids); i++)
        TRY(add_eos(tokenizer, path, json_array_get(ids, i), error));
    return OK;
}

// tokenizer_config.json's eos_token: a content, or an object that holds one.
static enum status read_eos_token(struct tokenizer *tokenizer, const char *path,
                                  const json_t *config, struct error *error)
{
    const json_t *token = json_object_get(config, "eos_token");
    if (token == NULL || json_is_null(token))
        return OK;
    if (json_is_object(token))
        token = json_object_get(token, "content");
    uint32_t id;
    if (!json_is_string(token) || !tokenizer_added_id(tokenizer, json_string_value(token), &id))
        return error_set(error, E_INPUT, "%s: eos_token \"%.80s\" is not an added token", path,
                         json_is_string(token) ? json_string_value(token) : "");
    json_t *number = json_integer(id);
    const enum status status = add_eos(tokenizer, path, number, error);
    json_decref(number);
    return status;
}

// How a template says that only texts are written as they are and all else as JSON.
static bool says_json_scalars(const char *template, size_t bytes)
{
    static const char words[] = "| string if args_value is string else args_value | tojson";
    return bytes > 0 && memmem(template, bytes, words, sizeof words - 1) != NULL;
}

// The template is a file of its own, or a member of tokenizer_config.json.
static enum status read_template(struct tokenizer *tokenizer, const char *directory,
                                 struct error *error)
{
    char path[4096], *bytes;
    size_t count;
    json_t *config;
    snprintf(path, sizeof path, "%s/chat_template.jinja", directory);
    const enum status status = read_file(path, CONFIG_BYTES_MAX, &bytes, &count, error);
    if (status == OK) {
        tokenizer->json_scalars = says_json_scalars(bytes, count);
        free(bytes);
    }
    if (status != E_NOT_FOUND)
        return status;
    snprintf(path, sizeof path, "%s/tokenizer_config.json", directory);
    TRY(read_config(path, &config, error));
    const json_t *member = json_object_get(config, "chat_template");
    tokenizer->json_scalars =
        says_json_scalars(json_string_value(member), json_string_length(member));
    json_decref(config);
    return OK;
}

static enum status read_special_ids(struct tokenizer *tokenizer, const char *directory,
                                    struct error *error)
{
    static const struct {
        const char *file;
        enum status (*read)(struct tokenizer *, const char *, const json_t *, struct error *);
    } sources[] = {{"generation_config.json", read_eos_ids},
                   {"tokenizer_config.json", read_eos_token}};
    for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++) {
        char path[4096];
        json_t *config;
        snprintf(path, sizeof path, "%s/%s", directory, sources[i].file);
        TRY(read_config(path, &config, error));
        const enum status status =
            config == NULL ? OK : sources[i].read(tokenizer, path, config, error);
        json_decref(config);
        TRY(status);
    }
    return OK;
}

enum status tokenizer_load(struct tokenizer *tokenizer, const char *directory, struct error *error)
{
    char path[4096];
    char *json;
    size_t json_bytes;
    if ((size_t)snprintf(path, sizeof path, "%s/tokenizer_config.json", directory) >= sizeof path)
        return error_set(error, E_LIMIT, "%.100s...: the path is longer than the limit of %zu",
                         directory, sizeof path);
    snprintf(path, sizeof path, "%s/tokenizer.json", directory);
    TRY(read_file(path, TOKENIZER_FILE_BYTES_MAX, &json, &json_bytes, error));
    enum status status = tokenizer_load_json(tokenizer, path, json, json_bytes, error);
    free(json);
    if (status != OK)
        return status;
    status = read_special_ids(tokenizer, directory, error);
    if (status == OK)
        status = read_template(tokenizer, directory, error);
    if (status != OK)
        tokenizer_fini(tokenizer);
    return status;
}
