// SPDX-License-Identifier: Apache-2.0
// tokenizer_tables.c -- vocabulary, merges and added tokens; see tokenizer_tables.h.
#include "coordinator/text/tokenizer_tables.h"

#include <stdlib.h>
#include <string.h>

#include "coordinator/text/code_point.h"
#include "coordinator/text/text_buffer.h"

enum {
    LETTERS_END = 0x144, // the byte map's letters are the code points 0x21 .. 0x143
    MERGE_BYTES_MAX = 1 << 20,
};

// GPT-2's byte map: a byte that prints in Latin-1 is its own letter, the 68 others are U+0100 and
// on, in order.
static uint32_t letter_of(unsigned byte)
{
    uint32_t others = 0;
    for (unsigned b = 0;; b++) {
        const bool prints = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b != 0xad);
        if (b == byte)
            return prints ? b : 0x100 + others;
        others += prints ? 0 : 1;
    }
}

// What is wrong with one entry of a member: puts file and member before the error's text.
static enum status in_member(const struct json_scan *scan, const char *member, size_t index,
                             enum status status, const char *what)
{
    return error_set(scan->error, status, "%s: %s[%zu]: %s", scan->name, member, index, what);
}

enum status tokenizer_tables_read_vocabulary(struct tokenizer *tokenizer,
                                             struct vocabulary *vocabulary, struct json_scan *scan)
{
    size_t index = 0;
    if (json_scan_enter(scan, '{', '}')) {
        do {
            const size_t before = vocabulary->texts.count;
            json_scan_string(scan, &vocabulary->texts);
            json_scan_expect(scan, ':');
            const uint32_t id = json_scan_u32(scan);
            if (scan->status != OK)
                return scan->status;
            struct error error;
            const enum status status =
                vocabulary_add_last(vocabulary, vocabulary->texts.count - before, id, &error);
            if (status != OK)
                return in_member(scan, "model.vocab", index, status, error.text);
            index++;
        } while (json_scan_more(scan, '}'));
    }
    if (scan->status != OK)
        return scan->status;
    for (uint32_t id = 0; id < vocabulary->id_end; id++) {
        size_t bytes;
        if (vocabulary_text_of(vocabulary, id, &bytes) == NULL)
            return error_set(scan->error, E_INPUT,
                             "%s: model.vocab: no token has the id %u, but ids go up to %u",
                             scan->name, id, vocabulary->id_end - 1);
    }
    tokenizer->base_count = vocabulary->id_end;
    return OK;
}

// A merge as text: both parts in one row, the cut between them.
struct merge_text {
    struct text_buffer text;
    size_t left_bytes;
};

// The next element of the array: ["left", "right"] or "left right".
static enum status scan_merge(struct json_scan *scan, struct merge_text *merge, size_t index)
{
    merge->text.count = 0;
    if (json_scan_peek(scan) == '[') {
        json_scan_expect(scan, '[');
        json_scan_string(scan, &merge->text);
        merge->left_bytes = merge->text.count;
        json_scan_expect(scan, ',');
        json_scan_string(scan, &merge->text);
        json_scan_expect(scan, ']');
        return scan->status;
    }
    json_scan_string(scan, &merge->text);
    if (scan->status != OK)
        return scan->status;
    const size_t count = merge->text.count;
    char *space = count == 0 ? NULL : memchr(merge->text.bytes, ' ', count);
    merge->left_bytes = space == NULL ? count : (size_t)(space - merge->text.bytes);
    const size_t right_bytes = space == NULL ? 0 : count - merge->left_bytes - 1;
    if (space == NULL || memchr(space + 1, ' ', right_bytes) != NULL)
        return in_member(scan, "model.merges", index, E_INPUT,
                         "a merge is two texts with one space between them");
    memmove(space, space + 1, right_bytes);
    merge->text.count--;
    return OK;
}

