// SPDX-License-Identifier: Apache-2.0
// requests.h -- every message between clients and the RPC door, with fields and limits. One
// ZeroMQ frame each, a msgpack map with string keys. The door ignores keys it does not know and
// names them in its first reply; a known key of a wrong type or out of range refuses the request
// and names field, value and limit. For people: parallel/wire/README.md.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "parallel/base/status.h"
#include "parallel/wire/messages.h"

enum {
    REQUEST_ID_BYTES_MAX = 64,          // of a client's request id
    REQUEST_FRAME_BYTES_MAX = 16 << 20, // of a client's message
    REQUEST_TEXT_BYTES_MAX = 8 << 20,   // of a prompt as text
    REQUEST_PROMPT_TOKENS_MAX = 1 << 20,
    REQUEST_STOP_IDS_MAX = 8,      // the model's own eos ids come on top
    REQUEST_STOPS_MAX = 16,        // stop strings
    REQUEST_STOP_BYTES_MAX = 512,  // of one
    REQUEST_BIAS_MAX = 100,        // of a logit, either way
    REQUEST_WORDS_MAX = 64,        // banned words
    REQUEST_WORD_BYTES_MAX = 256,  // of one
    REQUEST_N_MAX = 128,           // answers to one prompt
    REQUEST_UNKNOWN_KEYS_MAX = 16, // named in the first reply
    REQUEST_UNKNOWN_BYTES_MAX = 480,
    REQUEST_TEMPERATURE_MAX = 1000,
    REQUEST_REPETITION_MAX = 10,
    REQUEST_TIMEOUT_MS_MAX = 86400000, // a day
    CLIENT_PING_INTERVAL_MS = 1000,    // to clients with unfinished work
};

enum request_type {
    REQUEST_NONE,
    REQUEST_GENERATE, // "generate"
    REQUEST_ABORT,    // "abort"
    REQUEST_STATUS,   // "status"
    REQUEST_TOKENIZE, // "tokenize"
    REQUEST_DRAIN,    // "drain"
};

// A piece of the frame: not NUL-terminated, borrowed.
struct request_text {
    const char *bytes;
    size_t count;
};

// A banned word: a text, or token ids when its bytes are NULL.
struct request_word {
    struct request_text text;
    int32_t ids_count;
    int32_t ids[STEP_WORD_TOKENS_MAX];
};

// "t": "generate". Exactly one of prompt, ids, messages. Fields that the client left out are
// marked absent so that the door can apply generation_config.json and its own defaults.
struct generate_request {
    char id[REQUEST_ID_BYTES_MAX + 1]; // "id", chosen by the client, unique among its unfinished
    const char *prompt;                // "prompt" UTF-8, not NUL-terminated, borrowed
    size_t prompt_bytes;
    const uint8_t *ids; // "ids": the msgpack array's elements, borrowed; read them
    int32_t ids_count;  // with generate_request_ids
    size_t ids_bytes;
    const uint8_t *messages; // "messages": a msgpack value, borrowed
    size_t messages_bytes;
    const uint8_t *tools; // "tools" of messages: a msgpack array, borrowed; NULL = none
    size_t tools_bytes;
    int32_t max_tokens;        // "max_tokens" >= 1, -1 = the rest of the context
    double temperature;        // "temperature" >= 0, -1 = absent
    int32_t top_k;             // "top_k" >= 0, 0 = off, -1 = absent
    double top_p, min_p;       // "top_p" (0, 1], "min_p" [0, 1], -1 = absent
    double repetition_penalty; // (0, 10], 1 = off, -1 = absent
    double frequency_penalty;  // [-2, 2], 0 = off
    double presence_penalty;   // [-2, 2], 0 = off
    int32_t min_tokens;        // "min_tokens" >= 0, 0 = off
    bool has_seed;             // "seed"
    uint64_t seed;
    bool ignore_eos;    // "ignore_eos"
    int32_t stop_count; // "stop_token_ids"
    int32_t stop_ids[REQUEST_STOP_IDS_MAX];
    struct request_text stops[REQUEST_STOPS_MAX]; // "stop": one string or an array of them
    int32_t stops_count;
    bool include_stop;       // "include_stop_str_in_output", default false
    int32_t logprobs;        // "logprobs" of drawn tokens: 0 = none, else 1 + alternatives (the
    int32_t prompt_logprobs; // wire's number); "prompt_logprobs" the same of the prompt's
    int32_t bias_count;      // "logit_bias": a map from ids, as numbers or in decimal, to numbers
    int32_t bias_ids[STEP_BIASES_MAX];
    float biases[STEP_BIASES_MAX];
    int32_t allowed_count; // "allowed_token_ids", none = all
    int32_t allowed_ids[STEP_ALLOWED_MAX];
    int32_t words_count; // "bad_words": an array of texts and of arrays of ids
    struct request_word words[REQUEST_WORDS_MAX];
    int32_t n;                  // "n" answers, default 1
    int32_t speculative_tokens; // "speculative_tokens" 0..5, -1 = the server's choice
    bool enable_thinking;       // "enable_thinking", default true
    bool preserve_thinking;     // "preserve_thinking" of old turns, default false
    bool skip_special_tokens;   // "skip_special_tokens", default true
    int32_t priority;           // "priority" lower is more urgent, 0 = normal
    int32_t timeout_ms;         // "timeout_ms" 1..REQUEST_TIMEOUT_MS_MAX, 0 = none
    bool want_text;             // "text", default true when the model has a tokenizer
    // Sampling fields of the family's servers that this build knows by name but does not serve
    // yet; the door refuses them by name. NULL when none was given.
    const char *unsupported;
    char unknown[REQUEST_UNKNOWN_BYTES_MAX]; // names of ignored keys, comma-separated
};

