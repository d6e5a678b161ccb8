// SPDX-License-Identifier: Apache-2.0
// openai_reply.h -- what OpenAI's clients read: chunks of a stream (server-sent events), whole
// answers, usage, the list of models. Pure; everything is appended to a buffer of the caller's.
// Errors of every function: E_LIMIT, E_SYSTEM of the buffer.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/openai_logprobs.h"
#include "coordinator/openai_request.h"
#include "coordinator/text/text_buffer.h"

// What every chunk of one answer repeats. All borrowed.
struct openai_head {
    enum openai_kind kind;
    const char *id, *model;
    int64_t created_s; // Unix time
};

struct openai_text {
    const char *bytes;
    size_t count;
};

// Of a whole request; what its steps and drafts were is known at its end.
struct openai_usage {
    int64_t prompt_tokens, completion_tokens, cached_tokens;
    int64_t target_steps, drafted, accepted;
};

// A piece of one choice: of a stream what is new, of a whole answer everything.
struct openai_piece {
    int32_t index;
    struct openai_text content, reasoning;
    struct openai_text calls; // JSON objects of openai_tools.h, commas between; of a chat
    const int32_t *ids;       // [ids_count]; NULL = not told
    int32_t ids_count;
    const struct openai_logprobs *logprobs; // NULL = not told
    const char *finish_reason;              // NULL = goes on
    const struct stop_string *stop;         // the stop string that ended it, or NULL
    const struct openai_usage *usage;       // of a chunk: so far; NULL = not told
};

// data: {...} with the role of a chat's choice, which comes before its first piece.
MUST_CHECK enum status openai_reply_role(struct text_buffer *out, const struct openai_head *head,
                                         int32_t index);
// data: {...} with one piece.
MUST_CHECK enum status openai_reply_chunk(struct text_buffer *out, const struct openai_head *head,
                                          const struct openai_piece *piece);
// data: {...} with usage and no choice.
MUST_CHECK enum status openai_reply_usage(struct text_buffer *out, const struct openai_head *head,
                                          const struct openai_usage *usage);
// data: {"error": ...}
MUST_CHECK enum status openai_reply_failure(struct text_buffer *out,
                                            const struct openai_error *error,
                                            const char *request_id);
// data: [DONE]
MUST_CHECK enum status openai_reply_done(struct text_buffer *out);

// A whole answer: begin, each choice, end.
MUST_CHECK enum status openai_reply_begin(struct text_buffer *out, const struct openai_head *head);
MUST_CHECK enum status openai_reply_choice(struct text_buffer *out, const struct openai_head *head,
                                           const struct openai_piece *piece);
MUST_CHECK enum status openai_reply_end(struct text_buffer *out, const struct openai_usage *usage);

// The answer of /v1/models. context: longest sequence in tokens, 0 = not known yet.
MUST_CHECK enum status openai_reply_models(struct text_buffer *out, const char *model,
                                           int64_t created_s, int32_t context);
