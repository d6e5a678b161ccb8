// SPDX-License-Identifier: Apache-2.0
// door_text.c -- requests' prompts through coordinator/text.
#include "coordinator/door_text.h"

#include <stdlib.h>
#include <string.h>

#include "coordinator/text/detokenizer.h"
#include "coordinator/text/tokenize_lines.h"
#include "coordinator/wire_json.h"

struct door_text {
    const struct tokenizer *tokenizer;
    struct tokenizer_scratch *scratch; // NULL without tokenizer
    int32_t vocab_real;
};

struct door_stream {
    struct detokenizer detokenizer;
    struct text_buffer buffer;
};

enum { DELTA_BYTES_MAX = 1 << 20 };

enum status door_text_open(struct door_text **out, const struct tokenizer *tokenizer,
                           int32_t vocab_real, struct error *error)
{
    struct door_text *text = calloc(1, sizeof *text);
    if (text == NULL)
        return error_set(error, E_SYSTEM, "no memory for a door's text");
    text->tokenizer = tokenizer;
    text->vocab_real = vocab_real;
    if (tokenizer != NULL) {
        text->scratch = tokenizer_scratch_new(tokenizer);
        if (text->scratch == NULL) {
            free(text);
            return error_set(error, E_SYSTEM, "no memory for a door's tokenizer");
        }
    }
    *out = text;
    return OK;
}

void door_text_close(struct door_text *text)
{
    if (text == NULL)
        return;
    if (text->scratch != NULL)
        tokenizer_scratch_free(text->scratch);
    free(text);
}

// ---- prompts ----

static enum status need_tokenizer(const struct door_text *text, const char *field,
                                  struct error *error)
{
    if (text->tokenizer != NULL)
        return OK;
    return error_set(error, E_UNSUPPORTED,
                     "'%s' needs a tokenizer and this model directory has none; send 'ids'", field);
}

static enum status encode(struct door_text *text, const char *bytes, size_t bytes_count,
                          int32_t **ids_out, int32_t *ids_count, struct error *error)
{
    size_t count_max = tokenizer_ids_max(bytes_count);
    if (count_max > REQUEST_PROMPT_TOKENS_MAX)
        count_max = REQUEST_PROMPT_TOKENS_MAX;
    struct token_ids ids = {.count_max = count_max};
    ids.ids = malloc((count_max + 1) * sizeof *ids.ids);
    if (ids.ids == NULL)
        return error_set(error, E_SYSTEM, "out of memory for %zu token ids", count_max);
    enum status status =
        tokenizer_encode(text->tokenizer, text->scratch, &ids, bytes, bytes_count, error);
    if (status != OK) {
        free(ids.ids);
        return status;
    }
    *ids_out = (int32_t *)ids.ids; // ids are below 2^31
    *ids_count = (int32_t)ids.count;
    return OK;
}

static enum status encode_chat(struct door_text *text, const json_t *messages,
                               const struct chat_format_options *options, int32_t **ids_out,
                               int32_t *ids_count, struct error *error)
{
    struct chat_format_text rendered;
    struct chat_format_options form = *options;
    form.json_scalars = text->tokenizer->json_scalars;
    chat_format_text_init(&rendered, REQUEST_TEXT_BYTES_MAX);
    enum status status = chat_format_render(&rendered, messages, &form, error);
    if (status == OK)
        status = encode(text, rendered.text.bytes, rendered.text.count, ids_out, ids_count, error);
    chat_format_text_fini(&rendered);
    return status;
}

static enum status encode_messages(struct door_text *text, const struct generate_request *request,
                                   int32_t **ids_out, int32_t *ids_count, struct error *error)
{
    json_t *messages, *tools = NULL;
    struct chat_format_options options = chat_format_defaults();
    options.enable_thinking = request->enable_thinking;
    options.preserve_thinking = request->preserve_thinking;
    TRY(wire_json(&messages, request->messages, request->messages_bytes, "messages", error));
    enum status status = OK;
    if (request->tools != NULL)
        status = wire_json(&tools, request->tools, request->tools_bytes, "tools", error);
    options.tools = tools;
    if (status == OK)
        status = encode_chat(text, messages, &options, ids_out, ids_count, error);
    json_decref(messages);
    json_decref(tools);
    return status;
}

