// SPDX-License-Identifier: Apache-2.0
// tokenize_lines.c -- one JSON line to another; see tokenize_lines.h.
#include "coordinator/text/tokenize_lines.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/text/chat_format.h"
#include "coordinator/text/code_point.h"
#include "coordinator/text/detokenizer.h"
#include "parallel/base/utf8.h"

// One line under way. `error` gets what is wrong with the line; the caller's gets what is wrong
// with the machine.
struct answering {
    struct text_buffer *out;
    const struct tokenizer *tokenizer;
    struct tokenizer_scratch *scratch;
    struct error *error;
};

// Appends a JSON string.
static enum status put_text(struct answering *answering, const char *text, size_t bytes)
{
    json_t *value = json_stringn(bytes == 0 ? "" : text, bytes);
    char *printed = value == NULL ? NULL : json_dumps(value, JSON_ENCODE_ANY);
    json_decref(value);
    if (printed == NULL)
        return error_set(answering->error, E_SYSTEM, "out of memory for %zu bytes of text", bytes);
    const enum status status = text_buffer_append_text(answering->out, printed, answering->error);
    free(printed);
    return status;
}

// Appends {"error":...}. An error's text may have been cut within a code point: such bytes become
// question marks.
static enum status put_error(struct answering *answering, const char *text)
{
    char whole[sizeof((struct error *)NULL)->text];
    const size_t bytes = strlen(text);
    ASSERT(bytes < sizeof whole);
    for (size_t at = 0, length; at < bytes; at += length) {
        if (code_point_look(text + at, bytes - at, &length) == CODE_POINT_WHOLE)
            memcpy(whole + at, text + at, length);
        else
            memset(whole + at, '?', length);
    }
    TRY(text_buffer_append_text(answering->out, "{\"error\":", answering->error));
    TRY(put_text(answering, whole, bytes));
    return text_buffer_append_text(answering->out, "}\n", answering->error);
}

// Appends [1,2,3].
static enum status put_ids(struct answering *answering, const struct token_ids *ids)
{
    TRY(text_buffer_append(answering->out, "[", 1, answering->error));
    for (size_t i = 0; i < ids->count; i++) {
        char number[16];
        const int bytes = snprintf(number, sizeof number, i == 0 ? "%u" : ",%u", ids->ids[i]);
        TRY(text_buffer_append(answering->out, number, (size_t)bytes, answering->error));
    }
    return text_buffer_append(answering->out, "]", 1, answering->error);
}

// Encodes and appends "ids":[...]}.
static enum status put_encoded(struct answering *answering, const char *text, size_t bytes)
{
    struct token_ids ids = {.count_max = tokenizer_ids_max(bytes)};
    ids.ids = malloc(ids.count_max * sizeof *ids.ids + 1);
    if (ids.ids == NULL)
        return error_set(answering->error, E_SYSTEM, "out of memory for %zu ids", ids.count_max);
    enum status status = tokenizer_encode(answering->tokenizer, answering->scratch, &ids, text,
                                          bytes, answering->error);
    if (status == OK)
        status = text_buffer_append_text(answering->out, "\"ids\":", answering->error);
    if (status == OK)
        status = put_ids(answering, &ids);
    if (status == OK)
        status = text_buffer_append_text(answering->out, "}\n", answering->error);
    free(ids.ids);
    return status;
}

static enum status answer_text(struct answering *answering, const json_t *text)
{
    if (!json_is_string(text))
        return error_set(answering->error, E_INPUT, "text: not a string");
    TRY(text_buffer_append_text(answering->out, "{", answering->error));
    return put_encoded(answering, json_string_value(text), json_string_length(text));
}

// Decodes an array of ids into text.
static enum status decode(struct answering *answering, const json_t *ids, struct text_buffer *text)
{
    struct detokenizer detokenizer;
    detokenizer_init(&detokenizer, answering->tokenizer, false);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        const json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 ||
            value >= (json_int_t)answering->tokenizer->id_count)
            return error_set(answering->error, E_INPUT,
                             "ids[%zu]: not a token id; ids are whole numbers below %u", i,
                             answering->tokenizer->id_count);
        TRY(detokenizer_feed(&detokenizer, (uint32_t)value, text, answering->error));
    }
    return detokenizer_finish(&detokenizer, text, answering->error);
}

static enum status answer_ids(struct answering *answering, const json_t *ids)
{
    if (!json_is_array(ids))
        return error_set(answering->error, E_INPUT, "ids: not a list");
    struct text_buffer text;
    text_buffer_init(&text, TOKENIZE_LINES_BYTES_MAX);
    enum status status = decode(answering, ids, &text);
    if (status == OK)
        status = text_buffer_append_text(answering->out, "{\"text\":", answering->error);
    if (status == OK)
        status = put_text(answering, text.bytes, text.count);
    if (status == OK)
        status = text_buffer_append_text(answering->out, "}\n", answering->error);
    text_buffer_fini(&text);
    return status;
}

