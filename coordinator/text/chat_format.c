// SPDX-License-Identifier: Apache-2.0
// chat_format.c -- renders turns as the chat template of Qwen3.5 does; see chat_format.h.
#include "coordinator/text/chat_format.h"

#include <stdlib.h>
#include <string.h>

#include "coordinator/text/chat_tools.h"
#include "coordinator/text/code_point.h"

// Bytes of a text that something else owns; may hold zeros.
struct span {
    const char *bytes;
    size_t count;
};

enum role { SYSTEM, USER, ASSISTANT, TOOL };

// One rendering under way. Contents of several parts are joined in `joined`, one message at a time.
struct rendering {
    struct chat_format_text *out;
    const struct chat_format_options *options;
    const json_t *messages;
    bool tools;        // there are some
    size_t last_query; // index of the last user turn that is a question, not a tool's answer
    struct text_buffer joined;
    struct error *error;
};

struct chat_format_options chat_format_defaults(void)
{
    return (struct chat_format_options){.add_generation_prompt = true, .enable_thinking = true};
}

void chat_format_text_init(struct chat_format_text *out, size_t bytes_max)
{
    *out = (struct chat_format_text){0};
    text_buffer_init(&out->text, bytes_max);
}

void chat_format_text_fini(struct chat_format_text *out)
{
    text_buffer_fini(&out->text);
    free(out->turn_ends);
    *out = (struct chat_format_text){0};
}

// Python's str.isspace, which strip goes by: White_Space and the separators 0x1c to 0x1f.
static bool is_space(uint32_t point)
{
    return (point >= 0x09 && point <= 0x0d) || (point >= 0x1c && point <= 0x20) || point == 0x85 ||
           point == 0xa0 || point == 0x1680 || (point >= 0x2000 && point <= 0x200a) ||
           point == 0x2028 || point == 0x2029 || point == 0x202f || point == 0x205f ||
           point == 0x3000;
}

static struct span strip(struct span text)
{
    while (text.count > 0) {
        size_t next = 0;
        if (!is_space(code_point_next(text.bytes, &next)))
            break;
        text.bytes += next;
        text.count -= next;
    }
    while (text.count > 0) {
        size_t last = text.count - 1;
        while (((unsigned char)text.bytes[last] & 0xc0) == 0x80)
            last--;
        size_t next = last;
        if (!is_space(code_point_next(text.bytes, &next)))
            break;
        text.count = last;
    }
    return text;
}

static bool starts_with(struct span text, const char *start)
{
    return text.count >= strlen(start) && memcmp(text.bytes, start, strlen(start)) == 0;
}

static bool ends_with(struct span text, const char *end)
{
    const size_t bytes = strlen(end);
    return text.count >= bytes && memcmp(text.bytes + text.count - bytes, end, bytes) == 0;
}

// What comes after the last `mark` in text; all of it when there is none.
static struct span after_last(struct span text, const char *mark)
{
    const size_t bytes = strlen(mark);
    for (size_t at = text.count; at >= bytes; at--) {
        if (memcmp(text.bytes + at - bytes, mark, bytes) == 0)
            return (struct span){text.bytes + at, text.count - at};
    }
    return text;
}

static struct span json_span(const json_t *text)
{
    return (struct span){json_string_value(text), json_string_length(text)};
}

static enum status append(struct rendering *rendering, const char *text)
{
    return text_buffer_append_text(&rendering->out->text, text, rendering->error);
}

static enum status append_span(struct rendering *rendering, struct span text)
{
    return text_buffer_append(&rendering->out->text, text.bytes, text.count, rendering->error);
}

// One part of a content that is a list: {"type": "text", "text": ...}.
static enum status join_part(struct rendering *rendering, size_t index, size_t part_index)
{
    const json_t *content = json_object_get(json_array_get(rendering->messages, index), "content");
    const json_t *part = json_array_get(content, part_index);
    const json_t *type = json_object_get(part, "type"), *text = json_object_get(part, "text");
    if (!json_is_object(part) || (type != NULL && !json_is_string(type)))
        return error_set(rendering->error, E_INPUT,
                         "messages[%zu].content[%zu]: not an object with a \"type\"", index,
                         part_index);
    if (type != NULL && strcmp(json_string_value(type), "text") != 0)
        return error_set(rendering->error, E_UNSUPPORTED,
                         "messages[%zu].content[%zu].type: \"%.60s\" is not supported, only "
                         "\"text\" is",
                         index, part_index, json_string_value(type));
    const char *key;
    const json_t *value;
    // jansson's iterator wants a table that is not const, and does not change it.
    json_object_foreach(json_array_get(content, part_index), key, value)
    {
        if (value != type && value != text)
            return error_set(rendering->error, E_UNSUPPORTED,
                             "messages[%zu].content[%zu]: \"%.60s\" is not supported", index,
                             part_index, key);
    }
    if (!json_is_string(text))
        return error_set(rendering->error, E_INPUT, "messages[%zu].content[%zu].text: not a string",
                         index, part_index);
    const struct span span = json_span(text);
    return text_buffer_append(&rendering->joined, span.bytes, span.count, rendering->error);
}

