// SPDX-License-Identifier: Apache-2.0
// openai_logprobs.c -- JSON by hand, as in openai_reply.c.
#include "coordinator/openai_logprobs.h"

#include <stdio.h>
#include <string.h>

#include "coordinator/openai_json.h"
#include "parallel/base/utf8.h"

enum { NAME_BYTES_MAX = 4 * 256 + 8 }; // of a token that is no UTF-8; longer ones are cut

void openai_logprobs_init(struct openai_logprobs *logprobs, enum openai_kind kind,
                          const struct tokenizer *tokenizer, size_t bytes_max)
{
    *logprobs = (struct openai_logprobs){.kind = kind, .tokenizer = tokenizer};
    text_buffer_init(&logprobs->tokens, bytes_max);
    text_buffer_init(&logprobs->values, bytes_max);
    text_buffer_init(&logprobs->tops, bytes_max);
    text_buffer_init(&logprobs->offsets, bytes_max);
}

void openai_logprobs_fini(struct openai_logprobs *logprobs)
{
    text_buffer_fini(&logprobs->tokens);
    text_buffer_fini(&logprobs->values);
    text_buffer_fini(&logprobs->tops);
    text_buffer_fini(&logprobs->offsets);
}

void openai_logprobs_clear(struct openai_logprobs *logprobs)
{
    logprobs->tokens.count = logprobs->values.count = 0;
    logprobs->tops.count = logprobs->offsets.count = 0;
    logprobs->any = false;
}

static enum status put(struct text_buffer *out, const char *text)
{
    return text_buffer_append_text(out, text, NULL);
}

static enum status put_number(struct text_buffer *out, double number)
{
    char digits[32];
    snprintf(digits, sizeof digits, "%.9g", number); // all of a float
    return put(out, digits);
}

static struct token_bytes bytes_of(const struct openai_logprobs *logprobs, int32_t id)
{
    if (logprobs->tokenizer == NULL || (uint32_t)id >= logprobs->tokenizer->id_count)
        return (struct token_bytes){.bytes = NULL};
    return tokenizer_id_text(logprobs->tokenizer, (uint32_t)id);
}

// A token's name as a JSON string.
static enum status put_token(struct text_buffer *out, const struct openai_logprobs *logprobs,
                             int32_t id)
{
    char name[NAME_BYTES_MAX];
    struct token_bytes token = bytes_of(logprobs, id);
    if (token.bytes != NULL && utf8_valid_bytes(token.bytes, token.count) == token.count)
        return openai_json_string(out, token.bytes, token.count);
    int used = snprintf(name, sizeof name, token.bytes != NULL ? "bytes:" : "token_id:%d", id);
    for (size_t i = 0; i < token.count && (size_t)used + 5 < sizeof name; i++)
        used += snprintf(name + used, sizeof name - (size_t)used, "\\x%02x",
                         (unsigned)(unsigned char)token.bytes[i]);
    return openai_json_string(out, name, (size_t)used);
}

// {"token": .., "logprob": .., "bytes": [..] and what follows is the caller's.
static enum status put_chat_token(struct text_buffer *out, const struct openai_logprobs *logprobs,
                                  int32_t id, float logprob)
{
    struct token_bytes token = bytes_of(logprobs, id);
    TRY(put(out, "{\"token\":"));
    TRY(put_token(out, logprobs, id));
    TRY(put(out, ",\"logprob\":"));
    TRY(put_number(out, (double)logprob));
    TRY(put(out, token.bytes != NULL ? ",\"bytes\":[" : ",\"bytes\":null"));
    for (size_t i = 0; i < token.count; i++) {
        TRY(put(out, i > 0 ? "," : ""));
        TRY(put_number(out, (double)(unsigned char)token.bytes[i]));
    }
    return put(out, token.bytes != NULL ? "]" : "");
}

