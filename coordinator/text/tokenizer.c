// SPDX-License-Identifier: Apache-2.0
// tokenizer.c -- encoding: added tokens out, NFC, pieces, byte-pair encoding, a cache of pieces;
// see tokenizer.h.
#include "coordinator/text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "coordinator/text/code_point.h"
#include "parallel/base/utf8.h"

enum {
    CACHE_LINES = 1 << 14, // of 64 bytes: 1 MiB, which a core's second-level cache about holds
    CACHED_BYTES_MAX = 22,
    CACHED_IDS_MAX = 10,
    KEPT_BYTES_MAX = 8 << 20, // scratch above this is given back after the text that needed it
};

// A piece and its ids, found by the piece's hash; a newer piece takes the place of an older one.
struct cache_line {
    uint8_t piece_bytes; // 0: empty
    uint8_t id_count;
    char piece[CACHED_BYTES_MAX]; // zeros after piece_bytes
    uint32_t ids[CACHED_IDS_MAX];
};
_Static_assert(sizeof(struct cache_line) == 64, "one cache line");

struct tokenizer_scratch {
    const struct tokenizer *tokenizer;
    struct normalize_scratch normalize;
    struct pretokenize_scratch pretokenize;
    struct bpe_scratch bpe;
    struct cache_line *cache; // [CACHE_LINES]
};

// One encode under way.
struct encoding {
    const struct tokenizer *tokenizer;
    struct tokenizer_scratch *scratch;
    struct token_ids *out;
    struct error *error;
};

struct tokenizer_scratch *tokenizer_scratch_new(const struct tokenizer *tokenizer)
{
    struct tokenizer_scratch *scratch = calloc(1, sizeof *scratch);
    if (scratch == NULL)
        return NULL;
    scratch->tokenizer = tokenizer;
    // Room is reserved at four bytes a code point before it is known how many they need.
    normalize_scratch_init(&scratch->normalize,
                           (size_t)TOKENIZER_TEXT_BYTES_MAX *
                               (NORMALIZE_EXPANSION_MAX + CODE_POINT_BYTES_MAX));
    scratch->cache = calloc(CACHE_LINES, sizeof *scratch->cache);
    if (scratch->cache == NULL || pretokenize_scratch_init(&scratch->pretokenize, NULL) != OK) {
        tokenizer_scratch_free(scratch);
        return NULL;
    }
    return scratch;
}

void tokenizer_scratch_free(struct tokenizer_scratch *scratch)
{
    if (scratch == NULL)
        return;
    normalize_scratch_fini(&scratch->normalize);
    pretokenize_scratch_fini(&scratch->pretokenize);
    bpe_scratch_fini(&scratch->bpe);
    free(scratch->cache);
    free(scratch);
}

static enum status append_ids(struct encoding *encoding, const uint32_t *ids, size_t count)
{
    struct token_ids *out = encoding->out;
    if (count > out->count_max - out->count)
        return error_set(encoding->error, E_LIMIT, "the text has more than the limit of %zu tokens",
                         out->count_max);
    memcpy(out->ids + out->count, ids, count * sizeof *ids);
    out->count += count;
    return OK;
}

// The line where a short piece is or would be; key is the piece with zeros after it.
static struct cache_line *line_of(struct tokenizer_scratch *scratch,
                                  const char key[CACHED_BYTES_MAX + 2])
{
    uint64_t words[3];
    memcpy(words, key, sizeof words);
    uint64_t hash = words[0] * 0x9e3779b97f4a7c15u;
    hash = (hash ^ hash >> 32 ^ words[1]) * 0xff51afd7ed558ccdu;
    hash = (hash ^ hash >> 32 ^ words[2]) * 0xc4ceb9fe1a85ec53u;
    return &scratch->cache[hash >> 32 & (CACHE_LINES - 1)];
}

static enum status encode_piece(struct encoding *encoding, const char *piece, size_t bytes)
{
    struct cache_line *line = NULL;
    char key[CACHED_BYTES_MAX + 2] = {0};
    if (bytes <= CACHED_BYTES_MAX) {
        memcpy(key, piece, bytes);
        line = line_of(encoding->scratch, key);
        if (line->piece_bytes == bytes && memcmp(line->piece, key, sizeof line->piece) == 0)
            return append_ids(encoding, line->ids, line->id_count);
    }
    size_t count;
    struct bpe_scratch *scratch = &encoding->scratch->bpe;
    TRY(bpe_encode(&encoding->tokenizer->bpe, scratch, piece, bytes, &count, encoding->error));
    if (line != NULL && count <= CACHED_IDS_MAX) {
        line->piece_bytes = (uint8_t)bytes;
        line->id_count = (uint8_t)count;
        memcpy(line->piece, key, sizeof line->piece);
        memcpy(line->ids, scratch->ids, count * sizeof *scratch->ids);
    }
    return append_ids(encoding, scratch->ids, count);
}

