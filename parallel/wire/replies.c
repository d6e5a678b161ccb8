// SPDX-License-Identifier: Apache-2.0
// replies.c -- what the door answers. Each type writes only the fields that belong to it.
#include "parallel/wire/requests.h"

#include <string.h>

#include "parallel/wire/reader.h"
#include "parallel/wire/writer.h"

static const char *const type_names[] = {
    [REPLY_NONE] = "",         [REPLY_ACCEPTED] = "accepted",
    [REPLY_DELTA] = "delta",   [REPLY_CHOICE] = "choice",
    [REPLY_FINAL] = "final",   [REPLY_ERROR] = "error",
    [REPLY_PING] = "ping",     [REPLY_STATUS] = "status",
    [REPLY_TOKENS] = "tokens", [REPLY_DRAINING] = "draining",
};

static const char *const finish_reasons[] = {"stop", "length", "abort", "timeout"};

enum {
    REPLY_TYPES = sizeof type_names / sizeof type_names[0],
    FINISH_REASONS = sizeof finish_reasons / sizeof finish_reasons[0],
};

enum reply_key {
    KEY_T,
    KEY_ID,
    KEY_INDEX,
    KEY_SEED,
    KEY_PROMPT_TOKENS,
    KEY_IGNORED,
    KEY_IDS,
    KEY_TEXT,
    KEY_FINISH_REASON,
    KEY_ERROR,
    KEY_USAGE,
    KEY_LOGPROBS,
    KEY_PROMPT_LOGPROBS,
    REPLY_KEYS
};

static const char *const reply_keys[REPLY_KEYS] = {
    "t",
    "id",
    "index",
    "seed",
    "prompt_tokens",
    "ignored",
    "ids",
    "text",
    "finish_reason",
    "error",
    "usage",
    "logprobs",
    "prompt_logprobs",
};

enum usage_key {
    USAGE_PROMPT,
    USAGE_COMPLETION,
    USAGE_CACHED,
    USAGE_STEPS,
    USAGE_DRAFTED,
    USAGE_ACCEPTED,
    USAGE_KEYS
};

static const char *const usage_keys[USAGE_KEYS] = {
    "prompt_tokens", "completion_tokens", "cached_tokens", "target_steps", "drafted", "accepted",
};

// ---- Writing ----

static void write_int(struct writer *writer, const char *key, int64_t value)
{
    writer_key(writer, key);
    writer_int(writer, value);
}

static void write_text(struct writer *writer, const char *key, const char *text, size_t bytes)
{
    writer_key(writer, key);
    writer_text(writer, text, bytes);
}

static void write_usage(struct writer *writer, const struct usage *usage)
{
    writer_key(writer, "usage");
    writer_map(writer, USAGE_KEYS);
    write_int(writer, "prompt_tokens", usage->prompt_tokens);
    write_int(writer, "completion_tokens", usage->completion_tokens);
    write_int(writer, "cached_tokens", usage->cached_tokens);
    write_int(writer, "target_steps", usage->target_steps);
    write_int(writer, "drafted", usage->drafted);
    write_int(writer, "accepted", usage->accepted);
}

// {"id", "logprob", "top": [[id, logprob] ...]}; nil for the prompt's first token.
static void write_logprob(struct writer *writer, const struct step_logprob *entry)
{
    if (entry->id < 0) {
        writer_nil(writer);
        return;
    }
    writer_map(writer, 3);
    write_int(writer, "id", entry->id);
    writer_key(writer, "logprob");
    writer_float(writer, entry->logprob);
    writer_key(writer, "top");
    writer_array(writer, (size_t)entry->top_count);
    for (int32_t i = 0; i < entry->top_count; i++) {
        writer_array(writer, 2);
        writer_int(writer, entry->top_ids[i]);
        writer_float(writer, entry->top_logprobs[i]);
    }
}

static void write_logprobs(struct writer *writer, const char *key,
                           const struct step_logprob *entries, int32_t count)
{
    if (count == 0)
        return;
    writer_key(writer, key);
    writer_array(writer, (size_t)count);
    for (int32_t i = 0; i < count; i++)
        write_logprob(writer, &entries[i]);
}

static void write_delta(struct writer *writer, const struct reply *reply)
{
    write_int(writer, "index", reply->index);
    writer_key(writer, "ids");
    writer_array(writer, (size_t)reply->ids_count);
    for (int32_t i = 0; i < reply->ids_count; i++)
        writer_int(writer, reply->ids[i]);
    write_text(writer, "text", reply->text, reply->text_bytes);
    write_logprobs(writer, "logprobs", reply->logprobs, reply->logprobs_count);
    write_logprobs(writer, "prompt_logprobs", reply->prompt_logprobs, reply->prompt_logprobs_count);
}