static enum status add_chat(struct openai_logprobs *logprobs, const struct step_logprob *entry)
{
    struct text_buffer *out = &logprobs->tokens;
    TRY(put(out, logprobs->any ? "," : ""));
    TRY(put_chat_token(out, logprobs, entry->id, entry->logprob));
    TRY(put(out, ",\"top_logprobs\":["));
    for (int32_t i = 0; i < entry->top_count; i++) {
        TRY(put(out, i > 0 ? "," : ""));
        TRY(put_chat_token(out, logprobs, entry->top_ids[i], entry->top_logprobs[i]));
        TRY(put(out, "}"));
    }
    return put(out, "]}");
}

static enum status put_pair(struct text_buffer *out, const struct openai_logprobs *logprobs,
                            int32_t id, float logprob)
{
    TRY(put_token(out, logprobs, id));
    TRY(put(out, ":"));
    return put_number(out, (double)logprob);
}

// {token: logprob, ..}: the likeliest, and the token itself where it is none of them.
static enum status put_tops(struct openai_logprobs *logprobs, const struct step_logprob *entry)
{
    struct text_buffer *out = &logprobs->tops;
    bool seen = false;
    TRY(put(out, "{"));
    for (int32_t i = 0; i < entry->top_count; i++) {
        seen |= entry->top_ids[i] == entry->id;
        TRY(put(out, i > 0 ? "," : ""));
        TRY(put_pair(out, logprobs, entry->top_ids[i], entry->top_logprobs[i]));
    }
    if (!seen) {
        TRY(put(out, entry->top_count > 0 ? "," : ""));
        TRY(put_pair(out, logprobs, entry->id, entry->logprob));
    }
    return put(out, "}");
}

// Token and offset of a completion's entry, and commas in all four arrays.
static enum status begin_entry(struct openai_logprobs *logprobs, int32_t id)
{
    const char *comma = logprobs->any ? "," : "";
    TRY(put(&logprobs->tokens, comma));
    TRY(put(&logprobs->values, comma));
    TRY(put(&logprobs->tops, comma));
    TRY(put(&logprobs->offsets, comma));
    TRY(put_token(&logprobs->tokens, logprobs, id));
    char digits[24];
    snprintf(digits, sizeof digits, "%lld", (long long)logprobs->offset);
    return put(&logprobs->offsets, digits);
}

static void advance(struct openai_logprobs *logprobs, int32_t id)
{
    struct token_bytes token = bytes_of(logprobs, id);
    for (size_t i = 0; i < token.count; i++)
        logprobs->offset += ((unsigned char)token.bytes[i] & 0xC0) != 0x80; // begins a code point
}

enum status openai_logprobs_add(struct openai_logprobs *logprobs, const struct step_logprob *entry,
                                bool is_text)
{
    if (logprobs->kind == OPENAI_CHAT) {
        TRY(add_chat(logprobs, entry));
    } else {
        TRY(begin_entry(logprobs, entry->id));
        TRY(put_number(&logprobs->values, (double)entry->logprob));
        TRY(put_tops(logprobs, entry));
    }
    if (is_text)
        advance(logprobs, entry->id);
    logprobs->any = true;
    return OK;
}

enum status openai_logprobs_add_first(struct openai_logprobs *logprobs, int32_t id)
{
    TRY(begin_entry(logprobs, id));
    TRY(put(&logprobs->values, "null"));
    TRY(put(&logprobs->tops, "null"));
    advance(logprobs, id);
    logprobs->any = true;
    return OK;
}

static enum status put_array(struct text_buffer *out, const char *name,
                             const struct text_buffer *items)
{
    TRY(put(out, name));
    TRY(text_buffer_append(out, items->bytes, items->count, NULL));
    return put(out, "]");
}

enum status openai_logprobs_write(struct text_buffer *out, const struct openai_logprobs *logprobs)
{
    if (logprobs->kind == OPENAI_CHAT) {
        TRY(put_array(out, "{\"content\":[", &logprobs->tokens));
        return put(out, "}");
    }
    TRY(put_array(out, "{\"tokens\":[", &logprobs->tokens));
    TRY(put_array(out, ",\"token_logprobs\":[", &logprobs->values));
    TRY(put_array(out, ",\"top_logprobs\":[", &logprobs->tops));
    TRY(put_array(out, ",\"text_offset\":[", &logprobs->offsets));
    return put(out, "}");
}
