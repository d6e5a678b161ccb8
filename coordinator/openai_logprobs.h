// SPDX-License-Identifier: Apache-2.0
// openai_logprobs.h -- log-probabilities in the two shapes that OpenAI's clients read: parallel
// arrays of a completion, objects with bytes of a chat. Tokens become the text they stand for; one
// that is no whole UTF-8 is written "bytes:\xe2\x80", and without a tokenizer "token_id:5". Pure.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/openai_request.h"
#include "coordinator/text/text_buffer.h"
#include "coordinator/text/tokenizer.h"
#include "parallel/wire/messages.h"

// Entries that are to be written. Private but for `any`: there are some.
struct openai_logprobs {
    enum openai_kind kind;
    const struct tokenizer *tokenizer; // NULL: none
    // Elements with commas between. Of a chat `tokens` has them all.
    struct text_buffer tokens, values, tops, offsets;
    int64_t offset; // code points of the text before the next token
    bool any;
};

// The caller's storage, for fini. Each array may take bytes_max.
void openai_logprobs_init(struct openai_logprobs *logprobs, enum openai_kind kind,
                          const struct tokenizer *tokenizer, size_t bytes_max);
void openai_logprobs_fini(struct openai_logprobs *logprobs);

// Forgets what has been written; the text goes on.
void openai_logprobs_clear(struct openai_logprobs *logprobs);

// Adds an entry. is_text: the token's text stands in the answer's. E_LIMIT, E_SYSTEM.
MUST_CHECK enum status openai_logprobs_add(struct openai_logprobs *logprobs,
                                           const struct step_logprob *entry, bool is_text);

// The first token of a prompt: nothing foretells it, so that its numbers are null.
MUST_CHECK enum status openai_logprobs_add_first(struct openai_logprobs *logprobs, int32_t id);

// Appends the object. Errors of out.
MUST_CHECK enum status openai_logprobs_write(struct text_buffer *out,
                                             const struct openai_logprobs *logprobs);