// The ids of a merge's parts and of what they make.
static enum status look_up(const struct json_scan *scan, const struct vocabulary *vocabulary,
                           const struct merge_text *merge, size_t index, struct bpe_merge *out)
{
    const char *text = merge->text.bytes;
    const size_t left = merge->left_bytes, whole = merge->text.count;
    if (left == 0 || left == whole)
        return in_member(scan, "model.merges", index, E_INPUT, "a part of the merge is empty");
    const struct {
        const char *text;
        size_t bytes;
        uint32_t *id;
    } parts[] = {{text, left, &out->left},
                 {text + left, whole - left, &out->right},
                 {text, whole, &out->id}};
    for (size_t i = 0; i < 3; i++) {
        if (vocabulary_find(vocabulary, parts[i].text, parts[i].bytes, parts[i].id))
            continue;
        char what[160];
        snprintf(what, sizeof what, "%s \"%.*s\", which is not in model.vocab",
                 i < 2 ? "names the token" : "makes the token",
                 parts[i].bytes > 80 ? 80 : (int)parts[i].bytes, parts[i].text);
        return in_member(scan, "model.merges", index, E_INPUT, what);
    }
    out->rank = (uint32_t)index;
    return OK;
}

// The growing list of merges, in order of rank.
struct merge_list {
    struct bpe_merge *merges; // [capacity], the first `count` are in use
    size_t count, capacity;
};

static enum status scan_merges(struct json_scan *scan, const struct vocabulary *vocabulary,
                               struct merge_list *list, struct merge_text *merge)
{
    if (!json_scan_enter(scan, '[', ']'))
        return scan->status;
    do {
        struct bpe_merge *merges =
            text_buffer_grow_items(list->merges, &list->capacity, list->count + 1, sizeof *merges);
        if (merges == NULL)
            return error_set(scan->error, E_SYSTEM, "out of memory for %zu merges", list->count);
        list->merges = merges;
        TRY(scan_merge(scan, merge, list->count));
        TRY(look_up(scan, vocabulary, merge, list->count, &merges[list->count]));
        list->count++;
    } while (json_scan_more(scan, ']'));
    return scan->status;
}

// The ids that byte-pair encoding starts from.
static enum status set_byte_ids(struct bpe *bpe, const struct vocabulary *vocabulary,
                                const struct json_scan *scan)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char letter[CODE_POINT_BYTES_MAX];
        const size_t bytes = code_point_encode(letter, letter_of(byte));
        if (!vocabulary_find(vocabulary, letter, bytes, &bpe->byte_ids[byte]))
            return error_set(scan->error, E_INPUT,
                             "%s: model.vocab: no token \"%.*s\" for the byte 0x%02x", scan->name,
                             (int)bytes, letter, byte);
    }
    return OK;
}

enum status tokenizer_tables_read_merges(struct tokenizer *tokenizer,
                                         const struct vocabulary *vocabulary,
                                         struct json_scan *scan)
{
    struct merge_list list = {0};
    struct merge_text merge;
    text_buffer_init(&merge.text, MERGE_BYTES_MAX);
    enum status status = scan_merges(scan, vocabulary, &list, &merge);
    if (status == OK)
        status = bpe_init(&tokenizer->bpe, list.count, scan->error);
    if (status == OK) {
        for (size_t i = 0; i < list.count; i++)
            bpe_add(&tokenizer->bpe, list.merges[i]);
        status = set_byte_ids(&tokenizer->bpe, vocabulary, scan);
    }
    text_buffer_fini(&merge.text);
    free(list.merges);
    return status;
}

// One element of added_tokens, with where it stands for errors.
struct added_entry {
    const json_t *object;
    size_t index;
    const char *name; // of the file
    struct error *error;
};

static enum status read_flag(const struct added_entry *entry, const char *key, bool *flag)
{
    const json_t *value = json_object_get(entry->object, key);
    if (!json_is_boolean(value))
        return error_set(entry->error, E_INPUT, "%s: added_tokens[%zu].%s is not true or false",
                         entry->name, entry->index, key);
    *flag = json_is_true(value);
    return OK;
}