// An option that is true or false; absent leaves it as it is.
static enum status read_flag(struct answering *answering, const json_t *line, const char *key,
                             bool *flag)
{
    const json_t *value = json_object_get(line, key);
    if (value == NULL)
        return OK;
    if (!json_is_boolean(value))
        return error_set(answering->error, E_INPUT, "%s: not true or false", key);
    *flag = json_is_true(value);
    return OK;
}

static enum status answer_messages(struct answering *answering, const json_t *line)
{
    struct chat_format_options options = chat_format_defaults();
    TRY(read_flag(answering, line, "add_generation_prompt", &options.add_generation_prompt));
    TRY(read_flag(answering, line, "enable_thinking", &options.enable_thinking));
    TRY(read_flag(answering, line, "preserve_thinking", &options.preserve_thinking));
    options.tools = json_object_get(line, "tools");
    options.json_scalars = answering->tokenizer->json_scalars;
    struct chat_format_text chat;
    chat_format_text_init(&chat, TOKENIZER_TEXT_BYTES_MAX);
    enum status status =
        chat_format_render(&chat, json_object_get(line, "messages"), &options, answering->error);
    if (status == OK)
        status = text_buffer_append_text(answering->out, "{\"text\":", answering->error);
    if (status == OK)
        status = put_text(answering, chat.text.bytes, chat.text.count);
    if (status == OK)
        status = text_buffer_append_text(answering->out, ",", answering->error);
    if (status == OK)
        status = put_encoded(answering, chat.text.bytes, chat.text.count);
    chat_format_text_fini(&chat);
    return status;
}

// Which of the three kinds a line is, by its keys: exactly one of them, and options only of
// messages.
static enum status kind_of(struct answering *answering, json_t *line, const char **kind)
{
    static const char *const kinds[] = {"text", "ids", "messages"};
    static const char *const options[] = {"tools", "add_generation_prompt", "enable_thinking",
                                          "preserve_thinking"};
    *kind = NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (json_object_get(line, kinds[i]) == NULL)
            continue;
        if (*kind != NULL)
            return error_set(answering->error, E_INPUT, "both \"%s\" and \"%s\" are given", *kind,
                             kinds[i]);
        *kind = kinds[i];
    }
    if (*kind == NULL)
        return error_set(answering->error, E_INPUT,
                         "no \"text\", \"ids\" or \"messages\" is given");
    const char *key;
    json_t *value;
    json_object_foreach(line, key, value)
    {
        bool known = strcmp(key, *kind) == 0;
        for (size_t i = 0; i < sizeof options / sizeof options[0] && !known; i++)
            known = strcmp(*kind, "messages") == 0 && strcmp(key, options[i]) == 0;
        if (!known)
            return error_set(answering->error, E_INPUT, "unknown key \"%.80s\" beside \"%s\"", key,
                             *kind);
    }
    return OK;
}

static enum status answer_object(struct answering *answering, json_t *line)
{
    const char *kind;
    if (!json_is_object(line))
        return error_set(answering->error, E_INPUT, "the line is not a JSON object");
    TRY(kind_of(answering, line, &kind));
    if (strcmp(kind, "text") == 0)
        return answer_text(answering, json_object_get(line, kind));
    if (strcmp(kind, "ids") == 0)
        return answer_ids(answering, json_object_get(line, kind));
    return answer_messages(answering, line);
}

static enum status answer(struct answering *answering, const char *line, size_t bytes)
{
    if (bytes > TOKENIZE_LINES_BYTES_MAX)
        return error_set(answering->error, E_LIMIT, "the line has %zu bytes, above the limit of %d",
                         bytes, TOKENIZE_LINES_BYTES_MAX);
    const size_t valid = utf8_valid_bytes(line, bytes);
    if (valid != bytes)
        return error_set(answering->error, E_MALFORMED,
                         "the line is not UTF-8: byte 0x%02x at offset %zu",
                         (unsigned)(unsigned char)line[valid], valid);
    json_error_t where;
    json_t *object =
        json_loadb(line, bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, &where);
    if (object == NULL)
        return error_set(answering->error, E_MALFORMED, "the line is not JSON: byte %d: %s",
                         where.position, where.text);
    const enum status status = answer_object(answering, object);
    json_decref(object);
    return status;
}

enum status tokenize_lines_answer(struct text_buffer *out, const struct tokenizer *tokenizer,
                                  struct tokenizer_scratch *scratch, const char *line, size_t bytes,
                                  struct error *error)
{
    struct error line_error;
    struct answering answering = {out, tokenizer, scratch, &line_error};
    const size_t count_before = out->count;
    enum status status = answer(&answering, line, bytes);
    if (status == OK)
        return OK;
    out->count = count_before;
    if (status == E_SYSTEM)
        return error_set(error, status, "%s", line_error.text);
    answering.error = error;
    status = put_error(&answering, line_error.text);
    if (status != OK)
        out->count = count_before;
    return status;
}
