// SPDX-License-Identifier: Apache-2.0
// openai_neutral.c -- the table.
#include "coordinator/openai_neutral.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

// Values that ask for nothing, a space between: numbers, true, false, [], {}, words (strings), and
// * for any. A response_format is looked into by hand.
static const struct {
    const char *name, *silent;
} table[] = {
    {"best_of", "1"},
    {"length_penalty", "1"},
    {"top_logprobs", "0"},
    {"prompt_logprobs", ""},
    {"echo", "false"}, // of a chat
    {"suffix", ""},
    {"use_beam_search", "false"},
    {"truncate_prompt_tokens", ""},
    {"spaces_between_special_tokens", "true"},
    {"structured_outputs", "{}"},
    {"guided_json", ""},
    {"guided_regex", ""},
    {"guided_choice", ""},
    {"guided_grammar", ""},
    {"regex", ""},
    {"json_schema", ""},
    {"ebnf", ""},
    {"response_format", ""},
    {"tools", "[]"}, // of a completion
    {"tool_choice", "none auto"},
    {"functions", "[]"},
    {"function_call", "none auto"},
    {"audio", ""},
    {"modalities", "[]"},
    {"prediction", ""},
    {"web_search_options", ""},
    {"add_generation_prompt", "true"},
    {"continue_final_message", "false"},
    {"chat_template", ""},
    {"documents", "[]"},
    {"thinking_token_budget", ""},
    {"repetition_detection", ""},
    {"logprob_token_ids", "[]"},
    {"kv_transfer_params", ""},
    // These have no effect on the answer here.
    {"user", "*"},
    {"metadata", "*"},
    {"store", "*"},
    {"service_tier", "*"},
    {"parallel_tool_calls", "*"},
    {"add_special_tokens", "*"}, // the family adds none
    {"request_id", "*"},
    {"cache_salt", "*"},
    {"prompt_cache_key", "*"},
    {"safety_identifier", "*"},
    {"detokenize", "true"},
    {"prompt_token_ids", ""},
};

static bool is_word(const char *word, size_t length, const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_TRUE: return length == 4 && memcmp(word, "true", 4) == 0;
    case JSON_FALSE: return length == 5 && memcmp(word, "false", 5) == 0;
    case JSON_ARRAY: return json_array_size(value) == 0 && memcmp(word, "[]", 2) == 0;
    case JSON_OBJECT: return json_object_size(value) == 0 && memcmp(word, "{}", 2) == 0;
    case JSON_STRING: // "auto", but neither "1" nor "true"
        return strchr("0123456789-[{tf", *word) == NULL && json_string_length(value) == length &&
               memcmp(word, json_string_value(value), length) == 0;
    case JSON_INTEGER:
    case JSON_REAL:
        return strchr("0123456789-", *word) && strtod(word, NULL) == json_number_value(value);
    default: return false;
    }
}

static bool is_silent(const char *silent, const json_t *value)
{
    if (json_is_null(value) || strcmp(silent, "*") == 0)
        return true;
    if (json_is_string(value) && json_string_length(value) == 0)
        return true;
    while (*silent != '\0') {
        size_t length = strcspn(silent, " ");
        if (is_word(silent, length, value))
            return true;
        silent += length + (silent[length] == ' ');
    }
    return false;
}

// {"type": "text"}: the format that is served anyway. ["text"]: the modality.
static bool is_text(const char *name, const json_t *value)
{
    const char *text = NULL;
    if (strcmp(name, "response_format") == 0)
        text = json_string_value(json_object_get(value, "type"));
    else if (strcmp(name, "modalities") == 0 && json_array_size(value) == 1)
        text = json_string_value(json_array_get(value, 0));
    return text != NULL && strcmp(text, "text") == 0;
}

enum openai_neutral openai_neutral_check(const char *name, const json_t *value)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(table[i].name, name) != 0)
            continue;
        if (is_silent(table[i].silent, value) || is_text(name, value))
            return OPENAI_NEUTRAL_SILENT;
        return OPENAI_NEUTRAL_ASKS;
    }
    return OPENAI_NEUTRAL_UNKNOWN;
}