// A message's content, stripped; valid until the next call.
static enum status content_of(struct rendering *rendering, size_t index, struct span *out)
{
    const json_t *content = json_object_get(json_array_get(rendering->messages, index), "content");
    if (content == NULL || json_is_null(content)) {
        *out = (struct span){"", 0};
        return OK;
    }
    if (json_is_string(content)) {
        *out = strip(json_span(content));
        return OK;
    }
    if (!json_is_array(content))
        return error_set(rendering->error, E_INPUT,
                         "messages[%zu].content: not a string or a list of parts", index);
    rendering->joined.count = 0;
    for (size_t i = 0; i < json_array_size(content); i++)
        TRY(join_part(rendering, index, i));
    // A list that says nothing may have joined nothing: the buffer has no bytes then.
    if (rendering->joined.count == 0)
        *out = (struct span){"", 0};
    else
        *out = strip((struct span){rendering->joined.bytes, rendering->joined.count});
    return OK;
}

static enum status role_of(const struct rendering *rendering, size_t index, enum role *role)
{
    const json_t *value = json_object_get(json_array_get(rendering->messages, index), "role");
    const char *name = json_string_value(value);
    if (name == NULL)
        return error_set(rendering->error, E_INPUT, "messages[%zu].role: not a string", index);
    if (strcmp(name, "system") == 0) {
        *role = SYSTEM;
    } else if (strcmp(name, "user") == 0) {
        *role = USER;
    } else if (strcmp(name, "assistant") == 0) {
        *role = ASSISTANT;
    } else if (strcmp(name, "tool") == 0) {
        *role = TOOL;
    } else {
        return error_set(rendering->error, E_INPUT,
                         "messages[%zu].role: \"%.60s\" is not system, user, assistant or tool",
                         index, name);
    }
    return OK;
}

// Nothing said: null, or a list without members, as clients send back what a server gave them.
static bool is_nothing(const json_t *value)
{
    return value == NULL || json_is_null(value) ||
           (json_is_array(value) && json_array_size(value) == 0);
}

// The keys that a message may have, and what they hold. "name" and the ids of calls are accepted
// and not rendered, as in the template.
static enum status check_keys(const struct rendering *rendering, size_t index)
{
    static const char *const texts[] = {"name", "tool_call_id", "reasoning_content", "thinking",
                                        "reasoning"};
    json_t *message = json_array_get(rendering->messages, index);
    if (!json_is_object(message))
        return error_set(rendering->error, E_INPUT, "messages[%zu]: not an object", index);
    const char *key;
    json_t *value;
    json_object_foreach(message, key, value)
    {
        bool text = false;
        for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
            text = text || strcmp(key, texts[i]) == 0;
        if (strcmp(key, "role") == 0 || strcmp(key, "content") == 0)
            continue;
        if (strcmp(key, "tool_calls") == 0)
            TRY(chat_tools_check_calls(value, index, rendering->error));
        else if (text && !json_is_string(value) && !json_is_null(value))
            return error_set(rendering->error, E_INPUT, "messages[%zu].%s: not a string", index,
                             key);
        else if (!text && !is_nothing(value))
            return error_set(rendering->error, E_INPUT, "messages[%zu].%.60s: unknown key", index,
                             key);
    }
    return OK;
}

// Checks all messages and finds the last user turn that is not wholly a tool's answer.
static enum status find_last_query(struct rendering *rendering)
{
    bool found = false;
    for (size_t i = 0; i < json_array_size(rendering->messages); i++) {
        enum role role;
        struct span content;
        TRY(check_keys(rendering, i));
        TRY(role_of(rendering, i, &role));
        TRY(content_of(rendering, i, &content));
        if (role == SYSTEM && i > 0)
            return error_set(rendering->error, E_INPUT,
                             "messages[%zu].role: \"system\" may only come first", i);
        if (role == USER &&
            !(starts_with(content, "<tool_response>") && ends_with(content, "</tool_response>"))) {
            rendering->last_query = i;
            found = true;
        }
    }
    if (!found)
        return error_set(rendering->error, E_INPUT, "messages: none is a user's question");
    return OK;
}

// The reasoning that was given apart, under the first of its names that holds any; or NULL.
static const json_t *given_reasoning(const json_t *message)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const json_t *value = json_object_get(message, names[i]);
        if (json_is_string(value))
            return value;
    }
    return NULL;
}