// "t": "abort" {"id"}; "status" {"id"}; "drain" {"id"}.
struct plain_request {
    char id[REQUEST_ID_BYTES_MAX + 1];
};

// "t": "tokenize" {"id", "text" | "ids" | "messages", ...}: the same keys as a line of
// `deltamesh tokenize`, answered by "tokens".
struct tokenize_request {
    char id[REQUEST_ID_BYTES_MAX + 1];
    const uint8_t *value; // the whole request map, borrowed
    size_t value_bytes;
};

struct usage {
    int32_t prompt_tokens, completion_tokens, cached_tokens;
    int32_t target_steps, drafted, accepted;
};

enum reply_type {
    REPLY_NONE,
    REPLY_ACCEPTED, // "accepted": the first answer to generate
    REPLY_DELTA,    // "delta"
    REPLY_CHOICE,   // "choice": one of several answers has ended
    REPLY_FINAL,    // "final": all have
    REPLY_ERROR,    // "error"
    REPLY_PING,     // "ping": the server is there, nothing to say
    REPLY_STATUS,   // "status"
    REPLY_TOKENS,   // "tokens"
    REPLY_DRAINING, // "draining"
};

// One struct for every reply to a client; which fields count is told by type.
struct reply {
    enum reply_type type;
    char id[REQUEST_ID_BYTES_MAX + 1]; // of the request; empty when the frame had none
    int32_t index;                     // which answer, 0 unless n > 1 (delta, choice, final)
    uint64_t seed;                     // accepted: the seed in force
    int32_t prompt_tokens;             // accepted
    const int32_t *ids;                // delta: new token ids
    int32_t ids_count;
    const char *text;  // delta: new text (may be shorter than the ids: half code
    size_t text_bytes; // points wait); error: message; status, tokens: JSON
    // delta: of ids, and of the prompt's tokens from its first on, as many as are ready; that of
    // the first token is nothing and has id -1. Counts of 0: not told. Decoded: see
    // reply_next_logprob.
    const struct step_logprob *logprobs, *prompt_logprobs;
    int32_t logprobs_count, prompt_logprobs_count;
    const uint8_t *logprobs_value, *prompt_logprobs_value; // decoded: msgpack, borrowed; or NULL
    size_t logprobs_bytes, prompt_logprobs_bytes;
    // final: "stop", "length", "abort", "timeout"; decoded: static, or "unknown"
    const char *finish_reason;
    const char *error;                       // error: status_name word; decoded: static
    struct usage usage;                      // final
    char ignored[REQUEST_UNKNOWN_BYTES_MAX]; // accepted: unknown keys, comma-separated, or ""
};

// The request's type, wherever "t" stands in its map; REQUEST_NONE for an unknown one or no map.
// And its id, for the answer to a request that cannot be decoded; "" when it has none.
enum request_type request_type_of(const void *frame, size_t frame_bytes);
void request_id_of(char id[REQUEST_ID_BYTES_MAX + 1], const void *frame, size_t frame_bytes);

// A request with everything left out: the defaults above, empty id, no prompt.
void generate_request_init(struct generate_request *request);

// A request of a frame. On failure error names the field and out->id holds the id if one was read.
// E_MALFORMED: no msgpack; E_INPUT: wrong type, out of range, missing or contradictory; E_LIMIT.
enum status generate_request_decode(struct generate_request *out, const void *frame,
                                    size_t frame_bytes, struct error *error) MUST_CHECK;

// Writes only what differs from "left out". E_LIMIT when buffer_bytes do not suffice.
enum status generate_request_encode(void *buffer, size_t buffer_bytes, size_t *bytes_out,
                                    const struct generate_request *request) MUST_CHECK;

// Copies the "ids" of a request into ids[count_max] (ids_count of them on OK); E_INPUT names the
// first id out of [0, vocab) and its place, E_LIMIT the count.
enum status generate_request_ids(int32_t *ids, int32_t count_max, int32_t vocab,
                                 const struct generate_request *request,
                                 struct error *error) MUST_CHECK;

// The reverse: packs ids[0 .. count) into buffer (at most 5 bytes each) for request->ids.
enum status generate_request_pack_ids(void *buffer, size_t buffer_bytes, size_t *bytes_out,
                                      const int32_t *ids, int32_t count) MUST_CHECK;

// A request that is only an id. Unknown keys are ignored.
enum status plain_request_decode(struct plain_request *out, const void *frame, size_t frame_bytes,
                                 struct error *error) MUST_CHECK;
enum status plain_request_encode(void *buffer, size_t buffer_bytes, size_t *bytes_out,
                                 enum request_type type, const char *id) MUST_CHECK;

// Checks that the frame is one whole map with an id; the text library reads the rest.
enum status tokenize_request_decode(struct tokenize_request *out, const void *frame,
                                    size_t frame_bytes, struct error *error) MUST_CHECK;

// Writes the fields that belong to reply->type. Bytes of text that are no UTF-8 become '?'.
enum status reply_encode(void *buffer, size_t buffer_bytes, size_t *bytes_out,
                         const struct reply *reply) MUST_CHECK;

// Takes the next entry of a decoded reply's logprobs or prompt_logprobs. *value and *bytes, at
// first the reply's, move on behind it; false at their end, and at what is no entry. The first of
// a prompt has id -1.
bool reply_next_logprob(struct step_logprob *out, const uint8_t **value, size_t *bytes);

// out->text lies in the frame; ids are unpacked into ids_space[ids_max]. Unknown keys are ignored,
// so that an older client understands a newer server.
enum status reply_decode(struct reply *out, int32_t *ids_space, int32_t ids_max, const void *frame,
                         size_t frame_bytes, struct error *error) MUST_CHECK;
