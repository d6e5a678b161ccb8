// SPDX-License-Identifier: Apache-2.0
// tool_calls.c -- a state machine over text that is held back until it is certain what it is; see
// tool_calls.h.
#include "coordinator/text/tool_calls.h"

#include <stdlib.h>
#include <string.h>

#include "coordinator/text/python_json.h"

enum {
    SPACE_BYTES_MAX = 64, // between two tags; more is text
    SEEN_BITS = 64,
};

enum state {
    OUTSIDE,     // plain text, until a <tool_call> with a <function=NAME>
    BETWEEN,     // a parameter comes next, or the end of the function
    VALUE_START, // one newline may come, which is not of the value
    VALUE,
    AFTER, // the function has ended, </tool_call> comes next
};

// What a look at held text says. MORE: it depends on text that has not come yet.
enum verdict { NO, MORE, YES };

// A look ahead from some place of the held text.
struct look {
    const char *at, *end;
    bool final; // no more text will come
};

// ---- looking ----

// Passes `tag` if it is there.
static enum verdict take(struct look *look, const char *tag)
{
    const size_t left = (size_t)(look->end - look->at), bytes = strlen(tag);
    if (memcmp(look->at, tag, left < bytes ? left : bytes) != 0)
        return NO;
    if (left < bytes)
        return look->final ? NO : MORE;
    look->at += bytes;
    return YES;
}

// The same for a tag that only tells what came before it: of a text that ends, its beginning is
// enough.
static enum verdict expect(struct look *look, const char *tag)
{
    const size_t left = (size_t)(look->end - look->at);
    if (look->final && left < strlen(tag) && memcmp(look->at, tag, left) == 0) {
        look->at = look->end;
        return YES;
    }
    return take(look, tag);
}

static bool is_space(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

// Passes white space; MORE where it may go on.
static enum verdict take_space(struct look *look)
{
    for (int i = 0; i < SPACE_BYTES_MAX && look->at < look->end && is_space(*look->at); i++)
        look->at++;
    return look->at == look->end && !look->final ? MORE : YES;
}

// Passes a name and the '>' after it.
static enum verdict take_name(struct look *look, const char *forbidden, const char **name,
                              size_t *bytes)
{
    *name = look->at;
    for (; look->at < look->end; look->at++) {
        *bytes = (size_t)(look->at - *name);
        if (*look->at == '>') {
            look->at++;
            return *bytes > 0 ? YES : NO;
        }
        if (*bytes == TOOL_CALLS_NAME_BYTES_MAX || *look->at == '\0' ||
            strchr(forbidden, *look->at) != NULL)
            return NO;
    }
    return look->final ? NO : MORE;
}

// After a <function=> or </parameter>: whether the call goes on or ends.
static enum verdict take_rest(struct look *look)
{
    static const char *const tags[] = {"<parameter=", "</function>", "</tool_call>"};
    enum verdict found = NO;
    if (take_space(look) == MORE)
        return MORE;
    for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++) {
        const enum verdict verdict = expect(look, tags[i]);
        if (verdict == YES)
            return YES;
        found = verdict == MORE ? MORE : found;
    }
    return found;
}

// <tool_call> <function=NAME>, and that a parameter or an end comes next: talk of calls is none.
static enum verdict take_head(struct look *look, const char **name, size_t *bytes)
{
    enum verdict verdict = take(look, "<tool_call>");
    if (verdict == YES)
        verdict = take_space(look);
    if (verdict == YES)
        verdict = take(look, "<function=");
    if (verdict == YES)
        verdict = take_name(look, "{}<\"' \t\r\n", name, bytes);
    struct look rest = *look;
    return verdict == YES ? take_rest(&rest) : verdict;
}

// <parameter=NAME>
static enum verdict take_parameter(struct look *look, const char **name, size_t *bytes)
{
    const enum verdict verdict = take(look, "<parameter=");
    return verdict == YES ? take_name(look, "<\r\n", name, bytes) : verdict;
}

