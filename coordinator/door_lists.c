// SPDX-License-Identifier: Apache-2.0
// door_lists.c -- three lists, one behind the other.
#include "coordinator/door_lists.h"

#include <stdlib.h>
#include <string.h>

enum { LISTS_MAX = 2 * STEP_BIASES_MAX + STEP_ALLOWED_MAX + STEP_WORDS_MAX };

static enum status check_id(const struct door_text *text, const char *field, int32_t index,
                            int32_t id, struct error *error)
{
    if (id >= 0 && id < door_text_vocab(text))
        return OK;
    return error_set(error, E_INPUT, "'%s'[%d]: %d is outside 0 .. %d", field, index, id,
                     door_text_vocab(text) - 1);
}

static bool contains(const int32_t *ids, int32_t count, int32_t id)
{
    for (int32_t i = 0; i < count; i++) {
        if (ids[i] == id)
            return true;
    }
    return false;
}

static enum status add_biases(int32_t *out, struct coord_sampling *sampling,
                              const struct door_lists_wish *wish, const struct door_text *text,
                              struct error *error)
{
    for (int32_t i = 0; i < wish->bias_count; i++) {
        TRY(check_id(text, "logit_bias", i, wish->bias_ids[i], error));
        if (contains(wish->bias_ids, i, wish->bias_ids[i]))
            return error_set(error, E_INPUT, "'logit_bias': id %d has two biases",
                             wish->bias_ids[i]);
    }
    if (wish->bias_count > 0) { // else they may be NULL
        memcpy(out, wish->bias_ids, (size_t)wish->bias_count * sizeof *out);
        memcpy(out + wish->bias_count, wish->biases, (size_t)wish->bias_count * sizeof *out);
    }
    sampling->bias_count = wish->bias_count;
    return OK;
}

static enum status add_allowed(int32_t *out, struct coord_sampling *sampling,
                               const struct door_lists_wish *wish, const struct door_text *text,
                               struct error *error)
{
    for (int32_t i = 0; i < wish->allowed_count; i++) {
        TRY(check_id(text, "allowed_token_ids", i, wish->allowed_ids[i], error));
        if (!contains(out, sampling->allowed_count, wish->allowed_ids[i]))
            out[sampling->allowed_count++] = wish->allowed_ids[i];
    }
    return OK;
}

static enum status add_word(int32_t *out, struct coord_sampling *sampling, const int32_t *ids,
                            int32_t count, int32_t index, struct error *error)
{
    if (count < 1 || count > STEP_WORD_TOKENS_MAX)
        return error_set(error, E_LIMIT, "'bad_words'[%d] has %d tokens, accepted is 1 to %d",
                         index, count, STEP_WORD_TOKENS_MAX);
    if (count + 1 > STEP_WORDS_MAX - sampling->words_count)
        return error_set(error, E_LIMIT,
                         "'bad_words'[%d]: all words have more than %d tokens, each counted with "
                         "one more",
                         index, STEP_WORDS_MAX);
    out[sampling->words_count++] = count;
    memcpy(out + sampling->words_count, ids, (size_t)count * sizeof *out);
    sampling->words_count += count;
    return OK;
}

// The text as it stands, and with a space before it where it has none.
static enum status add_text(int32_t *out, struct coord_sampling *sampling,
                            const struct request_text *word, struct door_text *text, int32_t index,
                            struct error *error)
{
    char spaced[1 + REQUEST_WORD_BYTES_MAX];
    uint32_t ids[4 * (1 + REQUEST_WORD_BYTES_MAX)]; // a normalized byte is a token at most
    for (int with_space = 0; with_space < 2; with_space++) {
        struct request_text piece = *word;
        struct token_ids tokens = {.ids = ids, .count_max = sizeof ids / sizeof ids[0]};
        if (with_space && (word->bytes[0] == ' ' || word->count > REQUEST_WORD_BYTES_MAX))
            break;
        if (with_space) {
            spaced[0] = ' ';
            memcpy(spaced + 1, word->bytes, word->count);
            piece = (struct request_text){.bytes = spaced, .count = word->count + 1};
        }
        TRY(door_text_piece(text, &piece, "bad_words", &tokens, error));
        TRY(add_word(out, sampling, (const int32_t *)tokens.ids, (int32_t)tokens.count, index,
                     error));
    }
    return OK;
}

static enum status add_words(int32_t *out, struct coord_sampling *sampling,
                             const struct door_lists_wish *wish, struct door_text *text,
                             struct error *error)
{
    for (int32_t i = 0; i < wish->words_count; i++) {
        const struct request_word *word = &wish->words[i];
        for (int32_t k = 0; k < word->ids_count; k++)
            TRY(check_id(text, "bad_words", i, word->ids[k], error));
        if (word->text.bytes != NULL)
            TRY(add_text(out, sampling, &word->text, text, i, error));
        else
            TRY(add_word(out, sampling, word->ids, word->ids_count, i, error));
    }
    return OK;
}

// Whether every allowed id is a banned word of its own.
static bool leaves_nothing(const int32_t *allowed, const struct coord_sampling *sampling)
{
    const int32_t *words = allowed + sampling->allowed_count;
    for (int32_t i = 0; i < sampling->allowed_count; i++) {
        bool banned = false;
        for (int32_t at = 0; at < sampling->words_count; at += 1 + words[at])
            banned |= words[at] == 1 && words[at + 1] == allowed[i];
        if (!banned)
            return false;
    }
    return sampling->allowed_count > 0;
}

enum status door_lists_make(int32_t **lists, struct coord_sampling *sampling,
                            const struct door_lists_wish *wish, struct door_text *text,
                            const char **field, struct error *error)
{
    *lists = NULL;
    *field = "logit_bias";
    sampling->bias_count = sampling->allowed_count = sampling->words_count = 0;
    if (wish->bias_count + wish->allowed_count + wish->words_count == 0)
        return OK;
    ASSERT(wish->bias_count <= STEP_BIASES_MAX && wish->allowed_count <= STEP_ALLOWED_MAX);
    int32_t *made = malloc(LISTS_MAX * sizeof *made), *at = made;
    if (made == NULL)
        return error_set(error, E_SYSTEM, "no memory for a request's lists");
    enum status status = add_biases(at, sampling, wish, text, error);
    at += 2 * sampling->bias_count;
    if (status == OK) {
        *field = "allowed_token_ids";
        status = add_allowed(at, sampling, wish, text, error);
    }
    if (status == OK) {
        *field = "bad_words";
        status = add_words(at + sampling->allowed_count, sampling, wish, text, error);
    }
    if (status == OK && leaves_nothing(at, sampling))
        status = error_set(error, E_INPUT,
                           "'bad_words' bans every one of 'allowed_token_ids': nothing is left");
    if (status != OK) {
        free(made);
        return status;
    }
    *lists = made;
    return OK;
}
