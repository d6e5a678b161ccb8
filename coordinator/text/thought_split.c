// SPDX-License-Identifier: Apache-2.0
// thought_split.c -- the tag is a stop string whose text goes on.
#include "coordinator/text/thought_split.h"

enum { PIECE_BYTES_MAX = 1 << 20 }; // of one call's reasoning

enum status thought_split_init(struct thought_split *split, bool thinking, struct error *error)
{
    static const struct stop_string tag = {.bytes = "</think>", .count = 8};
    *split = (struct thought_split){.place = thinking ? THOUGHT_INSIDE : THOUGHT_CONTENT};
    text_buffer_init(&split->scratch, PIECE_BYTES_MAX);
    return thinking ? stop_strings_init(&split->tag, &tag, 1, error) : OK;
}

void thought_split_fini(struct thought_split *split)
{
    stop_strings_fini(&split->tag);
    text_buffer_fini(&split->scratch);
}

static enum status append_newlines(struct text_buffer *out, size_t count)
{
    enum status status = OK;
    for (size_t i = 0; i < count && status == OK; i++)
        status = text_buffer_append(out, "\n", 1, NULL);
    return status;
}

// Reasoning without the newlines at its beginning; those at its present end wait.
static enum status add_reasoning(struct thought_split *split, struct text_buffer *out,
                                 const char *text, size_t bytes)
{
    while (!split->begun && bytes > 0 && *text == '\n') {
        text++;
        bytes--;
    }
    size_t end = bytes;
    while (end > 0 && text[end - 1] == '\n')
        end--;
    if (end > 0) {
        split->begun = true;
        TRY(append_newlines(out, split->newlines));
        split->newlines = 0;
        TRY(text_buffer_append(out, text, end, NULL));
    }
    split->newlines += bytes - end;
    return OK;
}

// Takes what lies before the tag; *used tells how much of the text that was, the tag included.
static enum status feed_inside(struct thought_split *split, struct text_buffer *reasoning,
                               const char *text, size_t bytes, size_t *used)
{
    enum status status;
    split->scratch.count = 0;
    if (stop_strings_feed(&split->tag, &split->scratch, text, bytes, used, &status) >= 0)
        split->place = THOUGHT_AFTER_TAG;
    TRY(status);
    return add_reasoning(split, reasoning, split->scratch.bytes, split->scratch.count);
}

enum status thought_split_feed(struct thought_split *split, struct text_buffer *reasoning,
                               struct text_buffer *content, const char *text, size_t bytes)
{
    size_t at = 0;
    if (split->place == THOUGHT_INSIDE)
        TRY(feed_inside(split, reasoning, text, bytes, &at));
    while (split->place == THOUGHT_AFTER_TAG && at < bytes) {
        if (text[at] == '\n')
            at++;
        else
            split->place = THOUGHT_CONTENT;
    }
    return at < bytes ? text_buffer_append(content, text + at, bytes - at, NULL) : OK;
}

enum status thought_split_finish(struct thought_split *split, struct text_buffer *reasoning)
{
    if (split->place != THOUGHT_INSIDE)
        return OK;
    split->scratch.count = 0;
    TRY(stop_strings_finish(&split->tag, &split->scratch));
    return add_reasoning(split, reasoning, split->scratch.bytes, split->scratch.count);
}