// </function> </tool_call>, or from the second on, then another call or the end of the text: what
// ends a call for certain, and what a value that holds a call ends with, too, but in its midst.
static enum verdict take_end_of_call(struct look *look, bool function)
{
    enum verdict verdict = YES;
    if (function)
        verdict = expect(look, "</function>");
    if (verdict == YES)
        verdict = take_space(look);
    if (verdict == YES)
        verdict = expect(look, "</tool_call>");
    if (verdict == YES)
        verdict = take_space(look);
    return verdict == YES ? expect(look, "<tool_call>") : verdict;
}

// ---- events ----

static enum status add_event(struct tool_calls *calls, enum tool_calls_event_kind kind,
                             struct tool_calls_event **out, struct error *error)
{
    const int index = kind == TOOL_CALLS_TEXT ? calls->call_count : calls->call_count - 1;
    struct tool_calls_event *last =
        calls->event_count > 0 ? &calls->events[calls->event_count - 1] : NULL;
    *out = last;
    if (last != NULL && last->kind == kind && last->index == index)
        return OK;
    struct tool_calls_event *events = text_buffer_grow_items(
        calls->events, &calls->event_capacity, calls->event_count + 1, sizeof *events);
    if (events == NULL)
        return error_set(error, E_SYSTEM, "out of memory for %zu events", calls->event_count + 1);
    calls->events = events;
    *out = &events[calls->event_count++];
    **out = (struct tool_calls_event){.kind = kind, .index = index};
    return OK;
}

static enum status emit(struct tool_calls *calls, enum tool_calls_event_kind kind,
                        const char *bytes, size_t count, struct error *error)
{
    struct tool_calls_event *event;
    if (count == 0)
        return OK;
    TRY(add_event(calls, kind, &event, error));
    TRY(text_buffer_append(&calls->bytes, bytes, count, error));
    event->count += count;
    return OK;
}

static enum status emit_arguments(struct tool_calls *calls, const char *text, struct error *error)
{
    return emit(calls, TOOL_CALLS_ARGUMENTS, text, strlen(text), error);
}

// The inside of a JSON string.
static enum status emit_escaped(struct tool_calls *calls, const char *bytes, size_t count,
                                struct error *error)
{
    struct tool_calls_event *event;
    TRY(add_event(calls, TOOL_CALLS_ARGUMENTS, &event, error));
    const size_t before = calls->bytes.count;
    TRY(python_json_append_escaped(&calls->bytes, bytes, count, error));
    event->count += calls->bytes.count - before;
    return OK;
}

static enum status end_call(struct tool_calls *calls, bool complete, enum state next,
                            struct error *error)
{
    struct tool_calls_event *event;
    if (complete)
        TRY(emit_arguments(calls, calls->first ? "{}" : "}", error));
    TRY(add_event(calls, TOOL_CALLS_END, &event, error));
    event->complete = complete;
    calls->state = (int)next;
    calls->blank = true;
    return OK;
}

// ---- values ----

// Where a parameter stands among the function's properties, or -1.
static int property_index(const struct tool_calls *calls, const char *name, size_t bytes)
{
    int index = 0;
    const char *key;
    json_t *value;
    // jansson's iterator wants a table that is not const, and does not change it.
    json_object_foreach((json_t *)(uintptr_t)calls->properties, key, value)
    {
        if (strlen(key) == bytes && memcmp(key, name, bytes) == 0)
            return index < SEEN_BITS ? index : -1;
        index++;
    }
    return -1;
}

static enum status begin_value(struct tool_calls *calls, const char *name, size_t bytes,
                               struct error *error)
{
    const int index = property_index(calls, name, bytes);
    if (index >= 0)
        calls->seen |= UINT64_C(1) << index;
    calls->kind = tool_values_kind(calls->properties, name, bytes);
    TRY(emit_arguments(calls, calls->first ? "{\"" : ", \"", error));
    TRY(emit_escaped(calls, name, bytes, error));
    TRY(emit_arguments(calls, "\": ", error));
    calls->first = false;
    calls->streaming = false;
    calls->value.count = 0;
    calls->depth = 0;
    calls->state = VALUE_START;
    return OK;
}

