// SPDX-License-Identifier: Apache-2.0
// answer_text.c -- three filters in a row, with a buffer between each two.
#include "coordinator/answer_text.h"

enum { PIECE_BYTES_MAX = 16 << 20 }; // of one feed, before anything is told

enum status answer_text_init(struct answer_text *text, const struct answer_text_options *options,
                             struct error *error)
{
    *text = (struct answer_text){.strings = options->stops, .include_stop = options->include_stop};
    text_buffer_init(&text->piece, PIECE_BYTES_MAX);
    text_buffer_init(&text->rest, PIECE_BYTES_MAX);
    openai_tools_init(&text->tools, &options->tools, options->id, options->is_stream);
    TRY(stop_strings_init(&text->stops, options->stops, options->stops_count, error));
    return thought_split_init(&text->thought, options->in_thought, error);
}

void answer_text_fini(struct answer_text *text)
{
    stop_strings_fini(&text->stops);
    thought_split_fini(&text->thought);
    openai_tools_fini(&text->tools);
    text_buffer_fini(&text->piece);
    text_buffer_fini(&text->rest);
}

// Behind the stop strings. `rest` is emptied; a text without tools takes no way round.
static enum status pass_on(struct answer_text *text, const struct answer_parts *parts,
                           const char *bytes, size_t count)
{
    if (!text->tools.is_on) {
        return thought_split_feed(&text->thought, parts->reasoning, parts->content, bytes, count);
    }
    text->rest.count = 0;
    TRY(thought_split_feed(&text->thought, parts->reasoning, &text->rest, bytes, count));
    TRY(openai_tools_feed(&text->tools, parts->content, parts->calls, &text->rest, false));
    text->is_stopped |= text->tools.is_enough;
    return OK;
}

enum status answer_text_feed(struct answer_text *text, const struct answer_parts *parts,
                             const char *bytes, size_t count, bool stops_apply)
{
    size_t used;
    enum status status;
    if (text->is_stopped)
        return OK;
    if (!stops_apply)
        return pass_on(text, parts, bytes, count);
    text->piece.count = 0;
    int found = stop_strings_feed(&text->stops, &text->piece, bytes, count, &used, &status);
    TRY(status);
    if (found >= 0) {
        text->is_stopped = true;
        text->stop = &text->strings[found];
        if (text->include_stop)
            TRY(text_buffer_append(&text->piece, text->stop->bytes, text->stop->count, NULL));
    }
    return pass_on(text, parts, text->piece.bytes, text->piece.count);
}

enum status answer_text_finish(struct answer_text *text, const struct answer_parts *parts)
{
    if (!text->is_stopped) {
        text->piece.count = 0;
        TRY(stop_strings_finish(&text->stops, &text->piece));
        TRY(pass_on(text, parts, text->piece.bytes, text->piece.count));
    }
    text->rest.count = 0;
    TRY(thought_split_finish(&text->thought, parts->reasoning));
    return openai_tools_feed(&text->tools, parts->content, parts->calls, &text->rest, true);
}
