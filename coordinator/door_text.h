// SPDX-License-Identifier: Apache-2.0
// door_text.h -- text for the doors: prompts in any form to token ids, drawn ids to text, one-off
// tokenization. One per door thread. Knows requests, no sockets.
#pragma once

#include <jansson.h>

#include "coordinator/text/chat_format.h"
#include "coordinator/text/tokenizer.h"
#include "parallel/wire/requests.h"

struct door_text;   // opaque; of one thread
struct door_stream; // opaque; of one answer that is being streamed

// tokenizer may be NULL (a model directory without one): then text is refused by name.
enum status door_text_open(struct door_text **out, const struct tokenizer *tokenizer,
                           int32_t vocab_real, struct error *error) MUST_CHECK;
void door_text_close(struct door_text *text);

// The prompt of a request as ids, malloc'ed, for the caller to free. E_INPUT, E_LIMIT,
// E_UNSUPPORTED with a text that names the field.
enum status door_text_prompt(struct door_text *text, const struct generate_request *request,
                             int32_t **ids_out, int32_t *ids_count, struct error *error) MUST_CHECK;

// A text, or messages rendered by the chat format, as ids, malloc'ed, for the caller to free.
// E_UNSUPPORTED without a tokenizer; E_INPUT, E_LIMIT; messages: errors of chat_format_render.
enum status door_text_encode(struct door_text *text, const char *bytes, size_t bytes_count,
                             int32_t **ids_out, int32_t *ids_count, struct error *error) MUST_CHECK;
enum status door_text_chat(struct door_text *text, const json_t *messages,
                           const struct chat_format_options *options, int32_t **ids_out,
                           int32_t *ids_count, struct error *error) MUST_CHECK;

// Appends the ids of a piece of text to the caller's ids. E_UNSUPPORTED without a tokenizer, naming
// `field`; E_LIMIT: they do not fit.
enum status door_text_piece(struct door_text *text, const struct request_text *piece,
                            const char *field, struct token_ids *ids,
                            struct error *error) MUST_CHECK;

// How many real ids the model has.
int32_t door_text_vocab(const struct door_text *text);

// Answers a tokenize request with a line of JSON, malloc'ed.
enum status door_text_tokenize(struct door_text *text, const struct tokenize_request *request,
                               char **json_out, struct error *error) MUST_CHECK;

// A stream of one answer; NULL when the model has no tokenizer or there is no memory.
struct door_stream *door_stream_open(struct door_text *text, bool skip_special_tokens);
void door_stream_close(struct door_stream *stream); // NULL is allowed

// The text that ids add, complete code points only, borrowed until the next call. last: nothing
// follows, so that an incomplete tail becomes U+FFFD.
const char *door_stream_feed(struct door_stream *stream, const int32_t *ids, int32_t count,
                             bool last, size_t *bytes);
