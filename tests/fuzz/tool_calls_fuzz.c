// SPDX-License-Identifier: Apache-2.0
// tool_calls_fuzz.c -- any text to the parser of tool calls, whole and in pieces whose sizes the
// first byte tells. The story must be the same; calls end as they begin; arguments are JSON; text
// without a call comes out as it went in; little is held back. And to OpenAI's door, which tells
// the calls as JSON, whole and as deltas.
#include <jansson.h>
#include <stdint.h>
#include <string.h>

#include "coordinator/openai_tools.h"
#include "coordinator/text/tool_calls.h"
#include "parallel/base/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum { STORY_BYTES_MAX = 64 << 20, HELD_BYTES_MAX = 2048 };

static const char tools_text[] =
    "[{\"name\": \"f\", \"parameters\": {\"properties\": {\"s\": {\"type\": \"string\"}, \"i\": "
    "{\"type\": \"integer\"}, \"n\": {\"type\": \"number\"}, \"b\": {\"type\": \"boolean\"}, "
    "\"o\": "
    "{\"type\": \"object\"}, \"m\": {\"type\": [\"string\", \"null\"]}, \"u\": "
    "{\"anyOf\": [{\"type\": \"integer\"}, {\"type\": \"null\"}]}}}}]";

// Events in a row, neighbours of one kind joined: kind, index and completeness, then the bytes.
struct story {
    struct text_buffer text;
    struct text_buffer arguments; // of the call under way
    char head[3];
    int begun, ended;
    bool valid; // the text is UTF-8
};

static void append(struct text_buffer *out, const char *bytes, size_t count)
{
    ASSERT(text_buffer_append(out, bytes, count, NULL) == OK);
}

static void check_arguments(const struct story *story)
{
    json_error_t where;
    json_t *value =
        json_loadb(story->arguments.bytes, story->arguments.count, JSON_ALLOW_NUL, &where);
    // Whole numbers beyond 64 bits are JSON, but not jansson's; and it bounds the depth.
    if (value == NULL && story->valid) {
        const enum json_error_code code = json_error_code(&where);
        ASSERT(code == json_error_numeric_overflow || code == json_error_stack_overflow);
    }
    ASSERT(value == NULL || json_is_object(value));
    json_decref(value);
}

static void tell(struct story *story, const struct tool_calls *calls)
{
    ASSERT(calls->held.count < HELD_BYTES_MAX);
    for (size_t i = 0; i < calls->event_count; i++) {
        const struct tool_calls_event *event = &calls->events[i];
        const char head[3] = {(char)('a' + event->kind), (char)event->index, event->complete};
        const bool end = event->kind == TOOL_CALLS_END;
        ASSERT((event->count == 0) == end);
        if (end || memcmp(head, story->head, sizeof head) != 0)
            append(&story->text, head, sizeof head);
        memcpy(story->head, head, sizeof head);
        append(&story->text, event->bytes, event->count);
        if (event->kind == TOOL_CALLS_BEGIN) {
            ASSERT(event->index == story->begun++ && story->begun == story->ended + 1);
            story->arguments.count = 0;
        } else if (event->kind == TOOL_CALLS_ARGUMENTS) {
            ASSERT(story->begun == story->ended + 1);
            append(&story->arguments, event->bytes, event->count);
        } else if (end) {
            ASSERT(event->index == story->ended++ && story->ended == story->begun);
            if (event->complete)
                check_arguments(story);
        } else {
            ASSERT(story->ended == story->begun && event->index == story->begun);
        }
    }
}

static const json_t *the_tools(void)
{
    static json_t *tools;
    if (tools == NULL)
        tools = json_loads(tools_text, 0, NULL);
    ASSERT(tools != NULL);
    return tools;
}

// Pieces of `step` bytes, a byte more each time, so that places of cutting move along the tags.
static void read_text(struct story *story, const char *text, size_t bytes, size_t step)
{
    struct tool_calls calls;
    *story = (struct story){.valid = utf8_valid_bytes(text, bytes) == bytes};
    text_buffer_init(&story->text, STORY_BYTES_MAX);
    text_buffer_init(&story->arguments, STORY_BYTES_MAX);
    tool_calls_init(&calls, the_tools());
    for (size_t at = 0, piece = step; at < bytes; at += piece, piece = piece % step + 1) {
        if (piece > bytes - at)
            piece = bytes - at;
        ASSERT(tool_calls_feed(&calls, text + at, piece, NULL) == OK);
        tell(story, &calls);
    }
    ASSERT(tool_calls_finish(&calls, NULL) == OK);
    tell(story, &calls);
    ASSERT(story->begun == story->ended);
    tool_calls_fini(&calls);
}

static void story_fini(struct story *story)
{
    text_buffer_fini(&story->text);
    text_buffer_fini(&story->arguments);
}

// The calls of a whole answer, or deltas of a stream: objects with commas between them.
static void check_door(const char *text, size_t bytes, bool is_stream)
{
    const struct openai_tools_wish wish = {.tools = the_tools()};
    struct openai_tools tools;
    struct text_buffer input, content, calls;
    text_buffer_init(&input, STORY_BYTES_MAX);
    text_buffer_init(&content, STORY_BYTES_MAX);
    text_buffer_init(&calls, STORY_BYTES_MAX);
    openai_tools_init(&tools, &wish, "id", is_stream);
    append(&input, text, bytes);
    ASSERT(openai_tools_feed(&tools, &content, &calls, &input, false) == OK);
    input.count = 0;
    ASSERT(openai_tools_feed(&tools, &content, &calls, &input, true) == OK);
    append(&input, "[", 1);
    append(&input, calls.bytes, calls.count);
    append(&input, "]", 1);
    json_t *told = json_loadb(input.bytes, input.count, JSON_ALLOW_NUL, NULL);
    ASSERT(json_is_array(told));
    ASSERT(is_stream ? json_array_size(told) >= (size_t)tools.count
                     : json_array_size(told) == (size_t)tools.count);
    for (size_t i = 0; i < json_array_size(told); i++)
        ASSERT(json_is_object(json_object_get(json_array_get(told, i), "function")));
    json_decref(told);
    openai_tools_fini(&tools);
    text_buffer_fini(&input);
    text_buffer_fini(&content);
    text_buffer_fini(&calls);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct story whole, pieces;
    if (bytes < 2)
        return 0;
    const char *text = (const char *)data + 1;
    const size_t count = bytes - 1;
    read_text(&whole, text, count, count);
    read_text(&pieces, text, count, (size_t)data[0] % 32 + 1);
    ASSERT(whole.text.count == pieces.text.count);
    ASSERT(memcmp(whole.text.bytes, pieces.text.bytes, whole.text.count) == 0);
    if (whole.begun == 0) {
        ASSERT(whole.text.count == count + 3);
        ASSERT(memcmp(whole.text.bytes + 3, text, count) == 0);
    }
    check_door(text, count, false);
    check_door(text, count, true);
    story_fini(&whole);
    story_fini(&pieces);
    return 0;
}
