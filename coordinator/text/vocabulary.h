// SPDX-License-Identifier: Apache-2.0
// vocabulary.h -- token texts by id and ids by text, while a tokenizer.json is read. Texts are as
// the file spells them (letters of the byte map, not bytes). Dropped when loading is done.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/text/text_buffer.h"
#include "parallel/base/status.h"

enum {
    VOCABULARY_IDS_MAX = 1 << 20,     // four times the largest of the family
    VOCABULARY_BYTES_MAX = 256 << 20, // of all texts
};

struct vocabulary_text {
    uint32_t start, bytes; // within texts; bytes 0: no token has this id
};

struct vocabulary_slot {
    uint32_t hash, id_plus_1; // id_plus_1 0: empty
};

struct vocabulary {
    struct text_buffer texts;
    struct vocabulary_text *tokens; // [tokens_capacity], index = id
    size_t tokens_capacity;
    uint32_t id_end;               // highest id + 1; 0 when empty
    uint32_t count;                // tokens in all; == id_end when there are no holes
    struct vocabulary_slot *slots; // [slot_mask + 1]
    uint32_t slot_mask;
};

// An empty vocabulary with room for about `expected` tokens before it grows. E_SYSTEM: no memory.
MUST_CHECK enum status vocabulary_init(struct vocabulary *vocabulary, size_t expected,
                                       struct error *error);
void vocabulary_fini(struct vocabulary *vocabulary);

// Gives the last `bytes` bytes of vocabulary->texts, which the caller has appended there, the id
// `id`. E_INPUT: the text or the id is taken, or the text is empty; E_LIMIT: id too large.
MUST_CHECK enum status vocabulary_add_last(struct vocabulary *vocabulary, size_t bytes, uint32_t id,
                                           struct error *error);

// The id of a text; false when it is not a token. `*id` is written only on true.
bool vocabulary_find(const struct vocabulary *vocabulary, const char *text, size_t bytes,
                     uint32_t *id);

// The text of an id, or NULL where no token has it. Valid until the next token is added.
const char *vocabulary_text_of(const struct vocabulary *vocabulary, uint32_t id, size_t *bytes);
