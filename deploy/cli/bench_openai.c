// SPDX-License-Identifier: Apache-2.0
// bench_openai.c -- server-sent events, one JSON object in each "data:" line.
#include "deploy/cli/bench_openai.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

static bool ends_with(const char *text, size_t bytes, const char *end)
{
    size_t end_bytes = strlen(end);
    return bytes >= end_bytes && memcmp(text + bytes - end_bytes, end, end_bytes) == 0;
}

char *bench_openai_url(const char *base, const char *path)
{
    static const char *const ends[] = {"/", "/completions", "/v1", "/"};
    size_t bytes = strlen(base);
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        if (ends_with(base, bytes, ends[i]))
            bytes -= strlen(ends[i]);
    }
    char *url = malloc(bytes + strlen(path) + 1);
    if (url != NULL)
        sprintf(url, "%.*s%s", (int)bytes, base, path);
    return url;
}

char *bench_openai_body(const struct bench_request *request, const char *model)
{
    json_t *object = json_object(), *ids = json_array();
    for (int32_t i = 0; i < request->ids_count; i++)
        json_array_append_new(ids, json_integer(request->ids[i]));
    if (model != NULL)
        json_object_set_new(object, "model", json_string(model));
    json_object_set_new(object, "prompt", ids);
    json_object_set_new(object, "max_tokens", json_integer(request->max_tokens));
    json_object_set_new(object, "temperature", json_real(request->temperature));
    // Servers differ in how large a seed may be: 31 bits suit all.
    json_object_set_new(object, "seed", json_integer((json_int_t)(request->seed & INT32_MAX)));
    if (request->ignore_eos)
        json_object_set_new(object, "ignore_eos", json_true());
    json_object_set_new(object, "stream", json_true());
    json_object_set_new(object, "stream_options", json_pack("{s:b}", "include_usage", 1));
    char *body = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    return body;
}

char *bench_openai_first_model(const char *text, size_t text_bytes)
{
    json_t *root = json_loadb(text, text_bytes, 0, NULL);
    const json_t *first = json_array_get(json_object_get(root, "data"), 0);
    const char *id = json_string_value(json_object_get(first, "id"));
    char *model = id != NULL ? strdup(id) : NULL;
    json_decref(root);
    return model;
}

void bench_openai_stream_init(struct bench_openai_stream *stream)
{
    *stream = (struct bench_openai_stream){.usage = {-1, -1, -1, -1, -1}};
}

void bench_openai_stream_fini(struct bench_openai_stream *stream)
{
    free(stream->bytes);
    stream->bytes = NULL;
}

bool bench_openai_feed(struct bench_openai_stream *stream, const char *bytes, size_t count)
{
    if (stream->first > 0) {
        memmove(stream->bytes, stream->bytes + stream->first, stream->count - stream->first);
        stream->count -= stream->first;
        stream->first = 0;
    }
    if (stream->count + count > BENCH_OPENAI_LINE_BYTES_MAX)
        return false;
    if (stream->count + count > stream->room) {
        size_t room = 2 * (stream->count + count) + 4096;
        char *grown = realloc(stream->bytes, room);
        if (grown == NULL)
            return false;
        stream->bytes = grown;
        stream->room = room;
    }
    memcpy(stream->bytes + stream->count, bytes, count);
    stream->count += count;
    return true;
}

static int32_t count_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    json_int_t number = json_integer_value(value);
    return json_is_integer(value) && number >= 0 && number <= INT32_MAX ? (int32_t)number : -1;
}

static void read_usage(struct bench_openai_stream *stream, const json_t *usage)
{
    const json_t *details = json_object_get(usage, "prompt_tokens_details");
    if (!json_is_object(usage))
        return;
    stream->usage = (struct bench_usage){
        .prompt_tokens = count_of(usage, "prompt_tokens"),
        .completion_tokens = count_of(usage, "completion_tokens"),
        .cached_tokens = count_of(details, "cached_tokens"),
        .drafted = count_of(usage, "drafted"),
        .accepted = count_of(usage, "accepted"),
    };
}

// Tokens of a choice: its ids where they are told, else one for a piece of text. An end without
// text brought none; text may be empty in between, where half a character waits.
static int32_t read_choice(struct bench_openai_stream *stream, const json_t *choice)
{
    const json_t *ids = json_object_get(choice, "token_ids");
    bool ends = json_is_string(json_object_get(choice, "finish_reason"));
    stream->finished |= ends;
    if (json_is_array(ids))
        return (int32_t)json_array_size(ids);
    return ends && json_string_length(json_object_get(choice, "text")) == 0 ? 0 : 1;
}

static int32_t read_event(struct bench_openai_stream *stream, const char *data, size_t bytes)
{
    json_error_t problem;
    if (bytes == 6 && memcmp(data, "[DONE]", 6) == 0) {
        stream->done = true;
        return 0;
    }
    json_t *object = json_loadb(data, bytes, 0, &problem);
    const json_t *error = json_object_get(object, "error");
    const json_t *choices = json_object_get(object, "choices");
    int32_t tokens = 0;
    if (object == NULL || error != NULL) {
        const char *text = json_string_value(json_object_get(error, "message"));
        if (object == NULL)
            text = problem.text;
        stream->failed = true;
        snprintf(stream->text, sizeof stream->text, "%s", text != NULL ? text : "an error");
    } else {
        read_usage(stream, json_object_get(object, "usage"));
        if (json_array_size(choices) > 0)
            tokens = read_choice(stream, json_array_get(choices, 0));
    }
    json_decref(object);
    return tokens;
}

bool bench_openai_next(struct bench_openai_stream *stream, int32_t *tokens)
{
    static const char head[] = "data:";
    const size_t head_bytes = sizeof head - 1;
    for (;;) {
        char *line = stream->bytes + stream->first;
        size_t left = stream->count - stream->first;
        const char *end = left > 0 ? memchr(line, '\n', left) : NULL;
        if (end == NULL)
            return false;
        size_t bytes = (size_t)(end - line);
        stream->first += bytes + 1;
        if (bytes > 0 && line[bytes - 1] == '\r')
            bytes--;
        if (bytes < head_bytes || memcmp(line, head, head_bytes) != 0)
            continue; // a comment, an event's name, the empty line behind it
        size_t skipped = head_bytes + (bytes > head_bytes && line[head_bytes] == ' ');
        *tokens = read_event(stream, line + skipped, bytes - skipped);
        return true;
    }
}