static enum status add_to_value(struct tool_calls *calls, const char *bytes, size_t count,
                                struct error *error)
{
    const struct tool_value_kind kind = calls->kind;
    if (count == 0)
        return OK;
    calls->at_line_start = false;
    if (calls->streaming)
        return emit_escaped(calls, bytes, count, error);
    TRY(text_buffer_append(&calls->value, bytes, count, error));
    if (kind.type == TOOL_VALUES_STRING
            ? tool_values_may_be_null(kind, calls->value.bytes, calls->value.count)
            : calls->value.count <= TOOL_CALLS_VALUE_BYTES_MAX)
        return OK;
    calls->streaming = true;
    TRY(emit_arguments(calls, "\"", error));
    return emit_escaped(calls, calls->value.bytes, calls->value.count, error);
}

static enum status end_value(struct tool_calls *calls, struct error *error)
{
    struct tool_calls_event *event;
    calls->state = BETWEEN;
    if (calls->streaming)
        return emit_arguments(calls, "\"", error);
    TRY(add_event(calls, TOOL_CALLS_ARGUMENTS, &event, error));
    const size_t before = calls->bytes.count;
    const char *const text = calls->value.count > 0 ? calls->value.bytes : "";
    TRY(tool_values_append(&calls->bytes, calls->kind, text, calls->value.count, error));
    event->count += calls->bytes.count - before;
    return OK;
}

// The text ended within a value: its beginning is given out as far as it is known.
static enum status cut_value(struct tool_calls *calls, struct error *error)
{
    const struct text_buffer *value = &calls->value;
    if (!calls->streaming && calls->kind.type != TOOL_VALUES_STRING)
        TRY(emit(calls, TOOL_CALLS_ARGUMENTS, value->bytes, value->count, error));
    else if (!calls->streaming && value->count > 0)
        TRY(emit_arguments(calls, "\"", error));
    if (!calls->streaming && calls->kind.type == TOOL_VALUES_STRING && value->count > 0)
        TRY(emit_escaped(calls, value->bytes, value->count, error));
    return end_call(calls, false, OUTSIDE, error);
}

// ---- states: each uses held text, or changes the state, or does neither and waits ----

static struct look look_from(const struct tool_calls *calls, size_t at, bool final)
{
    const char *bytes = calls->held.bytes;
    return (struct look){bytes + at, bytes + calls->held.count, final};
}

static enum status begin_call(struct tool_calls *calls, const char *name, size_t bytes,
                              struct error *error)
{
    calls->call_count++;
    calls->properties = tool_values_properties(calls->tools, name, bytes);
    calls->first = true;
    calls->seen = 0;
    calls->state = BETWEEN;
    return emit(calls, TOOL_CALLS_BEGIN, name, bytes, error);
}

static enum status read_outside(struct tool_calls *calls, bool final, struct error *error)
{
    const char *const start = calls->held.bytes + calls->used, *name = NULL;
    size_t bytes = 0;
    struct look look = look_from(calls, calls->used, final);
    if (calls->blank && take_space(&look) == MORE)
        return OK;
    if (calls->blank && look.at == look.end && calls->call_count > 0) {
        calls->used = calls->held.count; // final: white space after the last call
        return OK;
    }
    const char *end = look.at;
    if (calls->call_count < TOOL_CALLS_MAX && look.at < look.end && *look.at == '<') {
        const enum verdict verdict = take_head(&look, &name, &bytes);
        if (verdict == MORE)
            return OK;
        if (verdict == YES) {
            calls->used = (size_t)(look.at - calls->held.bytes);
            return begin_call(calls, name, bytes, error);
        }
    }
    calls->blank = false;
    end = end < look.end ? end + 1 : end;
    const char *const next = memchr(end, '<', (size_t)(look.end - end));
    end = next != NULL ? next : look.end;
    calls->used += (size_t)(end - start);
    return emit(calls, TOOL_CALLS_TEXT, start, (size_t)(end - start), error);
}