// An assistant's turn: its reasoning, given apart or within <think>, is kept only where it belongs
// to the answer to the last question, or all of it is. Calls follow the text.
static enum status render_assistant(struct rendering *rendering, size_t index, struct span content)
{
    const json_t *message = json_array_get(rendering->messages, index);
    const json_t *given = given_reasoning(message);
    struct span reasoning = {"", 0};
    if (given != NULL) {
        reasoning = json_span(given);
    } else {
        const char *end = memmem(content.bytes, content.count, "</think>", strlen("</think>"));
        if (end != NULL) {
            reasoning.bytes = content.bytes;
            reasoning.count = (size_t)(end - content.bytes);
            reasoning = after_last(reasoning, "<think>");
            content = after_last(content, "</think>");
            while (content.count > 0 && content.bytes[0] == '\n') {
                content.bytes++;
                content.count--;
            }
        }
    }
    if (index > rendering->last_query || rendering->options->preserve_thinking) {
        TRY(append(rendering, "<think>\n"));
        TRY(append_span(rendering, strip(reasoning)));
        TRY(append(rendering, "\n</think>\n\n"));
    }
    TRY(append_span(rendering, content));
    return chat_tools_append_calls(&rendering->out->text, json_object_get(message, "tool_calls"),
                                   strip(content).count > 0, rendering->options->json_scalars,
                                   rendering->error);
}

static bool is_tool(const struct rendering *rendering, size_t index)
{
    enum role role;
    return index < json_array_size(rendering->messages) && role_of(rendering, index, &role) == OK &&
           role == TOOL;
}

static enum status end_turn(struct rendering *rendering)
{
    TRY(append(rendering, "<|im_end|>\n"));
    rendering->out->turn_ends[rendering->out->turn_count++] = rendering->out->text.count;
    return OK;
}

// A tool's answer. Neighbours share one turn of the user. The template begins none where a tool's
// answer is the first message of all.
static enum status render_tool(struct rendering *rendering, size_t index, struct span content)
{
    if (index > 0 && !is_tool(rendering, index - 1))
        TRY(append(rendering, "<|im_start|>user"));
    TRY(append(rendering, "\n<tool_response>\n"));
    TRY(append_span(rendering, content));
    TRY(append(rendering, "\n</tool_response>"));
    return is_tool(rendering, index + 1) ? OK : end_turn(rendering);
}

static enum status render_turn(struct rendering *rendering, size_t index)
{
    static const char *const names[] = {"system", "user", "assistant"};
    enum role role;
    struct span content;
    TRY(role_of(rendering, index, &role));
    TRY(content_of(rendering, index, &content));
    if (role == TOOL)
        return render_tool(rendering, index, content);
    if (role == SYSTEM && rendering->tools)
        return OK;
    TRY(append(rendering, "<|im_start|>"));
    TRY(append(rendering, names[role]));
    TRY(append(rendering, "\n"));
    if (role == ASSISTANT)
        TRY(render_assistant(rendering, index, content));
    else
        TRY(append_span(rendering, content));
    return end_turn(rendering);
}

// The system turn of a list of tools, which the given system text ends.
static enum status render_tools(struct rendering *rendering)
{
    enum role role;
    struct span content = {"", 0};
    TRY(role_of(rendering, 0, &role));
    if (role == SYSTEM)
        TRY(content_of(rendering, 0, &content));
    TRY(append(rendering, "<|im_start|>system\n"));
    TRY(chat_tools_append_definitions(&rendering->out->text, rendering->options->tools,
                                      rendering->error));
    if (content.count > 0)
        TRY(append(rendering, "\n\n"));
    TRY(append_span(rendering, content));
    return end_turn(rendering);
}

static enum status render(struct rendering *rendering)
{
    const size_t count = json_array_size(rendering->messages);
    TRY(find_last_query(rendering));
    size_t *ends = realloc(rendering->out->turn_ends, (count + 1) * sizeof *ends);
    if (ends == NULL)
        return error_set(rendering->error, E_SYSTEM, "out of memory for %zu messages", count);
    rendering->out->turn_ends = ends;
    if (rendering->tools)
        TRY(render_tools(rendering));
    for (size_t i = 0; i < count; i++)
        TRY(render_turn(rendering, i));
    if (!rendering->options->add_generation_prompt)
        return OK;
    TRY(append(rendering, "<|im_start|>assistant\n<think>\n"));
    return rendering->options->enable_thinking ? OK : append(rendering, "\n</think>\n\n");
}

enum status chat_format_render(struct chat_format_text *out, const json_t *messages,
                               const struct chat_format_options *options, struct error *error)
{
    out->text.count = 0;
    out->turn_count = 0;
    if (options->tools != NULL && !json_is_null(options->tools) && !json_is_array(options->tools))
        return error_set(error, E_INPUT, "tools: not a list");
    if (!json_is_array(messages) || json_array_size(messages) == 0)
        return error_set(error, E_INPUT, "messages: not a list of at least one message");
    if (json_array_size(messages) > CHAT_FORMAT_MESSAGES_MAX)
        return error_set(error, E_LIMIT, "messages: %zu, above the limit of %d",
                         json_array_size(messages), CHAT_FORMAT_MESSAGES_MAX);
    struct rendering rendering = {.out = out,
                                  .options = options,
                                  .messages = messages,
                                  .tools = json_array_size(options->tools) > 0,
                                  .error = error};
    text_buffer_init(&rendering.joined, out->text.bytes_max);
    const enum status status = render(&rendering);
    text_buffer_fini(&rendering.joined);
    return status;
}