// Text without added tokens, in normal form.
static enum status encode_plain(struct encoding *encoding, const char *text, size_t bytes)
{
    size_t at = 0;
    while (at < bytes) {
        const size_t start = at;
        TRY(pretokenize_next(&encoding->tokenizer->pretokenize, &encoding->scratch->pretokenize,
                             text, bytes, &at, encoding->error));
        TRY(encode_piece(encoding, text + start, at - start));
    }
    return OK;
}

// Text between added tokens, as it came.
static enum status encode_raw(struct encoding *encoding, const char *text, size_t bytes)
{
    const char *normal;
    size_t normal_bytes;
    TRY(normalize_nfc(&encoding->scratch->normalize, text, bytes, &normal, &normal_bytes,
                      encoding->error));
    struct added_walk walk;
    struct added_piece piece;
    added_tokens_start(&walk, &encoding->tokenizer->added_normalized, normal, normal_bytes);
    while (added_tokens_next(&walk, &piece)) {
        if (piece.token != NULL)
            TRY(append_ids(encoding, &piece.token->id, 1));
        else
            TRY(encode_plain(encoding, normal + piece.start, piece.bytes));
    }
    return OK;
}

static enum status encode_all(struct encoding *encoding, const char *text, size_t bytes)
{
    struct added_walk walk;
    struct added_piece piece;
    added_tokens_start(&walk, &encoding->tokenizer->added, text, bytes);
    while (added_tokens_next(&walk, &piece)) {
        if (piece.token != NULL)
            TRY(append_ids(encoding, &piece.token->id, 1));
        else
            TRY(encode_raw(encoding, text + piece.start, piece.bytes));
    }
    return OK;
}

enum status tokenizer_encode(const struct tokenizer *tokenizer, struct tokenizer_scratch *scratch,
                             struct token_ids *out, const char *text, size_t bytes,
                             struct error *error)
{
    ASSERT(scratch->tokenizer == tokenizer && out->count <= out->count_max);
    if (bytes > TOKENIZER_TEXT_BYTES_MAX)
        return error_set(error, E_LIMIT, "the text has %zu bytes, above the limit of %d", bytes,
                         TOKENIZER_TEXT_BYTES_MAX);
    const size_t valid = utf8_valid_bytes(text, bytes);
    if (valid != bytes)
        return error_set(error, E_INPUT, "the text is not UTF-8: byte 0x%02x at offset %zu",
                         (unsigned)(uint8_t)text[valid], valid);
    struct encoding encoding = {tokenizer, scratch, out, error};
    const size_t count_before = out->count;
    const enum status status = encode_all(&encoding, text, bytes);
    if (status != OK)
        out->count = count_before;
    if (scratch->bpe.parts_capacity * sizeof(struct bpe_part) > KEPT_BYTES_MAX ||
        scratch->normalize.text.capacity > KEPT_BYTES_MAX) {
        const size_t bytes_max = scratch->normalize.text.bytes_max;
        bpe_scratch_fini(&scratch->bpe);
        normalize_scratch_fini(&scratch->normalize);
        normalize_scratch_init(&scratch->normalize, bytes_max);
    }
    return status;
}

size_t tokenizer_ids_max(size_t text_bytes)
{
    return text_bytes * NORMALIZE_EXPANSION_MAX;
}

struct token_bytes tokenizer_id_text(const struct tokenizer *tokenizer, uint32_t id)
{
    ASSERT(id < tokenizer->id_count);
    const uint32_t start = tokenizer->starts[id];
    return (struct token_bytes){tokenizer->bytes + start, tokenizer->starts[id + 1] - start};
}

bool tokenizer_added_id(const struct tokenizer *tokenizer, const char *content, uint32_t *id)
{
    const size_t bytes = strlen(content);
    const struct added_token *token = added_tokens_find(&tokenizer->added, content, bytes);
    if (token == NULL)
        token = added_tokens_find(&tokenizer->added_normalized, content, bytes);
    if (token == NULL)
        return false;
    *id = token->id;
    return true;
}

void tokenizer_fini(struct tokenizer *tokenizer)
{
    free(tokenizer->bytes);
    free(tokenizer->starts);
    free(tokenizer->special);
    bpe_fini(&tokenizer->bpe);
    added_tokens_fini(&tokenizer->added);
    added_tokens_fini(&tokenizer->added_normalized);
    pretokenize_fini(&tokenizer->pretokenize);
    *tokenizer = (struct tokenizer){0};
}
