// SPDX-License-Identifier: Apache-2.0
// tool_calls.h -- a model's tool calls, read from its text while it streams. The family writes
//   <tool_call>\n<function=NAME>\n<parameter=P>\nVALUE\n</parameter>\n</function>\n</tool_call>
// and what comes out is plain text, names and arguments as JSON. Give it the text after the thought
// (thought_split.h). Bounded and pure; knows no HTTP, no ids of calls and no tokens.
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordinator/text/text_buffer.h"
#include "coordinator/text/tool_values.h"
#include "parallel/base/status.h"

enum {
    TOOL_CALLS_MAX = 128,                   // of one text; the next <tool_call> is plain text
    TOOL_CALLS_NAME_BYTES_MAX = 256,        // of a function or parameter; longer: no call
    TOOL_CALLS_VALUE_BYTES_MAX = 256 << 10, // of a value that is no string; longer: a string
};

enum tool_calls_event_kind {
    TOOL_CALLS_TEXT,      // bytes: plain text outside calls
    TOOL_CALLS_BEGIN,     // bytes: the function's name; call `index` begins
    TOOL_CALLS_ARGUMENTS, // bytes: the next piece of the call's arguments, a JSON object's text
    TOOL_CALLS_END,       // no bytes; the call has ended
};

struct tool_calls_event {
    enum tool_calls_event_kind kind;
    int index;         // of the call, from 0; TEXT: how many calls have begun before it
    const char *bytes; // [count] valid UTF-8 where the text fed is, lives until the next call
    size_t count;
    bool complete; // END: the arguments are a whole JSON object. False only when the text ended
                   // within the call (max_tokens): its JSON is left open, as OpenAI does
};

// One text under way. Private but for events[event_count], which the last feed or finish gave.
struct tool_calls {
    struct tool_calls_event *events;
    size_t event_count, event_capacity;
    struct text_buffer bytes; // of the events
    struct text_buffer held;  // read, and not yet certain what it is; less than 2 KiB is kept
    struct text_buffer value; // text of a value that cannot be told yet
    const json_t *tools;
    const json_t *properties; // of the function being called, or NULL
    struct tool_value_kind kind;
    int state;          // which part of a call comes next
    int call_count;     // that have begun
    int depth;          // of <parameter=> lines that the value itself holds
    uint64_t seen;      // properties that this call has given, a bit each
    size_t used;        // bytes of held
    bool first;         // no parameter of this call has been written yet
    bool streaming;     // the value under way is a string whose beginning has been written
    bool at_line_start; // of the value
    bool blank;         // nothing but white space since the last call, or the beginning
};

// `tools` is the request's list, [{"type": "function", "function": {"name", "parameters"}}] or the
// functions themselves, borrowed until fini; NULL: every value is a string. Malformed schemas are
// no error: what they do not tell is a string. `calls` is the caller's storage.
void tool_calls_init(struct tool_calls *calls, const json_t *tools);
void tool_calls_fini(struct tool_calls *calls);

// Reads the next piece of text, cut anywhere (also within a tag; not within a code point). Events
// are in order, neighbours of one kind joined; how the text was cut changes nothing but where
// events are cut. Values become JSON by tool_values.h; those of strings stream. No half tag is ever
// given out. A </parameter> ends a value only where a call goes on or ends after it, so that a
// value may hold a call. Text that begins like a call and is none is TEXT, whole, a
// call being certain when a parameter or its end follows the function's name; in a call that
// has begun, what belongs to no parameter ends the call (complete) and is TEXT. White space between
// two calls, before the first when nothing else is, and after the last is dropped. E_SYSTEM only;
// after it, fini.
MUST_CHECK enum status tool_calls_feed(struct tool_calls *calls, const char *text, size_t bytes,
                                       struct error *error);

// The text has ended: gives out what was held back. Within a call that is the value so far, without
// a half tag, and END. Same errors. Then only fini may follow.
MUST_CHECK enum status tool_calls_finish(struct tool_calls *calls, struct error *error);
