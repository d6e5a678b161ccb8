// SPDX-License-Identifier: Apache-2.0
// chat_format.h -- the family's chat format, written natively: messages to the text that a model
// was trained on. Turns, thinking, tools and their calls and answers, generation prompt; images and
// videos are refused by name. Knows no token ids and no request.
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "coordinator/text/text_buffer.h"
#include "parallel/base/status.h"

enum { CHAT_FORMAT_MESSAGES_MAX = 16384 };

struct chat_format_options {
    bool add_generation_prompt; // end with the head of the assistant's next turn
    bool enable_thinking;       // that head opens a thought; false: it holds an empty one
    bool preserve_thinking;     // keep the thoughts of old turns
    bool json_scalars;   // numbers, true and null in tool calls as JSON, as Qwen3.6's template
                         // writes them; false: as Python's str, as Qwen3.5's
    const json_t *tools; // array of tools, rendered as they are; NULL, null or empty for none
};

// What most callers want: a generation prompt with thinking, no tools.
struct chat_format_options chat_format_defaults(void);

// Text and, in bytes, where each turn ends. An end is also an end of tokens: encoding the text
// turn by turn gives the ids of the whole. The generation prompt comes after the last end.
struct chat_format_text {
    struct text_buffer text;
    size_t *turn_ends; // [turn_count]
    size_t turn_count;
};

// Storage of the caller's, for render and fini. The text is bounded by bytes_max.
void chat_format_text_init(struct chat_format_text *out, size_t bytes_max);
void chat_format_text_fini(struct chat_format_text *out);

// Renders `messages`, an array of {"role": "system" | "user" | "assistant" | "tool", "content":
// text, null or list of {"type": "text", "text": text}}, of assistant turns also
// "reasoning_content" (or "reasoning") and "tool_calls", into out (anew). Contents are stripped as
// by Python; the reasoning of turns before the last question of a user is dropped unless it is to
// be preserved. Arguments of calls may be objects or their JSON text. Other keys are accepted where
// they hold nothing. E_INPUT: wrong type, unknown role or key, system turn not first, no user
// turn; E_UNSUPPORTED: what the head of this file names. Errors begin with the place:
// "messages[2].role: ...". E_LIMIT, E_SYSTEM.
MUST_CHECK enum status chat_format_render(struct chat_format_text *out, const json_t *messages,
                                          const struct chat_format_options *options,
                                          struct error *error);
