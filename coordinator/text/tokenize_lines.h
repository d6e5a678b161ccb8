// SPDX-License-Identifier: Apache-2.0
// tokenize_lines.h -- what `deltamesh tokenize` does with one line: JSON in, JSON out. Reads and
// writes no stream.
#pragma once

#include <stddef.h>

#include "coordinator/text/text_buffer.h"
#include "coordinator/text/tokenizer.h"
#include "parallel/base/status.h"

// Of a line, and of a text made from ids: any text that encodes fits, escaped.
enum { TOKENIZE_LINES_BYTES_MAX = 256 << 20 };

// Appends the answer to `line` (without its line end) to out, with a line end:
//   {"text": ...}                  -> {"ids": [...]}
//   {"ids": [...]}                 -> {"text": ...}      special tokens included
//   {"messages": [...], "tools", "add_generation_prompt", "enable_thinking", "preserve_thinking"}
//                                  -> {"text": ..., "ids": [...]}
//   anything else                  -> {"error": ...}     naming the key, value and limit
// An unknown key, a wrong type, or a line that is not one such object is an error of the line, so
// the result is OK, and so is an answer too long for out. E_SYSTEM: out of memory, E_LIMIT: not
// even the error fits; out is then as before.
MUST_CHECK enum status tokenize_lines_answer(struct text_buffer *out,
                                             const struct tokenizer *tokenizer,
                                             struct tokenizer_scratch *scratch, const char *line,
                                             size_t bytes, struct error *error);
