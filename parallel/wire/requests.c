// SPDX-License-Identifier: Apache-2.0
// requests.c -- what clients send: generate, and the requests that are little more than an id. The
// answers are in replies.c.
#include "parallel/wire/requests.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "parallel/wire/reader.h"
#include "parallel/wire/writer.h"

static const char *const type_names[] = {
    [REQUEST_NONE] = "",         [REQUEST_GENERATE] = "generate", [REQUEST_ABORT] = "abort",
    [REQUEST_STATUS] = "status", [REQUEST_TOKENIZE] = "tokenize", [REQUEST_DRAIN] = "drain",
};

enum { REQUEST_TYPES = sizeof type_names / sizeof type_names[0] };

enum generate_key {
    KEY_T,
    KEY_ID,
    KEY_PROMPT,
    KEY_IDS,
    KEY_MESSAGES,
    KEY_MAX_TOKENS,
    KEY_TEMPERATURE,
    KEY_TOP_K,
    KEY_TOP_P,
    KEY_MIN_P,
    KEY_REPETITION,
    KEY_FREQUENCY,
    KEY_PRESENCE,
    KEY_MIN_TOKENS,
    KEY_SEED,
    KEY_IGNORE_EOS,
    KEY_STOP_IDS,
    KEY_STOP,
    KEY_INCLUDE_STOP,
    KEY_BIAS,
    KEY_ALLOWED,
    KEY_WORDS,
    KEY_N,
    KEY_LOGPROBS,
    KEY_PROMPT_LOGPROBS,
    KEY_SPECULATIVE,
    KEY_THINKING,
    KEY_PRESERVE_THINKING,
    KEY_TOOLS,
    KEY_SKIP_SPECIAL,
    KEY_TEXT,
    KEY_PRIORITY,
    KEY_TIMEOUT,
    KEY_UNSUPPORTED_FIRST
};

// The keys of generate, in the order of the enum; then fields that the family's servers take and
// this build does not serve: they are refused by name unless they say "nothing".
static const char *const generate_keys[] = {
    "t",
    "id",
    "prompt",
    "ids",
    "messages",
    "max_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "min_tokens",
    "seed",
    "ignore_eos",
    "stop_token_ids",
    "stop",
    "include_stop_str_in_output",
    "logit_bias",
    "allowed_token_ids",
    "bad_words",
    "n",
    "logprobs",
    "prompt_logprobs",
    "speculative_tokens",
    "enable_thinking",
    "preserve_thinking",
    "tools",
    "skip_special_tokens",
    "text",
    "priority",
    "timeout_ms",
    // Neutral at 1:
    "best_of",
    "length_penalty",
    // Neutral at 0:
    "top_logprobs",
    // Neutral when nil, false or empty:
    "logprob_token_ids",
    "logits_processors",
    "structured_outputs",
    "response_format",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "documents",
    "repetition_detection",
    "thinking_token_budget",
    "truncate_prompt_tokens",
    "echo",
    "suffix",
    "use_beam_search",
    "prompt_embeds",
    "multi_modal_data",
    "lora_request",
    "extra_args",
};

enum {
    GENERATE_KEYS = sizeof generate_keys / sizeof generate_keys[0],
    NEUTRAL_ONE_COUNT = 2,
    NEUTRAL_ZERO_COUNT = 1,
};

_Static_assert((int)GENERATE_KEYS <= (int)READER_KEYS_MAX, "a reader_map knows no more keys");

// ---- What every request has ----

// The value of a string key of a map, wherever it stands; "" with *bytes 0 when there is none.
static const char *find_str(const void *frame, size_t frame_bytes, const char *key, size_t *bytes)
{
    struct reader reader;
    struct reader_map map;
    const char *found = "";
    *bytes = 0;
    reader_init(&reader, frame, frame_bytes, "request", NULL);
    reader_map_open(&reader, &map, &key, 1, false);
    for (int32_t index; (index = reader_map_key(&reader, &map)) != READER_MAP_END;) {
        size_t value_bytes;
        if (index == 0 && reader_peek(&reader) == READER_STR)
            found = reader_str(&reader, bytes, SIZE_MAX);
        else
            reader_value(&reader, &value_bytes);
    }
    return found;
}

enum request_type request_type_of(const void *frame, size_t frame_bytes)
{
    size_t bytes;
    const char *name = find_str(frame, frame_bytes, "t", &bytes);
    for (int i = 1; i < REQUEST_TYPES; i++) {
        if (strlen(type_names[i]) == bytes && memcmp(type_names[i], name, bytes) == 0)
            return (enum request_type)i;
    }
    return REQUEST_NONE;
}

