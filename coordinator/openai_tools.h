// SPDX-License-Identifier: Apache-2.0
// openai_tools.h -- tools at OpenAI's door: the request's fields about them checked, and the calls
// that a model writes taken out of its text and written as OpenAI's clients read them. Pure; the
// model's own form of a call is coordinator/text/tool_calls.h's.
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "coordinator/openai_error.h"
#include "coordinator/text/text_buffer.h"
#include "coordinator/text/tool_calls.h"

enum { OPENAI_TOOLS_MAX = 1024, OPENAI_TOOLS_HEAD_BYTES_MAX = 80 };

// The calls of one choice under way. Private but for the members that are explained.
struct openai_tools {
    struct tool_calls calls;
    bool is_on;
    bool one_only;  // parallel_tool_calls: false
    bool is_stream; // pieces for deltas; else whole calls
    bool is_open;   // the last call has not ended; one that the text's end cut stays open
    bool is_enough; // the one call that is wanted has ended: the rest of the text is not told
    int count;      // calls that have begun
    int head_bytes; // of `head`
    char head[OPENAI_TOOLS_HEAD_BYTES_MAX]; // what ids of calls begin with
    struct text_buffer name, arguments;     // of a whole answer's call
};

// What a request wants of its tools.
struct openai_tools_wish {
    const json_t *tools; // borrowed; NULL: none, text stays text
    bool one_only;
};

// Checks a value of "tools": an array of {"type": "function", "function": {"name": ...}}. E_INPUT
// or E_LIMIT names the tool and what is wrong with it.
MUST_CHECK enum status openai_tools_check(const json_t *tools, struct openai_error *error);

// Reads a value of "tool_choice" into *none: "none" or "auto". E_UNSUPPORTED names "required" and
// functions by name, which need structured output; E_INPUT.
MUST_CHECK enum status openai_tools_choice(bool *none, const json_t *value,
                                           struct openai_error *error);

// `tools` is the caller's storage, for fini. Ids of calls begin with `id`, which is copied.
void openai_tools_init(struct openai_tools *tools, const struct openai_tools_wish *wish,
                       const char *id, bool is_stream);
void openai_tools_fini(struct openai_tools *tools);

// Takes text that follows the thought: appends what is plain to content, and calls to `calls` as
// JSON objects with commas between them: deltas of a stream, or whole calls of a whole answer. A
// list of deltas begins anew when `calls` is empty. last: the text ends here. E_LIMIT, E_SYSTEM.
MUST_CHECK enum status openai_tools_feed(struct openai_tools *tools, struct text_buffer *content,
                                         struct text_buffer *calls, const struct text_buffer *text,
                                         bool last);

// The reason that clients are told for one of the core's: "tool_calls" for a text that ended by
// itself and holds whole calls.
const char *openai_tools_reason(const struct openai_tools *tools, const char *reason);
