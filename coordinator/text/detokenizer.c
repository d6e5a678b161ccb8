// SPDX-License-Identifier: Apache-2.0
// detokenizer.c -- bytes of tokens to whole code points; see detokenizer.h.
#include "coordinator/text/detokenizer.h"

#include <string.h>

#include "parallel/base/utf8.h"

static const char replacement[] = "\xef\xbf\xbd"; // U+FFFD

void detokenizer_init(struct detokenizer *detokenizer, const struct tokenizer *tokenizer,
                      bool skip_special)
{
    *detokenizer = (struct detokenizer){.tokenizer = tokenizer, .skip_special = skip_special};
}

// Adds one byte to what is held back, and lets go of what has become certain.
static enum status push(struct detokenizer *detokenizer, char byte, struct text_buffer *out,
                        struct error *error)
{
    detokenizer->tail[detokenizer->tail_bytes++] = byte;
    while (detokenizer->tail_bytes > 0) {
        size_t length;
        const enum code_point_verdict verdict =
            code_point_look(detokenizer->tail, detokenizer->tail_bytes, &length);
#ifdef PLANT_detokenizer_half
        if (verdict == CODE_POINT_CUT) { // half a code point goes out
            detokenizer->tail_bytes = 0;
            return text_buffer_append_text(out, replacement, error);
        }
#endif
        if (verdict == CODE_POINT_CUT)
            return OK;
        if (verdict == CODE_POINT_WHOLE)
            TRY(text_buffer_append(out, detokenizer->tail, length, error));
        else
            TRY(text_buffer_append_text(out, replacement, error));
        detokenizer->tail_bytes -= length;
        memmove(detokenizer->tail, detokenizer->tail + length, detokenizer->tail_bytes);
    }
    return OK;
}

enum status detokenizer_feed(struct detokenizer *detokenizer, uint32_t id, struct text_buffer *out,
                             struct error *error)
{
    const struct tokenizer *tokenizer = detokenizer->tokenizer;
    if (id >= tokenizer->id_count)
        return error_set(error, E_INPUT, "%u is not a token id; ids are below %u", id,
                         tokenizer->id_count);
    if (detokenizer->skip_special && tokenizer->special[id])
        return OK;
    const struct token_bytes token = tokenizer_id_text(tokenizer, id);
    for (size_t at = 0; at < token.count;) {
        if (detokenizer->tail_bytes == 0) {
            const size_t whole = utf8_valid_bytes(token.bytes + at, token.count - at);
            TRY(text_buffer_append(out, token.bytes + at, whole, error));
            at += whole;
        }
        if (at < token.count)
            TRY(push(detokenizer, token.bytes[at++], out, error));
    }
    return OK;
}

enum status detokenizer_finish(struct detokenizer *detokenizer, struct text_buffer *out,
                               struct error *error)
{
    if (detokenizer->tail_bytes == 0)
        return OK;
    detokenizer->tail_bytes = 0;
    return text_buffer_append_text(out, replacement, error);
}