void request_id_of(char id[REQUEST_ID_BYTES_MAX + 1], const void *frame, size_t frame_bytes)
{
    size_t bytes;
    const char *found = find_str(frame, frame_bytes, "id", &bytes);
    if (bytes > REQUEST_ID_BYTES_MAX)
        bytes = 0;
    memcpy(id, found, bytes);
    id[bytes] = '\0';
}

static void read_id(struct reader *reader, char id[REQUEST_ID_BYTES_MAX + 1])
{
    reader_text(reader, id, REQUEST_ID_BYTES_MAX + 1);
    if (id[0] == '\0')
        reader_fail(reader, E_INPUT, "empty, 1 to %d bytes are needed", REQUEST_ID_BYTES_MAX);
}

// ---- Generate ----

void generate_request_init(struct generate_request *request)
{
    *request = (struct generate_request){.max_tokens = -1,
                                         .temperature = -1,
                                         .top_k = -1,
                                         .top_p = -1,
                                         .min_p = -1,
                                         .repetition_penalty = -1,
                                         .n = 1,
                                         .speculative_tokens = -1,
                                         .enable_thinking = true,
                                         .skip_special_tokens = true,
                                         .want_text = true};
}

// Reads over a value; true when it says "nothing": nil, false, empty, or the neutral number.
static bool read_neutral(struct reader *reader, double neutral)
{
    size_t bytes;
    switch (reader_peek(reader)) {
    case READER_NIL: return reader_nil(reader);
    case READER_BOOL: return !reader_bool(reader);
    case READER_INT:
    case READER_REAL: return reader_real(reader, -DBL_MAX, DBL_MAX) == neutral;
    default: break;
    }
    const uint8_t *value = reader_value(reader, &bytes);
    return bytes == 1 && (value[0] == 0x80 || value[0] == 0x90 || value[0] == 0xA0);
}

static void read_unsupported(struct reader *reader, struct generate_request *out, int32_t key)
{
    int32_t index = key - KEY_UNSUPPORTED_FIRST;
    double neutral = (double)NAN; // which no number equals
    if (index < NEUTRAL_ONE_COUNT)
        neutral = 1;
    else if (index < NEUTRAL_ONE_COUNT + NEUTRAL_ZERO_COUNT)
        neutral = 0;
    if (!read_neutral(reader, neutral) && out->unsupported == NULL)
        out->unsupported = generate_keys[key];
}

static void read_prompt(struct reader *reader, struct generate_request *out)
{
    out->prompt = reader_str(reader, &out->prompt_bytes, REQUEST_TEXT_BYTES_MAX);
    if (out->prompt_bytes == 0)
        reader_fail(reader, E_INPUT, "an empty prompt");
}

static void read_ids(struct reader *reader, struct generate_request *out)
{
    out->ids_count = reader_array(reader, REQUEST_PROMPT_TOKENS_MAX);
    if (out->ids_count == 0)
        reader_fail(reader, E_INPUT, "an empty prompt");
    out->ids = reader->at;
    for (int32_t i = 0; i < out->ids_count && reader->status == OK; i++) {
        reader->index = i;
        reader_int32(reader, 0, INT32_MAX);
    }
    out->ids_bytes = (size_t)(reader->at - out->ids);
}

static void read_tools(struct reader *reader, struct generate_request *out)
{
    if (reader_peek(reader) != READER_ARRAY)
        reader_fail(reader, E_INPUT, "not an array of tools");
    out->tools = reader_value(reader, &out->tools_bytes);
    if (out->tools_bytes == 1) { // an empty one
        out->tools = NULL;
        out->tools_bytes = 0;
    }
}

static void read_messages(struct reader *reader, struct generate_request *out)
{
    enum reader_kind kind = reader_peek(reader);
    if (kind != READER_ARRAY && kind != READER_NOTHING)
        reader_fail(reader, E_INPUT, "not an array of messages");
    out->messages = reader_value(reader, &out->messages_bytes);
    if (out->messages_bytes == 1)
        reader_fail(reader, E_INPUT, "an empty array");
}

static void read_stop_ids(struct reader *reader, struct generate_request *out)
{
    out->stop_count = reader_array(reader, REQUEST_STOP_IDS_MAX);
    for (int32_t i = 0; i < out->stop_count && reader->status == OK; i++) {
        reader->index = i;
        out->stop_ids[i] = reader_int32(reader, 0, INT32_MAX);
    }
}