static void write_accepted(struct writer *writer, const struct reply *reply)
{
    writer_key(writer, "seed");
    writer_uint(writer, reply->seed);
    write_int(writer, "prompt_tokens", reply->prompt_tokens);
    write_text(writer, "ignored", reply->ignored, strnlen(reply->ignored, sizeof reply->ignored));
}

enum status reply_encode(void *buffer, size_t buffer_bytes, size_t *bytes_out,
                         const struct reply *reply)
{
    // Pairs beside "t" and "id".
    static const uint8_t pairs[REPLY_TYPES] = {
        [REPLY_ACCEPTED] = 3, [REPLY_DELTA] = 3,  [REPLY_CHOICE] = 3, [REPLY_FINAL] = 3,
        [REPLY_ERROR] = 2,    [REPLY_STATUS] = 1, [REPLY_TOKENS] = 1,
    };
    ASSERT(reply->type > REPLY_NONE && (int)reply->type < REPLY_TYPES);
    struct writer writer;
    writer_init(&writer, buffer, buffer_bytes);
    size_t optional = 0;
    if (reply->type == REPLY_DELTA)
        optional = (size_t)(reply->logprobs_count > 0) + (reply->prompt_logprobs_count > 0);
    writer_map(&writer, 2u + pairs[reply->type] + optional);
    writer_key(&writer, "t");
    writer_key(&writer, type_names[reply->type]);
    write_text(&writer, "id", reply->id, strnlen(reply->id, REQUEST_ID_BYTES_MAX));
    switch (reply->type) {
    case REPLY_ACCEPTED: write_accepted(&writer, reply); break;
    case REPLY_DELTA: write_delta(&writer, reply); break;
    case REPLY_CHOICE:
    case REPLY_FINAL:
        write_int(&writer, "index", reply->index);
        write_text(&writer, "finish_reason", reply->finish_reason, strlen(reply->finish_reason));
        write_usage(&writer, &reply->usage);
        break;
    case REPLY_ERROR:
        write_text(&writer, "error", reply->error, strlen(reply->error));
        // fall through
    case REPLY_STATUS:
    case REPLY_TOKENS: write_text(&writer, "text", reply->text, reply->text_bytes); break;
    case REPLY_NONE:
    case REPLY_PING:
    case REPLY_DRAINING: break;
    }
    return writer_end(&writer, bytes_out);
}

// ---- Reading ----

static enum reply_type read_type(struct reader *reader)
{
    size_t bytes;
    const char *name = reader_str(reader, &bytes, 64);
    for (int i = 1; i < REPLY_TYPES; i++) {
        if (strlen(type_names[i]) == bytes && memcmp(type_names[i], name, bytes) == 0)
            return (enum reply_type)i;
    }
    reader_fail(reader, E_MALFORMED, "'%.*s' is no reply", (int)bytes, name);
    return REPLY_NONE;
}

static const char *read_finish_reason(struct reader *reader)
{
    size_t bytes;
    const char *name = reader_str(reader, &bytes, 64);
    for (int i = 0; i < FINISH_REASONS; i++) {
        if (strlen(finish_reasons[i]) == bytes && memcmp(finish_reasons[i], name, bytes) == 0)
            return finish_reasons[i];
    }
    return "unknown";
}

static const char *read_error(struct reader *reader)
{
    char word[64];
    reader_text(reader, word, sizeof word);
    return status_name(status_from_name(word));
}

static void read_ids(struct reader *reader, struct reply *out, int32_t *ids_space, int32_t ids_max)
{
    out->ids = ids_space;
    out->ids_count = reader_array(reader, ids_max);
    for (int32_t i = 0; i < out->ids_count && reader->status == OK; i++) {
        reader->index = i;
        ids_space[i] = reader_int32(reader, 0, INT32_MAX);
    }
}

static void read_usage(struct reader *reader, struct usage *usage)
{
    int32_t *const members[USAGE_KEYS] = {
        [USAGE_PROMPT] = &usage->prompt_tokens, [USAGE_COMPLETION] = &usage->completion_tokens,
        [USAGE_CACHED] = &usage->cached_tokens, [USAGE_STEPS] = &usage->target_steps,
        [USAGE_DRAFTED] = &usage->drafted,      [USAGE_ACCEPTED] = &usage->accepted,
    };
    struct reader_map map;
    reader_map_open(reader, &map, usage_keys, USAGE_KEYS, false);
    for (int32_t key; (key = reader_map_key(reader, &map)) != READER_MAP_END;) {
        size_t value_bytes;
        if (key >= 0)
            *members[key] = reader_int32(reader, 0, INT32_MAX);
        else
            reader_value(reader, &value_bytes);
    }
}

