// SPDX-License-Identifier: Apache-2.0
// added_tokens.h -- finds added tokens ("<|im_start|>", "<think>") in text, leftmost and longest
// first, before anything else looks at it. Owns copies of their contents.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "parallel/base/status.h"

enum {
    ADDED_TOKENS_MAX = 16384,     // tokens in one set
    ADDED_TOKENS_BYTES_MAX = 256, // bytes of one content
};

struct added_token {
    char *content; // [bytes], owned
    size_t bytes;
    uint32_t id;
    bool strip_left;  // takes the white space before it, too ("lstrip")
    bool strip_right; // and after it ("rstrip")
};

// Read-only after seal: any number of threads may walk texts with one.
struct added_tokens {
    struct added_token *tokens; // [count], by content in byte order once sealed
    size_t count, capacity;
    bool first[256]; // bytes that some content starts with
};

// One walk over a text: the pieces of plain text and the tokens between them, in order.
struct added_walk {
    const struct added_tokens *set;
    const char *text; // [bytes], borrowed
    size_t bytes;
    size_t searched;                   // no token starts before this
    size_t given;                      // text before this has been handed out
    const struct added_token *pending; // found, and to be given after the text before it
};

// A piece of a walk: token NULL for plain text text[start .. start + bytes).
struct added_piece {
    const struct added_token *token;
    size_t start, bytes;
};

// An empty set in the caller's storage; fini frees what it holds.
void added_tokens_init(struct added_tokens *set);
void added_tokens_fini(struct added_tokens *set);

// Adds a token; content is copied. E_INPUT: empty; E_LIMIT: too many, too long; E_SYSTEM: memory.
MUST_CHECK enum status added_tokens_add(struct added_tokens *set, struct added_token token,
                                        struct error *error);

// Sorts; after the last add and before the first walk or find. E_INPUT: a content appears twice.
MUST_CHECK enum status added_tokens_seal(struct added_tokens *set, struct error *error);

// The token of exactly that content, or NULL.
const struct added_token *added_tokens_find(const struct added_tokens *set, const char *content,
                                            size_t bytes);

// Begins a walk over text[bytes], well-formed UTF-8 that outlives it.
void added_tokens_start(struct added_walk *walk, const struct added_tokens *set, const char *text,
                        size_t bytes);

// The next piece; false at the end. Plain pieces are never empty.
bool added_tokens_next(struct added_walk *walk, struct added_piece *piece);