static void read_stop(struct reader *reader, struct generate_request *out)
{
    struct request_text *stop = &out->stops[out->stops_count];
    stop->bytes = reader_str(reader, &stop->count, REQUEST_STOP_BYTES_MAX);
    if (stop->count == 0)
        reader_fail(reader, E_INPUT, "an empty string");
    out->stops_count += reader->status == OK;
}

// One string, or an array of them; an empty array is none.
static void read_stops(struct reader *reader, struct generate_request *out)
{
    if (reader_peek(reader) == READER_STR) {
        read_stop(reader, out);
        return;
    }
    int32_t count = reader_array(reader, REQUEST_STOPS_MAX);
    for (int32_t i = 0; i < count && reader->status == OK; i++) {
        reader->index = i;
        read_stop(reader, out);
    }
}

// A key of logit_bias: an id, or its decimal digits as JSON has them.
static int32_t read_bias_id(struct reader *reader)
{
    size_t bytes;
    int64_t id = 0;
    if (reader_peek(reader) != READER_STR)
        return reader_int32(reader, 0, INT32_MAX);
    const char *digits = reader_str(reader, &bytes, 16);
    for (size_t i = 0; i < bytes && id <= INT32_MAX; i++)
        id = digits[i] >= '0' && digits[i] <= '9' ? 10 * id + (digits[i] - '0') : INT64_MAX / 16;
    if (reader->status == OK && (bytes == 0 || id > INT32_MAX))
        reader_fail(reader, E_INPUT, "'%.*s' is no token id", (int)bytes, digits);
    return (int32_t)(id <= INT32_MAX ? id : 0);
}

static void read_biases(struct reader *reader, struct generate_request *out)
{
    out->bias_count = reader_pairs(reader, STEP_BIASES_MAX);
    for (int32_t i = 0; i < out->bias_count && reader->status == OK; i++) {
        reader->index = i;
        out->bias_ids[i] = read_bias_id(reader);
        out->biases[i] = (float)reader_real(reader, -REQUEST_BIAS_MAX, REQUEST_BIAS_MAX);
    }
}

static void read_allowed(struct reader *reader, struct generate_request *out)
{
    out->allowed_count = reader_array(reader, STEP_ALLOWED_MAX);
    for (int32_t i = 0; i < out->allowed_count && reader->status == OK; i++) {
        reader->index = i;
        out->allowed_ids[i] = reader_int32(reader, 0, INT32_MAX);
    }
}

static void read_word(struct reader *reader, struct request_word *word)
{
    *word = (struct request_word){.ids_count = 0};
    if (reader_peek(reader) == READER_ARRAY) {
        word->ids_count = reader_array(reader, STEP_WORD_TOKENS_MAX);
        for (int32_t i = 0; i < word->ids_count && reader->status == OK; i++)
            word->ids[i] = reader_int32(reader, 0, INT32_MAX);
        if (word->ids_count == 0)
            reader_fail(reader, E_INPUT, "an empty word");
        return;
    }
    word->text.bytes = reader_str(reader, &word->text.count, REQUEST_WORD_BYTES_MAX);
    if (word->text.count == 0)
        reader_fail(reader, E_INPUT, "an empty word");
}

static void read_words(struct reader *reader, struct generate_request *out)
{
    out->words_count = reader_array(reader, REQUEST_WORDS_MAX);
    for (int32_t i = 0; i < out->words_count && reader->status == OK; i++) {
        reader->index = i;
        read_word(reader, &out->words[i]);
    }
}

// How many alternatives; false is none at all.
static int32_t read_logprobs(struct reader *reader)
{
    if (reader_peek(reader) != READER_BOOL)
        return 1 + reader_int32(reader, 0, STEP_LOGPROBS_TOP_MAX);
    if (reader_bool(reader))
        reader_fail(reader, E_INPUT, "true is no number of alternatives, 0 .. %d",
                    STEP_LOGPROBS_TOP_MAX);
    return 0;
}

// vLLM's clients send -1 for "none": of a seed, of top_k and of max_tokens.
static bool read_minus_one(struct reader *reader)
{
    if (reader->at == reader->end || *reader->at != 0xFF)
        return false;
    reader->at++;
    return true;
}

static double read_top_p(struct reader *reader)
{
    double top_p = reader_real(reader, 0, 1);
    if (reader->status == OK && !(top_p > 0))
        reader_fail(reader, E_INPUT, "0 is outside its range, above 0 and up to 1");
    return top_p;
}

static double read_repetition(struct reader *reader)
{
    double penalty = reader_real(reader, 0, REQUEST_REPETITION_MAX);
    if (reader->status == OK && !(penalty > 0))
        reader_fail(reader, E_INPUT, "0 is outside its range, above 0 and up to %d",
                    REQUEST_REPETITION_MAX);
    return penalty;
}

