// SPDX-License-Identifier: Apache-2.0
// answer_text.h -- a choice's text on its way from the model to a client of the HTTP door: stop
// strings cut it, the thought is split off, tool calls are taken out. Pure; knows no tokens and no
// connection.
#pragma once

#include <stdbool.h>

#include "coordinator/openai_tools.h"
#include "coordinator/text/stop_strings.h"
#include "coordinator/text/thought_split.h"

// Where the parts go; the caller's buffers. calls: openai_tools.h.
struct answer_parts {
    struct text_buffer *reasoning, *content, *calls;
};

struct answer_text_options {
    const struct stop_string *stops; // [stops_count], borrowed until fini
    int stops_count;
    bool include_stop; // the string that ends the text stays in it
    bool in_thought;   // the text begins within a thought, which is split off
    struct openai_tools_wish tools;
    const char *id; // of calls; copied
    bool is_stream;
};

// One text under way. Private but for the members that are explained.
struct answer_text {
    struct stop_strings stops;
    struct thought_split thought;
    struct openai_tools tools;
    struct text_buffer piece, rest; // between the filters
    const struct stop_string *strings;
    bool include_stop;
    bool is_stopped;                // nothing more is told: a stop string, or the one call wanted
    const struct stop_string *stop; // the string that ended it, or NULL
};

// `text` is the caller's storage; to be given to fini, whatever is returned. E_INPUT, E_LIMIT of
// the stop strings; E_SYSTEM.
MUST_CHECK enum status answer_text_init(struct answer_text *text,
                                        const struct answer_text_options *options,
                                        struct error *error);
void answer_text_fini(struct answer_text *text);

// Takes bytes[count] further. stops_apply: false as long as stop strings are put off (min_tokens);
// what was fed then is not looked through. Nothing happens once is_stopped. E_LIMIT and E_SYSTEM of
// the parts' buffers.
MUST_CHECK enum status answer_text_feed(struct answer_text *text, const struct answer_parts *parts,
                                        const char *bytes, size_t count, bool stops_apply);

// The text has ended: what the filters hold back. Once; same errors.
MUST_CHECK enum status answer_text_finish(struct answer_text *text,
                                          const struct answer_parts *parts);
