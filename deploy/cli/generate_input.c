// SPDX-License-Identifier: Apache-2.0
// generate_input.c -- prompts, ids and lines of JSON into frames.
#include "deploy/cli/generate_input.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "deploy/cli/json_wire.h"
#include "parallel/base/utf8.h"
#include "parallel/wire/requests.h"

enum { FRAME_SLACK_BYTES = 1024 }; // "t", "id" and all defaults

enum status generate_input_open(struct generate_input *input,
                                const struct generate_options *options, struct error *error)
{
    *input = (struct generate_input){.options = options, .lines = {.fd = -1}};
    return options->requests != NULL ? lines_open(&input->lines, options->requests, error) : OK;
}

void generate_input_close(struct generate_input *input)
{
    lines_close(&input->lines);
}

static void write_default(struct writer *writer, const struct generate_default *field)
{
    writer_key(writer, field->key);
    switch (field->kind) {
    case DEFAULT_INT: writer_int(writer, field->number); break;
    case DEFAULT_REAL: writer_double(writer, field->real); break;
    case DEFAULT_SEED: writer_uint(writer, field->seed); break;
    case DEFAULT_TRUE: writer_bool(writer, true); break;
    }
}

// {"t": "generate", "id": index, the defaults that object does not have, object's members}.
static enum status pack_request(struct generate_input *input, const json_t *object,
                                size_t json_bytes, struct generate_frame *out, struct error *error)
{
    const struct generate_options *options = input->options;
    char id[32];
    struct writer writer;
    size_t room = json_wire_bytes_max(json_bytes) + FRAME_SLACK_BYTES;
    uint8_t *frame = malloc(room);
    if (frame == NULL)
        return error_set(error, E_SYSTEM, "no memory for a request of %zu bytes", room);
    size_t pairs = 2 + json_object_size(object);
    for (int32_t i = 0; i < options->defaults_count; i++)
        pairs += json_object_get(object, options->defaults[i].key) == NULL;
    writer_init(&writer, frame, room);
    writer_map(&writer, pairs);
    writer_key(&writer, "t");
    writer_key(&writer, "generate");
    writer_key(&writer, "id");
    snprintf(id, sizeof id, "%" PRId64, input->count);
    writer_key(&writer, id);
    for (int32_t i = 0; i < options->defaults_count; i++) {
        if (json_object_get(object, options->defaults[i].key) == NULL)
            write_default(&writer, &options->defaults[i]);
    }
    enum status status = json_wire_members(&writer, object, error);
    if (status == OK) {
        status = writer_end(&writer, &out->count);
        ASSERT(status == OK); // json_wire_bytes_max is enough
        out->bytes = frame;
    } else {
        free(frame);
    }
    return status;
}

static enum status next_prompt(struct generate_input *input, struct generate_frame *out,
                               struct error *error)
{
    const char *prompt = input->options->prompt;
    size_t bytes = strlen(prompt);
    size_t valid = utf8_valid_bytes(prompt, bytes);
    if (valid < bytes)
        return error_set(error, E_INPUT, "--prompt: invalid UTF-8 at byte %zu of %zu", valid,
                         bytes);
    json_t *object = json_object();
    json_object_set_new(object, "prompt", json_string(prompt));
    enum status status = pack_request(input, object, bytes, out, error);
    json_decref(object);
    return status;
}

// "1,2,3", spaces allowed.
static enum status read_ids(json_t *ids, const char *text, struct error *error)
{
    const char *at = text;
    for (;;) {
        char *end;
        errno = 0;
        long long id = strtoll(at, &end, 10);
        if (end == at || errno != 0 || id < 0 || id > INT32_MAX)
            return error_set(error, E_USAGE, "--prompt-ids: '%.20s' is no token id, 0 .. %d", at,
                             INT32_MAX);
        json_array_append_new(ids, json_integer(id));
        at = end + strspn(end, " ");
        if (*at == '\0')
            return OK;
        if (*at != ',')
            return error_set(error, E_USAGE, "--prompt-ids: '%.20s' where a comma belongs", at);
        at++;
    }
}

static enum status next_ids(struct generate_input *input, struct generate_frame *out,
                            struct error *error)
{
    json_t *object = json_object();
    json_t *ids = json_array();
    json_object_set_new(object, "ids", ids);
    enum status status = read_ids(ids, input->options->prompt_ids, error);
    if (status == OK)
        status = pack_request(input, object, strlen(input->options->prompt_ids), out, error);
    json_decref(object);
    return status;
}

static enum status pack_line(struct generate_input *input, const char *line, size_t bytes,
                             struct generate_frame *out, struct error *error)
{
    json_error_t problem;
    struct error inner;
    long long number = (long long)input->lines.number;
    json_t *object = json_loadb(line, bytes, JSON_REJECT_DUPLICATES, &problem);
    if (object == NULL)
        return error_set(error, E_INPUT, "line %lld: %s (column %d)", number, problem.text,
                         problem.column);
    enum status status = OK;
    if (!json_is_object(object))
        status = error_set(error, E_INPUT, "line %lld: not a JSON object", number);
    static const char *const ours[] = {"t", "id"};
    for (int i = 0; i < 2 && status == OK; i++) {
        if (json_object_get(object, ours[i]) != NULL)
            status = error_set(error, E_INPUT, "line %lld: '%s' is chosen by this program", number,
                               ours[i]);
    }
    if (status == OK) {
        status = pack_request(input, object, bytes, out, &inner);
        if (status != OK)
            error_set(error, status, "line %lld: %s", number, inner.text);
    }
    json_decref(object);
    return status;
}

static enum status next_line(struct generate_input *input, bool wait, struct generate_frame *out,
                             struct error *error)
{
    const char *line;
    size_t bytes;
    TRY(lines_next(&input->lines, wait, &line, &bytes, error));
    if (line == NULL) {
        input->ended = input->lines.ended;
        return OK;
    }
    if (strspn(line, " \t") == bytes) // empty
        return OK;
    enum status status = pack_line(input, line, bytes, out, error);
    input->count++;
    return status;
}

enum status generate_input_next(struct generate_input *input, bool wait, struct generate_frame *out,
                                struct error *error)
{
    *out = (struct generate_frame){0};
    if (input->options->requests != NULL)
        return next_line(input, wait, out, error);
    input->ended = input->count == 1;
    if (input->ended)
        return OK;
    enum status status = input->options->prompt != NULL ? next_prompt(input, out, error)
                                                        : next_ids(input, out, error);
    input->count++;
    return status;
}