static enum status read_between(struct tool_calls *calls, bool final, struct error *error)
{
    struct look look = look_from(calls, calls->used, false), rest;
    const char *name;
    size_t bytes;
    bool more = take_space(&look) == MORE;
    enum verdict verdict = take_parameter(&(struct look){look.at, look.end, false}, &name, &bytes);
    rest = look;
    if (!more && verdict == YES) {
        verdict = take_parameter(&rest, &name, &bytes);
        ASSERT(verdict == YES);
        calls->used = (size_t)(rest.at - calls->held.bytes);
        return begin_value(calls, name, bytes, error);
    }
    more = more || verdict == MORE;
    static const char *const ends[] = {"</function>", "</tool_call>"};
    for (int i = 0; i < 2 && !more; i++) {
        rest = look;
        verdict = take(&rest, ends[i]);
        if (verdict == YES) {
            calls->used = (size_t)(rest.at - calls->held.bytes);
            return end_call(calls, true, i == 0 ? AFTER : OUTSIDE, error);
        }
        more = verdict == MORE;
    }
    if (!more)
        return end_call(calls, true, OUTSIDE, error); // what is held becomes text
    if (!final)
        return OK;
    calls->used = calls->held.count;
    return end_call(calls, false, OUTSIDE, error);
}

static enum status read_value_start(struct tool_calls *calls, bool final)
{
    const bool any = calls->used < calls->held.count;
    if (!any && !final)
        return OK;
    if (any && calls->held.bytes[calls->used] == '\n')
        calls->used++;
    calls->state = VALUE;
    calls->at_line_start = true;
    return OK;
}

// What a '<' in a value is.
enum mark {
    MARK_NONE,   // of the value
    MARK_UNSURE, // depends on text to come
    MARK_OPENS,  // of the value, which now holds a parameter
    MARK_CLOSES, // of the value, the end of a parameter that it holds
    MARK_NEXT,   // the value has ended before it
    MARK_END,    // the value's </parameter>; look.at is behind it
};

static enum mark mark_of(enum verdict verdict, enum mark yes, enum mark no)
{
    return verdict == MORE ? MARK_UNSURE : verdict == YES ? yes : no;
}

// A line that begins with <parameter=: the next one where the end of this was forgotten, that is,
// where the function has it and it was not given; else of the value.
static enum mark read_opening(const struct tool_calls *calls, struct look look)
{
    const char *name;
    size_t bytes;
    const enum verdict verdict = take_parameter(&look, &name, &bytes);
    if (verdict != YES)
        return mark_of(verdict, MARK_NONE, MARK_NONE);
    const int index = property_index(calls, name, bytes);
    return calls->depth == 0 && index >= 0 && (calls->seen >> index & 1) == 0 ? MARK_NEXT
                                                                              : MARK_OPENS;
}

static enum mark read_mark(const struct tool_calls *calls, struct look *look, bool at_line_start)
{
    struct look ahead = *look;
    enum verdict verdict = take(&ahead, "</parameter>");
    if (verdict == YES) {
        look->at = ahead.at;
        struct look end = ahead;
        if (calls->depth == 0)
            return mark_of(take_rest(&ahead), MARK_END, MARK_NONE);
        if (take_space(&end) == MORE)
            return MARK_UNSURE;
        return mark_of(take_end_of_call(&end, true), MARK_END, MARK_CLOSES);
    }
    bool more = verdict == MORE;
    if (at_line_start) {
        const enum mark opening = read_opening(calls, *look);
        if (opening != MARK_NONE && opening != MARK_UNSURE)
            return opening;
        more = more || opening == MARK_UNSURE;
    }
    for (int i = 0; i < 2 && at_line_start; i++) {
        ahead = *look;
        verdict = take(&ahead, i == 0 ? "</function>" : "</tool_call>");
        ahead.at = look->at;
        if (verdict == YES)
            return mark_of(take_end_of_call(&ahead, i == 0), MARK_NEXT, MARK_NONE);
        more = more || verdict == MORE;
    }
    return more ? MARK_UNSURE : MARK_NONE;
}

// Whether the held text, from `at` on, would be waited for if more could come.
static bool is_half(const struct tool_calls *calls, size_t at, bool at_line_start)
{
    struct look look = look_from(calls, at, false);
    return look.at == look.end || read_mark(calls, &look, at_line_start) == MARK_UNSURE;
}