static void read_sampling(struct reader *reader, struct generate_request *out,
                          enum generate_key key)
{
    switch (key) {
    case KEY_MAX_TOKENS:
        if (!read_minus_one(reader))
            out->max_tokens = reader_int32(reader, 1, INT32_MAX);
        break;
    case KEY_TEMPERATURE: out->temperature = reader_real(reader, 0, REQUEST_TEMPERATURE_MAX); break;
    case KEY_TOP_K:
        out->top_k = read_minus_one(reader) ? 0 : reader_int32(reader, 0, INT32_MAX);
        break;
    case KEY_TOP_P: out->top_p = read_top_p(reader); break;
    case KEY_MIN_P: out->min_p = reader_real(reader, 0, 1); break;
    case KEY_REPETITION: out->repetition_penalty = read_repetition(reader); break;
    case KEY_FREQUENCY: out->frequency_penalty = reader_real(reader, -2, 2); break;
    case KEY_PRESENCE: out->presence_penalty = reader_real(reader, -2, 2); break;
    case KEY_MIN_TOKENS: out->min_tokens = reader_int32(reader, 0, INT32_MAX); break;
    case KEY_PRIORITY: out->priority = reader_int32(reader, INT32_MIN, INT32_MAX); break;
    case KEY_TIMEOUT: out->timeout_ms = reader_int32(reader, 0, REQUEST_TIMEOUT_MS_MAX); break;
    case KEY_SEED:
        out->has_seed = !read_minus_one(reader);
        if (out->has_seed)
            out->seed = reader_uint64(reader);
        break;
    case KEY_SPECULATIVE:
        out->speculative_tokens = reader_int32(reader, 0, STEP_VERIFY_MAX - 1);
        break;
    default: break;
    }
}

static void read_known(struct reader *reader, struct generate_request *out, int32_t key)
{
    size_t bytes;
    if (key >= KEY_UNSUPPORTED_FIRST) {
        read_unsupported(reader, out, key);
        return;
    }
    if (reader_nil(reader)) // nil is "left out"
        return;
    switch ((enum generate_key)key) {
    case KEY_T: reader_str(reader, &bytes, 64); break;
    case KEY_ID: read_id(reader, out->id); break;
    case KEY_PROMPT: read_prompt(reader, out); break;
    case KEY_IDS: read_ids(reader, out); break;
    case KEY_MESSAGES: read_messages(reader, out); break;
    case KEY_IGNORE_EOS: out->ignore_eos = reader_bool(reader); break;
    case KEY_STOP_IDS: read_stop_ids(reader, out); break;
    case KEY_STOP: read_stops(reader, out); break;
    case KEY_INCLUDE_STOP: out->include_stop = reader_bool(reader); break;
    case KEY_BIAS: read_biases(reader, out); break;
    case KEY_ALLOWED: read_allowed(reader, out); break;
    case KEY_WORDS: read_words(reader, out); break;
    case KEY_N: out->n = reader_int32(reader, 1, REQUEST_N_MAX); break;
    case KEY_LOGPROBS: out->logprobs = read_logprobs(reader); break;
    case KEY_PROMPT_LOGPROBS: out->prompt_logprobs = read_logprobs(reader); break;
    case KEY_THINKING: out->enable_thinking = reader_bool(reader); break;
    case KEY_PRESERVE_THINKING: out->preserve_thinking = reader_bool(reader); break;
    case KEY_TOOLS: read_tools(reader, out); break;
    case KEY_SKIP_SPECIAL: out->skip_special_tokens = reader_bool(reader); break;
    case KEY_TEXT: out->want_text = reader_bool(reader); break;
    default: read_sampling(reader, out, (enum generate_key)key); break;
    }
}

// Adds a name to the comma-separated list of ignored keys; a full list ends in "...".
static void add_unknown(struct generate_request *out, const char *name, size_t name_bytes,
                        int *unknown_count)
{
    static const char more[] = ",...";
    size_t used = strlen(out->unknown);
    const char *comma = used > 0 ? "," : "";
    (*unknown_count)++;
    if (*unknown_count <= REQUEST_UNKNOWN_KEYS_MAX &&
        used + name_bytes + 1 < sizeof out->unknown - sizeof more)
        snprintf(out->unknown + used, sizeof out->unknown - used, "%s%.*s", comma, (int)name_bytes,
                 name);
    else if (used < 3 || strcmp(out->unknown + used - 3, "...") != 0)
        snprintf(out->unknown + used, sizeof out->unknown - used, "%s...", comma);
}