static enum status copy_ids(struct door_text *text, const struct generate_request *request,
                            int32_t **ids_out, int32_t *ids_count, struct error *error)
{
    int32_t *ids = malloc(((size_t)request->ids_count + 1) * sizeof *ids);
    if (ids == NULL)
        return error_set(error, E_SYSTEM, "out of memory for %d token ids", request->ids_count);
    enum status status =
        generate_request_ids(ids, request->ids_count, text->vocab_real, request, error);
    if (status != OK) {
        free(ids);
        return status;
    }
    *ids_out = ids;
    *ids_count = request->ids_count;
    return OK;
}

enum status door_text_prompt(struct door_text *text, const struct generate_request *request,
                             int32_t **ids_out, int32_t *ids_count, struct error *error)
{
    if (request->ids != NULL)
        return copy_ids(text, request, ids_out, ids_count, error);
    if (request->messages != NULL) {
        TRY(need_tokenizer(text, "messages", error));
        return encode_messages(text, request, ids_out, ids_count, error);
    }
    TRY(need_tokenizer(text, "prompt", error));
    return encode(text, request->prompt, request->prompt_bytes, ids_out, ids_count, error);
}

enum status door_text_encode(struct door_text *text, const char *bytes, size_t bytes_count,
                             int32_t **ids_out, int32_t *ids_count, struct error *error)
{
    TRY(need_tokenizer(text, "prompt", error));
    return encode(text, bytes, bytes_count, ids_out, ids_count, error);
}

enum status door_text_chat(struct door_text *text, const json_t *messages,
                           const struct chat_format_options *options, int32_t **ids_out,
                           int32_t *ids_count, struct error *error)
{
    TRY(need_tokenizer(text, "messages", error));
    return encode_chat(text, messages, options, ids_out, ids_count, error);
}

enum status door_text_piece(struct door_text *text, const struct request_text *piece,
                            const char *field, struct token_ids *ids, struct error *error)
{
    TRY(need_tokenizer(text, field, error));
    return tokenizer_encode(text->tokenizer, text->scratch, ids, piece->bytes, piece->count, error);
}

int32_t door_text_vocab(const struct door_text *text)
{
    return text->vocab_real;
}

// ---- tokenize ----

// The request without what belongs to the wire is a line of `deltamesh tokenize`.
static enum status line_of(char **line, const struct tokenize_request *request, struct error *error)
{
    json_t *json;
    TRY(wire_json(&json, request->value, request->value_bytes, "tokenize", error));
    json_object_del(json, "t");
    json_object_del(json, "id");
    *line = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    return *line != NULL ? OK : error_set(error, E_SYSTEM, "tokenize: out of memory");
}

enum status door_text_tokenize(struct door_text *text, const struct tokenize_request *request,
                               char **json_out, struct error *error)
{
    struct text_buffer answer;
    char *line;
    TRY(need_tokenizer(text, "tokenize", error));
    TRY(line_of(&line, request, error));
    text_buffer_init(&answer, REQUEST_FRAME_BYTES_MAX / 2);
    enum status status =
        tokenize_lines_answer(&answer, text->tokenizer, text->scratch, line, strlen(line), error);
    free(line);
    if (status == OK)
        status = text_buffer_append(&answer, "", 1, error); // NUL
    if (status != OK) {
        text_buffer_fini(&answer);
        return status;
    }
    *json_out = answer.bytes; // malloc'ed; the buffer lets go of it
    return OK;
}

// ---- streams ----

struct door_stream *door_stream_open(struct door_text *text, bool skip_special_tokens)
{
    if (text->tokenizer == NULL)
        return NULL;
    struct door_stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL)
        return NULL;
    detokenizer_init(&stream->detokenizer, text->tokenizer, skip_special_tokens);
    text_buffer_init(&stream->buffer, DELTA_BYTES_MAX);
    return stream;
}

void door_stream_close(struct door_stream *stream)
{
    if (stream == NULL)
        return;
    text_buffer_fini(&stream->buffer);
    free(stream);
}

const char *door_stream_feed(struct door_stream *stream, const int32_t *ids, int32_t count,
                             bool last, size_t *bytes)
{
    struct error ignored;
    enum status status = OK;
    stream->buffer.count = 0;
    // A token's text is far below DELTA_BYTES_MAX and the ids come from the core, which checked
    // them: what is left to fail is memory, and then the ids still reach the client.
    for (int32_t i = 0; i < count && status == OK; i++) {
        status =
            detokenizer_feed(&stream->detokenizer, (uint32_t)ids[i], &stream->buffer, &ignored);
    }
    if (last && status == OK)
        status = detokenizer_finish(&stream->detokenizer, &stream->buffer, &ignored);
    *bytes = status == OK ? stream->buffer.count : 0;
    return stream->buffer.bytes != NULL ? stream->buffer.bytes : "";
}