static enum status read_value(struct tool_calls *calls, bool final, struct error *error)
{
    const char *const bytes = calls->held.bytes;
    const size_t count = calls->held.count;
    size_t at = calls->used;
    while (at < count && bytes[at] != '\n' && bytes[at] != '<')
        at++;
    TRY(add_to_value(calls, bytes + calls->used, at - calls->used, error));
    calls->used = at;
    const bool newline = at < count && bytes[at] == '\n';
    const size_t tag = at + (newline ? 1 : 0);
    const bool at_line_start = newline || calls->at_line_start;
    if (newline && tag < count && bytes[tag] != '<') {
        calls->used = tag;
        return add_to_value(calls, "\n", 1, error);
    }
    struct look look = look_from(calls, tag, final);
    enum mark mark = tag < count ? read_mark(calls, &look, at_line_start) : MARK_UNSURE;
    if (final && mark == MARK_NONE && is_half(calls, tag, at_line_start))
        mark = MARK_UNSURE;
    if (mark == MARK_UNSURE && !final)
        return OK;
    calls->used = mark == MARK_UNSURE ? count : tag;
    if (mark == MARK_UNSURE)
        return cut_value(calls, error);
    if (mark == MARK_END)
        calls->used = (size_t)(look.at - bytes);
    if (mark == MARK_END || mark == MARK_NEXT)
        return end_value(calls, error);
    calls->depth += mark == MARK_OPENS ? 1 : mark == MARK_CLOSES ? -1 : 0;
    calls->used = tag + 1;
    return add_to_value(calls, bytes + at, tag + 1 - at, error);
}

static enum status read_after(struct tool_calls *calls, bool final)
{
    struct look look = look_from(calls, calls->used, false);
    enum verdict verdict = take_space(&look);
    if (verdict == YES)
        verdict = take(&look, "</tool_call>");
    if (verdict == MORE && !final)
        return OK;
    if (verdict != NO)
        calls->used = verdict == YES ? (size_t)(look.at - calls->held.bytes) : calls->held.count;
    calls->state = OUTSIDE;
    return OK;
}

// ---- text in, events out ----

static enum status read_state(struct tool_calls *calls, bool final, struct error *error)
{
    switch ((enum state)calls->state) {
    case OUTSIDE: return calls->used < calls->held.count ? read_outside(calls, final, error) : OK;
    case BETWEEN: return read_between(calls, final, error);
    case VALUE_START: return read_value_start(calls, final);
    case VALUE: return read_value(calls, final, error);
    case AFTER: return read_after(calls, final);
    }
    return OK;
}

// Reads what is held as far as it is certain, and puts the events' bytes where they lie.
static enum status read_held(struct tool_calls *calls, bool final, struct error *error)
{
    size_t used;
    int state;
    do {
        used = calls->used;
        state = calls->state;
        TRY(read_state(calls, final, error));
    } while (calls->used != used || calls->state != state);
    struct text_buffer *held = &calls->held;
    held->count -= calls->used;
    if (held->count > 0)
        memmove(held->bytes, held->bytes + calls->used, held->count);
    calls->used = 0;
    size_t start = 0;
    for (size_t i = 0; i < calls->event_count; i++) {
        calls->events[i].bytes = calls->bytes.bytes + start;
        start += calls->events[i].count;
    }
    return OK;
}

void tool_calls_init(struct tool_calls *calls, const json_t *tools)
{
    *calls = (struct tool_calls){.tools = tools, .state = OUTSIDE, .blank = true};
    text_buffer_init(&calls->bytes, SIZE_MAX / 2);
    text_buffer_init(&calls->held, SIZE_MAX / 2);
    text_buffer_init(&calls->value, SIZE_MAX / 2);
}

void tool_calls_fini(struct tool_calls *calls)
{
    free(calls->events);
    text_buffer_fini(&calls->bytes);
    text_buffer_fini(&calls->held);
    text_buffer_fini(&calls->value);
    *calls = (struct tool_calls){0};
}

enum status tool_calls_feed(struct tool_calls *calls, const char *text, size_t bytes,
                            struct error *error)
{
    calls->event_count = 0;
    calls->bytes.count = 0;
    TRY(text_buffer_append(&calls->held, text, bytes, error));
    return read_held(calls, false, error);
}

enum status tool_calls_finish(struct tool_calls *calls, struct error *error)
{
    calls->event_count = 0;
    calls->bytes.count = 0;
    return read_held(calls, true, error);
}
