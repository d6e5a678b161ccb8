// SPDX-License-Identifier: Apache-2.0
// thought_split.h -- an answer that began inside a thought, as it comes in pieces: what lies before
// </think> is reasoning, what comes after it content. Newlines around the tag belong to neither.
#pragma once

#include <stdbool.h>

#include "coordinator/text/stop_strings.h"
#include "coordinator/text/text_buffer.h"

enum thought_place {
    THOUGHT_INSIDE,
    THOUGHT_AFTER_TAG, // only newlines so far
    THOUGHT_CONTENT,
};

struct thought_split {
    struct stop_strings tag;
    enum thought_place place;
    bool begun;      // the reasoning has had something else than newlines
    size_t newlines; // of reasoning, held back: they may be the ones before the tag
    struct text_buffer scratch;
};

// thinking: the text begins within a thought; else all of it is content. E_SYSTEM. `split` is the
// caller's storage.
MUST_CHECK enum status thought_split_init(struct thought_split *split, bool thinking,
                                          struct error *error);
void thought_split_fini(struct thought_split *split);

// Appends the parts of text[bytes] to reasoning and content. E_LIMIT and E_SYSTEM of the buffers.
MUST_CHECK enum status thought_split_feed(struct thought_split *split,
                                          struct text_buffer *reasoning,
                                          struct text_buffer *content, const char *text,
                                          size_t bytes);

// The text has ended: what was held back in case it was the tag goes to reasoning.
MUST_CHECK enum status thought_split_finish(struct thought_split *split,
                                            struct text_buffer *reasoning);