static void read_top(struct reader *reader, struct step_logprob *out)
{
    out->top_count = reader_array(reader, STEP_LOGPROBS_TOP_MAX);
    for (int32_t i = 0; i < out->top_count && reader->status == OK; i++) {
        reader_tuple(reader, 2);
        out->top_ids[i] = reader_int32(reader, 0, INT32_MAX);
        out->top_logprobs[i] = (float)reader_real(reader, STEP_LOGPROB_MIN, 0);
    }
}

bool reply_next_logprob(struct step_logprob *out, const uint8_t **value, size_t *bytes)
{
    static const char *const keys[] = {"id", "logprob", "top"};
    struct reader reader;
    struct reader_map map;
    struct step_logprob entry = {.id = -1};
    if (*bytes == 0)
        return false;
    reader_init(&reader, *value, *bytes, "logprobs", NULL);
    if (!reader_nil(&reader)) {
        reader_map_open(&reader, &map, keys, 3, false);
        for (int32_t key; (key = reader_map_key(&reader, &map)) != READER_MAP_END;) {
            size_t value_bytes;
            switch (key) {
            case 0: entry.id = reader_int32(&reader, 0, INT32_MAX); break;
            case 1: entry.logprob = (float)reader_real(&reader, STEP_LOGPROB_MIN, 0); break;
            case 2: read_top(&reader, &entry); break;
            default: reader_value(&reader, &value_bytes); break;
            }
        }
    }
    *bytes = reader.status == OK ? (size_t)(reader.end - reader.at) : 0;
    *value = reader.at;
    if (reader.status == OK)
        *out = entry;
    return reader.status == OK;
}

// The elements of an array, borrowed; nil is none.
static const uint8_t *read_elements(struct reader *reader, int32_t *count, size_t *bytes)
{
    if (reader_nil(reader))
        return NULL;
    *count = reader_array(reader, INT32_MAX);
    const uint8_t *first = reader->at;
    for (int32_t i = 0; i < *count && reader->status == OK; i++) {
        size_t value_bytes;
        reader_value(reader, &value_bytes);
    }
    *bytes = (size_t)(reader->at - first);
    return first;
}

enum status reply_decode(struct reply *out, int32_t *ids_space, int32_t ids_max, const void *frame,
                         size_t frame_bytes, struct error *error)
{
    struct reader reader;
    struct reader_map map;
    struct reply reply = {.ids = ids_space, .text = "", .finish_reason = "", .error = ""};
    size_t value_bytes;
    reader_init(&reader, frame, frame_bytes, "reply", error);
    reader_map_open(&reader, &map, reply_keys, REPLY_KEYS, false);
    for (int32_t key; (key = reader_map_key(&reader, &map)) != READER_MAP_END;) {
        switch (key) {
        case KEY_T: reply.type = read_type(&reader); break;
        case KEY_ID: reader_text(&reader, reply.id, sizeof reply.id); break;
        case KEY_INDEX: reply.index = reader_int32(&reader, 0, INT32_MAX); break;
        case KEY_SEED: reply.seed = reader_uint64(&reader); break;
        case KEY_PROMPT_TOKENS: reply.prompt_tokens = reader_int32(&reader, 0, INT32_MAX); break;
        case KEY_IGNORED: reader_text(&reader, reply.ignored, sizeof reply.ignored); break;
        case KEY_IDS: read_ids(&reader, &reply, ids_space, ids_max); break;
        case KEY_TEXT: reply.text = reader_str(&reader, &reply.text_bytes, SIZE_MAX); break;
        case KEY_FINISH_REASON: reply.finish_reason = read_finish_reason(&reader); break;
        case KEY_ERROR: reply.error = read_error(&reader); break;
        case KEY_USAGE: read_usage(&reader, &reply.usage); break;
        case KEY_LOGPROBS:
            reply.logprobs_value =
                read_elements(&reader, &reply.logprobs_count, &reply.logprobs_bytes);
            break;
        case KEY_PROMPT_LOGPROBS:
            reply.prompt_logprobs_value =
                read_elements(&reader, &reply.prompt_logprobs_count, &reply.prompt_logprobs_bytes);
            break;
        default: reader_value(&reader, &value_bytes); break;
        }
    }
    TRY(reader_end(&reader));
    if (reply.type == REPLY_NONE)
        return error_set(error, E_MALFORMED, "reply: key 't' is missing");
    *out = reply;
    return OK;
}
