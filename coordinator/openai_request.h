// SPDX-License-Identifier: Apache-2.0
// openai_request.h -- a body of /v1/completions or /v1/chat/completions as a request: every field
// checked, what is served read, what is not refused by name unless it asks for nothing. Pure; does
// not tokenize.
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "coordinator/openai_error.h"
#include "coordinator/openai_tools.h"
#include "coordinator/text/stop_strings.h"
#include "parallel/wire/requests.h"

enum {
    OPENAI_PROMPTS_MAX = 256, // of one /v1/completions
    OPENAI_COMPLETION_TOKENS_DEFAULT = 16,
    OPENAI_N_MAX = 128,        // answers to one prompt
    OPENAI_CHOICES_MAX = 1024, // of one request
};

enum openai_kind { OPENAI_COMPLETION = 1, OPENAI_CHAT = 2 };

// Everything borrowed lies in root, which the request owns.
struct openai_request {
    json_t *root;
    enum openai_kind kind;
    const char *model;      // NULL = absent
    const json_t *prompt;   // completions: text, ids, or an array of either
    const json_t *messages; // chat
    int32_t prompts_count;
    bool stream, include_usage;
    bool continuous_usage;            // every chunk tells the usage so far
    int32_t max_tokens;               // >= 1, -1 = the rest of the context
    double temperature, top_p, min_p; // -1 = absent
    int32_t top_k;                    // 0 = off, -1 = absent
    double repetition_penalty;        // (0, 10], 1 = off, -1 = absent
    double frequency_penalty;         // [-2, 2], 0 = off
    double presence_penalty;          // [-2, 2], 0 = off
    int32_t min_tokens;               // 0 = off
    int32_t drafts;                   // 0 = the server's choice, else 1 + the most at a time
    int32_t priority;                 // lower is more urgent
    int32_t timeout_ms;               // 0 = none
    bool has_seed;
    uint64_t seed;
    struct stop_string stops[STOP_STRINGS_MAX];
    int32_t stops_count;
    int32_t stop_ids[REQUEST_STOP_IDS_MAX];
    int32_t stop_ids_count;
    bool ignore_eos, skip_special_tokens, include_stop, return_token_ids;
    int32_t bias_count, allowed_count, words_count; // logit_bias, allowed_token_ids, bad_words
    int32_t bias_ids[STEP_BIASES_MAX];
    float biases[STEP_BIASES_MAX];
    int32_t allowed_ids[STEP_ALLOWED_MAX];
    struct request_word words[REQUEST_WORDS_MAX];
    int32_t n;        // answers to each prompt
    int32_t logprobs; // 0 = none, else 1 + alternatives; top_logprobs as a chat gave them
    int32_t top_logprobs;
    bool echo;        // completions: the prompt opens the text
    bool scores_only; // max_tokens was 0, with echo: nothing of what is drawn is told
    bool enable_thinking, preserve_thinking, split_thought;
    struct openai_tools_wish tools;          // of a chat
    bool no_tools;                           // tool_choice: "none"
    char ignored[REQUEST_UNKNOWN_BYTES_MAX]; // names of unknown fields, comma-separated
};

// One prompt of a completion: text[text_bytes], or ids when text is NULL.
struct openai_prompt {
    const char *text;
    size_t text_bytes;
    const json_t *ids;
};

// Reads a body. On OK *out is to be given to fini. Errors of openai_json_parse; E_INPUT,
// E_UNSUPPORTED, E_LIMIT name the field in text and in param.
MUST_CHECK enum status openai_request_parse(struct openai_request *out, enum openai_kind kind,
                                            const char *body, size_t bytes,
                                            struct openai_error *error);
void openai_request_fini(struct openai_request *request);

// Prompt `index` of a completion, borrowed.
struct openai_prompt openai_request_prompt(const struct openai_request *request, int32_t index);