// Says where an error without a place happened.
static enum status in_entry(const struct added_entry *entry, enum status status,
                            const struct error *what)
{
    return error_set(entry->error, status, "%s: added_tokens[%zu]: %s", entry->name, entry->index,
                     what->text);
}

// The id and content of an entry; the id must be the vocabulary's for that content or, for a new
// content, the next one: Hugging Face numbers them so, whatever the file says.
static enum status enter_added(const struct added_entry *entry, struct vocabulary *vocabulary,
                               struct added_token *token)
{
    const json_t *content = json_object_get(entry->object, "content");
    const json_t *id = json_object_get(entry->object, "id");
    if (!json_is_string(content) || json_string_length(content) == 0)
        return error_set(entry->error, E_INPUT,
                         "%s: added_tokens[%zu].content is not a text of at least a byte",
                         entry->name, entry->index);
    token->bytes = json_string_length(content);
    token->content = strndup(json_string_value(content), token->bytes);
    if (token->content == NULL)
        return error_set(entry->error, E_SYSTEM, "out of memory for an added token");
    if (!vocabulary_find(vocabulary, token->content, token->bytes, &token->id)) {
        token->id = vocabulary->id_end;
        struct error what;
        enum status status =
            text_buffer_append(&vocabulary->texts, token->content, token->bytes, &what);
        if (status == OK)
            status = vocabulary_add_last(vocabulary, token->bytes, token->id, &what);
        if (status != OK)
            return in_entry(entry, status, &what);
    }
    if (!json_is_integer(id) || json_integer_value(id) != (json_int_t)token->id)
        return error_set(entry->error, E_INPUT,
                         "%s: added_tokens[%zu].id of \"%.60s\" is not %u, the id that follows "
                         "from its place or from model.vocab",
                         entry->name, entry->index, token->content, token->id);
    return OK;
}

// True when the content is its own normal form, so that it can be found in normalized text.
static bool is_normal(const struct added_token *token)
{
    struct normalize_scratch scratch;
    const char *normal;
    size_t bytes;
    normalize_scratch_init(&scratch, ADDED_TOKENS_BYTES_MAX * 8);
    const bool same =
        normalize_nfc(&scratch, token->content, token->bytes, &normal, &bytes, NULL) == OK &&
        bytes == token->bytes && memcmp(normal, token->content, bytes) == 0;
    normalize_scratch_fini(&scratch);
    return same;
}

static enum status read_added(struct tokenizer *tokenizer, struct vocabulary *vocabulary,
                              const struct added_entry *entry)
{
    struct added_token token = {0};
    bool single_word = false, normalized = false, special = false;
    enum status status = read_flag(entry, "single_word", &single_word);
    if (status == OK)
        status = read_flag(entry, "lstrip", &token.strip_left);
    if (status == OK)
        status = read_flag(entry, "rstrip", &token.strip_right);
    if (status == OK)
        status = read_flag(entry, "normalized", &normalized);
    if (status == OK)
        status = read_flag(entry, "special", &special);
    if (status == OK)
        status = enter_added(entry, vocabulary, &token);
    if (status == OK && single_word)
        status = error_set(entry->error, E_UNSUPPORTED,
                           "%s: added_tokens[%zu].single_word is true; only false is supported",
                           entry->name, entry->index);
    if (status == OK && normalized && !is_normal(&token))
        status = error_set(entry->error, E_UNSUPPORTED,
                           "%s: added_tokens[%zu].normalized is true of a content that NFC changes",
                           entry->name, entry->index);
    if (status == OK) {
        struct error what;
        status = added_tokens_add(normalized ? &tokenizer->added_normalized : &tokenizer->added,
                                  token, &what);
        if (status != OK)
            in_entry(entry, status, &what);
        tokenizer->special[token.id] = special;
    }
    free(token.content);
    return status;
}

