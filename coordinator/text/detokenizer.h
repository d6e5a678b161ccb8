// SPDX-License-Identifier: Apache-2.0
// detokenizer.h -- token ids back to text, one at a time as they are generated, never half a code
// point. The text of a whole stream equals what Hugging Face tokenizers decodes at once. Holds at
// most three bytes of state; where a text ends and stop strings are not its business.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordinator/text/code_point.h"
#include "coordinator/text/text_buffer.h"
#include "coordinator/text/tokenizer.h"
#include "parallel/base/status.h"

// One stream. Plain data: copying it copies the stream's place.
struct detokenizer {
    const struct tokenizer *tokenizer; // borrowed
    bool skip_special;                 // special tokens give no text
    char tail[CODE_POINT_BYTES_MAX];   // [tail_bytes] a code point that is not whole yet
    size_t tail_bytes;
};

// Begins a stream; nothing to free.
void detokenizer_init(struct detokenizer *detokenizer, const struct tokenizer *tokenizer,
                      bool skip_special);

// Appends to `out` the text that is certain once `id` has come: whole code points, and U+FFFD for
// each maximal run of bytes that can never become one. E_INPUT: id is not below id_count, and the
// stream is as before; E_LIMIT, E_SYSTEM from the buffer, after which the stream is not to be used.
MUST_CHECK enum status detokenizer_feed(struct detokenizer *detokenizer, uint32_t id,
                                        struct text_buffer *out, struct error *error);

// Ends the stream: appends U+FFFD when bytes are held back. The stream may begin anew.
MUST_CHECK enum status detokenizer_finish(struct detokenizer *detokenizer, struct text_buffer *out,
                                          struct error *error);