static void check_whole(struct reader *reader, const struct generate_request *request)
{
    int inputs = (request->prompt != NULL) + (request->ids != NULL) + (request->messages != NULL);
    reader->field = NULL;
    if (request->id[0] == '\0')
        reader_fail(reader, E_INPUT, "key 'id' is missing");
    if (inputs != 1)
        reader_fail(reader, E_INPUT, "%d of 'prompt', 'ids' and 'messages' are given, 1 is needed",
                    inputs);
    if (request->tools != NULL && request->messages == NULL)
        reader_fail(reader, E_INPUT, "'tools' goes with 'messages' only");
}

enum status generate_request_decode(struct generate_request *out, const void *frame,
                                    size_t frame_bytes, struct error *error)
{
    struct reader reader;
    struct reader_map map;
    struct generate_request request;
    int unknown_count = 0;
    generate_request_init(&request);
    request_id_of(out->id, frame, frame_bytes);
    reader_init(&reader, frame, frame_bytes, "generate", error);
    reader.status_value = E_INPUT;
    reader_map_open(&reader, &map, generate_keys, GENERATE_KEYS, false);
    for (int32_t key; (key = reader_map_key(&reader, &map)) != READER_MAP_END;) {
        size_t value_bytes;
        if (key >= 0) {
            read_known(&reader, &request, key);
        } else {
            add_unknown(&request, map.name, map.name_bytes, &unknown_count);
            reader_value(&reader, &value_bytes);
        }
    }
    TRY(reader_end(&reader));
    check_whole(&reader, &request);
    if (reader.status == OK)
        *out = request;
    return reader.status;
}

enum status generate_request_ids(int32_t *ids, int32_t count_max, int32_t vocab,
                                 const struct generate_request *request, struct error *error)
{
    if (request->ids_count > count_max)
        return error_set(error, E_LIMIT, "generate: 'ids': %d tokens, the limit is %d",
                         (int)request->ids_count, (int)count_max);
    struct reader reader;
    reader_init(&reader, request->ids, request->ids_bytes, "generate", error);
    reader.status_value = E_INPUT;
    reader.field = "ids";
    for (int32_t i = 0; i < request->ids_count && reader.status == OK; i++) {
        reader.index = i;
        ids[i] = reader_int32(&reader, 0, vocab - 1);
    }
    return reader_end(&reader);
}

enum status generate_request_pack_ids(void *buffer, size_t buffer_bytes, size_t *bytes_out,
                                      const int32_t *ids, int32_t count)
{
    struct writer writer;
    writer_init(&writer, buffer, buffer_bytes);
    for (int32_t i = 0; i < count; i++)
        writer_int(&writer, ids[i]);
    return writer_end(&writer, bytes_out);
}

// ---- Requests that are little more than an id ----

enum status plain_request_decode(struct plain_request *out, const void *frame, size_t frame_bytes,
                                 struct error *error)
{
    static const char *const keys[] = {"id"};
    struct reader reader;
    struct reader_map map;
    struct plain_request request = {0};
    reader_init(&reader, frame, frame_bytes, "request", error);
    reader.status_value = E_INPUT;
    reader_map_open(&reader, &map, keys, 1, false);
    for (int32_t key; (key = reader_map_key(&reader, &map)) != READER_MAP_END;) {
        size_t value_bytes;
        if (key == 0)
            read_id(&reader, request.id);
        else
            reader_value(&reader, &value_bytes);
    }
    TRY(reader_end(&reader));
    if (request.id[0] == '\0')
        return error_set(error, E_INPUT, "request: key 'id' is missing");
    *out = request;
    return OK;
}

enum status plain_request_encode(void *buffer, size_t buffer_bytes, size_t *bytes_out,
                                 enum request_type type, const char *id)
{
    ASSERT(type > REQUEST_NONE && (int)type < REQUEST_TYPES);
    struct writer writer;
    writer_init(&writer, buffer, buffer_bytes);
    writer_map(&writer, 2);
    writer_key(&writer, "t");
    writer_key(&writer, type_names[type]);
    writer_key(&writer, "id");
    writer_text(&writer, id, strnlen(id, REQUEST_ID_BYTES_MAX));
    return writer_end(&writer, bytes_out);
}

enum status tokenize_request_decode(struct tokenize_request *out, const void *frame,
                                    size_t frame_bytes, struct error *error)
{
    struct plain_request plain;
    TRY(plain_request_decode(&plain, frame, frame_bytes, error));
    memcpy(out->id, plain.id, sizeof out->id);
    out->value = frame;
    out->value_bytes = frame_bytes;
    return OK;
}
