// SPDX-License-Identifier: Apache-2.0
// added_tokens.c -- a sorted set searched byte by byte; see added_tokens.h.
#include "coordinator/text/added_tokens.h"

#include <stdlib.h>
#include <string.h>

#include "coordinator/text/code_point.h"
#include "coordinator/text/text_buffer.h"

void added_tokens_init(struct added_tokens *set)
{
    *set = (struct added_tokens){0};
}

void added_tokens_fini(struct added_tokens *set)
{
    for (size_t i = 0; i < set->count; i++)
        free(set->tokens[i].content);
    free(set->tokens);
    *set = (struct added_tokens){0};
}

enum status added_tokens_add(struct added_tokens *set, struct added_token token,
                             struct error *error)
{
    const int shown = token.bytes > 60 ? 60 : (int)token.bytes;
    if (token.bytes == 0)
        return error_set(error, E_INPUT, "added token %u has an empty content", token.id);
    if (token.bytes > ADDED_TOKENS_BYTES_MAX)
        return error_set(error, E_LIMIT,
                         "added token \"%.*s...\" has %zu bytes, above the limit of %d", shown,
                         token.content, token.bytes, ADDED_TOKENS_BYTES_MAX);
    if (set->count == ADDED_TOKENS_MAX)
        return error_set(error, E_LIMIT, "more than the limit of %d added tokens",
                         ADDED_TOKENS_MAX);
    struct added_token *tokens =
        text_buffer_grow_items(set->tokens, &set->capacity, set->count + 1, sizeof *tokens);
    if (tokens != NULL)
        set->tokens = tokens;
    char *content = malloc(token.bytes);
    if (tokens == NULL || content == NULL) {
        free(content);
        return error_set(error, E_SYSTEM, "out of memory for %zu added tokens", set->count + 1);
    }
    memcpy(content, token.content, token.bytes);
    token.content = content;
    set->tokens[set->count++] = token;
    set->first[(uint8_t)content[0]] = true;
    return OK;
}

// Byte order; a content sorts before every longer one that it begins.
static int by_content(const void *a, const void *b)
{
    const struct added_token *left = a, *right = b;
    const size_t common = left->bytes < right->bytes ? left->bytes : right->bytes;
    const int order = memcmp(left->content, right->content, common);
    if (order != 0)
        return order;
    return (left->bytes > right->bytes) - (left->bytes < right->bytes);
}

enum status added_tokens_seal(struct added_tokens *set, struct error *error)
{
    if (set->count > 0)
        qsort(set->tokens, set->count, sizeof *set->tokens, by_content);
    for (size_t i = 1; i < set->count; i++) {
        const struct added_token *token = &set->tokens[i];
        if (by_content(token - 1, token) == 0)
            return error_set(error, E_INPUT, "the added token \"%.*s\" appears twice",
                             token->bytes > 60 ? 60 : (int)token->bytes, token->content);
    }
    return OK;
}

// Index of the first token in [low, high), which share their first `depth` bytes, whose byte there
// is at least `byte`; a token that ends at `depth` comes before all.
static size_t first_not_below(const struct added_tokens *set, size_t low, size_t high, size_t depth,
                              unsigned byte)
{
    while (low < high) {
        const size_t middle = (low + high) / 2;
        const struct added_token *token = &set->tokens[middle];
        if (token->bytes == depth || (uint8_t)token->content[depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// The longest token that text[bytes] begins with, or NULL. Each byte narrows the range of tokens
// that agree so far, so the cost does not depend on how many share a beginning.
static const struct added_token *longest_at(const struct added_tokens *set, const char *text,
                                            size_t bytes)
{
    const struct added_token *longest = NULL;
    size_t low = 0, high = set->count;
    for (size_t depth = 0; depth < bytes && low < high; depth++) {
        const unsigned byte = (uint8_t)text[depth];
        low = first_not_below(set, low, high, depth, byte);
        high = first_not_below(set, low, high, depth, byte + 1);
        if (low < high && set->tokens[low].bytes == depth + 1)
            longest = &set->tokens[low];
    }
    return longest;
}

const struct added_token *added_tokens_find(const struct added_tokens *set, const char *content,
                                            size_t bytes)
{
    const struct added_token *token = longest_at(set, content, bytes);
    return token != NULL && token->bytes == bytes ? token : NULL;
}

// Unicode's White_Space, all 25 of them.
static bool is_white_space(uint32_t point)
{
    return (point >= 0x09 && point <= 0x0d) || point == 0x20 || point == 0x85 || point == 0xa0 ||
           point == 0x1680 || (point >= 0x2000 && point <= 0x200a) || point == 0x2028 ||
           point == 0x2029 || point == 0x202f || point == 0x205f || point == 0x3000;
}

// Where the white space that ends at byte `end` begins, not before `floor`.
static size_t space_before(const char *text, size_t floor, size_t end)
{
    while (end > floor) {
        size_t start = end - 1;
        while (start > floor && ((uint8_t)text[start] & 0xc0) == 0x80)
            start--;
        size_t next = start;
        if (!is_white_space(code_point_next(text, &next)))
            break;
        end = start;
    }
    return end;
}

// One past the white space that begins at byte `start`.
static size_t space_after(const char *text, size_t bytes, size_t start)
{
    while (start < bytes) {
        size_t next = start;
        if (!is_white_space(code_point_next(text, &next)))
            break;
        start = next;
    }
    return start;
}

void added_tokens_start(struct added_walk *walk, const struct added_tokens *set, const char *text,
                        size_t bytes)
{
    *walk = (struct added_walk){.set = set, .text = text, .bytes = bytes};
}

bool added_tokens_next(struct added_walk *walk, struct added_piece *piece)
{
    if (walk->pending != NULL) {
        *piece = (struct added_piece){.token = walk->pending};
        walk->pending = NULL;
        return true;
    }
    const struct added_token *token = NULL;
    size_t start = walk->searched;
    for (; token == NULL && start < walk->bytes; start++) {
        if (walk->set->first[(uint8_t)walk->text[start]])
            token = longest_at(walk->set, walk->text + start, walk->bytes - start);
    }
    if (token == NULL) {
        *piece = (struct added_piece){.start = walk->given, .bytes = walk->bytes - walk->given};
        walk->searched = walk->given = walk->bytes;
        return piece->bytes > 0;
    }
    start--; // the loop's step past the match
    size_t end = start + token->bytes;
    walk->searched = end; // a token may begin in the white space that this one takes
    if (token->strip_left && start > walk->given)
        start = space_before(walk->text, walk->given, start);
    if (token->strip_right)
        end = space_after(walk->text, walk->bytes, end);
    const size_t given = walk->given;
    walk->given = end;
    if (given < start) {
        walk->pending = token;
        *piece = (struct added_piece){.start = given, .bytes = start - given};
    } else {
        *piece = (struct added_piece){.token = token};
    }
    return true;
}
