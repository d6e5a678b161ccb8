// SPDX-License-Identifier: Apache-2.0
// vocabulary.c -- an open-addressing table over one arena of texts; see vocabulary.h.
#include "coordinator/text/vocabulary.h"

#include <stdlib.h>
#include <string.h>

// Eight bytes at a time, multiplied and folded; good enough for words, quick for short ones.
static uint32_t hash_of(const char *text, size_t bytes)
{
    uint64_t hash = bytes * 0x9e3779b97f4a7c15u;
    while (bytes > 0) {
        uint64_t word = 0;
        const size_t take = bytes < sizeof word ? bytes : sizeof word;
        memcpy(&word, text, take);
        hash = (hash ^ word) * 0xff51afd7ed558ccdu;
        hash ^= hash >> 32;
        text += take;
        bytes -= take;
    }
    return (uint32_t)(hash ^ hash >> 29);
}

enum status vocabulary_init(struct vocabulary *vocabulary, size_t expected, struct error *error)
{
    *vocabulary = (struct vocabulary){0};
    text_buffer_init(&vocabulary->texts, VOCABULARY_BYTES_MAX);
    uint32_t slots = 1024;
    while (slots < 2 * expected && slots < 2u * VOCABULARY_IDS_MAX)
        slots *= 2;
    vocabulary->slots = calloc(slots, sizeof *vocabulary->slots);
    vocabulary->slot_mask = slots - 1;
    if (vocabulary->slots == NULL)
        return error_set(error, E_SYSTEM, "out of memory for %u vocabulary slots", slots);
    return OK;
}

void vocabulary_fini(struct vocabulary *vocabulary)
{
    text_buffer_fini(&vocabulary->texts);
    free(vocabulary->tokens);
    free(vocabulary->slots);
    *vocabulary = (struct vocabulary){0};
}

// Twice the slots; the hashes are kept in them, so no text is read.
static enum status widen(struct vocabulary *vocabulary, struct error *error)
{
    const uint32_t mask = vocabulary->slot_mask * 2 + 1;
    struct vocabulary_slot *slots = calloc((size_t)mask + 1, sizeof *slots);
    if (slots == NULL)
        return error_set(error, E_SYSTEM, "out of memory for %u vocabulary slots", mask);
    for (uint32_t i = 0; i <= vocabulary->slot_mask; i++) {
        const struct vocabulary_slot slot = vocabulary->slots[i];
        if (slot.id_plus_1 == 0)
            continue;
        uint32_t at = slot.hash & mask;
        while (slots[at].id_plus_1 != 0)
            at = (at + 1) & mask;
        slots[at] = slot;
    }
    free(vocabulary->slots);
    vocabulary->slots = slots;
    vocabulary->slot_mask = mask;
    return OK;
}

// The slot that holds the text, or the empty one where it would go.
static uint32_t slot_of(const struct vocabulary *vocabulary, const char *text, size_t bytes,
                        uint32_t hash)
{
    uint32_t at = hash & vocabulary->slot_mask;
    for (;; at = (at + 1) & vocabulary->slot_mask) {
        const struct vocabulary_slot slot = vocabulary->slots[at];
        if (slot.id_plus_1 == 0)
            return at;
        if (slot.hash != hash)
            continue;
        const struct vocabulary_text *token = &vocabulary->tokens[slot.id_plus_1 - 1];
        if (token->bytes == bytes &&
            memcmp(vocabulary->texts.bytes + token->start, text, bytes) == 0)
            return at;
    }
}

// Makes tokens[id] exist; ids between the old end and the new one have bytes 0.
static enum status reach(struct vocabulary *vocabulary, uint32_t id, struct error *error)
{
    if (id < vocabulary->id_end)
        return OK;
    struct vocabulary_text *tokens = text_buffer_grow_items(
        vocabulary->tokens, &vocabulary->tokens_capacity, (size_t)id + 1, sizeof *tokens);
    if (tokens == NULL)
        return error_set(error, E_SYSTEM, "out of memory for %u tokens", id + 1);
    vocabulary->tokens = tokens;
    memset(tokens + vocabulary->id_end, 0, (id + 1 - vocabulary->id_end) * sizeof *tokens);
    vocabulary->id_end = id + 1;
    return OK;
}

enum status vocabulary_add_last(struct vocabulary *vocabulary, size_t bytes, uint32_t id,
                                struct error *error)
{
    ASSERT(bytes <= vocabulary->texts.count);
    if (id >= VOCABULARY_IDS_MAX)
        return error_set(error, E_LIMIT, "token id %u is above the limit of %d", id,
                         VOCABULARY_IDS_MAX - 1);
    if (bytes == 0)
        return error_set(error, E_INPUT, "token id %u has an empty text", id);
    if (2 * (size_t)vocabulary->count >= vocabulary->slot_mask)
        TRY(widen(vocabulary, error));
    const size_t start = vocabulary->texts.count - bytes;
    const char *text = vocabulary->texts.bytes + start;
    const uint32_t hash = hash_of(text, bytes);
    struct vocabulary_slot *slot = &vocabulary->slots[slot_of(vocabulary, text, bytes, hash)];
    if (slot->id_plus_1 != 0)
        return error_set(error, E_INPUT, "the token \"%.*s\" appears twice, as ids %u and %u",
                         bytes > 60 ? 60 : (int)bytes, text, slot->id_plus_1 - 1, id);
    TRY(reach(vocabulary, id, error));
    if (vocabulary->tokens[id].bytes != 0)
        return error_set(error, E_INPUT, "two tokens have the id %u, the second is \"%.*s\"", id,
                         bytes > 60 ? 60 : (int)bytes, text);
    vocabulary->tokens[id] = (struct vocabulary_text){(uint32_t)start, (uint32_t)bytes};
    *slot = (struct vocabulary_slot){hash, id + 1};
    vocabulary->count++;
    return OK;
}

bool vocabulary_find(const struct vocabulary *vocabulary, const char *text, size_t bytes,
                     uint32_t *id)
{
    const uint32_t at = slot_of(vocabulary, text, bytes, hash_of(text, bytes));
    if (vocabulary->slots[at].id_plus_1 == 0)
        return false;
    *id = vocabulary->slots[at].id_plus_1 - 1;
    return true;
}

const char *vocabulary_text_of(const struct vocabulary *vocabulary, uint32_t id, size_t *bytes)
{
    if (id >= vocabulary->id_end || vocabulary->tokens[id].bytes == 0)
        return NULL;
    *bytes = vocabulary->tokens[id].bytes;
    return vocabulary->texts.bytes + vocabulary->tokens[id].start;
}