// Sorts both sets of added tokens; a content may be in one of them only.
static enum status seal_added(struct tokenizer *tokenizer, const char *name, struct error *error)
{
    struct error what;
    enum status status = added_tokens_seal(&tokenizer->added, &what);
    if (status == OK)
        status = added_tokens_seal(&tokenizer->added_normalized, &what);
    for (size_t i = 0; status == OK && i < tokenizer->added_normalized.count; i++) {
        const struct added_token *token = &tokenizer->added_normalized.tokens[i];
        if (added_tokens_find(&tokenizer->added, token->content, token->bytes) != NULL)
            status = error_set(&what, E_INPUT, "the added token \"%.*s\" appears twice",
                               token->bytes > 60 ? 60 : (int)token->bytes, token->content);
    }
    if (status != OK)
        return error_set(error, status, "%s: added_tokens: %s", name, what.text);
    return OK;
}

// Appends what a token's text stands for: its letters' bytes when all are letters of the byte map,
// else the text as it is (Hugging Face's ByteLevel decoder goes by token, too).
static size_t decode_letters(const int16_t bytes_of[LETTERS_END], const char *text, size_t bytes,
                             char *out)
{
    size_t count = 0;
    for (size_t at = 0; at < bytes;) {
        const uint32_t letter = code_point_next(text, &at);
        if (letter >= LETTERS_END || bytes_of[letter] < 0) {
            memcpy(out, text, bytes);
            return bytes;
        }
        out[count++] = (char)bytes_of[letter];
    }
    return count;
}

// What each id decodes to. No token decodes to more bytes than its text has.
static enum status decode_vocabulary(struct tokenizer *tokenizer,
                                     const struct vocabulary *vocabulary, struct error *error)
{
    int16_t bytes_of[LETTERS_END];
    memset(bytes_of, 0xff, sizeof bytes_of);
    for (unsigned byte = 0; byte < 256; byte++)
        bytes_of[letter_of(byte)] = (int16_t)byte;
    tokenizer->id_count = vocabulary->id_end;
    tokenizer->bytes = malloc(vocabulary->texts.count + 1);
    tokenizer->starts = malloc(((size_t)tokenizer->id_count + 1) * sizeof *tokenizer->starts);
    if (tokenizer->bytes == NULL || tokenizer->starts == NULL)
        return error_set(error, E_SYSTEM, "out of memory for %u tokens", tokenizer->id_count);
    uint32_t end = 0;
    for (uint32_t id = 0; id < tokenizer->id_count; id++) {
        size_t text_bytes;
        const char *text = vocabulary_text_of(vocabulary, id, &text_bytes);
        ASSERT(text != NULL);
        tokenizer->starts[id] = end;
        end += (uint32_t)decode_letters(bytes_of, text, text_bytes, tokenizer->bytes + end);
        if (end - tokenizer->starts[id] > tokenizer->token_bytes_max)
            tokenizer->token_bytes_max = end - tokenizer->starts[id];
    }
    tokenizer->starts[tokenizer->id_count] = end;
    return OK;
}

enum status tokenizer_tables_finish(struct tokenizer *tokenizer, struct vocabulary *vocabulary,
                                    const json_t *added, const char *name, struct error *error)
{
    if (added != NULL && !json_is_array(added) && !json_is_null(added))
        return error_set(error, E_INPUT, "%s: added_tokens is not an array", name);
    const size_t added_count = json_array_size(added);
    tokenizer->special = calloc(tokenizer->base_count + added_count + 1, sizeof(bool));
    if (tokenizer->special == NULL)
        return error_set(error, E_SYSTEM, "out of memory for %zu added tokens", added_count);
    for (size_t i = 0; i < added_count; i++) {
        const struct added_entry entry = {json_array_get(added, i), i, name, error};
        TRY(read_added(tokenizer, vocabulary, &entry));
    }
    TRY(seal_added(tokenizer, name, error));
    return decode_vocabulary(tokenizer, vocabulary, error);
}
