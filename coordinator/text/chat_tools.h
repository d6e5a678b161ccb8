// SPDX-License-Identifier: Apache-2.0
// chat_tools.h -- what the chat format writes of tools: the list of them in the system turn and the
// calls of an assistant's turn. The turns themselves are chat_format.c's; calls that a model writes
// are read by tool_calls.h.
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "coordinator/text/text_buffer.h"
#include "parallel/base/status.h"

// Appends the "# Tools" text with one tool a line. `tools`: a list of objects, at least one.
// E_INPUT names the tool that is no object; E_LIMIT, E_SYSTEM of the buffer.
MUST_CHECK enum status chat_tools_append_definitions(struct text_buffer *out, const json_t *tools,
                                                     struct error *error);

// A turn's calls, [{"function": {"name": text, "arguments": object or its JSON text}}] or the
// functions themselves: E_INPUT names what is wrong, beginning with messages[index].tool_calls.
MUST_CHECK enum status chat_tools_check_calls(const json_t *calls, size_t index,
                                              struct error *error);

// Appends calls that check_calls found right, two newlines before the first where `after_text`.
// json_scalars: numbers, true and null of arguments as JSON, as Qwen3.6 does; else as Python's str.
// E_LIMIT, E_SYSTEM.
MUST_CHECK enum status chat_tools_append_calls(struct text_buffer *out, const json_t *calls,
                                               bool after_text, bool json_scalars,
                                               struct error *error);
